-- The seeds' views. security_invoker: a plain view reads as its owner and would show every row to all callers. The
-- e-mail comes from identity_email, since no view may name auth.users. Views are dropped and recreated, so that columns
-- can change; view_rights.sql grants their rights again in the same transaction.

DROP VIEW IF EXISTS public.user_plan_summary;
CREATE VIEW public.user_plan_summary WITH (security_invoker = true) AS
SELECT
    u.id,
    public.identity_email(u.id) AS email,
    u.name,
    u.plan_id AS plan_type,
    coalesce(us.status, 'active')::varchar(20) AS plan_status,
    p.display_name AS plan_display_name,
    p.price_monthly,
    us.status AS subscription_status,
    us.current_period_end,
    us.trial_end,
    us.cancel_at_period_end
FROM public.users u
LEFT JOIN public.plans p ON p.id = u.plan_id
LEFT JOIN public.user_subscriptions us ON us.user_id = u.id AND us.status IN ('active', 'trialing', 'past_due') AND NOT us.is_duplicate;

-- What applies to each user: the plan in force and the user's overrides.
DROP VIEW IF EXISTS public.user_feature_access;
CREATE VIEW public.user_feature_access WITH (security_invoker = true) AS
SELECT
    u.id AS user_id,
    public.identity_email(u.id) AS email,
    u.plan_id AS plan_type,
    f.id AS feature_id,
    f.display_name AS feature_name,
    coalesce(o.enabled, pf.enabled, false) AS enabled,
    CASE WHEN o.user_id IS NOT NULL THEN o.limit_value WHEN pf.plan_id IS NOT NULL THEN pf.limit_value ELSE 0 END AS limit_value
FROM public.users u
CROSS JOIN LATERAL public.effective_plan(u.id) e
CROSS JOIN public.features f
LEFT JOIN public.plan_features pf ON pf.plan_id = e.plan_id AND pf.feature_id = f.id
LEFT JOIN public.feature_overrides o ON o.user_id = u.id AND o.feature_id = f.id AND (o.expires_at IS NULL OR o.expires_at > now())
WHERE f.is_active = true;

-- Sums are of nano-dollars; `cost` replaces them in a row that was written without them.
DROP VIEW IF EXISTS public.ai_usage_monthly;
CREATE VIEW public.ai_usage_monthly WITH (security_invoker = true) AS
SELECT
    l.user_id,
    date_trunc('month', l.created_at, 'UTC') AS usage_month,
    l.provider,
    count(*) AS request_count,
    sum(l.tokens_used)::bigint AS total_tokens,
    sum(CASE WHEN l.cost_nano_usd <> 0 THEN l.cost_nano_usd::decimal / 1000000000 ELSE coalesce(l.cost, 0) END)::decimal(20,9) AS total_cost
FROM public.ai_usage_logs l
GROUP BY l.user_id, date_trunc('month', l.created_at, 'UTC'), l.provider;

DROP VIEW IF EXISTS public.integrity_findings;
CREATE VIEW public.integrity_findings WITH (security_invoker = true) AS
SELECT f.finding, f.subject, f.detail FROM public.integrity_findings() f;
