-- The login is session_user; current_user is the role of this transaction. The login's name proves nothing, so its
-- rights are checked: its attributes, what it inherits, the roles it may take on, and what it owns.
WITH login AS (SELECT r.* FROM pg_roles AS r WHERE r.rolname = session_user),
-- Every role that the login may act as, through any chain of memberships; for a superuser that would be all.
others AS (
    SELECT r.*, pg_has_role(l.oid, r.oid, 'USAGE') AS is_inherited FROM login AS l
    JOIN pg_roles AS r ON r.oid <> l.oid AND NOT l.rolsuper AND pg_has_role(l.oid, r.oid, 'MEMBER')
),
owner AS (SELECT c.relowner FROM pg_class AS c WHERE c.oid = to_regclass('public.users'))
SELECT array_remove(ARRAY[
        CASE WHEN l.rolsuper THEN 'the login is a superuser' END,
        CASE WHEN l.rolbypassrls THEN 'the login bypasses row-level security' END,
        CASE WHEN l.rolcreaterole AND NOT l.rolsuper THEN 'the login may make roles' END,
        CASE WHEN l.rolcreatedb AND NOT l.rolsuper THEN 'the login may make databases' END,
        CASE WHEN l.rolreplication AND NOT l.rolsuper THEN 'the login may replicate' END,
        CASE WHEN l.oid = o.relowner AND NOT l.rolsuper THEN 'the login owns the tables' END,
        CASE WHEN pg_has_role(l.oid, d.datdba, 'MEMBER') AND l.oid <> o.relowner AND NOT l.rolsuper THEN 'the login may act as the owner of the database' END,
        (SELECT 'the login may become a superuser (' || string_agg(x.rolname, ', ' ORDER BY x.rolname) || ')' FROM others AS x WHERE x.rolsuper),
        (SELECT 'the login may become a role that bypasses row-level security (' || string_agg(x.rolname, ', ' ORDER BY x.rolname) || ')'
            FROM others AS x WHERE x.rolbypassrls AND NOT x.rolsuper),
        (SELECT 'the login may become the owner of the tables (' || x.rolname || ')' FROM others AS x WHERE x.oid = o.relowner AND NOT x.rolsuper),
        (SELECT 'the login has the rights of ' || string_agg(x.rolname, ', ' ORDER BY x.rolname) || ' without taking the role on'
            FROM others AS x WHERE x.is_inherited AND x.rolname IN ('app_service', 'authenticated', 'anon', 'service_role', 'readonly_user')),
        (SELECT 'the login is a member of ' || string_agg(x.rolname, ', ' ORDER BY x.rolname) FROM others AS x WHERE x.rolname ~ '^pg_'),
        CASE WHEN NOT l.rolsuper AND has_schema_privilege(l.oid, 'public', 'CREATE') THEN 'the login may create in public' END
    ], NULL) AS excess_rights,
    (SELECT coalesce(array_agg(s.name || ' is off' ORDER BY s.name), '{}') FROM pg_settings AS s
        WHERE s.name IN ('fsync', 'full_page_writes') AND s.setting = 'off') AS unsafe_settings,
    pg_database_size(current_database()) AS size_bytes,
    (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend' OR a.backend_type IS NULL) AS connections,
    current_setting('max_connections')::bigint AS connections_max
FROM login AS l
CROSS JOIN pg_database AS d
LEFT JOIN owner AS o ON true
WHERE d.datname = current_database()
