-- Messages that are complete, by people and by agents; copies in forks are not counted.
SELECT
    /* keys */,
    count(*) AS messages,
    sum(characters) AS characters
FROM /* facts */
WHERE /* condition */
GROUP BY /* grouped */
