-- $1 users, $2 features, $3 periods and $4 their starts: counters in locking order. One row each.
SELECT l.used IS NOT NULL AS is_locked,
    CASE WHEN l.used IS NULL THEN EXISTS (
        SELECT FROM usage_counters AS n
        WHERE n.user_id = a.user_id AND n.feature_id = a.feature_id AND n.period = a.period AND n.period_start = a.period_start
        OFFSET 0
    ) ELSE false END AS is_held,
    coalesce(l.used, 0) AS used, coalesce(l.reserved, 0) AS reserved, coalesce(l.overage, 0) AS overage
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) WITH ORDINALITY
    AS a (user_id, feature_id, period, period_start, place)
LEFT JOIN LATERAL (
    SELECT n.used, n.reserved, n.overage FROM usage_counters AS n
    WHERE n.user_id = a.user_id AND n.feature_id = a.feature_id AND n.period = a.period AND n.period_start = a.period_start
    FOR NO KEY UPDATE SKIP LOCKED
) AS l ON true
ORDER BY a.place
