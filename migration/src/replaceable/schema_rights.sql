-- The seeds' grants on the database and the schema. On Supabase anon, authenticated and service_role have their own.
DO $rights$
DECLARE
    role_name text;
BEGIN
    -- On Supabase the migrating login may not grant these, and PUBLIC has them: a warning would only alarm.
    PERFORM set_config('client_min_messages', 'error', true);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO app_user, readonly_user', current_database());
    GRANT USAGE ON SCHEMA public TO app_service, app_user, readonly_user;
    FOREACH role_name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        IF NOT has_schema_privilege(role_name, 'public', 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role_name);
        END IF;
    END LOOP;
END
$rights$;
