-- The seeds' catalogue. An existing row is not changed: its price or limit may be an operator's.

-- @ plans
INSERT INTO public.plans (id, name, display_name, price_monthly, price_yearly, is_active) VALUES
    ('free', 'Free Plan', '無料プラン', 0.00, 0.00, true),
    ('gold', 'Gold Plan', 'ゴールドプラン', 980.00, 9800.00, true),
    ('platinum', 'Platinum Plan', 'プラチナプラン', 2980.00, 29800.00, true)
ON CONFLICT (id) DO NOTHING

-- @ features
INSERT INTO public.features (id, name, display_name, description, kind, unit, is_active) VALUES
    ('ai_requests', 'AI Requests', 'AI機能', 'OpenAI/Claude/Geminiへのリクエスト機能', 'metered', 'request', true),
    ('export_csv', 'Export CSV', 'CSVエクスポート', 'データのCSVエクスポート機能', 'metered', 'export', true),
    ('custom_theme', 'Custom Theme', 'カスタムテーマ', 'UIテーマカスタマイズ機能', 'boolean', NULL, true),
    ('priority_support', 'Priority Support', '優先サポート', '優先的なカスタマーサポート', 'boolean', NULL, true),
    ('api_access', 'API Access', 'API アクセス', '外部APIアクセス機能', 'metered', 'call', true)
ON CONFLICT (id) DO NOTHING

-- @ plan_features
INSERT INTO public.plan_features (plan_id, feature_id, enabled, limit_value) VALUES
    ('free', 'ai_requests', false, 0),
    ('free', 'export_csv', false, 0),
    ('free', 'custom_theme', false, 0),
    ('free', 'priority_support', false, 0),
    ('free', 'api_access', false, 0),
    ('gold', 'ai_requests', true, 1000),
    ('gold', 'export_csv', true, NULL),
    ('gold', 'custom_theme', true, NULL),
    ('gold', 'priority_support', false, 0),
    ('gold', 'api_access', false, 0),
    ('platinum', 'ai_requests', true, NULL),
    ('platinum', 'export_csv', true, NULL),
    ('platinum', 'custom_theme', true, NULL),
    ('platinum', 'priority_support', true, NULL),
    ('platinum', 'api_access', true, NULL)
ON CONFLICT (plan_id, feature_id) DO NOTHING
