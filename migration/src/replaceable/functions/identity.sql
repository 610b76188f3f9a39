-- The identity, built-in or a provider's. Only definer functions read auth.users: on Supabase it has row-level security
-- without a policy, which gives NULLs or errors to all roles but its owner and BYPASSRLS roles.

-- The e-mail address, for the user, the service's roles, the reports' role and the owner; NULL for all others.
CREATE OR REPLACE FUNCTION public.identity_email(p_user_id uuid) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.email::text FROM auth.users a
    WHERE a.id = p_user_id
      AND (public.may_see_user(p_user_id) OR pg_catalog.pg_has_role(public.caller_role(), 'readonly_user', 'USAGE'))
$$;

CREATE OR REPLACE FUNCTION public.identity_find(p_email text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.id FROM auth.users a WHERE pg_catalog.lower(a.email) = pg_catalog.lower(p_email) ORDER BY a.created_at LIMIT 1
$$;

CREATE OR REPLACE FUNCTION public.identity_exists(p_user_id uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM auth.users a WHERE a.id = p_user_id)
$$;

-- One spelling of an address: lower case and NFC. Only UTF-8 databases have NFC.
CREATE OR REPLACE FUNCTION public.normal_address(p_address text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT nullif(pg_catalog.lower(CASE WHEN pg_catalog.current_setting('server_encoding') = 'UTF8'
        THEN normalize(pg_catalog.btrim(p_address), NFC) ELSE pg_catalog.btrim(p_address) END), '')
$$;

-- The state of identities at the provider: 'active', 'banned', 'deleted', or 'unknown' for an id that it never had. The
-- identity was created at began_at; NULL if the provider does not report it. A provider's table may lack any column
-- except id and email, so the others are read from the row's JSON, which costs some microseconds per row.
CREATE OR REPLACE FUNCTION public.identity_states(p_user_ids uuid[])
RETURNS TABLE (user_id uuid, state text, began_at timestamptz, is_anonymous boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.id,
        CASE
            WHEN a.id IS NULL THEN CASE
                WHEN EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = w.id) THEN 'deleted' ELSE 'unknown' END
            WHEN a.fields ->> 'deleted_at' IS NOT NULL THEN 'deleted'
            WHEN (a.fields ->> 'banned_until')::timestamptz > pg_catalog.clock_timestamp() THEN 'banned'
            ELSE 'active'
        END,
        (a.fields ->> 'created_at')::timestamptz,
        coalesce(a.fields ->> 'is_anonymous' = 'true', false)
    FROM pg_catalog.unnest(p_user_ids) w (id)
    LEFT JOIN LATERAL (SELECT i.id, pg_catalog.to_jsonb(i) AS fields FROM auth.users i WHERE i.id = w.id OFFSET 0) a ON true
$$;

-- The digests by which the mailbox and the telephone of an identity are recognised. See address_digests.
CREATE OR REPLACE FUNCTION public.identity_digests(p_user_id uuid) RETURNS SETOF bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.sha256(pg_catalog.convert_to(w.address, 'UTF8'))
    FROM auth.users a
    CROSS JOIN LATERAL (VALUES
        (public.normal_address(a.email::text)), ('tel:' || nullif(pg_catalog.to_jsonb(a) ->> 'phone', ''))
    ) w (address)
    WHERE a.id = p_user_id AND w.address IS NOT NULL
$$;

-- Whether this identity alone owns the address: it is confirmed, the identity is active, and no second identity has it
-- in any spelling. The comparison folds only ASCII, so that look-alikes do not match. If the provider's table does not
-- report what is confirmed, the result is false. Reads all identities: for the start and the creation of one profile.
CREATE OR REPLACE FUNCTION public.identity_owns_address(p_user_id uuid, p_email text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM auth.users a CROSS JOIN public.identity_states(ARRAY[p_user_id]) s
        WHERE a.id = p_user_id AND s.state = 'active' AND NOT s.is_anonymous
          AND pg_catalog.lower(a.email::text COLLATE "C") = p_email
          AND pg_catalog.to_jsonb(a) ->> 'email_confirmed_at' IS NOT NULL
    ) AND (SELECT count(*) = 1 FROM auth.users b WHERE public.normal_address(b.email::text) = p_email)
$$;
