//! Repairs what `verify` finds: rights, texts, and the structure that the steps make.
//!
//! Promise: rows stay unchanged, and no object of another team is dropped. What cannot be repaired, because rows or
//! rights prevent it, is logged as a warning and stays a finding of `verify`. Cost: that of `up`, and of one `verify`
//! of objects.

use std::time::Duration;

use crate::connection::{auth_is_ours, name_array, query_all, table_exists};
use crate::objects::{self, LOCKS, RECORD};
use crate::runner::{LOCK_PATIENCE, StepRunner};
use crate::{MigrationReport, reference, rights, step, up_locked};

/// Enables row-level security where it is off, revokes rights beyond the texts, applies every replaceable object again,
/// and restores structure that is missing or changed. For a database that was changed by hand.
pub async fn repair(database_url: &str) -> anyhow::Result<MigrationReport> {
    repair_within(database_url, LOCK_PATIENCE).await
}

/// The same, waiting for locks no longer than `patience` in total.
pub async fn repair_within(database_url: &str, patience: Duration) -> anyhow::Result<MigrationReport> {
    let runner = StepRunner::start(database_url, patience).await?;
    let report = repair_locked(&runner).await;
    runner.end(report).await
}

async fn repair_locked(runner: &StepRunner) -> anyhow::Result<MigrationReport> {
    let mut tables = objects::tables();
    tables.extend([RECORD, LOCKS]);
    if !table_exists(&runner.connection, "replaceable_checksums").await? {
        return up_locked(runner).await;
    }
    for row in query_all(&runner.connection, &step::unprotected(&tables)).await? {
        let name = row.try_get::<String>("", "name")?;
        let protect = format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY");
        runner.transaction(&format!("row-level security of {name}"), &[&protect]).await?;
    }
    close(runner).await?;
    runner.transaction("replaceable_checksums", &["DELETE FROM public.replaceable_checksums"]).await?;
    let report = up_locked(runner).await?;
    structure(runner).await?;
    Ok(report)
}

/// Revokes rights, memberships and default privileges beyond the texts.
async fn close(runner: &StepRunner) -> anyhow::Result<()> {
    let builtin = auth_is_ours(&runner.connection).await?;
    runner.transaction("the rights of other roles", &[&rights::close_to_others(builtin)]).await?;
    let roles = name_array(&rights::ROLES);
    let rights = CLOSE.replace("{roles}", &roles).replace("{builtin}", if builtin { "true" } else { "false" });
    if let Err(error) = runner.transaction("rights on the schema and the database", &[&rights]).await {
        tracing::warn!("{error:#}");
    }
    for row in query_all(&runner.connection, MEMBERS).await? {
        let revoke = row.try_get::<String>("", "statement")?;
        if let Err(error) = runner.transaction("a membership", &[&revoke]).await {
            tracing::warn!("{revoke}: {error:#}");
        }
    }
    Ok(())
}

/// Restores what has no text: constraints, indexes, defaults, disabled triggers.
async fn structure(runner: &StepRunner) -> anyhow::Result<()> {
    for difference in reference::differences(&runner.connection).await? {
        let what = format!("{} {}", difference.kind, difference.subject);
        if difference.cure.is_empty() {
            tracing::warn!("{what} cannot be put back: {}", difference.detail);
            continue;
        }
        for statement in &difference.cure {
            match runner.transaction(&what, &[statement]).await {
                Ok(_) => tracing::info!("put back {what}"),
                Err(error) => {
                    tracing::warn!("{what} could not be put back: {error:#}");
                    break;
                }
            }
        }
    }
    Ok(())
}

const CLOSE: &str = "DO $close$ DECLARE target record; BEGIN
    PERFORM set_config('client_min_messages', 'error', true);
    FOR target IN SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee
        FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
        WHERE n.nspname = 'public' AND x.privilege_type = 'CREATE' AND (x.grantee = 0 OR r.rolname = ANY ({roles}))
    LOOP EXECUTE format('REVOKE CREATE ON SCHEMA public FROM %s CASCADE', target.grantee); END LOOP;
    FOR target IN SELECT d.datname, x.privilege_type AS privilege, coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee
        FROM pg_catalog.pg_database d CROSS JOIN LATERAL pg_catalog.aclexplode(d.datacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
        WHERE d.datname = current_database() AND x.grantee <> d.datdba
          AND (x.grantee = 0 AND x.privilege_type = 'CREATE' OR {builtin} AND r.rolname = ANY ({roles}) AND (x.privilege_type <> 'CONNECT' OR x.is_grantable))
    LOOP EXECUTE format('REVOKE %s ON DATABASE %I FROM %s CASCADE', target.privilege, target.datname, target.grantee); END LOOP;
    IF {builtin} THEN
        FOR target IN SELECT a.defaclrole::regrole AS owner, CASE WHEN a.defaclnamespace <> 0 THEN 'IN SCHEMA public' ELSE '' END AS place,
            CASE a.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END AS kind,
            coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee
            FROM pg_catalog.pg_default_acl a CROSS JOIN LATERAL pg_catalog.aclexplode(a.defaclacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
            WHERE a.defaclrole = (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = 'public.users'::regclass)
              AND (a.defaclnamespace = 0 OR a.defaclnamespace = 'public'::regnamespace) AND x.grantee <> a.defaclrole
              AND NOT (x.grantee = 0 AND a.defaclnamespace = 0 AND a.defaclobjtype IN ('f', 'T'))
        LOOP EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s %s REVOKE ALL ON %s FROM %s', target.owner, target.place, target.kind, target.grantee); END LOOP;
    END IF;
END $close$";

/// Roles that can act as the service without being meant to: the finding `EXCESS_MEMBERSHIP` of `verify`.
const MEMBERS: &str = "SELECT DISTINCT format('REVOKE %s%I FROM %I CASCADE', CASE WHEN u.rolname = 'app_user' AND g.rolname IN ('authenticated', 'app_service') THEN 'ADMIN OPTION FOR ' ELSE '' END,
        g.rolname, u.rolname) AS statement
    FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
    WHERE (g.rolname IN ('app_service', 'app_user') AND NOT u.rolsuper AND NOT u.rolcreaterole AND u.rolname <> ALL (ARRAY[session_user::text, current_user::text])
        AND NOT (u.rolname = 'app_user' AND NOT m.admin_option)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_database d WHERE d.datdba = u.oid)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = 'public.users'::regclass AND c.relowner = u.oid))
      OR (u.rolname IN ('app_user', 'app_service', 'readonly_user') AND NOT (u.rolname = 'app_user' AND g.rolname IN ('authenticated', 'app_service')))";
