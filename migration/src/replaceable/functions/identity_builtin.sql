-- The built-in identity. These functions exist only if auth.users is ours: an identity provider writes its own table.

-- An id is used once: the id of a deleted account is refused for all callers.
CREATE OR REPLACE FUNCTION public.identity_register(p_id uuid, p_email text, p_encrypted_password text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = p_id) THEN
        RAISE EXCEPTION 'this id belonged to a deleted account'
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'deleted_profiles_pkey';
    END IF;
    INSERT INTO auth.users (id, email, encrypted_password)
    VALUES (coalesce(p_id, pg_catalog.gen_random_uuid()), p_email, p_encrypted_password);
END
$$;

CREATE OR REPLACE FUNCTION public.identity_credentials(p_email text)
RETURNS TABLE (user_id uuid, email text, encrypted_password text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.id, a.email::text, a.encrypted_password::text FROM auth.users a
    WHERE pg_catalog.lower(a.email) = pg_catalog.lower(p_email)
$$;

CREATE OR REPLACE FUNCTION public.identity_set_password(p_user_id uuid, p_encrypted_password text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE auth.users SET encrypted_password = p_encrypted_password, updated_at = CURRENT_TIMESTAMP WHERE id = p_user_id
$$;

-- The cascade deletes the profile and its data; the trigger keep_tombstone records that it existed.
CREATE OR REPLACE FUNCTION public.identity_delete(p_user_id uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM auth.users WHERE id = p_user_id
$$;
