-- Tool calls that came to an end. A call that was denied, or interrupted with its run, has not failed.
SELECT
    /* keys */,
    count(*) AS calls,
    count(*) FILTER (WHERE outcome = 'FAILED') AS failed,
    count(duration_ms) AS timed,
    sum(duration_ms) AS duration_ms
FROM /* facts */
WHERE /* condition */
GROUP BY /* grouped */
