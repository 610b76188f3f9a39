DROP TABLE public.replaceable_checksums;
DROP TABLE public.runtime_settings;
DROP TABLE public.signing_keys;
DROP TABLE public.refresh_tokens;
DROP TABLE public.sessions;
DROP TABLE public.feature_overrides;
DROP TABLE public.organization_members;
DROP TABLE public.organizations;
DROP TABLE public.deleted_profiles;
DROP TABLE public.users;
DROP TABLE public.plan_features;
DROP TABLE public.features;
DROP TABLE public.plans;

-- Only what carries our comment: Supabase's auth is not ours, whatever stands in it.
DO $auth$
DECLARE
    object record;
BEGIN
    FOR object IN
        SELECT p.oid::pg_catalog.regprocedure AS name FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'auth' AND p.proname IN ('uid', 'role', 'jwt')
          AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'product-base%'
    LOOP
        EXECUTE format('DROP FUNCTION %s', object.name);
    END LOOP;
    FOR object IN
        SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'auth' AND c.relname = 'users' AND pg_catalog.obj_description(c.oid, 'pg_class') LIKE 'product-base%'
    LOOP
        DROP TABLE auth.users;
    END LOOP;
    FOR object IN
        SELECT n.oid FROM pg_catalog.pg_namespace n
        WHERE n.nspname = 'auth' AND pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'product-base%'
    LOOP
        DROP SCHEMA auth;
    END LOOP;
END
$auth$;
