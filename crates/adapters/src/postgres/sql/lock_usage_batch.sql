-- $1 users and $2 features: distinct meters in the order of their locking. $3 for each key the place of its meter,
-- from 1, and $4 the keys. One row a meter.
-- The counters are locked one after the other, in the order of the meters, through their primary key: the subquery is
-- evaluated once a meter. What another transaction changed just before is read as it is now, under the lock; the rest
-- is as of the statement.
WITH asked AS MATERIALIZED (
    SELECT a.user_id, a.feature_id, a.place
    FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS a (user_id, feature_id, place)
), facts AS MATERIALIZED (
    SELECT a.place, a.user_id, a.feature_id, e.*
    FROM asked AS a CROSS JOIN LATERAL feature_entitlement(a.user_id, a.feature_id) AS e
    ORDER BY a.place
), locked AS MATERIALIZED (
    SELECT f.place, c.used, c.reserved, c.overage
    FROM facts AS f
    CROSS JOIN LATERAL (
        SELECT n.used, n.reserved, n.overage FROM usage_counters AS n
        WHERE n.user_id = f.user_id AND n.feature_id = f.feature_id AND n.period = f.limit_period
            AND n.period_start = f.period_start AND NOT n.superseded
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS c
), kept AS MATERIALIZED (
    SELECT q.meter, jsonb_agg(jsonb_build_object(
        'place', q.place, 'amount', k.amount, 'feature_id', k.feature_id, 'current', k.current, 'limit', k.limit_value,
        'remaining', k.remaining, 'reserved', k.reserved, 'plan_id', k.plan_id, 'source', k.source,
        'period_start', k.period_start, 'resets_at', k.resets_at, 'as_of', k.created_at)) AS outcomes
    FROM unnest($3::bigint[], $4::text[]) WITH ORDINALITY AS q (meter, key, place)
    JOIN asked AS a ON a.place = q.meter
    JOIN idempotency_keys AS k ON k.user_id = a.user_id AND k.key = q.key
    GROUP BY q.meter
)
SELECT f.place IS NOT NULL OR EXISTS (SELECT FROM users AS u WHERE u.id = a.user_id) AS user_known,
    kept.outcomes, f.feature_id, '' AS display_name, f.kind, f.unit, f.feature_active, f.enabled,
    NOT f.enabled AND coalesce(lapsed.plan_id <> f.plan_id, false) AS lapsed,
    f.source, f.plan_id, f.limit_value, f.limit_period, f.overage, f.period_start, f.period_end,
    coalesce(l.used, 0) AS used, coalesce(l.reserved, 0) AS reserved, coalesce(l.overage, 0) AS counter_overage,
    f.token_balance, f.token_reserved, f.as_of,
    l.place IS NOT NULL AS is_locked,
    l.place IS NULL AND f.place IS NOT NULL AND EXISTS (
        SELECT FROM usage_counters AS n
        WHERE n.user_id = f.user_id AND n.feature_id = f.feature_id AND n.period = f.limit_period
            AND n.period_start = f.period_start AND NOT n.superseded
    ) AS is_held
FROM asked AS a
LEFT JOIN facts AS f ON f.place = a.place
LEFT JOIN locked AS l ON l.place = a.place
LEFT JOIN kept ON kept.meter = a.place
LEFT JOIN LATERAL lapsed_subscription(a.user_id, a.feature_id) AS lapsed ON true
ORDER BY a.place
