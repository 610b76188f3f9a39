-- The identity, wherever it lives. Only definer functions read auth.users: on Supabase it has row-level
-- security without a policy, which shows NULLs or refusals to everybody but its owner and BYPASSRLS roles.

-- The address for oneself, the service's roles, the reports' role and the owner; NULL for everybody else.
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
