//! The role that owns the schema in the private cluster. It is no superuser, so that an attacker who can act as the
//! owner of a function controls the schema and no more. Migrations log in as it.
//!
//! Promise: a cluster created before this role existed is handed over to it at its next start, whole or not at all.
//! Cost: one statement at each start; a cluster that is handed over also locks every table, before it serves requests.

use super::error::EmbeddedError;
use super::running::EmbeddedPostgres;

const SCHEMA_OWNER: &str = "product_base_owner";

/// One message, and so one transaction. Changes the owner of the superuser's objects in our two schemas: relations, and
/// functions that carry our mark. A sequence of an identity column follows its table. A new cluster has none of these.
const HAND_OVER: &str = r"
DO $owner$
DECLARE
    target record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'product_base_owner') THEN
        CREATE ROLE product_base_owner;
    END IF;
    ALTER ROLE product_base_owner LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOBYPASSRLS NOREPLICATION;
    EXECUTE format('ALTER DATABASE %I OWNER TO product_base_owner', current_database());
    -- From Postgres 16 on, a role can be granted only by a role with its ADMIN option.
    FOR target IN SELECT r.rolname FROM pg_catalog.pg_roles r
        WHERE r.rolname IN ('anon', 'authenticated', 'service_role', 'app_service', 'app_user', 'readonly_user')
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m
              WHERE m.roleid = r.oid AND m.member = 'product_base_owner'::regrole AND m.admin_option)
    LOOP
        EXECUTE format('GRANT %I TO product_base_owner WITH ADMIN OPTION', target.rolname);
    END LOOP;
    FOR target IN SELECT n.nspname FROM pg_catalog.pg_namespace n
        WHERE n.nspname IN ('public', 'auth') AND n.nspowner = current_user::regrole
    LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO product_base_owner', target.nspname);
    END LOOP;
    FOR target IN SELECT c.oid::regclass AS name, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('public', 'auth') AND c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relowner = current_user::regrole
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
              AND (d.deptype = 'e' OR (c.relkind = 'S' AND d.deptype IN ('a', 'i'))))
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO product_base_owner', target.kind, target.name);
    END LOOP;
    FOR target IN SELECT p.oid::regprocedure AS name FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('public', 'auth') AND p.prokind = 'f' AND p.proowner = current_user::regrole
          AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'product-base%'
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO product_base_owner', target.name);
    END LOOP;
END
$owner$";

impl EmbeddedPostgres {
    /// The address for the schema owner, for migrations. Creates the role, and hands over what an older version
    /// created.
    pub async fn schema_owner_url(&self) -> Result<String, EmbeddedError> {
        self.execute(HAND_OVER.to_owned()).await?;
        let password = self.set_password(SCHEMA_OWNER).await?;
        Ok(self.url_as(SCHEMA_OWNER, &password, self.database()))
    }
}
