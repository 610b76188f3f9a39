-- Invariants between tables that no foreign key enforces. integrity_findings() reads whole tables: for an operator and
-- for `verify`. The service's job checks the same in pieces of a bounded time (proofs.sql).

-- The catalogue, the windows of keys, and the last two days of sums.
CREATE OR REPLACE FUNCTION public.integrity_of_catalogue() RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
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
    -- Windows of keys: what calls under way hold of them stands in their holds. A window that was swept holds nothing.
    SELECT 'HOLD_MISMATCH', k.api_key_id::text, 'the ' || k.period || ' from ' || k.period_start || ' of the key holds ' || k.tokens_reserved
        || ' tokens and ' || k.cost_reserved_nano_usd || ' nano-dollars; its pending holds sum to ' || coalesce(h.tokens, 0) || ' and '
        || coalesce(h.cost, 0)
    FROM public.api_key_counters k
    LEFT JOIN (
        SELECT l.lineage_id AS api_key_id, w.period, w.period_start, sum((r.detail #>> '{on_key,tokens}')::bigint) AS tokens,
            sum((r.detail #>> '{on_key,cost_nano_usd}')::bigint) AS cost
        FROM public.usage_reservations r
        CROSS JOIN LATERAL (VALUES
            ('minute', (r.detail #>> '{on_key,windows,minute}')::timestamptz),
            ('month', (r.detail #>> '{on_key,windows,month}')::timestamptz)) AS w (period, period_start)
        -- A call counts on its key's lineage and on those of the key's makers; one of an earlier release on its key.
        CROSS JOIN LATERAL (
            SELECT n.lineage_id::uuid FROM pg_catalog.jsonb_array_elements_text(
                coalesce(r.detail -> 'key_lineages', pg_catalog.jsonb_build_array(r.api_key_id))) AS n (lineage_id)
        ) AS l
        WHERE r.status = 'pending' AND r.detail #>> '{on_key,tokens}' IS NOT NULL
        GROUP BY l.lineage_id, w.period, w.period_start
    ) h ON h.api_key_id = k.api_key_id AND h.period = k.period AND h.period_start = k.period_start
    WHERE (k.tokens_reserved, k.cost_reserved_nano_usd) IS DISTINCT FROM (coalesce(h.tokens, 0), coalesce(h.cost, 0))

    UNION ALL
    -- The last two days that get no event any more. Sums without events are right where their month was dropped.
    SELECT 'ROLLUP_MISMATCH', coalesce(r.user_id, e.user_id) || ':' || coalesce(r.feature_id, e.feature_id),
        'the hour from ' || coalesce(r.bucket, e.bucket) || ', ' || coalesce(r.period, e.period) || ' from '
        || coalesce(r.period_start, e.period_start) || ', says ' || coalesce(r.amount, 0) || ', overage ' || coalesce(r.overage, 0)
        || ', in ' || coalesce(r.events, 0) || ' events; they sum to ' || coalesce(e.amount, 0) || ', overage '
        || coalesce(e.overage, 0) || ', and are ' || coalesce(e.events, 0)
    FROM (
        SELECT s.* FROM public.usage_rollups s JOIN public.rollup_watermarks w ON w.name = 'usage_events'
        WHERE s.bucket >= coalesce(w.final_at, w.reached_at) - interval '48 hours' AND s.bucket < coalesce(w.final_at, w.reached_at)
    ) r
    FULL JOIN (
        SELECT v.user_id, v.feature_id, v.period, v.period_start, pg_catalog.date_trunc('hour', v.created_at, 'UTC') AS bucket,
            sum(v.amount) AS amount, sum(v.overage) AS overage, count(*) AS events
        FROM public.usage_events v JOIN public.rollup_watermarks w ON w.name = 'usage_events'
        WHERE v.created_at >= coalesce(w.final_at, w.reached_at) - interval '48 hours' AND v.created_at < coalesce(w.final_at, w.reached_at)
        GROUP BY 1, 2, 3, 4, 5
    ) e ON e.user_id = r.user_id AND e.feature_id = r.feature_id AND e.period = r.period
        AND e.period_start = r.period_start AND e.bucket = r.bucket
    WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (e.amount, e.overage, e.events)
      AND (e.user_id IS NOT NULL OR pg_catalog.date_trunc('month', r.bucket, 'UTC') IN (SELECT m.month_start FROM public.usage_months() m))
$$;

-- The users with ids from p_from to p_to: identity, ledger, reservations, counters. With p_sealed, sealed sums of their
-- events come from sealed_usage, and only events after the last seal are read. Planned anew at each call, since a slice
-- of the users and all of them need different plans: $1 and $2 are the ids, $3 is p_sealed, $4 the time since when
-- events are read.
CREATE OR REPLACE FUNCTION public.integrity_of_users(p_from uuid, p_to uuid, p_sealed boolean) RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE $checks$
    SELECT 'MISSING_AUTH_USER', u.id::text, 'the profile has no identity in auth.users'
    FROM public.users u WHERE u.id BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM auth.users a WHERE a.id = u.id)

    UNION ALL
    SELECT 'BALANCE_MISMATCH', u.id::text, 'the balance is ' || u.token_balance || ', the ledger sums to ' || coalesce(l.total, 0)
    FROM public.users u
    LEFT JOIN (SELECT t.user_id, sum(t.amount) AS total FROM public.token_transactions t WHERE t.user_id BETWEEN $1 AND $2 GROUP BY t.user_id) l ON l.user_id = u.id
    WHERE u.id BETWEEN $1 AND $2 AND u.token_balance <> coalesce(l.total, 0)

    UNION ALL
    SELECT 'LEDGER_CHAIN_BROKEN', c.user_id::text, 'first at seq ' || min(c.seq)
    FROM (
        SELECT t.*, row_number() OVER w AS position, lag(t.hash) OVER w AS before_hash, sum(t.amount) OVER w AS running
        FROM public.token_transactions t WHERE t.user_id BETWEEN $1 AND $2 WINDOW w AS (PARTITION BY t.user_id ORDER BY t.seq)
    ) c
    WHERE c.seq <> c.position OR c.prev_hash IS DISTINCT FROM c.before_hash OR c.balance_after <> c.running
       OR c.hash <> public.ledger_hash(c.prev_hash, c.id, c.user_id, c.seq, c.amount, c.type, c.balance_after,
            c.description, c.reference_id, c.idempotency_key, c.created_at)
    GROUP BY c.user_id

    UNION ALL
    -- What the ledger ended with at some time must stand in it. A head that is older than the last row is no fault.
    SELECT 'LEDGER_HEAD_MISMATCH', h.user_id::text, 'the ledger had a row ' || h.seq || ' with the balance ' || h.balance
        || ', which is gone or was written anew; it ends at ' || coalesce((SELECT max(e.seq) FROM public.token_transactions e WHERE e.user_id = h.user_id), 0)
    FROM public.ledger_heads h JOIN public.users u ON u.id = h.user_id
    WHERE h.user_id BETWEEN $1 AND $2
      AND NOT EXISTS (SELECT FROM public.token_transactions t WHERE t.user_id = h.user_id AND t.seq = h.seq AND t.hash = h.hash AND t.balance_after = h.balance)

    UNION ALL
    -- Rows of the hour in which the heads were introduced may have none until the next row.
    SELECT 'LEDGER_HEAD_MISMATCH', t.user_id::text, 'the ledger has ' || count(*) || ' rows and no head is kept of it'
    FROM public.token_transactions t
    WHERE t.user_id BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM public.ledger_heads h WHERE h.user_id = t.user_id)
    GROUP BY t.user_id
    HAVING abs(extract(epoch FROM min(t.created_at)) - (SELECT m.applied_at FROM public.product_base_migrations m WHERE m.version = 'm20261201_000027_heads_of_ledgers')) > 3600

    UNION ALL
    SELECT 'DOUBLE_SUBSCRIPTION', s.user_id::text, 'a second live subscription is charged: ' || coalesce(s.stripe_subscription_id, s.id::text)
    FROM public.user_subscriptions s WHERE s.user_id BETWEEN $1 AND $2 AND s.is_duplicate

    UNION ALL
    SELECT 'ORPHAN_COUNTER', n.user_id::text, count(*) || ' counters of neither a user nor a deleted profile'
    FROM public.usage_counters n
    WHERE n.user_id BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM public.users u WHERE u.id = n.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = n.user_id)
    GROUP BY n.user_id

    UNION ALL
    SELECT 'ORPHAN_EVENT', e.user_id::text, e.events || ' events of neither a user nor a deleted profile'
    FROM (SELECT v.user_id, count(*) AS events FROM public.usage_events v WHERE v.user_id BETWEEN $1 AND $2 AND v.created_at >= $4 GROUP BY v.user_id) e
    WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = e.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = e.user_id)

    UNION ALL
    SELECT 'ORPHAN_EVENT', e.user_id::text, 'sealed events of neither a user nor a deleted profile'
    FROM (SELECT DISTINCT s.user_id FROM public.sealed_usage s WHERE $3 AND s.user_id BETWEEN $1 AND $2) e
    WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = e.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = e.user_id)

    UNION ALL
    SELECT 'ORPHAN_HOLD', r.id::text, 'a pending hold without its counter'
    FROM public.usage_reservations r
    WHERE r.user_id BETWEEN $1 AND $2 AND r.status = 'pending' AND NOT EXISTS (
        SELECT FROM public.usage_counters n WHERE n.user_id = r.user_id AND n.feature_id = r.feature_id
          AND n.period = r.period AND n.period_start = r.period_start)

    UNION ALL
    SELECT 'ORPHAN_HOLD', n.user_id || ':' || n.feature_id, 'the counter of ' || n.period || ' from ' || n.period_start || ' holds ' || n.reserved || ' without a pending hold'
    FROM public.usage_counters n
    WHERE n.user_id BETWEEN $1 AND $2 AND n.reserved > 0 AND NOT EXISTS (
        SELECT FROM public.usage_reservations r WHERE r.status = 'pending' AND r.user_id = n.user_id
          AND r.feature_id = n.feature_id AND r.period = n.period AND r.period_start = n.period_start)

    UNION ALL
    SELECT 'ORPHAN_HOLD', u.id::text, u.token_reserved || ' tokens are held without a pending hold'
    FROM public.users u
    WHERE u.id BETWEEN $1 AND $2 AND u.token_reserved > 0 AND NOT EXISTS (
        SELECT FROM public.usage_reservations r WHERE r.status = 'pending' AND r.user_id = u.id)

    UNION ALL
    SELECT 'HOLD_MISMATCH', n.user_id || ':' || n.feature_id, 'the counter of ' || n.period || ' from ' || n.period_start || ' holds '
        || n.reserved || '; its pending holds sum to ' || h.held
    FROM public.usage_counters n
    JOIN (
        SELECT r.user_id, r.feature_id, r.period, r.period_start, sum(r.amount - r.beyond) AS held
        FROM public.usage_reservations r WHERE r.status = 'pending'
        GROUP BY r.user_id, r.feature_id, r.period, r.period_start
    ) h ON h.user_id = n.user_id AND h.feature_id = n.feature_id AND h.period = n.period AND h.period_start = n.period_start
    WHERE n.user_id BETWEEN $1 AND $2 AND n.reserved <> h.held

    UNION ALL
    SELECT 'HOLD_MISMATCH', u.id::text, u.token_reserved || ' tokens are held; the pending holds sum to ' || h.held
    FROM public.users u
    JOIN (
        SELECT r.user_id, sum(r.tokens_reserved) AS held FROM public.usage_reservations r WHERE r.status = 'pending' GROUP BY r.user_id
    ) h ON h.user_id = u.id
    WHERE u.id BETWEEN $1 AND $2 AND u.token_reserved <> h.held

    UNION ALL
    -- From both ends: a counter whose events are others, and events whose counter is gone.
    SELECT CASE WHEN n.user_id IS NULL THEN 'COUNTER_MISSING' ELSE 'COUNTER_MISMATCH' END,
        coalesce(n.user_id, s.user_id) || ':' || coalesce(n.feature_id, s.feature_id),
        'the counter of ' || coalesce(n.period, s.period) || ' from ' || coalesce(n.period_start, s.period_start)
        || coalesce(' says ' || (n.used - n.carried) || ' beside ' || n.carried || ' carried, overage ' || n.overage, ' is not there')
        || '; its events sum to ' || coalesce(s.amount, 0) || ', overage ' || coalesce(s.overage, 0)
    FROM (SELECT c.* FROM public.usage_counters c WHERE c.user_id BETWEEN $1 AND $2) n
    FULL JOIN (
        SELECT p.user_id, p.feature_id, p.period, p.period_start, sum(p.amount) AS amount, sum(p.overage) AS overage
        FROM (
            SELECT e.user_id, e.feature_id, e.period, e.period_start, e.amount, e.overage FROM public.usage_events e
            WHERE e.user_id BETWEEN $1 AND $2 AND e.created_at >= $4
            UNION ALL
            SELECT s.user_id, s.feature_id, s.period, s.period_start, s.amount, s.overage FROM public.sealed_usage s
            WHERE $3 AND s.user_id BETWEEN $1 AND $2
            UNION ALL
            -- Months that were dropped. A month that was not made yet has its events in the default partition.
            SELECT r.user_id, r.feature_id, r.period, r.period_start, r.amount, r.overage FROM public.usage_rollups r
            WHERE r.user_id BETWEEN $1 AND $2 AND r.bucket >= $4 AND pg_catalog.date_trunc('month', r.bucket, 'UTC') NOT IN (SELECT m.month_start FROM public.usage_months() m) AND NOT EXISTS (
                SELECT FROM public.usage_events_default d
                WHERE d.user_id = r.user_id AND d.feature_id = r.feature_id AND d.period = r.period
                  AND d.period_start = r.period_start AND pg_catalog.date_trunc('hour', d.created_at, 'UTC') = r.bucket)
        ) p
        GROUP BY p.user_id, p.feature_id, p.period, p.period_start
    ) s ON s.user_id = n.user_id AND s.feature_id = n.feature_id AND s.period = n.period AND s.period_start = n.period_start
    WHERE (n.used - n.carried, n.overage) IS DISTINCT FROM (coalesce(s.amount, 0), coalesce(s.overage, 0))
      AND (n.user_id IS NOT NULL OR (s.amount, s.overage) IS DISTINCT FROM (0::numeric, 0::numeric) AND (
        EXISTS (SELECT FROM public.users u WHERE u.id = s.user_id) OR EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = s.user_id)))
    $checks$ USING p_from, p_to, p_sealed,
        coalesce((SELECT max(s.hours_to) FROM public.usage_seals s WHERE p_sealed), '-infinity');
END
$$;

-- All of them, in one statement.
CREATE OR REPLACE FUNCTION public.integrity_findings() RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.finding, c.subject, c.detail FROM public.integrity_of_catalogue() c
    UNION ALL
    SELECT u.finding, u.subject, u.detail
    FROM public.integrity_of_users('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', false) u
$$;
