//! The users of the benchmark, in the database and with their tokens.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use adapters::clock::SystemClock;
use adapters::randomness::SystemRandomness;
use adapters::secrets::access_tokens::BuiltInTokens;
use anyhow::{Context as _, ensure};
use domain::identity::{Email, Role};
use domain::users::UserId;
use ports::identity::TokenIssuer as _;
use ports::randomness::Randomness as _;
use sea_orm::sqlx::{self, PgConnection};
use uuid::Uuid;

use crate::wrk::Tokens;

/// The longest token lifetime that the service accepts; no run takes as long.
pub const TOKEN_SECONDS: u64 = 24 * 60 * 60;

/// Writes the users in bulk, and leaves the tables as in a database that was idle for a while: with statistics, and
/// with no dirty pages to write during the measurements.
pub async fn settle(owner: &mut PgConnection, users: u32) -> anyhow::Result<()> {
    let number = sqlx::query("SELECT set_config('bench.users', $1, false)").bind(users.to_string());
    number.execute(&mut *owner).await?;
    let outcome = sqlx::raw_sql(include_str!("population.sql")).execute(&mut *owner).await;
    outcome.context("the users could not be written")?;
    for upkeep in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        sqlx::raw_sql(upkeep).execute(&mut *owner).await.context(upkeep)?;
    }
    Ok(())
}

/// Gives the first users a limit for model calls that no run reaches: each call is reserved and counted.
pub async fn let_ask(owner: &mut PgConnection, users: u32) -> anyhow::Result<()> {
    let sql = "INSERT INTO feature_overrides (user_id, feature_id, enabled, limit_value, reason) \
        SELECT id, 'ai_requests', true, 1000000000000, 'the benchmark' FROM users ORDER BY id LIMIT $1 \
        ON CONFLICT (user_id, feature_id) DO UPDATE SET enabled = true, limit_value = excluded.limit_value";
    let given = sqlx::query(sql).bind(i64::from(users)).execute(&mut *owner).await;
    given.context("the first users could not be let ask").map(drop)
}

/// Signs a token for every user into a file, as the service with this key would.
pub async fn sign_tokens(owner: &mut PgConnection, key: &str, file: &Path) -> anyhow::Result<Tokens> {
    let issuer = BuiltInTokens::new(key.as_bytes(), TOKEN_SECONDS, Arc::new(SystemClock))?;
    let users = list(owner).await?;
    let mut tokens = Vec::with_capacity(users.len());
    for (id, email) in &users {
        let session = SystemRandomness.new_id();
        tokens.push(
            issuer
                .issue(
                    UserId(*id),
                    &Email::parse(email)?.into(),
                    Role::User,
                    session,
                    ports::identity::TokenScope::Everything,
                )?
                .token,
        );
    }
    keep_tokens(&tokens, file)
}

/// In the order of their ids, which is random: the first few hundred are a fair sample.
pub async fn list(owner: &mut PgConnection) -> anyhow::Result<Vec<(Uuid, String)>> {
    let users = sqlx::query_as("SELECT id, email::text FROM auth.users ORDER BY id").fetch_all(&mut *owner).await;
    users.context("the users could not be read")
}

/// In the format of `load.lua`.
pub fn keep_tokens(tokens: &[String], file: &Path) -> anyhow::Result<Tokens> {
    let length = tokens.first().map_or(0, String::len);
    let is_even = tokens.iter().all(|token| token.len() == length);
    ensure!(is_even, "the tokens are not of one length, as load.lua has it");
    fs::write(file, tokens.join("\n") + "\n").context("the tokens could not be written")?;
    Ok(Tokens { file: file.to_owned(), length, count: u32::try_from(tokens.len())? })
}
