-- The months of usage_events and ai_usage_logs, and the sums that outlive them.

-- The months of usage_events that are there.
CREATE OR REPLACE FUNCTION public.usage_months() RETURNS TABLE (month_start timestamptz, partition text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT pg_catalog.to_date(pg_catalog.right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC', c.relname::text
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.usage_events'::pg_catalog.regclass AND c.relname ~ '^usage_events_\d{4}_\d{2}$'
$$;

-- A whole hour before which there is no event at or after p_from; NULL where there is no event any more. Months are
-- asked in their order whether they hold one, so that a stretch without any costs a look and not a walk through it.
CREATE OR REPLACE FUNCTION public.first_usage_hour(p_from timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
    -- What was in no month is in no order either, and little: it is read whole.
    first timestamptz := (SELECT min(d.created_at) FROM public.usage_events_default d WHERE d.created_at >= p_from);
    month record;
    has_events boolean;
BEGIN
    FOR month IN SELECT m.month_start, m.partition FROM public.usage_months() m ORDER BY 1
    LOOP
        EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM public.%I WHERE created_at >= $1)', month.partition) INTO has_events USING p_from;
        IF has_events THEN
            first := least(first, greatest(month.month_start, p_from));
            EXIT;
        END IF;
    END LOOP;
    RETURN pg_catalog.date_trunc('hour', first, 'UTC');
END
$$;

-- Sums whole hours of usage_events into usage_rollups, from the watermark up to the last hour that ended five
-- minutes ago (a transaction that began in an hour may commit after it; the hour before the watermark is summed once
-- more). An hour is always summed as a whole, so doing it again changes nothing. One call covers 24 hours at most, or
-- goes on to the next event where there is none in between. Answers how many hours are left; also 0 where another
-- call is at it.
CREATE OR REPLACE FUNCTION public.roll_up_usage() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
    reached timestamptz;
    until_hour timestamptz := pg_catalog.date_trunc('hour', CURRENT_TIMESTAMP - interval '5 minutes', 'UTC');
    summed_to timestamptz;
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('product-base:roll_up_usage', 0)) THEN
        RETURN 0;
    END IF;
    SELECT w.reached_at INTO reached FROM public.rollup_watermarks w WHERE w.name = 'usage_events';
    IF reached >= until_hour THEN
        RETURN 0;
    END IF;
    reached := coalesce(reached, public.first_usage_hour('-infinity'), until_hour);
    summed_to := least(reached + interval '24 hours', until_hour);
    INSERT INTO public.usage_rollups AS r (user_id, feature_id, period, period_start, bucket, amount, overage, events)
    SELECT e.user_id, e.feature_id, e.period, e.period_start, pg_catalog.date_trunc('hour', e.created_at, 'UTC'),
        sum(e.amount), sum(e.overage), count(*)
    FROM public.usage_events e
    WHERE e.created_at >= reached - interval '1 hour' AND e.created_at < summed_to
    GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (user_id, feature_id, period, period_start, bucket)
        DO UPDATE SET amount = EXCLUDED.amount, overage = EXCLUDED.overage, events = EXCLUDED.events
        WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (EXCLUDED.amount, EXCLUDED.overage, EXCLUDED.events);
    IF summed_to < until_hour THEN
        summed_to := least(coalesce(public.first_usage_hour(summed_to), until_hour), until_hour);
    END IF;
    INSERT INTO public.rollup_watermarks AS w (name, reached_at) VALUES ('usage_events', summed_to)
    ON CONFLICT (name) DO UPDATE SET reached_at = greatest(w.reached_at, EXCLUDED.reached_at);
    RETURN pg_catalog.ceil(extract(epoch FROM until_hour - summed_to) / 3600);
END
$$;

-- Makes one month, moving out of the default partition what belongs to it. It is attached only when it is
-- filled and closed: row-level security on, no right granted. Attaching takes no exclusive lock on the parent.
CREATE OR REPLACE FUNCTION public.make_partition(p_parent text, p_month timestamp) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = '' SET lock_timeout = '2s'
AS $$
DECLARE
    partition text := p_parent || pg_catalog.to_char(p_month, '"_"YYYY"_"MM');
    lower_bound timestamptz := p_month AT TIME ZONE 'UTC';
    upper_bound timestamptz := (p_month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF pg_catalog.to_regclass('public.' || partition) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE pg_catalog.format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', p_parent || '_default');
    EXECUTE pg_catalog.format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition, p_parent);
    EXECUTE pg_catalog.format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE pg_catalog.format('REVOKE ALL ON TABLE public.%I FROM PUBLIC, anon, authenticated, service_role', partition);
    EXECUTE pg_catalog.format(
        'WITH moved AS (DELETE FROM public.%I WHERE created_at >= $1 AND created_at < $2 RETURNING *) INSERT INTO public.%I SELECT * FROM moved',
        p_parent || '_default', partition) USING lower_bound, upper_bound;
    EXECUTE pg_catalog.format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
        p_parent, partition, lower_bound, upper_bound);
    RETURN 'made ' || partition;
END
$$;

-- Drops one month. The sums of its events are kept first, and the watermark is not left before its end: whoever reads
-- takes the sums up to the watermark, and the events, which are gone, after it.
CREATE OR REPLACE FUNCTION public.drop_partition(p_parent text, p_partition text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = '' SET lock_timeout = '2s'
AS $$
DECLARE
    month_end timestamptz := (pg_catalog.to_date(pg_catalog.right(p_partition, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF p_parent = 'usage_events' THEN
        EXECUTE pg_catalog.format(
            'INSERT INTO public.usage_rollups (user_id, feature_id, period, period_start, bucket, amount, overage, events)
             SELECT user_id, feature_id, period, period_start, pg_catalog.date_trunc(''hour'', created_at, ''UTC''), sum(amount), sum(overage), count(*)
             FROM public.%I GROUP BY 1, 2, 3, 4, 5
             ON CONFLICT (user_id, feature_id, period, period_start, bucket)
             DO UPDATE SET amount = EXCLUDED.amount, overage = EXCLUDED.overage, events = EXCLUDED.events', p_partition);
        INSERT INTO public.rollup_watermarks AS w (name, reached_at)
        SELECT 'usage_events', month_end
        WHERE NOT EXISTS (SELECT FROM public.rollup_watermarks w WHERE w.name = 'usage_events' AND w.reached_at >= month_end)
        ON CONFLICT (name) DO UPDATE SET reached_at = greatest(w.reached_at, EXCLUDED.reached_at);
    END IF;
    EXECUTE pg_catalog.format('DROP TABLE public.%I', p_partition);
    RETURN 'dropped ' || p_partition;
END
$$;

-- This month and the next three exist, every month of rows that fell into the default partition too; a month
-- that ended more than six months ago goes. A table that is busy is left for the next call and named.
-- Answers one line for each thing done.
CREATE OR REPLACE FUNCTION public.maintain_partitions() RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
    parent text;
    month timestamp;
    months timestamp[];
    partition text;
    done text;
    this_month timestamp := pg_catalog.date_trunc('month', CURRENT_TIMESTAMP AT TIME ZONE 'UTC');
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('product-base:maintain_partitions', 0));
    FOREACH parent IN ARRAY ARRAY['usage_events', 'ai_usage_logs'] LOOP
        EXECUTE pg_catalog.format(
            'SELECT array(SELECT $1 + pg_catalog.make_interval(months => n) FROM pg_catalog.generate_series(0, 3) n
                UNION SELECT pg_catalog.date_trunc(''month'', created_at AT TIME ZONE ''UTC'') FROM public.%I ORDER BY 1)',
            parent || '_default') INTO months USING this_month;
        FOREACH month IN ARRAY months LOOP
            BEGIN
                done := public.make_partition(parent, month);
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                done := pg_catalog.format('busy: %s of %s waits for the next run', pg_catalog.to_char(month, 'YYYY-MM'), parent);
            END;
            IF done IS NOT NULL THEN
                RETURN NEXT done;
            END IF;
        END LOOP;
        FOR partition IN
            SELECT c.relname FROM pg_catalog.pg_inherits i
            JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = pg_catalog.to_regclass('public.' || parent)
              AND c.relname ~ ('^' || parent || '_\d{4}_\d{2}$')
              AND pg_catalog.to_date(pg_catalog.right(c.relname, 7), 'YYYY_MM') + interval '7 months' < CURRENT_TIMESTAMP AT TIME ZONE 'UTC'
            ORDER BY 1
        LOOP
            BEGIN
                done := public.drop_partition(parent, partition);
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                done := pg_catalog.format('busy: %s is dropped by the next run', partition);
            END;
            RETURN NEXT done;
        END LOOP;
    END LOOP;
END
$$;
