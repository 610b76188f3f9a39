-- $1 API keys, $2 periods and $3 their starts: the windows in locking order. One row each.
SELECT l.requests IS NOT NULL AS is_locked,
    CASE WHEN l.requests IS NULL THEN EXISTS (
        SELECT FROM api_key_counters AS n WHERE n.api_key_id = a.api_key_id AND n.period = a.period AND n.period_start = a.period_start
        OFFSET 0
    ) ELSE false END AS is_held,
    coalesce(l.requests, 0) AS requests, coalesce(l.tokens, 0) AS tokens, coalesce(l.tokens_reserved, 0) AS tokens_reserved,
    coalesce(l.cost_nano_usd, 0) AS cost_nano_usd, coalesce(l.cost_reserved_nano_usd, 0) AS cost_reserved_nano_usd
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS a (api_key_id, period, period_start, place)
LEFT JOIN LATERAL (
    SELECT n.* FROM api_key_counters AS n
    WHERE n.api_key_id = a.api_key_id AND n.period = a.period AND n.period_start = a.period_start
    FOR NO KEY UPDATE SKIP LOCKED
) AS l ON true
ORDER BY a.place
