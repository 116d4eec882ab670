-- Changes of sessions' lives. `duration_ms` of an end is the time since the session was made.
SELECT
    /* keys */,
    count(*) AS changes,
    count(*) FILTER (WHERE change = 'CREATED') AS created,
    count(duration_ms) AS timed,
    sum(duration_ms) AS duration_ms
FROM /* facts */
WHERE /* condition */
GROUP BY /* grouped */
