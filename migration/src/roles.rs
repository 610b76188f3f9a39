//! The roles of the whole cluster: created if missing, and never dropped.
//!
//! Promise: our three roles have the attributes that the rights depend on, whatever created them (the seeds' own
//! `CREATE ROLE app_user` would inherit, and so have the service's rights without SET ROLE). Supabase's three roles are
//! not changed. If the migrating login may not alter a role, `up` reports what an administrator must run. Two databases
//! of one cluster may be migrated at the same time: the second runner gets 23505, 42710 or "tuple concurrently updated"
//! and retries.

use std::time::Duration;

use anyhow::Context;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::connection::is_passing;

const TRIES: u32 = 20;

/// `app_user` is the service's login. It gets no password here: the operator or the embedded start sets one.
const ROLES: [(&str, &str); 6] = [
    ("anon", "NOLOGIN NOINHERIT"),
    ("authenticated", "NOLOGIN NOINHERIT"),
    ("service_role", "NOLOGIN NOINHERIT BYPASSRLS"),
    ("app_service", "NOLOGIN"),
    ("readonly_user", "NOLOGIN"),
    ("app_user", "LOGIN NOINHERIT"),
];

/// The attributes that the rights depend on, for each of our roles. Others are the operator's choice: passwords,
/// limits, and whether a login may be used for reports.
const HELD: [(&str, &str); 3] = [
    ("app_user", "LOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION"),
    ("app_service", "NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION"),
    ("readonly_user", "NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION"),
];

pub async fn ensure(connection: &DatabaseConnection) -> anyhow::Result<()> {
    for (name, options) in ROLES {
        repeat(connection, &create(name, options)).await.with_context(|| {
            format!("the role {name} could not be made: the migrating login needs CREATEROLE, or an administrator runs CREATE ROLE {name} {options}")
        })?;
    }
    for (name, options) in HELD {
        repeat(connection, &hold(name, options)).await.with_context(|| {
            format!("the role {name} has attributes that it must not have: an administrator runs ALTER ROLE {name} {options}")
        })?;
    }
    repeat(connection, INHERIT_NOTHING).await.context(
        "app_user inherits the rights of its roles: an administrator runs REVOKE INHERIT OPTION FOR <role> FROM app_user",
    )?;
    for role in ["authenticated", "app_service"] {
        for member in ["app_user", "current_user"] {
            repeat(connection, &admit(role, member)).await.with_context(|| {
                format!("{member} could not be made a member of {role}: an administrator runs GRANT {role} TO {member}")
            })?;
        }
    }
    Ok(())
}

/// Before Postgres 16 only a superuser can create a BYPASSRLS role. We do not need it on plain Postgres, so without
/// that right the role is created without the attribute.
fn create(name: &str, options: &str) -> String {
    let modest = options.replace(" BYPASSRLS", "");
    format!(
        "DO $role$ BEGIN \
         IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{name}') THEN \
           BEGIN CREATE ROLE {name} {options}; \
           EXCEPTION WHEN insufficient_privilege THEN CREATE ROLE {name} {modest}; END; \
         END IF; END $role$"
    )
}

/// Alters only attributes that differ, since only a superuser may use NOSUPERUSER, NOREPLICATION or NOBYPASSRLS, even
/// without effect. The LOGIN of `app_user` is optional, so a refusal of it is ignored.
fn hold(name: &str, options: &str) -> String {
    let mut changes = String::new();
    for option in options.split(' ') {
        let (column, meant) = match option {
            "LOGIN" => ("rolcanlogin", "true"),
            "NOLOGIN" => ("rolcanlogin", "false"),
            "NOINHERIT" => ("rolinherit", "false"),
            "NOSUPERUSER" => ("rolsuper", "false"),
            "NOBYPASSRLS" => ("rolbypassrls", "false"),
            "NOCREATEROLE" => ("rolcreaterole", "false"),
            "NOCREATEDB" => ("rolcreatedb", "false"),
            _ => ("rolreplication", "false"),
        };
        let alter = format!("ALTER ROLE {name} {option};");
        let alter = if option == "LOGIN" {
            format!("BEGIN {alter} EXCEPTION WHEN insufficient_privilege THEN NULL; END;")
        } else {
            alter
        };
        changes = changes + "IF held." + column + " <> " + meant + " THEN " + &alter + " END IF; ";
    }
    format!(
        "DO $hold$ DECLARE held pg_catalog.pg_roles; BEGIN \
         SELECT r.* INTO held FROM pg_catalog.pg_roles r WHERE r.rolname = '{name}'; {changes}END $hold$"
    )
}

/// From Postgres 16 on, each membership has its own inherit option; the role's attribute is only its initial value.
const INHERIT_NOTHING: &str = "DO $inherit$ DECLARE membership record; BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer < 160000 THEN RETURN; END IF;
    FOR membership IN EXECUTE 'SELECT m.roleid::regrole AS role, m.grantor::regrole AS grantor FROM pg_catalog.pg_auth_members m
        WHERE m.member = ''app_user''::regrole AND m.inherit_option'
    LOOP
        EXECUTE format('REVOKE INHERIT OPTION FOR %s FROM app_user GRANTED BY %s', membership.role, membership.grantor);
    END LOOP;
END $inherit$";

/// From Postgres 16 on, the creator of a role is its member without the right to SET ROLE.
fn admit(role: &str, member: &str) -> String {
    let (who, grantee) = if member == "current_user" {
        ("current_user".to_owned(), "CURRENT_USER")
    } else {
        (format!("'{member}'::name"), member)
    };
    format!(
        "DO $member$ BEGIN \
         IF NOT pg_catalog.pg_has_role({who}, '{role}', \
           CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN \
           GRANT {role} TO {grantee}; \
         END IF; END $member$"
    )
}

async fn repeat(connection: &DatabaseConnection, sql: &str) -> anyhow::Result<()> {
    for attempt in 1..=TRIES {
        match connection.execute_unprepared(sql).await {
            Ok(_) => return Ok(()),
            Err(error) if attempt < TRIES && is_passing(&error) => {
                tokio::time::sleep(Duration::from_millis(20 * u64::from(attempt))).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
