-- Runs that ended. Their time is that since their first start, waiting for decisions included.
SELECT
    /* keys */,
    count(*) AS runs,
    count(*) FILTER (WHERE outcome = 'FAILED') AS failed,
    count(duration_ms) AS timed,
    sum(duration_ms) AS duration_ms
FROM /* facts */
WHERE /* condition */
GROUP BY /* grouped */
