//! Operators: what anyone who can reach the database may do about administrators, without being one.
//!
//! Promise: a change is written to the audit trail with the name of the user who ran the command; running services are
//! notified as of any change of a role. Costs a connection and a transaction.

use std::sync::Arc;

use adapters::cache::ProcessCache;
use adapters::clock::SystemClock;
use adapters::postgres::PgStore;
use anyhow::Context;
use clap::Subcommand;
use domain::identity::Role;
use domain::users::{User, UserId};
use services::users::{IdentityProvider, UserError, UserService};
use uuid::Uuid;

use crate::settings::shape::Settings;
use crate::startup::pool_settings;

/// How much of the operator's name is stored, in characters.
const NAME_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum AdminCommand {
    /// Prints the administrators, longest-standing first: id, e-mail, name.
    List,
    /// Makes the user with this id an administrator. It is the `id` that sign-up and GET /api/users/me return.
    Grant { user_id: Uuid },
    /// Makes the user with this id a plain user.
    Revoke { user_id: Uuid },
}

/// Runs the command, and returns the lines to print. `operator` is the login of its user.
pub async fn administer(
    settings: &Settings,
    command: AdminCommand,
    operator: Option<&str>,
) -> anyhow::Result<Vec<String>> {
    let url = settings.database.url.expose().context("database.url is not set")?;
    let store = Arc::new(PgStore::connect(pool_settings(settings, url, Vec::new()))?);
    let users = UserService {
        store: Arc::<PgStore>::clone(&store),
        cache: Arc::new(ProcessCache::new(Arc::new(SystemClock))),
        provider: IdentityProvider::BuiltIn,
        admin_email: None,
    };
    let done = match command {
        AdminCommand::List => list(&users).await,
        AdminCommand::Grant { user_id } => {
            let reason = reason("grant", operator);
            change(&users, UserId(user_id), Role::Admin, reason).await
        }
        AdminCommand::Revoke { user_id } => {
            let reason = reason("revoke", operator);
            change(&users, UserId(user_id), Role::User, reason).await
        }
    };
    store.close().await;
    done
}

async fn list(users: &UserService) -> anyhow::Result<Vec<String>> {
    let admins = users.list_admins().await?;
    if admins.is_empty() {
        return Ok(vec!["There is no administrator.".to_owned()]);
    }
    Ok(admins.iter().map(line).collect())
}

async fn change(users: &UserService, user_id: UserId, role: Role, reason: String) -> anyhow::Result<Vec<String>> {
    let user = match users.change_role(None, user_id, role, Some(reason)).await {
        Err(UserError::NotFound) => anyhow::bail!("there is no profile with the id {user_id}; nothing was changed"),
        changed => changed?,
    };
    let mut lines = vec![format!("{}   role: {}", line(&user), user.role.as_str())];
    if role == Role::User && users.list_admins().await?.is_empty() {
        lines.push("There is no administrator any more.".to_owned());
    }
    Ok(lines)
}

fn line(user: &User) -> String {
    let email = user.email.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let text = format!("{}   {email}   {}", user.id, user.name);
    // A name may have characters that move a terminal's cursor.
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

fn reason(verb: &str, operator: Option<&str>) -> String {
    let operator = operator.unwrap_or("an unnamed login");
    let name: String = operator.chars().filter(|one| !one.is_control()).take(NAME_MAX).collect();
    format!("product-base admin {verb}, run by {name}")
}
