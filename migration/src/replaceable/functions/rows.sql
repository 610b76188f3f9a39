-- What triggers do with a row: its times, its audit trail, and the notification of a change.

CREATE OR REPLACE FUNCTION public.update_updated_at_column() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at = CURRENT_TIMESTAMP;
    RETURN NEW;
END
$$;

-- BEFORE UPDATE on users, when the plan changes: writes the audit row of the plan change, and the time that
-- effective_plan compares with the end of the subscription that paid for the plan.
CREATE OR REPLACE FUNCTION public.check_plan_change_consistency() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.plan_changed_at IS NOT DISTINCT FROM OLD.plan_changed_at THEN
        -- By the clock, not by the transaction: within one, what came later must be later.
        NEW.plan_changed_at := pg_catalog.clock_timestamp();
    END IF;
    INSERT INTO public.audit_logs (table_name, record_id, action, old_values, new_values, actor_id, actor_name, reason)
    VALUES ('users', NEW.id::text, 'plan_change',
        pg_catalog.jsonb_build_object('plan_type', OLD.plan_id), pg_catalog.jsonb_build_object('plan_type', NEW.plan_id),
        public.request_actor(), session_user, nullif(pg_catalog.current_setting('app.reason', true), ''));
    RETURN NEW;
END
$$;

-- AFTER INSERT, UPDATE, DELETE on the catalogue, and on users for `role`. The first argument names the columns of the
-- record's id, joined by ':'; the second, if given, the only columns that are copied.
CREATE OR REPLACE FUNCTION public.audit_row() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN pg_catalog.to_jsonb(OLD) END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN pg_catalog.to_jsonb(NEW) END;
    id_columns text[] := pg_catalog.string_to_array(TG_ARGV[0], ',');
    only_columns text[] := pg_catalog.string_to_array(TG_ARGV[1], ',');
    record_key text;
BEGIN
    IF TG_OP = 'UPDATE' AND before - 'updated_at' = after - 'updated_at' THEN
        RETURN NULL;
    END IF;
    SELECT pg_catalog.string_agg(coalesce(after, before) ->> c.name, ':' ORDER BY c.n) INTO record_key
    FROM pg_catalog.unnest(id_columns) WITH ORDINALITY AS c (name, n);
    IF only_columns IS NOT NULL THEN
        before := (SELECT pg_catalog.jsonb_object_agg(e.key, e.value) FROM pg_catalog.jsonb_each(before) e WHERE e.key = ANY (only_columns));
        after := (SELECT pg_catalog.jsonb_object_agg(e.key, e.value) FROM pg_catalog.jsonb_each(after) e WHERE e.key = ANY (only_columns));
    END IF;
    INSERT INTO public.audit_logs (table_name, record_id, action, old_values, new_values, actor_id, actor_name, reason)
    VALUES (TG_TABLE_NAME, record_key, pg_catalog.lower(TG_OP), before, after,
        public.request_actor(), session_user, nullif(pg_catalog.current_setting('app.reason', true), ''));
    RETURN NULL;
END
$$;

-- BEFORE INSERT OR UPDATE on user_subscriptions: sets when it became past due, when it ended, and whether it is the one
-- that counts. A time sent by the writer (Stripe's) is kept; a live status clears times that no longer apply. If none
-- is sent, it became past due when its period began, which is what the unpaid invoice is for; the event may arrive days
-- later. end_recorded_at is by our own clock: only that may be compared with users.plan_changed_at. A second live
-- subscription is stored beside the first, which still counts: refusing it would refuse its event for ever.
CREATE OR REPLACE FUNCTION public.set_subscription_times() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_since timestamptz := CASE WHEN TG_OP = 'UPDATE' THEN OLD.past_due_since END;
    old_ended timestamptz := CASE WHEN TG_OP = 'UPDATE' THEN OLD.ended_at END;
    old_recorded timestamptz := CASE WHEN TG_OP = 'UPDATE' THEN OLD.end_recorded_at END;
    entered boolean := TG_OP = 'INSERT' OR OLD.status IS DISTINCT FROM NEW.status;
BEGIN
    IF NEW.status = 'past_due' THEN
        IF NEW.past_due_since IS NULL OR (entered AND NEW.past_due_since IS NOT DISTINCT FROM old_since) THEN
            NEW.past_due_since := CASE WHEN NOT entered THEN old_since END;
            NEW.past_due_since := coalesce(NEW.past_due_since, least(NEW.current_period_start, CURRENT_TIMESTAMP));
        END IF;
        NEW.ended_at := NULL;
        NEW.end_recorded_at := NULL;
    ELSIF NEW.status IN ('canceled', 'unpaid', 'incomplete_expired') THEN
        -- From one dead status to another (unpaid, then canceled) it ended only once.
        NEW.ended_at := coalesce(NEW.ended_at, old_ended, clock_timestamp());
        NEW.end_recorded_at := coalesce(old_recorded, clock_timestamp());
    ELSE
        NEW.past_due_since := NULL;
        NEW.ended_at := NULL;
        NEW.end_recorded_at := NULL;
    END IF;
    NEW.is_duplicate := NEW.status IN ('trialing', 'active', 'past_due') AND EXISTS (
        SELECT FROM public.user_subscriptions o
        WHERE o.user_id = NEW.user_id AND o.id <> NEW.id AND o.status IN ('trialing', 'active', 'past_due') AND NOT o.is_duplicate);
    RETURN NEW;
END
$$;

-- AFTER the subscription that counted ended or was deleted: the best of the others counts from now on.
CREATE OR REPLACE FUNCTION public.promote_subscription() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.user_subscriptions u SET is_duplicate = false
    WHERE u.id = (
        SELECT s.id FROM public.user_subscriptions s
        WHERE s.user_id = OLD.user_id AND s.is_duplicate AND s.status IN ('trialing', 'active', 'past_due')
        ORDER BY s.status = 'active' DESC, s.status = 'trialing' DESC, s.created_at, s.id LIMIT 1);
    RETURN NULL;
END
$$;

-- BEFORE INSERT on audit_logs and model_prices: the values of a DEFAULT, which tools could not read.
CREATE OR REPLACE FUNCTION public.name_the_actor() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.actor_name := coalesce(NEW.actor_name, session_user);
    RETURN NEW;
END
$$;

-- BEFORE INSERT on ai_usage_logs: the provider is one that is known. It runs as the owner, since users do not read the names.
CREATE OR REPLACE FUNCTION public.check_ai_provider() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.ai_providers p WHERE p.id = NEW.provider) THEN
        RAISE EXCEPTION '% is no known provider', NEW.provider USING ERRCODE = 'check_violation', CONSTRAINT = 'check_provider',
            TABLE = 'ai_usage_logs';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.price_anywhere() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.geo := coalesce(NEW.geo, '');
    RETURN NEW;
END
$$;

-- AFTER a change that caches must be notified of. One short payload per object: 'catalogue', 'user:<id>' or 'key:<id>';
-- Postgres sends equal ones of a transaction once. The arguments are the kind and the column of the id. Counters send
-- nothing: a NOTIFY takes a global lock at commit, which the hot path must avoid.
CREATE OR REPLACE FUNCTION public.notify_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed jsonb := CASE WHEN TG_OP = 'DELETE' THEN pg_catalog.to_jsonb(OLD) ELSE pg_catalog.to_jsonb(NEW) END;
BEGIN
    IF TG_ARGV[0] = 'catalogue' THEN
        PERFORM pg_catalog.pg_notify('product_base_changes', 'catalogue');
    ELSE
        PERFORM pg_catalog.pg_notify('product_base_changes', TG_ARGV[0] || ':' || (changed ->> TG_ARGV[1]));
    END IF;
    RETURN NULL;
END
$$;
