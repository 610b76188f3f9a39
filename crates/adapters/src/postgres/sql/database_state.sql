-- The login is session_user: current_user is the role that this transaction took on.
SELECT r.rolsuper AS is_superuser, r.rolbypassrls AS bypasses_rls,
    pg_database_size(current_database()) AS size_bytes,
    (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend' OR a.backend_type IS NULL) AS connections,
    current_setting('max_connections')::bigint AS connections_max
FROM pg_roles AS r WHERE r.rolname = session_user
