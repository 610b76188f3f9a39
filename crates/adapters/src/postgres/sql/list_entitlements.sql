-- $1 the user, $2 how many at most. `lapsed` as in find_entitlement.sql.
SELECT f.id AS feature_id, f.display_name, e.kind, e.unit, e.feature_active, e.enabled,
    coalesce(latest.status <> 'active' AND latest.plan_id <> e.plan_id AND paid_for.enabled, false) AS lapsed,
    e.source, e.plan_id, e.limit_value, e.limit_period, e.overage, e.period_start, e.period_end, e.used, e.reserved,
    e.counter_overage, e.token_balance, e.token_reserved, e.as_of
FROM features AS f
CROSS JOIN LATERAL feature_entitlement($1, f.id) AS e
LEFT JOIN LATERAL (
    SELECT s.plan_id, s.status FROM user_subscriptions AS s
    WHERE s.user_id = $1 AND s.status <> 'incomplete'
    ORDER BY s.status IN ('trialing', 'active', 'past_due') DESC, s.ended_at DESC NULLS LAST, s.created_at DESC
    LIMIT 1
) AS latest ON true
LEFT JOIN plan_features AS paid_for ON paid_for.plan_id = latest.plan_id AND paid_for.feature_id = f.id
WHERE f.is_active
ORDER BY f.id
LIMIT $2
