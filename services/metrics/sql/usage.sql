-- What models used. The four kinds of tokens are disjoint; what a provider does not say stays null, as a sum of nothing.
SELECT
    /* keys */,
    count(*) AS uses,
    sum(requests) AS requests,
    sum(input_tokens)::bigint AS input_tokens,
    sum(output_tokens)::bigint AS output_tokens,
    sum(cache_read_tokens)::bigint AS cache_read_tokens,
    sum(cache_write_tokens)::bigint AS cache_write_tokens,
    count(cost_usd) AS priced,
    sum(cost_usd) AS cost_usd
FROM /* facts */
WHERE /* condition */
GROUP BY /* grouped */
