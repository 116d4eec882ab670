-- Samples of what is used: processor seconds since the sample before, bytes, lengths of queues, open sockets.
SELECT
    /* keys */,
    count(*) AS samples,
    sum(value) AS total
FROM /* facts */
WHERE /* condition */
GROUP BY /* grouped */
