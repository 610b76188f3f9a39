-- Sums of all users, stored apart from the sums per user: by feature and hour, by model and hour. A query over all
-- users reads a few thousand of these rows instead of those of every user.

-- AFTER a change of usage_rollups: applies the same change to usage_totals, in one statement and one transaction,
-- whatever made it. The transition tables are `gone` and `come`; TG_OP says which of them exist.
CREATE OR REPLACE FUNCTION public.total_usage_rollups() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    come text := 'SELECT bucket, feature_id, period, period_start, amount, overage, events FROM come';
    gone text := 'SELECT bucket, feature_id, period, period_start, -amount AS amount, -overage AS overage, -events AS events FROM gone';
    changes text := CASE TG_OP WHEN 'INSERT' THEN come WHEN 'DELETE' THEN gone ELSE come || ' UNION ALL ' || gone END;
BEGIN
    EXECUTE 'INSERT INTO public.usage_totals AS t (bucket, feature_id, period, period_start, amount, overage, events)
        SELECT c.bucket, c.feature_id, c.period, c.period_start, sum(c.amount), sum(c.overage), sum(c.events)
        FROM (' || changes || ') c GROUP BY 1, 2, 3, 4
        HAVING (sum(c.amount), sum(c.overage), sum(c.events)) IS DISTINCT FROM (0, 0, 0)
        ORDER BY 1, 2, 3, 4
        ON CONFLICT (bucket, feature_id, period, period_start)
        DO UPDATE SET amount = t.amount + EXCLUDED.amount, overage = t.overage + EXCLUDED.overage, events = t.events + EXCLUDED.events';
    IF TG_OP <> 'INSERT' THEN
        EXECUTE 'DELETE FROM public.usage_totals t USING (SELECT DISTINCT bucket, feature_id, period, period_start FROM gone) g
            WHERE t.events = 0 AND t.bucket = g.bucket AND t.feature_id = g.feature_id AND t.period = g.period AND t.period_start = g.period_start';
    END IF;
    RETURN NULL;
END
$$;

-- Recomputes all of usage_totals from the sums per user. It is called in the transaction that creates the triggers,
-- which blocks writers of sums meanwhile; tables used by requests are not locked.
CREATE OR REPLACE FUNCTION public.refill_usage_totals() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM public.usage_totals;
    INSERT INTO public.usage_totals (bucket, feature_id, period, period_start, amount, overage, events)
    SELECT bucket, feature_id, period, period_start, sum(amount), sum(overage), sum(events)
    FROM public.usage_rollups GROUP BY 1, 2, 3, 4;
$$;

-- Sums whole hours of ai_usage_logs into ai_usage_totals, by provider and model. The rules of roll_up_usage for spans
-- and late commits apply here too; the 24 hours before the watermark are summed again whenever an hour is over. The row
-- of the watermark is the claim. Returns how many hours are left; also 0 while another call is running.
CREATE OR REPLACE FUNCTION public.roll_up_ai_usage() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reached timestamptz;
    until_hour timestamptz := date_trunc('hour', CURRENT_TIMESTAMP - interval '5 minutes', 'UTC');
    summed_to timestamptz;
BEGIN
    INSERT INTO public.rollup_watermarks (name, reached_at) VALUES ('ai_usage_logs', '-infinity') ON CONFLICT (name) DO NOTHING;
    SELECT w.reached_at INTO reached FROM public.rollup_watermarks w WHERE w.name = 'ai_usage_logs' FOR UPDATE SKIP LOCKED;
    IF reached IS NULL OR reached >= until_hour THEN
        RETURN 0;
    END IF;
    IF reached = '-infinity' THEN
        reached := coalesce((SELECT date_trunc('hour', min(l.created_at), 'UTC') FROM public.ai_usage_logs l), until_hour);
    END IF;
    summed_to := least(reached + interval '24 hours', until_hour);
    WITH sums AS (
        SELECT date_trunc('hour', l.created_at, 'UTC') AS bucket, l.provider, coalesce(l.model, '') AS model, count(*) AS requests,
            sum(l.input_tokens) AS input_tokens, sum(l.output_tokens) AS output_tokens, sum(l.cached_tokens) AS cached_tokens,
            sum(coalesce(l.tokens_used::numeric, l.input_tokens::numeric + l.output_tokens)) AS total_tokens, sum(l.cost_nano_usd) AS cost_nano_usd
        FROM public.ai_usage_logs l
        WHERE l.created_at >= reached - interval '24 hours' AND l.created_at < summed_to
        GROUP BY 1, 2, 3
    )
    INSERT INTO public.ai_usage_totals AS t (bucket, provider, model, requests, input_tokens, output_tokens, cached_tokens, total_tokens, cost_nano_usd)
    SELECT s.bucket, s.provider, s.model, s.requests, s.input_tokens, s.output_tokens, s.cached_tokens, s.total_tokens, s.cost_nano_usd FROM sums s
    ON CONFLICT (bucket, provider, model) DO UPDATE SET requests = EXCLUDED.requests, input_tokens = EXCLUDED.input_tokens,
        output_tokens = EXCLUDED.output_tokens, cached_tokens = EXCLUDED.cached_tokens, total_tokens = EXCLUDED.total_tokens,
        cost_nano_usd = EXCLUDED.cost_nano_usd
        -- Logs of a deleted profile may be gone; what everybody used was used.
        WHERE EXCLUDED.requests >= t.requests
            AND (t.requests, t.input_tokens, t.output_tokens, t.cached_tokens, t.total_tokens, t.cost_nano_usd) IS DISTINCT FROM
                (EXCLUDED.requests, EXCLUDED.input_tokens, EXCLUDED.output_tokens, EXCLUDED.cached_tokens, EXCLUDED.total_tokens, EXCLUDED.cost_nano_usd);
    IF summed_to < until_hour THEN
        summed_to := least(coalesce((SELECT date_trunc('hour', min(l.created_at), 'UTC') FROM public.ai_usage_logs l
            WHERE l.created_at >= summed_to), until_hour), until_hour);
    END IF;
    UPDATE public.rollup_watermarks SET reached_at = summed_to WHERE name = 'ai_usage_logs';
    RETURN ceil(extract(epoch FROM until_hour - summed_to) / 3600);
END
$$;

-- Sums the calls before a time, one span per call. Returns NULL when all of them are summed.
CREATE OR REPLACE FUNCTION public.sum_calls_before(p_moment timestamptz) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM public.rollup_watermarks w WHERE w.name = 'ai_usage_logs' AND w.reached_at >= p_moment) THEN
        RETURN NULL;
    END IF;
    RETURN 'summed calls, ' || public.roll_up_ai_usage() || ' hours are left';
END
$$;
