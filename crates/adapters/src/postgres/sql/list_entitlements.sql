-- $1 the user, $2 how many at most.
SELECT f.id AS feature_id, f.display_name, e.kind, e.unit, e.feature_active, e.enabled,
    NOT e.enabled AND subscription_lapsed($1, f.id, e.plan_id) AS lapsed,
    e.source, e.plan_id, e.limit_value, e.limit_period, e.overage, e.period_start, e.period_end, e.used, e.reserved,
    e.counter_overage, e.token_balance, e.token_reserved, e.as_of
FROM features AS f
CROSS JOIN LATERAL feature_entitlement($1, f.id) AS e
WHERE f.is_active
ORDER BY f.id
LIMIT $2
