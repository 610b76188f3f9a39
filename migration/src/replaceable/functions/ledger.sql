-- The ledger of tokens: a chain of rows a user, each sealed by the hash of the one before it. The head of the
-- chain lives under the lock of the user's row; without it the unique (user_id, seq) refuses the second writer.

-- The canonical text of a row: quoted values, so that no two rows share one text; time in microseconds, whatever the time zone.
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

-- BEFORE INSERT on token_transactions. The chain is the database's: what the caller sent for it is replaced.
-- A missing balance_after is counted from the row before. Several rows of one statement chain too, since a
-- volatile trigger function sees the rows that the statement has already written.
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

-- BEFORE UPDATE on what is append only. There is no such trigger for DELETE, so that the cascade from the identity works.
CREATE OR REPLACE FUNCTION public.refuse_update() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation', HINT = 'Add a row that corrects it.';
END
$$;

-- BEFORE INSERT on users: whoever had a profile before has had the starting balance.
CREATE OR REPLACE FUNCTION public.apply_tombstone() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = NEW.id) THEN
        NEW.token_balance := 0;
        NEW.token_reserved := 0;
    END IF;
    RETURN NEW;
END
$$;

-- AFTER INSERT on users: the balance that a profile starts with is a row of the ledger, whoever inserted it.
CREATE OR REPLACE FUNCTION public.record_starting_balance() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.token_transactions (user_id, amount, type, description, balance_after)
    VALUES (NEW.id, NEW.token_balance, 'bonus', 'Starting balance', NEW.token_balance);
    RETURN NULL;
END
$$;

-- AFTER DELETE on users.
CREATE OR REPLACE FUNCTION public.keep_tombstone() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.deleted_profiles (user_id) VALUES (OLD.id)
    ON CONFLICT (user_id) DO UPDATE SET deleted_at = CURRENT_TIMESTAMP;
    RETURN NULL;
END
$$;
