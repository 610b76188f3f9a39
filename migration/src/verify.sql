-- Checks in SQL. Every query returns (severity, finding, subject, detail); {tables} includes product_base_migrations.

-- @ row-level security on every table and partition
SELECT 'error' AS severity, 'RLS_DISABLED' AS finding, c.oid::regclass::text AS subject, 'row-level security is off: run repair' AS detail
FROM pg_catalog.pg_class c
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity
  AND coalesce(p.relname, c.relname) = ANY ({tables})

-- @ functions that take nothing from their callers' path
SELECT 'error', 'DEFINER_SEARCH_PATH', p.oid::regprocedure::text, 'a function of ours without SET search_path = pg_catalog, pg_temp: run repair'
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY ({functions})
  AND (p.prosecdef OR l.lanname <> 'sql' OR p.prorettype = 'pg_catalog.trigger'::regtype
    OR EXISTS (SELECT FROM unnest(p.proconfig) setting WHERE setting LIKE 'search_path=%'))
  AND NOT coalesce(p.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']

-- @ definer functions of nobody
SELECT 'warning', 'FOREIGN_DEFINER', p.oid::regprocedure::text, 'runs as ' || o.rolname || ', who owns our tables, and a caller chooses where it finds its types'
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
WHERE p.prosecdef AND p.proname <> ALL ({functions}) AND p.pronamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')
  AND p.proowner = (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = 'public.users'::regclass)
  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) setting WHERE setting ~ '^search_path=.*pg_temp$')

-- @ temporary objects
SELECT 'warning', 'PUBLIC_TEMPORARY', d.datname::text, 'everybody may make temporary objects: run up'
FROM pg_catalog.pg_database d
WHERE d.datname = current_database() AND pg_catalog.pg_has_role(current_user, d.datdba, 'USAGE') AND EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x WHERE x.grantee = 0 AND x.privilege_type = 'TEMPORARY')

-- @ who could hold the locks of our jobs
SELECT 'error', 'LOCK_RIGHT', CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END, 'has ' || x.privilege_type || ' on product_base_locks and could stop migrations and jobs: run up'
FROM pg_catalog.pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) x
WHERE c.oid = to_regclass('public.product_base_locks') AND x.grantee <> c.relowner

-- @ views that read as their caller
SELECT 'error', 'VIEW_AS_OWNER', c.oid::regclass::text, 'the view reads as its owner: security_invoker is off: run repair'
FROM pg_catalog.pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY ({views})
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) o WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)

-- @ roles
SELECT 'error', 'ROLE_RIGHTS', r.rolname::text, concat_ws(', ',
    CASE WHEN r.rolsuper THEN 'is a superuser' END, CASE WHEN r.rolbypassrls THEN 'bypasses row-level security' END,
    CASE WHEN r.rolcreaterole THEN 'may make roles' END, CASE WHEN r.rolcreatedb THEN 'may make databases' END,
    CASE WHEN r.rolreplication THEN 'may replicate' END,
    CASE WHEN r.rolname = 'app_user' AND pg_catalog.pg_has_role(r.oid, 'app_service', 'USAGE') THEN 'has the rights of app_service without SET ROLE' END,
    CASE WHEN r.rolname = 'app_user' AND r.rolinherit THEN 'inherits the rights of its roles' END,
    CASE WHEN r.rolname = 'app_service' AND r.rolcanlogin THEN 'may log in' END) || ': run up'
FROM pg_catalog.pg_roles r
WHERE r.rolname IN ('app_user', 'app_service', 'readonly_user', 'anon', 'authenticated')
  AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
    OR (r.rolname = 'app_user' AND (r.rolinherit OR pg_catalog.pg_has_role(r.oid, 'app_service', 'USAGE')))
    OR (r.rolname = 'app_service' AND r.rolcanlogin))

-- @ whose member the service's login and roles are
SELECT 'error', 'EXCESS_MEMBERSHIP', u.rolname::text, 'is a member of ' || g.rolname || ': REVOKE ' || g.rolname || ' FROM ' || u.rolname
FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
WHERE u.rolname IN ('app_user', 'app_service', 'readonly_user', 'anon', 'authenticated')
  AND NOT (u.rolname = 'app_user' AND g.rolname IN ('authenticated', 'app_service'))

-- @ who may become the service
-- The migrating logins of this cluster are members, and Postgres makes the creator of a role its member, without SET.
SELECT 'error', 'EXCESS_MEMBERSHIP', u.rolname::text, 'is a member of ' || g.rolname || ' and may act as the service: run repair, or REVOKE ' || g.rolname || ' FROM ' || u.rolname
FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
WHERE g.rolname IN ('app_service', 'app_user') AND NOT (u.rolname = 'app_user' AND NOT m.admin_option)
  AND NOT u.rolsuper AND NOT u.rolcreaterole AND u.rolname <> ALL (ARRAY['app_service', 'readonly_user', 'anon', 'authenticated', session_user::text, current_user::text])
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_database d WHERE d.datdba = u.oid)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = 'public.users'::regclass AND c.relowner = u.oid)

-- @ rights on the schema
SELECT CASE WHEN x.grantee = 0 OR r.rolname = ANY ({roles}) THEN 'error' ELSE 'warning' END, 'EXCESS_RIGHT', coalesce(r.rolname::text, 'PUBLIC') || ' CREATE schema public',
    'may make objects beside ours: REVOKE CREATE ON SCHEMA public FROM ' || coalesce(r.rolname::text, 'PUBLIC')
FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
WHERE n.nspname = 'public' AND x.privilege_type = 'CREATE' AND x.grantee <> n.nspowner
  AND NOT coalesce(r.rolsuper OR pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER') AND r.rolname <> ALL ({roles}) OR r.rolname = 'pg_database_owner', false)
UNION ALL
SELECT 'error', 'MISSING_RIGHT', n.name || ' USAGE schema public', 'reaches nothing of ours: run repair'
FROM unnest({roles}) AS n (name) JOIN pg_catalog.pg_roles r ON r.rolname = n.name WHERE NOT has_schema_privilege(r.oid, 'public', 'USAGE')

-- @ rights on the database
SELECT 'error', 'EXCESS_RIGHT', coalesce(r.rolname::text, 'PUBLIC') || ' ' || x.privilege_type || ' database', 'run repair, or REVOKE ' || x.privilege_type || ' ON DATABASE ' || d.datname || ' FROM ' || coalesce(r.rolname::text, 'PUBLIC')
FROM pg_catalog.pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
WHERE d.datname = current_database() AND x.grantee <> d.datdba AND (x.grantee = 0 AND x.privilege_type = 'CREATE' OR r.rolname = ANY ({roles}) AND (x.privilege_type <> 'CONNECT' OR x.is_grantable) AND NOT {provider})
UNION ALL
SELECT 'error', 'MISSING_RIGHT', n.name || ' CONNECT database', 'cannot connect: run repair'
FROM unnest(ARRAY['app_user', 'readonly_user']) AS n (name) JOIN pg_catalog.pg_roles r ON r.rolname = n.name WHERE NOT has_database_privilege(r.oid, current_database(), 'CONNECT')

-- @ what new objects would be given
-- Supabase grants new objects to its roles; each step and each month closes its own.
SELECT 'error', 'DEFAULT_RIGHT', coalesce(r.rolname::text, 'PUBLIC') || ' ' || x.privilege_type || ' on new objects of the kind ' || a.defaclobjtype::text, 'is given by default privileges of ' || pg_catalog.pg_get_userbyid(a.defaclrole) || ': run repair'
FROM pg_catalog.pg_default_acl a CROSS JOIN LATERAL aclexplode(a.defaclacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
WHERE NOT {provider} AND a.defaclrole = (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = 'public.users'::regclass)
  AND (a.defaclnamespace = 0 OR a.defaclnamespace = 'public'::regnamespace) AND x.grantee <> a.defaclrole
  AND NOT (x.grantee = 0 AND a.defaclnamespace = 0 AND a.defaclobjtype IN ('f', 'T'))

-- @ settings that silence triggers and policies
SELECT 'error', 'ROLE_SETTING', coalesce(nullif(s.setrole, 0)::regrole::text, 'every role'), 'has ' || c.setting || ', which silences triggers: ALTER ROLE or ALTER DATABASE .. RESET it'
FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
WHERE (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()))
  AND c.setting ~ '^session_replication_role=(replica|local)'

-- @ login
SELECT 'warning', 'LOGIN_CLOSED', r.rolname::text, 'may not log in, and the service logs in with it: run up, or ALTER ROLE app_user LOGIN'
FROM pg_catalog.pg_roles r WHERE r.rolname = 'app_user' AND NOT r.rolcanlogin

-- @ roles that are missing
SELECT 'error', 'MISSING_ROLE', n.name, 'the role does not exist: run up'
FROM unnest(ARRAY['anon', 'authenticated', 'service_role', 'app_service', 'app_user', 'readonly_user']) AS n (name)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = n.name)

-- @ who may become whom
SELECT 'error', 'MISSING_MEMBERSHIP', 'app_user', 'may not SET ROLE ' || n.name || ': GRANT ' || n.name || ' TO app_user'
FROM unnest(ARRAY['authenticated', 'app_service']) AS n (name)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
    WHERE g.rolname = n.name AND u.rolname = 'app_user')

-- @ what the service's login and roles own
SELECT 'error', 'ROLE_OWNS', r.rolname::text, count(*) || ' objects of this database are owned by it'
FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.deptype = 'o' AND r.rolname IN ('app_user', 'app_service', 'authenticated', 'anon')
  AND d.dbid = (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = current_database())
GROUP BY r.rolname

-- @ members with too many rights
SELECT 'warning', 'LOGIN_RIGHTS', r.rolname::text, 'a login that may act as app_service and '
    || CASE WHEN r.rolsuper THEN 'is a superuser' ELSE 'bypasses row-level security' END
    || ': right for migrations; the service should log in as app_user'
FROM pg_catalog.pg_roles r
WHERE r.rolcanlogin AND (r.rolsuper OR r.rolbypassrls)
  AND (r.rolname = session_user OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m
      WHERE m.member = r.oid AND m.roleid = (SELECT g.oid FROM pg_catalog.pg_roles g WHERE g.rolname = 'app_service')))

-- @ the identity behind the definer functions
SELECT 'error', 'AUTH_UNREADABLE', o.rolname::text, 'owns the definer functions and cannot read auth.users: it needs USAGE on auth, SELECT on auth.users and BYPASSRLS'
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
CROSS JOIN pg_catalog.pg_class c
WHERE p.pronamespace = 'public'::regnamespace AND p.proname = 'identity_email'
  AND c.relname = 'users' AND c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'auth')
  AND NOT (o.rolsuper OR (has_table_privilege(o.oid, c.oid, 'SELECT') AND (o.rolbypassrls OR c.relowner = o.oid OR NOT c.relrowsecurity)))

-- @ partitions that must be there
SELECT 'error', 'MISSING_PARTITION', n.parent || to_char(m.month, '"_"YYYY"_"MM'), 'rows of that month go to the default partition: run up, or SELECT maintain_partitions()'
FROM unnest(ARRAY['usage_events', 'ai_usage_logs']) AS n (parent)
CROSS JOIN LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => k) AS month FROM generate_series(0, 1) k) m
WHERE to_regclass('public.' || n.parent || to_char(m.month, '"_"YYYY"_"MM')) IS NULL

-- @ rows of no month
SELECT 'warning', 'DEFAULT_PARTITION', d.name, 'holds rows; maintain_partitions() moves them to their months'
FROM (SELECT 'usage_events_default' AS name WHERE EXISTS (SELECT FROM public.usage_events_default)
    UNION ALL SELECT 'ai_usage_logs_default' WHERE EXISTS (SELECT FROM public.ai_usage_logs_default)) d

-- @ integrity of the rows
SELECT 'error', f.finding, f.subject, f.detail FROM public.integrity_findings() f

-- @ sums before the last two days, where their events are still there
SELECT 'error', 'ROLLUP_MISMATCH', coalesce(r.user_id, e.user_id) || ':' || coalesce(r.feature_id, e.feature_id),
    'the hour from ' || coalesce(r.bucket, e.bucket) || ', ' || coalesce(r.period, e.period) || ', says ' || coalesce(r.amount, 0) || ' in ' || coalesce(r.events, 0)
        || ' events; they sum to ' || coalesce(e.amount, 0) || ' and are ' || coalesce(e.events, 0)
FROM (
    SELECT s.* FROM public.usage_rollups s JOIN public.rollup_watermarks w ON w.name = 'usage_events'
    WHERE s.bucket < coalesce(w.final_at, w.reached_at) - interval '48 hours'
) r
FULL JOIN (
    SELECT v.user_id, v.feature_id, v.period, v.period_start, date_trunc('hour', v.created_at, 'UTC') AS bucket,
        sum(v.amount) AS amount, sum(v.overage) AS overage, count(*) AS events
    FROM public.usage_events v JOIN public.rollup_watermarks w ON w.name = 'usage_events'
    WHERE v.created_at < coalesce(w.final_at, w.reached_at) - interval '48 hours' GROUP BY 1, 2, 3, 4, 5
) e ON e.user_id = r.user_id AND e.feature_id = r.feature_id AND e.period = r.period AND e.period_start = r.period_start AND e.bucket = r.bucket
WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (e.amount, e.overage, e.events)
  AND (e.user_id IS NOT NULL OR date_trunc('month', r.bucket, 'UTC') IN (SELECT m.month_start FROM public.usage_months() m))
LIMIT 1000

-- @ sums of everybody
SELECT 'error', 'TOTAL_MISMATCH', coalesce(t.feature_id, r.feature_id)::text,
    'the hour from ' || coalesce(t.bucket, r.bucket) || ' of everybody says ' || coalesce(t.amount, 0) || ' in ' || coalesce(t.events, 0)
        || ' events; the users'' sums come to ' || coalesce(r.amount, 0) || ' in ' || coalesce(r.events, 0)
FROM public.usage_totals t
FULL JOIN (
    SELECT s.bucket, s.feature_id, s.period, s.period_start, sum(s.amount) AS amount, sum(s.overage) AS overage, sum(s.events) AS events
    FROM public.usage_rollups s GROUP BY 1, 2, 3, 4
) r ON r.bucket = t.bucket AND r.feature_id = t.feature_id AND r.period = t.period AND r.period_start = t.period_start
WHERE (coalesce(t.amount, 0), coalesce(t.overage, 0), coalesce(t.events, 0)) IS DISTINCT FROM (coalesce(r.amount, 0), coalesce(r.overage, 0), coalesce(r.events, 0))
LIMIT 1000

-- @ AI calls and their sums
-- Logs may be written up to a day after their hour was summed; none is deleted before its month is dropped.
SELECT 'error', 'AI_TOTAL_MISMATCH', coalesce(t.provider, l.provider) || ':' || coalesce(t.model, l.model),
    'the hour from ' || coalesce(t.bucket, l.bucket) || ' was summed with ' || coalesce(t.requests, 0) || ' calls for ' || coalesce(t.cost_nano_usd, 0)
        || ' nano-dollars; its logs are ' || coalesce(l.requests, 0) || ' for ' || coalesce(l.cost_nano_usd, 0)
FROM public.ai_usage_totals t
FULL JOIN (
    SELECT date_trunc('hour', g.created_at, 'UTC') AS bucket, g.provider, coalesce(g.model, '') AS model, count(*) AS requests, sum(g.cost_nano_usd) AS cost_nano_usd
    FROM public.ai_usage_logs g GROUP BY 1, 2, 3
) l ON l.bucket = t.bucket AND l.provider = t.provider AND l.model = t.model
JOIN public.rollup_watermarks w ON w.name = 'ai_usage_logs' AND coalesce(t.bucket, l.bucket) < w.reached_at
WHERE (l.bucket IS NOT NULL OR to_regclass('public.ai_usage_logs_' || to_char(t.bucket AT TIME ZONE 'UTC', 'YYYY_MM')) IS NOT NULL)
  AND (coalesce(t.requests, 0) > coalesce(l.requests, 0) OR coalesce(t.cost_nano_usd, 0) > coalesce(l.cost_nano_usd, 0)
    OR coalesce(t.bucket, l.bucket) < w.reached_at - interval '24 hours'
        AND (t.requests, t.cost_nano_usd) IS DISTINCT FROM (l.requests::bigint, l.cost_nano_usd))
LIMIT 1000

-- @ windows of keys and the calls of their month
-- A call counts in the month in which it began, and is logged minutes later. Calls before this check are excluded.
SELECT 'error', 'KEY_WINDOW_MISMATCH', l.lineage_id::text, 'the month from ' || l.month || ' of the key says ' || coalesce(n.cost_nano_usd, 0)
    || ' nano-dollars; the calls of that month cost ' || l.cost_nano_usd
FROM (
    SELECT coalesce(k.lineage_id, k.id) AS lineage_id, date_trunc('month', g.created_at, 'UTC') AS month, sum(g.cost_nano_usd) AS cost_nano_usd
    FROM public.ai_usage_logs g JOIN public.api_keys k ON k.id = g.api_key_id
    JOIN public.product_base_migrations m ON m.version = 'm20261201_000027_heads_of_ledgers' AND g.created_at > to_timestamp(m.applied_at)
    WHERE g.created_at < now() - interval '10 minutes' AND g.created_at >= date_trunc('month', g.created_at, 'UTC') + interval '1 hour'
      AND g.created_at > now() - interval '12 months'
    GROUP BY 1, 2
) l
LEFT JOIN public.api_key_counters n ON n.api_key_id = l.lineage_id AND n.period = 'month' AND n.period_start = l.month
WHERE coalesce(n.cost_nano_usd, 0) < l.cost_nano_usd
