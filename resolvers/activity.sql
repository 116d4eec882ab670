-- What sessions did in each bucket of a range. Parameters: $1 from, $2 to, $3 bucket width; the scope follows.
-- Empty buckets are there with zeros.
SELECT
    bucket.at,
    count(*) FILTER (WHERE facts.kind = 'RUN') AS runs,
    count(*) FILTER (WHERE facts.kind = 'RUN' AND facts.outcome = 'FAILED') AS failed_runs,
    count(*) FILTER (WHERE facts.kind = 'TOOL') AS tool_calls,
    count(*) FILTER (WHERE facts.kind = 'TOOL' AND facts.outcome = 'FAILED') AS failed_tool_calls,
    coalesce(sum(facts.duration_ms) FILTER (WHERE facts.kind = 'TOOL'), 0)::bigint AS tool_milliseconds
FROM generate_series($1::timestamptz, $2::timestamptz - INTERVAL '1 microsecond', $3::interval) AS bucket (at)
LEFT JOIN (
    SELECT date_bin($3::interval, activity_facts.at, $1::timestamptz) AS at, kind, outcome, duration_ms
    FROM activity_facts
    WHERE activity_facts.at >= $1 AND activity_facts.at < $2 AND /* scope */
) AS facts ON facts.at = bucket.at
GROUP BY bucket.at
ORDER BY bucket.at
