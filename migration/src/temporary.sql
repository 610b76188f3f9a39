-- No role needs temporary objects here, and a caller could use them to mislead functions. If the database is ours,
-- PUBLIC loses the right to create them; a role that needs it is granted it by name. The last `down` restores it if it
-- was revoked here. Checked at each `up`, since a copy of a database has the rights of a new one.
DO $rights$
BEGIN
    IF pg_catalog.pg_has_role(current_user, (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = current_database()), 'USAGE')
        AND EXISTS (SELECT FROM pg_catalog.pg_database d
            CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) x
            WHERE d.datname = current_database() AND x.grantee = 0 AND x.privilege_type = 'TEMPORARY') THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
        INSERT INTO public.product_base_locks (name) VALUES ('public_had_temporary') ON CONFLICT (name) DO NOTHING;
    END IF;
END
$rights$
