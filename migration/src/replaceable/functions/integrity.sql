-- What must hold between tables and is not held by a foreign key. Every check is one query over whole tables:
-- a job's work and an operator's, not a request's.
CREATE OR REPLACE FUNCTION public.integrity_findings() RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT 'MISSING_AUTH_USER', u.id::text, 'the profile has no identity in auth.users'
    FROM public.users u WHERE NOT EXISTS (SELECT FROM auth.users a WHERE a.id = u.id)

    UNION ALL
    SELECT 'MISSING_PLAN', pf.plan_id || ':' || pf.feature_id, 'plan_features names a plan that does not exist'
    FROM public.plan_features pf WHERE NOT EXISTS (SELECT FROM public.plans p WHERE p.id = pf.plan_id)

    UNION ALL
    SELECT 'MISSING_FEATURE', pf.plan_id || ':' || pf.feature_id, 'plan_features names a feature that does not exist'
    FROM public.plan_features pf WHERE NOT EXISTS (SELECT FROM public.features f WHERE f.id = pf.feature_id)

    UNION ALL
    SELECT 'MISSING_DATA', c.name, c.present || ' rows, at least ' || c.expected || ' are expected: run the seed'
    FROM (VALUES
        ('plans', (SELECT count(*) FROM public.plans), 3),
        ('features', (SELECT count(*) FROM public.features), 5),
        ('plan_features', (SELECT count(*) FROM public.plan_features), 15)
    ) AS c (name, present, expected) WHERE c.present < c.expected

    UNION ALL
    SELECT 'BALANCE_MISMATCH', u.id::text, 'the balance is ' || u.token_balance || ', the ledger sums to ' || coalesce(l.total, 0)
    FROM public.users u
    LEFT JOIN (SELECT t.user_id, sum(t.amount) AS total FROM public.token_transactions t GROUP BY t.user_id) l ON l.user_id = u.id
    WHERE u.token_balance <> coalesce(l.total, 0)

    UNION ALL
    SELECT 'LEDGER_CHAIN_BROKEN', c.user_id::text, 'first at seq ' || min(c.seq)
    FROM (
        SELECT t.*, row_number() OVER w AS position, lag(t.hash) OVER w AS before_hash, sum(t.amount) OVER w AS running
        FROM public.token_transactions t WINDOW w AS (PARTITION BY t.user_id ORDER BY t.seq)
    ) c
    WHERE c.seq <> c.position OR c.prev_hash IS DISTINCT FROM c.before_hash OR c.balance_after <> c.running
       OR c.hash <> public.ledger_hash(c.prev_hash, c.id, c.user_id, c.seq, c.amount, c.type, c.balance_after,
            c.description, c.reference_id, c.idempotency_key, c.created_at)
    GROUP BY c.user_id

    UNION ALL
    SELECT 'ORPHAN_COUNTER', n.user_id::text, count(*) || ' counters of neither a user nor a deleted profile'
    FROM public.usage_counters n
    WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = n.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = n.user_id)
    GROUP BY n.user_id

    UNION ALL
    SELECT 'ORPHAN_EVENT', e.user_id::text, e.events || ' events of neither a user nor a deleted profile'
    FROM (SELECT v.user_id, count(*) AS events FROM public.usage_events v GROUP BY v.user_id) e
    WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = e.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = e.user_id)

    UNION ALL
    SELECT 'ORPHAN_HOLD', r.id::text, 'a pending hold without its counter'
    FROM public.usage_reservations r
    WHERE r.status = 'pending' AND NOT EXISTS (
        SELECT FROM public.usage_counters n WHERE n.user_id = r.user_id AND n.feature_id = r.feature_id
          AND n.period = r.period AND n.period_start = r.period_start)

    UNION ALL
    SELECT 'ORPHAN_HOLD', n.user_id || ':' || n.feature_id, 'the counter of ' || n.period || ' from ' || n.period_start || ' holds ' || n.reserved || ' without a pending hold'
    FROM public.usage_counters n
    WHERE n.reserved > 0 AND NOT EXISTS (
        SELECT FROM public.usage_reservations r WHERE r.status = 'pending' AND r.user_id = n.user_id
          AND r.feature_id = n.feature_id AND r.period = n.period AND r.period_start = n.period_start)

    UNION ALL
    SELECT 'ORPHAN_HOLD', u.id::text, u.token_reserved || ' tokens are held without a pending hold'
    FROM public.users u
    WHERE u.token_reserved > 0 AND NOT EXISTS (
        SELECT FROM public.usage_reservations r WHERE r.status = 'pending' AND r.user_id = u.id)
$$;
