-- $1 the user, $2 the feature. One row whether they exist or not.
SELECT u.id IS NOT NULL AS user_known, f.id AS feature_id, f.display_name, e.kind, e.unit, e.feature_active, e.enabled,
    NOT e.enabled AND coalesce(lapsed.plan_id <> e.plan_id, false) AS lapsed,
    e.source, e.plan_id, e.limit_value, e.limit_period, e.overage, e.period_start, e.period_end, e.used, e.reserved,
    e.counter_overage, e.token_balance, e.token_reserved, e.as_of
FROM (VALUES ($1::uuid, $2::text)) AS asked (user_id, feature_id)
LEFT JOIN users AS u ON u.id = asked.user_id
LEFT JOIN features AS f ON f.id = asked.feature_id
LEFT JOIN LATERAL feature_entitlement($1, $2) AS e ON u.id IS NOT NULL AND f.id IS NOT NULL
LEFT JOIN LATERAL lapsed_subscription($1, $2) AS lapsed ON true
