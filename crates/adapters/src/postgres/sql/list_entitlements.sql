-- $1 the user, $2 the row limit.
SELECT f.id AS feature_id, f.display_name, e.kind, e.unit, e.feature_active, e.enabled,
    NOT e.enabled AND coalesce(lapsed.plan_id <> e.plan_id, false) AS lapsed,
    e.source, e.plan_id, e.limit_value, e.limit_period, e.overage, e.period_start, e.period_end, e.used, e.reserved,
    e.counter_overage, e.token_balance, e.token_reserved, e.as_of
FROM features AS f
CROSS JOIN LATERAL feature_entitlement($1, f.id) AS e
LEFT JOIN LATERAL lapsed_subscription($1, f.id) AS lapsed ON true
WHERE f.is_active
ORDER BY f.id
LIMIT $2
