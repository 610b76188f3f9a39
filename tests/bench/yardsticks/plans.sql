-- GET /api/plans by Postgres alone: the same JSON, in one statement.
SELECT json_build_object('data', json_agg(json_build_object(
        'id', p.id, 'name', p.name, 'display_name', p.display_name, 'description', p.description,
        'price_monthly', p.price_monthly::text, 'price_yearly', p.price_yearly::text, 'currency', p.currency,
        'is_active', p.is_active, 'features', f.features
    ) ORDER BY p.price_monthly, p.id), 'next_cursor', NULL)
FROM plans AS p
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_object(
            'feature_id', f.feature_id, 'enabled', f.enabled, 'limit_value', f.limit_value,
            'limit_period', f.limit_period, 'overage', f.overage
        ) ORDER BY f.feature_id), '[]') AS features
    FROM plan_features AS f WHERE f.plan_id = p.id
) AS f
WHERE p.is_active;
