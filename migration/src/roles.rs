//! The roles of the whole cluster: made where they are missing, never altered and never dropped.
//!
//! Promise: a role that exists is left as it is (`verify` says what is wrong with it), and two databases of one
//! cluster may be migrated in the same moment: whoever comes second meets 23505, 42710 or "tuple concurrently
//! updated" and tries again.

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

pub async fn ensure(connection: &DatabaseConnection) -> anyhow::Result<()> {
    for (name, options) in ROLES {
        repeat(connection, &create(name, options)).await.with_context(|| {
            format!("the role {name} could not be made: the migrating login needs CREATEROLE, or an administrator runs CREATE ROLE {name} {options}")
        })?;
    }
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
