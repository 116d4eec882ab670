-- What models used. The four kinds of tokens are disjoint; what a provider does not say stays null, as a sum of nothing.
-- Sums stop at the largest number that their column has.
SELECT
    /* keys */,
    count(*) AS uses,
    sum(requests) AS requests,
    CASE WHEN sum(input_tokens) > 9223372036854775807 THEN 9223372036854775807 ELSE sum(input_tokens)::bigint END AS input_tokens,
    CASE WHEN sum(output_tokens) > 9223372036854775807 THEN 9223372036854775807 ELSE sum(output_tokens)::bigint END AS output_tokens,
    CASE WHEN sum(cache_read_tokens) > 9223372036854775807 THEN 9223372036854775807 ELSE sum(cache_read_tokens)::bigint END AS cache_read_tokens,
    CASE WHEN sum(cache_write_tokens) > 9223372036854775807 THEN 9223372036854775807 ELSE sum(cache_write_tokens)::bigint END AS cache_write_tokens,
    count(cost_usd) AS priced,
    sum(cost_usd) AS cost_usd
FROM /* facts */
WHERE /* condition */
GROUP BY /* grouped */
