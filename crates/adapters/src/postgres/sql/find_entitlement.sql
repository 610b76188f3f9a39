-- $1 the user, $2 the feature. One row whether they exist or not.
-- `lapsed`: the plan of the live subscription, else of the latest one that ended, would have the feature, but another
-- plan is in force, since the trial, the grace or the subscription is over.
SELECT u.id IS NOT NULL AS user_known, f.id AS feature_id, f.display_name, e.kind, e.unit, e.feature_active, e.enabled,
    EXISTS (
        SELECT FROM (
            SELECT s.plan_id, s.status FROM user_subscriptions AS s
            WHERE s.user_id = $1 AND s.status <> 'incomplete'
            ORDER BY s.status IN ('trialing', 'active', 'past_due') DESC, s.ended_at DESC NULLS LAST, s.created_at DESC
            LIMIT 1
        ) AS latest
        JOIN plan_features AS paid_for ON paid_for.plan_id = latest.plan_id AND paid_for.feature_id = f.id
        WHERE latest.status <> 'active' AND latest.plan_id <> e.plan_id AND paid_for.enabled
    ) AS lapsed,
    e.source, e.plan_id, e.limit_value, e.limit_period, e.overage, e.period_start, e.period_end, e.used, e.reserved,
    e.counter_overage, e.token_balance, e.token_reserved, e.as_of
FROM (VALUES ($1::uuid, $2::text)) AS asked (user_id, feature_id)
LEFT JOIN users AS u ON u.id = asked.user_id
LEFT JOIN features AS f ON f.id = asked.feature_id
LEFT JOIN LATERAL feature_entitlement($1, $2) AS e ON u.id IS NOT NULL AND f.id IS NOT NULL
