-- The users of the benchmark, current_setting('bench.users') of them: the n-th has the id md5(n), so that pgbench
-- reaches a random one by a number. Supabase also gives ids in no order; that is the harder case for the indexes.

INSERT INTO auth.users (id, email)
SELECT md5(n::text)::uuid, 'user' || lpad(n::text, 9, '0') || '@bench.example'
FROM generate_series(1, current_setting('bench.users')::integer) AS n;

-- Four of five stay on the free plan.
INSERT INTO public.users (id, name, plan_id, created_at, plan_changed_at)
SELECT md5(n::text)::uuid, 'User ' || n,
    CASE WHEN n % 100 < 80 THEN 'free' WHEN n % 100 < 95 THEN 'gold' ELSE 'platinum' END,
    now() - make_interval(mins => n % 1000000), now() - make_interval(mins => n % 1000000)
FROM generate_series(1, current_setting('bench.users')::integer) AS n;

-- Paying users have subscriptions; a few of them are trialing or past due.
INSERT INTO public.user_subscriptions (user_id, plan_id, stripe_subscription_id, billing_interval, status,
    trial_end, current_period_start, current_period_end)
SELECT u.id, u.plan_id, 'sub_' || replace(u.id::text, '-', ''), 'month', s.status,
    CASE WHEN s.status = 'trialing' THEN p.started + interval '30 days' END, p.started, p.started + interval '1 month'
FROM generate_series(1, current_setting('bench.users')::integer) AS n
JOIN public.users AS u ON u.id = md5(n::text)::uuid AND u.plan_id <> 'free'
CROSS JOIN LATERAL (SELECT CASE WHEN n / 100 % 20 < 18 THEN 'active' WHEN n / 100 % 20 = 18 THEN 'trialing' ELSE 'past_due' END) AS s (status)
CROSS JOIN LATERAL (SELECT now() - make_interval(days => n % 28)) AS p (started);

-- Their use this month: a few have reached gold's limit of 1,000. It is carried, because it has no events.
INSERT INTO public.usage_counters (user_id, feature_id, period, period_start, used, carried)
SELECT u.id, 'ai_requests', 'month', public.usage_period_start('month', now(), now()), n % 1010, n % 1010
FROM generate_series(1, current_setting('bench.users')::integer) AS n
JOIN public.users AS u ON u.id = md5(n::text)::uuid AND u.plan_id <> 'free';

-- One in a hundred has an override.
INSERT INTO public.feature_overrides (user_id, feature_id, enabled, limit_value, reason)
SELECT md5(n::text)::uuid, 'ai_requests', true, 5000, 'the benchmark'
FROM generate_series(1, current_setting('bench.users')::integer) AS n WHERE n % 100 = 7;

-- A feature that every plan grants, up to a limit that no run reaches: consumption is decided and never refused.
INSERT INTO public.features (id, name, display_name, kind, unit)
VALUES ('bench_calls', 'Bench Calls', 'Bench Calls', 'metered', 'call');
INSERT INTO public.plan_features (plan_id, feature_id, enabled, limit_value)
SELECT p.id, 'bench_calls', true, 1000000000000 FROM public.plans AS p;

-- Every user has used one unit this month: the counters exist, as they mostly do in a running month.
INSERT INTO public.usage_counters (user_id, feature_id, period, period_start, used, carried)
SELECT u.id, 'bench_calls', 'month', public.usage_period_start('month', now(), now()), 1, 1 FROM public.users AS u;
