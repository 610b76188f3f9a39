-- The months of usage_events and ai_usage_logs: created ahead, dropped six months after their end.
--
-- One call does one piece of work and locks one object: new months first, so that no later failure rolls them back.
-- Expensive work is done before a lock is taken: a month is summed a day at a time, and dropped after that. A lock is
-- waited for at most 300 ms, since all sessions queue behind a waiting ACCESS EXCLUSIVE lock. DETACH CONCURRENTLY is
-- not possible with a default partition.

-- The missing months: this one and the next three, and every month with rows in the default partition.
CREATE OR REPLACE FUNCTION public.partitions_to_make() RETURNS TABLE (parent text, month timestamp)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this_month timestamp := date_trunc('month', CURRENT_TIMESTAMP AT TIME ZONE 'UTC');
BEGIN
    FOREACH parent IN ARRAY ARRAY['usage_events', 'ai_usage_logs'] LOOP
        FOR month IN EXECUTE format(
            'SELECT $1 + make_interval(months => n) FROM generate_series(0, 3) n
                UNION SELECT date_trunc(''month'', created_at AT TIME ZONE ''UTC'') FROM public.%I ORDER BY 1', parent || '_default')
            USING this_month
        LOOP
            IF to_regclass('public.' || parent || to_char(month, '"_"YYYY"_"MM')) IS NULL THEN
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- The months that ended more than six months ago, oldest first.
CREATE OR REPLACE FUNCTION public.partitions_to_drop() RETURNS TABLE (parent text, partition text, month_start timestamptz, month_end timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.name, c.relname::text, m.first AT TIME ZONE 'UTC', (m.first + interval '1 month') AT TIME ZONE 'UTC'
    FROM unnest(ARRAY['usage_events', 'ai_usage_logs']) AS p (name)
    JOIN pg_inherits i ON i.inhparent = to_regclass('public.' || p.name)
    JOIN pg_class c ON c.oid = i.inhrelid
    -- The default partition has no month.
    CROSS JOIN LATERAL (SELECT CASE WHEN c.relname ~ ('^' || p.name || '_\d{4}_\d{2}$')
        THEN to_date(right(c.relname::text, 7), 'YYYY_MM')::timestamp END AS first) m
    WHERE m.first + interval '7 months' < CURRENT_TIMESTAMP AT TIME ZONE 'UTC'
    ORDER BY 3, 1
$$;

-- Creates one month and moves its rows out of the default partition. It is attached only when it is filled and closed:
-- row-level security on, no rights granted. Attaching takes no exclusive lock on the parent.
CREATE OR REPLACE FUNCTION public.make_partition(p_parent text, p_month timestamp) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
AS $$
DECLARE
    partition text := p_parent || to_char(p_month, '"_"YYYY"_"MM');
    lower_bound timestamptz := p_month AT TIME ZONE 'UTC';
    upper_bound timestamptz := (p_month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass('public.' || partition) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition, p_parent);
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('REVOKE ALL ON TABLE public.%I FROM PUBLIC, anon, authenticated, service_role', partition);
    EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', p_parent || '_default');
    EXECUTE format(
        'WITH moved AS (DELETE FROM public.%I WHERE created_at >= $1 AND created_at < $2 RETURNING *) INSERT INTO public.%I SELECT * FROM moved',
        p_parent || '_default', partition) USING lower_bound, upper_bound;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
        p_parent, partition, lower_bound, upper_bound);
    RETURN 'made ' || partition;
END
$$;

-- Sums one more day of a month that is to be dropped. Returns NULL when the whole month is summed. Takes no lock on
-- tables in use, and does not rewrite sums that are already right.
CREATE OR REPLACE FUNCTION public.sum_partition(p_partition text, p_month_start timestamptz, p_month_end timestamptz) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mark text := 'sums of ' || p_partition;
    reached timestamptz := coalesce((SELECT w.reached_at FROM public.rollup_watermarks w WHERE w.name = mark), p_month_start);
    until timestamptz := least(reached + interval '24 hours', p_month_end);
BEGIN
    IF reached >= p_month_end THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        'INSERT INTO public.usage_rollups AS r (user_id, feature_id, period, period_start, bucket, amount, overage, events)
         SELECT user_id, feature_id, period, period_start, date_trunc(''hour'', created_at, ''UTC''), sum(amount), sum(overage), count(*)
         FROM public.%I WHERE created_at >= $1 AND created_at < $2 GROUP BY 1, 2, 3, 4, 5
         ON CONFLICT (user_id, feature_id, period, period_start, bucket)
         DO UPDATE SET amount = EXCLUDED.amount, overage = EXCLUDED.overage, events = EXCLUDED.events
         WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (EXCLUDED.amount, EXCLUDED.overage, EXCLUDED.events)', p_partition)
        USING reached, until;
    INSERT INTO public.rollup_watermarks AS w (name, reached_at) VALUES (mark, until)
    ON CONFLICT (name) DO UPDATE SET reached_at = EXCLUDED.reached_at;
    RETURN 'summed ' || p_partition || ' up to ' || to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD');
END
$$;

-- Drops one month that is summed. The watermark is moved to its end first: readers take the sums up to the watermark,
-- and after it the events, which are gone. The parent is locked while the DROP runs.
CREATE OR REPLACE FUNCTION public.drop_partition(p_parent text, p_partition text, p_month_end timestamptz) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
AS $$
BEGIN
    INSERT INTO public.rollup_watermarks AS w (name, reached_at)
    SELECT p_parent, p_month_end
    WHERE NOT EXISTS (SELECT FROM public.rollup_watermarks w WHERE w.name = p_parent AND w.reached_at >= p_month_end)
    ON CONFLICT (name) DO UPDATE SET reached_at = greatest(w.reached_at, EXCLUDED.reached_at);
    DELETE FROM public.rollup_watermarks WHERE name = 'sums of ' || p_partition;
    EXECUTE format('DROP TABLE public.%I', p_partition);
    RETURN 'dropped ' || p_partition;
END
$$;

-- Does one piece of the due work and returns one line about it; no line if nothing is left, or while another call is
-- running. To be called until it returns none. A piece whose table is in use is skipped; if all are, the line begins
-- with 'busy'.
CREATE OR REPLACE FUNCTION public.maintain_partitions() RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    piece record;
    done text;
    busy text;
BEGIN
    -- Nobody but the owner can take this lock; an advisory lock would be anybody's.
    PERFORM FROM public.product_base_locks l WHERE l.name = 'maintain_partitions' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR piece IN
        SELECT 'make' AS action, m.parent, NULL AS partition, m.month, NULL::timestamptz AS month_start, NULL::timestamptz AS month_end
        FROM public.partitions_to_make() m
        UNION ALL SELECT 'drop', d.parent, d.partition, NULL, d.month_start, d.month_end FROM public.partitions_to_drop() d
    LOOP
        BEGIN
            IF piece.action = 'make' THEN
                done := public.make_partition(piece.parent, piece.month);
            ELSIF piece.parent = 'usage_events' THEN
                done := public.sum_partition(piece.partition, piece.month_start, piece.month_end);
            ELSE
                done := public.sum_calls_before(piece.month_end);
            END IF;
            IF done IS NULL AND piece.action = 'drop' THEN
                done := public.drop_partition(piece.parent, piece.partition, piece.month_end);
            END IF;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            done := NULL;
            busy := coalesce(busy || ', ', 'busy: ') || coalesce(piece.partition, to_char(piece.month, 'YYYY-MM') || ' of ' || piece.parent);
        END;
        IF done IS NOT NULL THEN
            RETURN NEXT done;
            RETURN;
        END IF;
    END LOOP;
    IF busy IS NOT NULL THEN
        RETURN NEXT busy || ' waits for the next run';
    END IF;
END
$$;
