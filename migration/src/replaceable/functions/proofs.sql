-- The integrity checks in pieces, for the job: each piece is checked once an hour by one process of the cluster, takes
-- a bounded time, and stores its findings. The pieces are the catalogue, the seals of use, and sixteen slices of the
-- users.
--
-- A seal is a span of hours whose events were compared with their sums two days after they were summed. Counters are
-- compared with the sealed sums plus later events, so that a run reads only new events. One seal after another is
-- compared with its events again, so that changes of old events are found too, a few days later.

-- Compares the next span of hours, at most a day, with its events, and seals it if they match. Returns the differences,
-- or none if there is nothing to seal.
CREATE OR REPLACE FUNCTION public.seal_usage(OUT sealed boolean, OUT findings jsonb)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until_hour timestamptz := (SELECT coalesce(w.final_at, w.reached_at) - interval '48 hours' FROM public.rollup_watermarks w WHERE w.name = 'usage_events');
    seal_from timestamptz := (SELECT max(s.hours_to) FROM public.usage_seals s);
    seal_to timestamptz;
BEGIN
    sealed := false;
    findings := '[]';
    seal_from := coalesce(seal_from, (SELECT min(r.bucket) FROM public.usage_rollups r));
    IF until_hour IS NULL OR seal_from IS NULL OR seal_from >= until_hour THEN
        RETURN;
    END IF;
    seal_to := least(seal_from + interval '24 hours', until_hour);
    IF NOT EXISTS (SELECT FROM public.usage_rollups r WHERE r.bucket >= seal_from AND r.bucket < seal_to)
        AND NOT EXISTS (SELECT FROM public.usage_events e WHERE e.created_at >= seal_from AND e.created_at < seal_to) THEN
        -- Nothing was used for a day: on to where something was.
        seal_to := greatest(seal_to, least(until_hour, coalesce(least((SELECT min(r.bucket) FROM public.usage_rollups r WHERE r.bucket >= seal_from),
            public.first_usage_hour(seal_from)), until_hour)));
    END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_object('finding', 'ROLLUP_MISMATCH', 'subject', d.user_id || ':' || d.feature_id, 'detail',
        'the hour from ' || d.bucket || ' cannot be sealed: its sum says ' || d.summed || ', its events ' || d.used)), '[]') INTO findings
    FROM (
        SELECT coalesce(r.user_id, e.user_id) AS user_id, coalesce(r.feature_id, e.feature_id) AS feature_id, coalesce(r.bucket, e.bucket) AS bucket,
            coalesce(r.amount, 0) AS summed, coalesce(e.amount, 0) AS used
        FROM (SELECT s.* FROM public.usage_rollups s WHERE s.bucket >= seal_from AND s.bucket < seal_to) r
        FULL JOIN (
            SELECT v.user_id, v.feature_id, v.period, v.period_start, date_trunc('hour', v.created_at, 'UTC') AS bucket,
                sum(v.amount) AS amount, sum(v.overage) AS overage, count(*) AS events
            FROM public.usage_events v WHERE v.created_at >= seal_from AND v.created_at < seal_to GROUP BY 1, 2, 3, 4, 5
        ) e ON e.user_id = r.user_id AND e.feature_id = r.feature_id AND e.period = r.period AND e.period_start = r.period_start AND e.bucket = r.bucket
        WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (e.amount, e.overage, e.events)
          -- Sums without events are right where their month was dropped.
          AND (e.user_id IS NOT NULL OR date_trunc('month', r.bucket, 'UTC') IN (SELECT m.month_start FROM public.usage_months() m))
        LIMIT 100
    ) d;
    IF findings <> '[]' THEN
        RETURN;
    END IF;
    INSERT INTO public.sealed_usage AS u (user_id, feature_id, period, period_start, amount, overage)
    SELECT r.user_id, r.feature_id, r.period, r.period_start, sum(r.amount), sum(r.overage)
    FROM public.usage_rollups r WHERE r.bucket >= seal_from AND r.bucket < seal_to GROUP BY 1, 2, 3, 4
    ON CONFLICT (user_id, feature_id, period, period_start)
        DO UPDATE SET amount = u.amount + EXCLUDED.amount, overage = u.overage + EXCLUDED.overage;
    INSERT INTO public.usage_seals (hours_from, hours_to, amount, overage, events)
    SELECT seal_from, seal_to, coalesce(sum(r.amount), 0), coalesce(sum(r.overage), 0), coalesce(sum(r.events), 0)
    FROM public.usage_rollups r WHERE r.bucket >= seal_from AND r.bucket < seal_to;
    sealed := true;
END
$$;

-- Compares the seal with the oldest check with its events, or with its sums if a month of it was dropped. Returns the
-- differences.
CREATE OR REPLACE FUNCTION public.recheck_seal(OUT checked boolean, OUT findings jsonb)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seal public.usage_seals;
    months_there boolean;
    counted record;
BEGIN
    findings := '[]';
    SELECT s.* INTO seal FROM public.usage_seals s ORDER BY s.checked_at, s.hours_from LIMIT 1;
    checked := FOUND;
    IF NOT checked THEN
        RETURN;
    END IF;
    SELECT count(*) = 2 INTO months_there
    FROM (VALUES (seal.hours_from), (seal.hours_to - interval '1 microsecond')) AS at (moment)
    WHERE date_trunc('month', at.moment, 'UTC') IN (SELECT m.month_start FROM public.usage_months() m);
    IF months_there THEN
        SELECT coalesce(sum(e.amount), 0) AS amount, coalesce(sum(e.overage), 0) AS overage, count(*) AS events INTO counted
        FROM public.usage_events e WHERE e.created_at >= seal.hours_from AND e.created_at < seal.hours_to;
    ELSE
        SELECT coalesce(sum(r.amount), 0) AS amount, coalesce(sum(r.overage), 0) AS overage, coalesce(sum(r.events), 0) AS events INTO counted
        FROM public.usage_rollups r WHERE r.bucket >= seal.hours_from AND r.bucket < seal.hours_to;
    END IF;
    IF (counted.amount, counted.overage, counted.events) IS DISTINCT FROM (seal.amount, seal.overage, seal.events::numeric) THEN
        findings := jsonb_build_array(jsonb_build_object('finding', 'SEAL_BROKEN', 'subject', 'usage_events:' || seal.hours_from, 'detail',
            'the hours up to ' || seal.hours_to || ' were sealed with ' || seal.amount || ', overage ' || seal.overage || ', in ' || seal.events
            || ' events; they come to ' || counted.amount || ', overage ' || counted.overage || ', in ' || counted.events));
    END IF;
    UPDATE public.usage_seals SET checked_at = clock_timestamp() WHERE hours_from = seal.hours_from;
END
$$;

-- Claims the piece with the oldest attempt, of those not tried since p_before; NULL if there is none. The rows are
-- locked as claims, so that several processes share the pieces and none is checked twice.
CREATE OR REPLACE FUNCTION public.claim_integrity_piece(p_before timestamptz) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    claimed text;
BEGIN
    INSERT INTO public.integrity_pieces (name)
    SELECT 'catalogue' UNION ALL SELECT 'usage' UNION ALL SELECT 'users/' || to_hex(n) FROM generate_series(0, 15) n
    ON CONFLICT (name) DO NOTHING;
    UPDATE public.integrity_pieces SET attempted_at = clock_timestamp()
    WHERE name = (
        SELECT p.name FROM public.integrity_pieces p WHERE p.attempted_at IS NULL OR p.attempted_at < p_before
        ORDER BY p.attempted_at NULLS FIRST, p.name LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING name INTO claimed;
    RETURN claimed;
END
$$;

-- Checks one piece, stores its findings and returns their number. Seals are made and compared again until p_budget is
-- used up. A broken seal stays a finding until it matches again.
CREATE OR REPLACE FUNCTION public.check_integrity_piece(p_name text, p_budget interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began timestamptz := clock_timestamp();
    found_now jsonb := '[]';
    slice text := split_part(p_name, '/', 2);
    sealing record;
    checking record;
    rounds integer := 0;
BEGIN
    IF p_name = 'catalogue' THEN
        SELECT coalesce(jsonb_agg(f), '[]') INTO found_now FROM (SELECT * FROM public.integrity_of_catalogue() LIMIT 1000) f;
    ELSIF p_name = 'usage' THEN
        LOOP
            SELECT * INTO sealing FROM public.seal_usage();
            EXIT WHEN NOT sealing.sealed OR clock_timestamp() > began + p_budget / 2;
        END LOOP;
        found_now := sealing.findings;
        LOOP
            SELECT * INTO checking FROM public.recheck_seal();
            found_now := found_now || checking.findings;
            rounds := rounds + 1;
            EXIT WHEN NOT checking.checked OR rounds >= (SELECT count(*) FROM public.usage_seals) OR clock_timestamp() > began + p_budget;
        END LOOP;
        -- What another run found of a seal that this one did not come to.
        found_now := found_now || (
            SELECT coalesce(jsonb_agg(f.was), '[]') FROM public.integrity_pieces p CROSS JOIN LATERAL jsonb_array_elements(p.findings) f (was)
            JOIN public.usage_seals s ON f.was ->> 'subject' = 'usage_events:' || s.hours_from
            WHERE p.name = 'usage' AND f.was ->> 'finding' = 'SEAL_BROKEN' AND s.checked_at < began);
    ELSE
        SELECT coalesce(jsonb_agg(f), '[]') INTO found_now FROM (
            SELECT * FROM public.integrity_of_users(rpad(slice, 32, '0')::pg_catalog.uuid, rpad(slice, 32, 'f')::pg_catalog.uuid, true) LIMIT 1000) f;
    END IF;
    UPDATE public.integrity_pieces SET findings = found_now, checked_at = began,
        took_ms = extract(epoch FROM clock_timestamp() - began) * 1000
    WHERE name = p_name;
    RETURN jsonb_array_length(found_now);
END
$$;
