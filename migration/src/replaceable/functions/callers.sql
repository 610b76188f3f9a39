-- The caller of a request. No function here names the schema auth: on Supabase app_service has no right on it.
--
-- For all files of this folder: definer functions, trigger functions and all PL/pgSQL functions have SET search_path =
-- pg_catalog, pg_temp. If pg_temp is not named last, Postgres searches it first for types and tables, so a caller's
-- temporary domain "text" with a CHECK would run the caller's code as the owner. SQL functions that must stay inlinable
-- have no SET, which would prevent it; they qualify their types instead.

-- The caller's id from the claims; NULL without claims and for a subject that is not a UUID, so that no rows are
-- visible. The single claim comes first, as in GoTrue's auth.uid(): policies and functions must see the same user.
CREATE OR REPLACE FUNCTION public.request_user_id() RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN c.sub ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN c.sub::uuid END
    FROM (SELECT coalesce(
        nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
        nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    ) AS sub) c
$$;

-- The role that the caller set. In a definer function current_user is its owner; this setting stays the caller's.
CREATE OR REPLACE FUNCTION public.caller_role() RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN r.role IN ('none', '') THEN session_user ELSE r.role::name END
    FROM (SELECT coalesce(pg_catalog.current_setting('role', true), 'none') AS role) r
$$;

-- Whether a definer function may return data of this user: to the user, to the service's roles and to the owner. Only
-- for calls from definer functions, where current_user is the owner.
CREATE OR REPLACE FUNCTION public.may_see_user(p_user_id uuid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(p_user_id = public.request_user_id(), false) OR EXISTS (
        SELECT FROM pg_catalog.pg_roles r
        WHERE r.rolname = public.caller_role()
          AND (r.rolname = current_user OR r.rolsuper
               OR pg_catalog.pg_has_role(r.oid, 'app_service', 'USAGE')
               OR pg_catalog.pg_has_role(r.oid, 'service_role', 'USAGE'))
    )
$$;

-- For the audit trail: the transaction's setting, else the subject of the claims, else NULL.
CREATE OR REPLACE FUNCTION public.request_actor() RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        CASE WHEN a.actor ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN a.actor::uuid END,
        public.request_user_id()
    )
    FROM (SELECT pg_catalog.current_setting('app.actor_id', true) AS actor) a
$$;

-- The organizations that the caller owns or belongs to. A definer function, because a policy on the members that reads
-- the members would recurse.
CREATE OR REPLACE FUNCTION public.member_organizations() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.organization_id FROM public.organization_members m WHERE m.user_id = public.request_user_id()
    UNION
    SELECT o.id FROM public.organizations o WHERE o.owner_id = public.request_user_id()
$$;
