-- How long runs that ended had waited for a worker: from the message to the first start.
SELECT
    /* keys */,
    count(*) AS runs,
    sum(queue_ms) AS queue_ms
FROM /* facts */
WHERE queue_ms IS NOT NULL AND /* condition */
GROUP BY /* grouped */
