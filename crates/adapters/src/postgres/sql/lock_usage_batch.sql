-- $1 users and $2 features: distinct meters in locking order. One row each.
-- One pass: the meters are processed one by one, and each finds its rows by their keys. Nothing is joined to a list as
-- long as the batch, which without hash and merge joins would cost its square.
-- OFFSET 0 keeps the planner from answering an EXISTS by reading the whole table into a hash.
-- A counter is locked through its primary key when its meter is reached. A counter that another transaction has just
-- changed is read with that change, under the lock; the rest is as of the statement.
SELECT f.plan_id IS NOT NULL OR EXISTS (SELECT FROM users AS u WHERE u.id = a.user_id OFFSET 0) AS user_known,
    CASE WHEN f.plan_id IS NOT NULL THEN a.feature_id END AS feature_id, '' AS display_name, f.kind, f.unit, f.feature_active, f.enabled,
    CASE WHEN f.enabled THEN false ELSE coalesce(
        (SELECT lapsed.plan_id <> f.plan_id FROM lapsed_subscription(a.user_id, a.feature_id) AS lapsed), false) END AS lapsed,
    f.source, f.plan_id, f.limit_value, f.limit_period, f.overage, f.period_start, f.period_end,
    coalesce(l.used, 0) AS used, coalesce(l.reserved, 0) AS reserved, coalesce(l.overage, 0) AS counter_overage,
    f.token_balance, f.token_reserved, f.as_of,
    l.used IS NOT NULL AS is_locked,
    CASE WHEN l.used IS NULL THEN EXISTS (
        SELECT FROM usage_counters AS n
        WHERE n.user_id = a.user_id AND n.feature_id = a.feature_id AND n.period = f.limit_period
            AND n.period_start = f.period_start AND NOT n.superseded OFFSET 0
    ) ELSE false END AS is_held
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS a (user_id, feature_id, place)
LEFT JOIN LATERAL feature_entitlement(a.user_id, a.feature_id) AS f ON true
LEFT JOIN LATERAL (
    SELECT n.used, n.reserved, n.overage FROM usage_counters AS n
    WHERE n.user_id = a.user_id AND n.feature_id = a.feature_id AND n.period = f.limit_period
        AND n.period_start = f.period_start AND NOT n.superseded
    FOR NO KEY UPDATE SKIP LOCKED
) AS l ON true
ORDER BY a.place
