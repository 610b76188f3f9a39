//! The roles of the whole cluster: made where they are missing, and never dropped.
//!
//! Promise: the three roles that are ours have the attributes that the rights rest on, whoever made them (the seeds' own
//! `CREATE ROLE app_user` would inherit, and so have the service's rights before it takes a role on). Supabase's three are
//! left as they are. Where the migrating login may not alter a role, `up` says what an administrator must run. Two
//! databases of one cluster may be migrated in the same moment: whoever comes second meets 23505, 42710 or "tuple
//! concurrently updated" and tries again.

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

/// What the rights rest on, for each role that is ours. What is not named is the operator's: passwords, limits, and whether
/// somebody may log in for reports.
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

/// Only a superuser may make a BYPASSRLS role before Postgres 16. Nothing of ours needs it on plain Postgres, so
/// without that right the role is made without the attribute.
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

/// Alters what differs and nothing else, since only a superuser may say NOSUPERUSER, NOREPLICATION or NOBYPASSRLS, even
/// where nothing would change. That `app_user` may log in is a convenience, so it stops nothing.
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

/// From Postgres 16 on each membership says for itself whether it inherits; the role's own attribute is what it began with.
const INHERIT_NOTHING: &str = "DO $inherit$ DECLARE membership record; BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer < 160000 THEN RETURN; END IF;
    FOR membership IN EXECUTE 'SELECT m.roleid::regrole AS role, m.grantor::regrole AS grantor FROM pg_catalog.pg_auth_members m
        WHERE m.member = ''app_user''::regrole AND m.inherit_option'
    LOOP
        EXECUTE format('REVOKE INHERIT OPTION FOR %s FROM app_user GRANTED BY %s', membership.role, membership.grantor);
    END LOOP;
END $inherit$";

/// From Postgres 16 on, whoever creates a role is its member without the right to SET ROLE.
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
