-- All users' calls from $1 up to $2: hours that are already summed from their sums, the rest from the call log. $5, a
-- session, is null here.
SELECT l.provider, l.model, l.created_at, 1::numeric AS requests, l.input_tokens::numeric, l.output_tokens::numeric,
    l.cached_tokens::numeric, l.cost_nano_usd::numeric,
    coalesce(l.tokens_used::numeric, l.input_tokens::numeric + l.output_tokens) AS total_tokens
FROM (
    SELECT h.first_hour, greatest(h.first_hour, least(date_trunc('hour', $2::timestamptz, 'UTC'), h.reached_at)) AS last_hour
    FROM (
        SELECT date_trunc('hour', $1::timestamptz + interval '1 hour' - interval '1 microsecond', 'UTC') AS first_hour,
            coalesce((SELECT w.reached_at FROM rollup_watermarks AS w WHERE w.name = 'ai_usage_logs'), '-infinity') AS reached_at
    ) AS h
) AS summed
CROSS JOIN LATERAL (
    SELECT b.* FROM ai_usage_logs AS b WHERE b.created_at >= $1 AND b.created_at < least(summed.first_hour, $2::timestamptz)
    UNION ALL
    SELECT a.* FROM ai_usage_logs AS a WHERE a.created_at >= summed.last_hour AND a.created_at < $2
) AS l
WHERE $5::uuid IS NULL
UNION ALL
SELECT t.provider, nullif(t.model, ''), t.bucket, t.requests, t.input_tokens, t.output_tokens, t.cached_tokens, t.cost_nano_usd, t.total_tokens
FROM ai_usage_totals AS t
WHERE t.bucket >= $1 AND t.bucket < date_trunc('hour', $2::timestamptz, 'UTC')
    AND t.bucket < (SELECT w.reached_at FROM rollup_watermarks AS w WHERE w.name = 'ai_usage_logs')
