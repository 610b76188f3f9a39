-- The token ledger: a chain of rows per user, each with the hash of the one before it. The user's row lock protects the
-- head of the chain; without that lock the unique (user_id, seq) refuses the second writer.

-- The canonical text of a row: values are quoted, so no two rows have the same text; time in UTC microseconds.
CREATE OR REPLACE FUNCTION public.ledger_hash(
    p_prev_hash bytea, p_id uuid, p_user_id uuid, p_seq bigint, p_amount bigint, p_type text, p_balance_after bigint,
    p_description text, p_reference_id uuid, p_idempotency_key text, p_created_at timestamptz
) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT sha256(coalesce(p_prev_hash, ''::pg_catalog.bytea) || convert_to(
        p_id::pg_catalog.text || '|' || p_user_id::pg_catalog.text || '|' || p_seq::pg_catalog.text || '|' || p_amount::pg_catalog.text || '|' || quote_nullable(p_type)
        || '|' || p_balance_after::pg_catalog.text || '|' || quote_nullable(p_description) || '|' || quote_nullable(p_reference_id::pg_catalog.text)
        || '|' || quote_nullable(p_idempotency_key)
        || '|' || trunc(extract(epoch FROM p_created_at AT TIME ZONE 'UTC') * 1000000)::pg_catalog.text, 'UTF8'))
$$;

-- BEFORE INSERT on token_transactions. The database sets the chain: values sent by the caller are replaced. A missing
-- balance_after is computed from the previous row. Several rows of one statement form a chain too, since a volatile
-- trigger function sees the rows that the statement has already written.
CREATE OR REPLACE FUNCTION public.chain_token_transaction() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    head record;
BEGIN
    SELECT t.seq, t.hash, t.balance_after INTO head FROM public.token_transactions t
    WHERE t.user_id = NEW.user_id ORDER BY t.seq DESC LIMIT 1;
    NEW.seq := coalesce(head.seq, 0) + 1;
    NEW.prev_hash := head.hash;
    NEW.balance_after := coalesce(NEW.balance_after, coalesce(head.balance_after, 0) + NEW.amount);
    NEW.hash := public.ledger_hash(NEW.prev_hash, NEW.id, NEW.user_id, NEW.seq, NEW.amount, NEW.type, NEW.balance_after,
        NEW.description, NEW.reference_id, NEW.idempotency_key, NEW.created_at);
    RETURN NEW;
END
$$;

-- AFTER INSERT on token_transactions: updates the head that is stored outside the ledger, if the row that it names is
-- unchanged. If that row was deleted or rewritten, the head stays, and the checks find it.
CREATE OR REPLACE FUNCTION public.note_ledger_head() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.ledger_heads AS h (user_id, seq, hash, balance) VALUES (NEW.user_id, NEW.seq, NEW.hash, NEW.balance_after)
    ON CONFLICT (user_id) DO UPDATE SET seq = EXCLUDED.seq, hash = EXCLUDED.hash, balance = EXCLUDED.balance
        WHERE h.seq < EXCLUDED.seq
          AND EXISTS (SELECT FROM public.token_transactions t WHERE t.user_id = h.user_id AND t.seq = h.seq AND t.hash = h.hash);
    RETURN NULL;
END
$$;

-- BEFORE UPDATE on append-only tables. There is no such trigger for DELETE: the cascade from the identity must work.
CREATE OR REPLACE FUNCTION public.refuse_update() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation', HINT = 'Add a row that corrects it.';
END
$$;

-- BEFORE INSERT on users. A profile starts with no tokens if its id, its mailbox or its telephone had a profile before,
-- or if its identity is anonymous, banned or deleted. Use by an address under an id that is gone counts for the new id.
CREATE OR REPLACE FUNCTION public.apply_tombstone() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    digests bytea[] := ARRAY(SELECT d.digest FROM public.identity_digests(NEW.id) d (digest) ORDER BY 1);
    had_before boolean := EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = NEW.id);
    earlier uuid;
BEGIN
    INSERT INTO public.address_digests (digest, user_id) SELECT d.digest, NEW.id FROM pg_catalog.unnest(digests) d (digest)
    ON CONFLICT (digest) DO NOTHING;
    FOR earlier IN
        SELECT k.user_id FROM public.address_digests k
        WHERE k.digest = ANY (digests) AND k.user_id <> NEW.id ORDER BY k.digest FOR UPDATE
    LOOP
        had_before := true;
        IF NOT EXISTS (SELECT FROM public.users u WHERE u.id = earlier)
           OR EXISTS (SELECT FROM public.identity_states(ARRAY[earlier]) s WHERE s.state <> 'active') THEN
            PERFORM public.carry_usage(earlier, NEW.id);
        END IF;
    END LOOP;
    UPDATE public.address_digests k SET user_id = NEW.id WHERE k.digest = ANY (digests) AND k.user_id <> NEW.id;
    IF had_before
       OR EXISTS (SELECT FROM public.identity_states(ARRAY[NEW.id]) s WHERE s.is_anonymous OR s.state IN ('banned', 'deleted')) THEN
        NEW.token_balance := 0;
        NEW.token_reserved := 0;
    END IF;
    RETURN NEW;
END
$$;

-- Counts the use of one id's open periods for another id. Reservations count as used: their calls may still be charged,
-- and only there. The rows are locked, so that a consumption in progress ends first.
CREATE OR REPLACE FUNCTION public.carry_usage(p_from uuid, p_to uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH counters AS (
        SELECT n.feature_id, n.period, n.period_start, n.period_end, n.superseded,
            least(n.used::numeric - n.overage + n.reserved, 9223372036854775807)::bigint AS counted
        FROM public.usage_counters n
        WHERE n.user_id = p_from AND n.period_start <= CURRENT_TIMESTAMP
          AND coalesce(n.period_end, public.usage_period_end(n.period, n.period_start, n.period_start), 'infinity') > CURRENT_TIMESTAMP
        ORDER BY n.feature_id, n.period, n.period_start
        FOR NO KEY UPDATE
    )
    INSERT INTO public.usage_counters AS n
        (user_id, feature_id, period, period_start, period_end, used, carried, superseded)
    SELECT p_to, c.feature_id, c.period, c.period_start, c.period_end, c.counted, c.counted, c.superseded FROM counters c
    ON CONFLICT (user_id, feature_id, period, period_start) DO UPDATE SET
        used = n.used + greatest(0, excluded.used - (n.used - n.overage)),
        carried = n.carried + greatest(0, excluded.used - (n.used - n.overage))
$$;

-- AFTER INSERT on users: the starting balance becomes a row of the ledger, whatever inserted the user.
CREATE OR REPLACE FUNCTION public.record_starting_balance() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.token_transactions (user_id, amount, type, description, balance_after)
    VALUES (NEW.id, NEW.token_balance, 'bonus', 'Starting balance', NEW.token_balance);
    RETURN NULL;
END
$$;

-- AFTER DELETE on users. Stored responses are deleted too: a new profile with this id must not receive them.
CREATE OR REPLACE FUNCTION public.keep_tombstone() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.deleted_profiles (user_id) VALUES (OLD.id)
    ON CONFLICT (user_id) DO UPDATE SET deleted_at = CURRENT_TIMESTAMP;
    DELETE FROM public.idempotent_answers k WHERE k.user_id = OLD.id;
    DELETE FROM public.ledger_heads h WHERE h.user_id = OLD.id;
    RETURN NULL;
END
$$;
