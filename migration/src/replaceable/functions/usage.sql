-- Counters. The decision is the domain's; what stands here is what both of its callers need in the database.

-- Makes the counter of a period that has none in force yet, or puts a superseded one into force again. If another
-- counter of the same user and feature is still open (a plan change or a new subscription moved the kind or the anchor
-- of the period), its use is carried: the counter is raised to what stands against the limit there, and the other one is
-- superseded. What was paid for beyond the limit is paid, and what is held stays where it is held; neither is carried.
-- A period that ended by itself is not open, so nothing is carried from it.
CREATE OR REPLACE FUNCTION public.open_usage_counter(
    p_user_id uuid, p_feature_id text, p_period text, p_period_start timestamptz, p_period_end timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = ''
AS $$
DECLARE
    standing bigint := 0;
    other record;
BEGIN
    -- Oldest first, so that two who open counters of the same user wait for one another and do not lock each other out.
    FOR other IN
        SELECT n.period, n.period_start, n.used - n.overage AS counted
        FROM public.usage_counters n
        WHERE n.user_id = p_user_id AND n.feature_id = p_feature_id AND NOT n.superseded
          AND (n.period, n.period_start) <> (p_period, p_period_start)
          AND n.period_start <= CURRENT_TIMESTAMP
          AND coalesce(n.period_end, public.usage_period_end(n.period, n.period_start, n.period_start), 'infinity') > CURRENT_TIMESTAMP
        ORDER BY n.period_start, n.period
        FOR NO KEY UPDATE
    LOOP
        standing := greatest(standing, other.counted);
        UPDATE public.usage_counters n SET superseded = true
        WHERE n.user_id = p_user_id AND n.feature_id = p_feature_id
          AND n.period = other.period AND n.period_start = other.period_start;
    END LOOP;
    INSERT INTO public.usage_counters AS n (user_id, feature_id, period, period_start, period_end, used, carried)
    VALUES (p_user_id, p_feature_id, p_period, p_period_start, p_period_end, standing, standing)
    ON CONFLICT (user_id, feature_id, period, period_start) DO UPDATE SET
        superseded = false,
        used = n.used + greatest(0, standing - (n.used - n.overage)),
        carried = n.carried + greatest(0, standing - (n.used - n.overage));
END
$$;
