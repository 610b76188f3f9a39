-- The hourly sums of usage_events. The months themselves are maintained in retention.sql.

-- The months of usage_events that exist.
CREATE OR REPLACE FUNCTION public.usage_months() RETURNS TABLE (month_start timestamptz, partition text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.to_date(pg_catalog.right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC', c.relname::text
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.usage_events'::pg_catalog.regclass AND c.relname ~ '^usage_events_\d{4}_\d{2}$'
$$;

-- A whole hour before which there is no event at or after p_from; NULL if there are no more events. Each month is
-- checked in order for events, so that a span without any costs one look-up per month and no scan.
CREATE OR REPLACE FUNCTION public.first_usage_hour(p_from timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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

-- Sums whole hours of usage_events into usage_rollups, from one hour to another. An hour is always summed as a whole,
-- so repeating it changes nothing.
CREATE OR REPLACE FUNCTION public.sum_usage_hours(p_from timestamptz, p_to timestamptz) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO public.usage_rollups AS r (user_id, feature_id, period, period_start, bucket, amount, overage, events)
    SELECT e.user_id, e.feature_id, e.period, e.period_start, pg_catalog.date_trunc('hour', e.created_at, 'UTC'),
        sum(e.amount), sum(e.overage), count(*)
    FROM public.usage_events e
    WHERE e.created_at >= p_from AND e.created_at < p_to
    GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (user_id, feature_id, period, period_start, bucket)
        DO UPDATE SET amount = EXCLUDED.amount, overage = EXCLUDED.overage, events = EXCLUDED.events
        WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (EXCLUDED.amount, EXCLUDED.overage, EXCLUDED.events)
$$;

-- Sums the hours of use that are over, up to the last one that ended five minutes ago. One call covers at most 24
-- hours, or more if there are no events in between. Returns how many hours are left; also 0 while another call is
-- running. Readers take the sums up to reached_at, and the events after it.
--
-- A transaction may commit its event long after the hour was summed. Hours before final_at cannot get events any more;
-- those between final_at and reached_at are summed again when the fence is passed. The fence is a time with a
-- transaction id that no other transaction had by then. When all lower ids have ended, no event from before that time
-- can still appear, since an event is no older than its transaction's id (the service's events are older by at most its
-- time limits, which the margin of an hour covers). A transaction that stays open only delays final_at. The row of
-- product_base_locks is the lock: only the owner can take it.
CREATE OR REPLACE FUNCTION public.roll_up_usage() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seen pg_snapshot := pg_catalog.pg_current_snapshot();
    -- The transaction of the caller writes no event.
    ended_below xid8 := coalesce((SELECT x.id FROM pg_catalog.pg_snapshot_xip(seen) AS x (id)
        WHERE x.id IS DISTINCT FROM pg_catalog.pg_current_xact_id_if_assigned() ORDER BY x.id LIMIT 1), pg_catalog.pg_snapshot_xmax(seen));
    begun_below xid8;
    this_hour timestamptz := pg_catalog.date_trunc('hour', CURRENT_TIMESTAMP, 'UTC');
    until_hour timestamptz := pg_catalog.date_trunc('hour', CURRENT_TIMESTAMP - interval '5 minutes', 'UTC');
    old public.rollup_watermarks;
    mark public.rollup_watermarks;
    has_fallen boolean;
    final_to timestamptz;
    again_to timestamptz;
BEGIN
    PERFORM FROM public.product_base_locks l WHERE l.name = 'roll_up_usage' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- Its own id: who has none yet gets a later one. The end of a snapshot would not do, since it is the first id after the
    -- last one that has ended.
    begun_below := pg_catalog.pg_current_xact_id();
    SELECT w.* INTO old FROM public.rollup_watermarks w WHERE w.name = 'usage_events';
    old.reached_at := coalesce(old.reached_at, public.first_usage_hour('-infinity'), until_hour);
    -- Before there was a fence, the hour before the watermark was summed once more.
    old.final_at := least(coalesce(old.final_at, old.reached_at - interval '1 hour'), old.reached_at);
    mark := old;
    -- An id that no transaction of this cluster has had came with a copy of another cluster, whose transactions are over.
    has_fallen := ended_below >= old.fence_xid OR old.fence_xid > begun_below;

    IF old.reached_at < until_hour THEN
        mark.reached_at := least(old.reached_at + interval '24 hours', until_hour);
        PERFORM public.sum_usage_hours(
            CASE WHEN has_fallen THEN old.reached_at ELSE greatest(old.final_at - interval '1 hour', old.reached_at - interval '24 hours') END,
            mark.reached_at);
        IF mark.reached_at < until_hour THEN
            mark.reached_at := least(coalesce(public.first_usage_hour(mark.reached_at), until_hour), until_hour);
        END IF;
    END IF;

    IF has_fallen THEN
        final_to := least(pg_catalog.date_trunc('hour', old.fence_at, 'UTC'), mark.reached_at);
        -- What was summed just now needs no second time.
        again_to := least(final_to, old.reached_at, old.final_at + interval '24 hours');
        IF again_to > old.final_at - interval '1 hour' AND final_to > old.final_at THEN
            PERFORM public.sum_usage_hours(old.final_at - interval '1 hour', again_to);
            IF again_to < least(final_to, old.reached_at) THEN
                again_to := least(coalesce(public.first_usage_hour(again_to), final_to), final_to, old.reached_at);
            END IF;
        END IF;
        mark.final_at := greatest(old.final_at, CASE
            WHEN again_to < least(final_to, old.reached_at) THEN again_to ELSE final_to END);
    END IF;
    IF old.fence_xid IS NULL OR (has_fallen AND mark.final_at >= final_to AND old.fence_at < this_hour) THEN
        mark.fence_at := CURRENT_TIMESTAMP;
        mark.fence_xid := begun_below;
    END IF;

    INSERT INTO public.rollup_watermarks AS w (name, reached_at, final_at, fence_at, fence_xid)
    VALUES ('usage_events', mark.reached_at, mark.final_at, mark.fence_at, mark.fence_xid)
    ON CONFLICT (name) DO UPDATE SET reached_at = greatest(w.reached_at, EXCLUDED.reached_at), final_at = EXCLUDED.final_at,
        fence_at = EXCLUDED.fence_at, fence_xid = EXCLUDED.fence_xid
    WHERE (w.reached_at, w.final_at, w.fence_at, w.fence_xid)
        IS DISTINCT FROM (EXCLUDED.reached_at, EXCLUDED.final_at, EXCLUDED.fence_at, EXCLUDED.fence_xid);
    RETURN pg_catalog.ceil(extract(epoch FROM until_hour - mark.reached_at) / 3600);
END
$$;

-- Deletes outcomes stored longer than p_age: at most p_rows of each of the eight partitions, in physical order. Rows
-- that another call is deleting are skipped. Returns how many were deleted.
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
