-- $1 users and $2 features, as parallel arrays. One row for each, in their order, whether they exist or not.
SELECT e.plan_id IS NOT NULL OR EXISTS (SELECT FROM users AS u WHERE u.id = asked.user_id) AS user_known,
    CASE WHEN e.plan_id IS NOT NULL THEN asked.feature_id END AS feature_id, '' AS display_name, e.kind, e.unit,
    e.feature_active, e.enabled, NOT e.enabled AND coalesce(lapsed.plan_id <> e.plan_id, false) AS lapsed,
    e.source, e.plan_id, e.limit_value, e.limit_period, e.overage, e.period_start, e.period_end, e.used, e.reserved,
    e.counter_overage, e.token_balance, e.token_reserved, e.as_of,
    least(e.period_end, changing.changes_at) AS changes_at
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS asked (user_id, feature_id, place)
LEFT JOIN LATERAL feature_entitlement(asked.user_id, asked.feature_id) AS e ON true
LEFT JOIN LATERAL (
    SELECT l.plan_id FROM lapsed_subscription(asked.user_id, asked.feature_id) AS l WHERE NOT e.enabled
) AS lapsed ON true
LEFT JOIN LATERAL entitlement_changes_at(asked.user_id, asked.feature_id) AS changing ON true
ORDER BY asked.place
