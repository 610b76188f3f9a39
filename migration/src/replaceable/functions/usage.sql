-- Counters. The service decides in the domain, between reading and writing; consumption in SQL decides by
-- usage_decision. The functions here are used by both.

-- Creates the counter of a period that has none in force, or puts a superseded one in force again. If another counter
-- of the same user and feature is still open (a plan change or a new subscription changed the kind or the anchor of the
-- period), its use is carried: this counter is raised to the use that counts against the limit there, and the other one
-- is superseded. Paid overage is not carried, and reservations stay on the counter that they were made on. A period
-- that ended by itself is not open, so nothing is carried from it.
CREATE OR REPLACE FUNCTION public.open_usage_counter(
    p_user_id uuid, p_feature_id text, p_period text, p_period_start timestamptz, p_period_end timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
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

-- Writes a granted outcome: its idempotency key, the counter, the event, and the tokens that it costs. The rows are
-- those of the service's record_usage_batch.sql and spend_tokens. False: the key was used meanwhile, and nothing was
-- written.
CREATE OR REPLACE FUNCTION public.record_consumption(p_outcome public.idempotency_keys) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    balance bigint;
BEGIN
    -- A use that was acknowledged must survive a crash, whatever the database, the login or the session says. A stronger or
    -- a chosen weaker level of waiting for standbys is left as it is. It holds until the caller's transaction ends.
    IF pg_catalog.current_setting('synchronous_commit') = 'off' THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
    END IF;
    -- It waits for whoever is writing the same key. Under REPEATABLE READ a key that the snapshot lacks raises 40001.
    INSERT INTO public.idempotency_keys (user_id, key, digest, feature_id, amount, allowed, current, limit_value, remaining,
        reserved, reason, plan_id, source, period, period_start, resets_at, overage)
    VALUES (p_outcome.user_id, p_outcome.key, 'consume', p_outcome.feature_id, p_outcome.amount, true, p_outcome.current,
        p_outcome.limit_value, p_outcome.remaining, p_outcome.reserved, 'ok', p_outcome.plan_id, p_outcome.source,
        p_outcome.period, p_outcome.period_start, p_outcome.resets_at, p_outcome.overage)
    ON CONFLICT (user_id, key) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE public.usage_counters n SET used = n.used + p_outcome.amount, overage = n.overage + p_outcome.overage
    WHERE n.user_id = p_outcome.user_id AND n.feature_id = p_outcome.feature_id
      AND n.period = p_outcome.period AND n.period_start = p_outcome.period_start;
    -- By the clock: the transaction may have begun hours ago, and roll_up_usage relies on an event being no older than its
    -- transaction's id.
    INSERT INTO public.usage_events (user_id, feature_id, period, period_start, amount, overage, idempotency_key, created_at)
    VALUES (p_outcome.user_id, p_outcome.feature_id, p_outcome.period, p_outcome.period_start, p_outcome.amount,
        p_outcome.overage, p_outcome.key, pg_catalog.clock_timestamp());
    IF p_outcome.overage > 0 THEN
        UPDATE public.users u SET token_balance = u.token_balance - p_outcome.overage
        WHERE u.id = p_outcome.user_id RETURNING u.token_balance INTO STRICT balance;
        INSERT INTO public.token_transactions (user_id, amount, type, description, balance_after)
        VALUES (p_outcome.user_id, -p_outcome.overage, 'usage', p_outcome.feature_id || ' beyond the limit', balance);
    END IF;
    RETURN true;
END
$$;

-- One consumption in the caller's transaction, with its result: the outcome as stored under its idempotency key, or as
-- it would be if granted. It reads, locks and writes the same as a batch of the service, so that a key used here is
-- replayed there, and the other way round. Locks, until the caller's transaction ends, in the common order: the user's
-- row if tokens may be spent, then the counter. Whether tokens are needed is known only under the counter's lock, so
-- the row is locked for every feature that may cost some. If the plan changed to such a feature while the counter was
-- waited for, the order cannot be kept any more: 40001. Under READ COMMITTED each statement here sees what was
-- committed before it, so each pass of the loop reads everything again, and the pass that decides reads under the
-- locks. Under REPEATABLE READ the snapshot is the transaction's: a counter, a balance or a key that another
-- transaction changed since raises 40001, and no limit is exceeded. The plans always use the primary keys, whatever the
-- statistics are, like those of the service.
CREATE OR REPLACE FUNCTION public.count_consumption(
    p_user_id uuid, p_feature_id text, p_amount bigint, p_key text, OUT outcome public.idempotency_keys, OUT replayed boolean
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    facts record;
    balance_is_locked boolean := false;
    locked_period text;
    locked_start timestamptz;
BEGIN
    -- Before any word about the request, and the same whether there is such a user or not.
    IF NOT public.may_see_user(p_user_id) THEN
        RAISE EXCEPTION 'usage of another user cannot be consumed' USING ERRCODE = '42501';
    ELSIF EXISTS (
        SELECT FROM public.users u CROSS JOIN public.identity_states(ARRAY[p_user_id]) s
        WHERE u.id = p_user_id AND s.state IN ('banned', 'deleted')
    ) THEN
        RAISE EXCEPTION 'the identity is banned or deleted' USING ERRCODE = '42501';
    ELSIF p_amount IS NULL OR p_amount < 1 THEN
        RAISE EXCEPTION 'amount must be 1 or more' USING ERRCODE = '22023';
    ELSIF p_key !~ '^[ -~]{1,255}$' COLLATE "C" THEN
        RAISE EXCEPTION 'an idempotency key has 1 to 255 visible ASCII characters' USING ERRCODE = '22023';
    END IF;

    -- Two passes as a rule: to the lock, and under it. Each further one follows a change that was committed in between.
    FOR pass IN 1..10 LOOP
        SELECT k.* INTO outcome FROM public.idempotency_keys k WHERE k.user_id = p_user_id AND k.key = p_key;
        IF FOUND THEN
            IF (outcome.feature_id, outcome.amount, outcome.digest) IS DISTINCT FROM (p_feature_id, p_amount, 'consume'::bytea) THEN
                RAISE EXCEPTION 'this idempotency key was used for something else' USING ERRCODE = '22023';
            END IF;
            replayed := true;
            RETURN;
        END IF;

        SELECT d.* INTO facts FROM public.usage_decision(p_user_id, p_feature_id, p_amount) d;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no such %', CASE
                WHEN EXISTS (SELECT FROM public.users u WHERE u.id = p_user_id) THEN 'feature' ELSE 'user' END
                USING ERRCODE = 'P0002';
        ELSIF facts.kind = 'boolean' AND p_amount <> 1 THEN
            RAISE EXCEPTION 'the feature % is had or not, so it is consumed one at a time', p_feature_id USING ERRCODE = '22023';
        END IF;

        IF facts.may_cost_tokens AND NOT balance_is_locked THEN
            IF locked_start IS NOT NULL THEN
                RAISE EXCEPTION 'the plan changed meanwhile: try again' USING ERRCODE = '40001';
            END IF;
            PERFORM FROM public.users u WHERE u.id = p_user_id FOR NO KEY UPDATE;
            balance_is_locked := true;
        END IF;
        IF (locked_period, locked_start) IS DISTINCT FROM (facts.period::text, facts.period_start) THEN
            PERFORM FROM public.usage_counters n
            WHERE n.user_id = p_user_id AND n.feature_id = p_feature_id AND n.period = facts.period
              AND n.period_start = facts.period_start AND NOT n.superseded
            FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                PERFORM public.open_usage_counter(p_user_id, p_feature_id, facts.period, facts.period_start, facts.period_end);
            END IF;
            locked_period := facts.period;
            locked_start := facts.period_start;
            CONTINUE;
        END IF;

        -- What follows is the twin of domain::usage::consume. A counter ends at 2^63 - 1, where there is no limit too.
        outcome.reason := CASE
            WHEN facts.reason = 'ok' AND facts.used > 9223372036854775807 - p_amount THEN 'limit_reached' ELSE facts.reason END;
        outcome.allowed := outcome.reason = 'ok';
        outcome.current := facts.used + CASE WHEN outcome.allowed THEN p_amount ELSE 0 END;
        outcome.remaining := CASE
            WHEN outcome.allowed AND facts.remaining IS NOT NULL THEN greatest(0, facts.remaining - p_amount) ELSE facts.remaining END;
        -- greatest() passes over a NULL: without a limit nothing lies beyond it.
        outcome.overage := CASE WHEN outcome.allowed THEN greatest(0, p_amount - facts.remaining) ELSE 0 END;
        outcome.user_id := p_user_id;
        outcome.key := p_key;
        outcome.feature_id := p_feature_id;
        outcome.amount := p_amount;
        outcome.limit_value := facts.limit_value;
        outcome.reserved := facts.reserved;
        outcome.plan_id := facts.plan_id;
        outcome.source := facts.source;
        outcome.period := facts.period;
        outcome.period_start := facts.period_start;
        outcome.resets_at := facts.period_end;
        outcome.created_at := facts.as_of;
        replayed := false;
        IF NOT outcome.allowed OR public.record_consumption(outcome) THEN
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'the period or the key changed too often meanwhile: try again' USING ERRCODE = '40001';
END
$$;

-- Consumes in the caller's transaction: the quota commits or rolls back together with the caller's other writes.
-- Returns one row, for a refusal too; bad input, an unknown feature and another user raise. Without an idempotency key
-- one is generated. It is written in SQL, since PL/pgSQL accepts no argument with the name of a result column.
CREATE OR REPLACE FUNCTION public.consume_usage(
    user_id uuid, feature_id text, amount bigint DEFAULT 1, idempotency_key text DEFAULT NULL
) RETURNS TABLE (
    allowed boolean, current bigint, "limit" bigint, remaining bigint, reserved bigint, reason text, feature_id text,
    plan_id text, source text, period_start timestamptz, resets_at timestamptz, as_of timestamptz, replayed boolean,
    idempotency_key text
)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (c.outcome).allowed, (c.outcome).current, (c.outcome).limit_value, (c.outcome).remaining, (c.outcome).reserved,
        (c.outcome).reason::text, (c.outcome).feature_id::text, (c.outcome).plan_id::text, (c.outcome).source::text,
        (c.outcome).period_start, (c.outcome).resets_at, (c.outcome).created_at, c.replayed, (c.outcome).key
    FROM public.count_consumption($1, $2, $3, coalesce($4, gen_random_uuid()::text)) c
$$;
