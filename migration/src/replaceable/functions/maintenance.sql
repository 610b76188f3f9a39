-- The hourly sums of usage_events. What happens to the months themselves is in retention.sql.

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

-- Removes outcomes that were kept longer than p_age: at most p_rows of each of the eight partitions, by their place in it.
-- What another call is removing is left out. Answers how many went.
CREATE OR REPLACE FUNCTION public.delete_usage_keys(p_age interval, p_rows bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition text;
    deleted bigint;
    total bigint := 0;
BEGIN
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'public.idempotency_keys'::regclass
    LOOP
        EXECUTE format(
            'DELETE FROM public.%1$I WHERE ctid = ANY (ARRAY(
                SELECT k.ctid FROM public.%1$I k WHERE k.created_at < CURRENT_TIMESTAMP - $1 ORDER BY k.created_at LIMIT $2 FOR UPDATE SKIP LOCKED))',
            partition) USING p_age, p_rows;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        total := total + deleted;
    END LOOP;
    RETURN total;
END
$$;
