//! Profiles on Postgres. The e-mail belongs to the identity and comes from `identity_email`.
//!
//! Costs: one round trip per call; `export` one for each of its tables. Locks: `lock` locks the row FOR NO KEY UPDATE,
//! never FOR UPDATE, since every insert of a child row locks it with KEY SHARE.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::identity::{CallerFacts, Role, StoredEmail};
use domain::plans::PlanId;
use domain::users::{NewUser, User, UserChanges, UserId};
use ports::store::{Locked, Page, StoreError};
use ports::users::{ExportSection, UserPosition, UserRepository};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// The columns of a profile that every statement reads.
const COLUMNS: &str =
    "id, identity_email(id) AS email, name, role, plan_id, wallet_address, token_balance, created_at, updated_at";

#[derive(FromQueryResult)]
struct UserRow {
    id: Uuid,
    email: Option<String>,
    name: String,
    role: String,
    plan_id: String,
    wallet_address: Option<String>,
    token_balance: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct CallerRow {
    user_id: Uuid,
    role: Option<String>,
    state: String,
    began_at: Option<DateTime<Utc>>,
}

#[async_trait]
impl UserRepository for PgUnitOfWork {
    async fn find(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE id = $1");
        self.read_one(&sql, [id.0.into()]).await?.map(user).transpose()
    }

    async fn find_role(&mut self, id: UserId) -> Result<Option<Role>, StoreError> {
        let role: Option<String> = self.read_value("SELECT role FROM users WHERE id = $1", [id.0.into()]).await?;
        role.map(|role| role.parse().map_err(|_| inconsistent("users", id))).transpose()
    }

    async fn find_callers(&mut self, ids: &[UserId]) -> Result<Vec<(UserId, CallerFacts)>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let sql = "SELECT s.user_id, u.role, s.state, s.began_at FROM identity_states($1) AS s \
            LEFT JOIN users AS u ON u.id = s.user_id";
        let rows: Vec<CallerRow> = self.read_all(sql, [ids.into()]).await?;
        let known = |row: CallerRow| {
            let role = row.role.map(|role| role.parse()).transpose().map_err(|_| inconsistent("users", row.user_id))?;
            let state = row.state.parse().map_err(|_| inconsistent("identities", row.user_id))?;
            Ok((UserId(row.user_id), CallerFacts { role, state, began_at: row.began_at }))
        };
        rows.into_iter().map(known).collect()
    }

    async fn lock(&mut self, id: UserId) -> Result<Option<Locked<User>>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE id = $1 FOR NO KEY UPDATE");
        Ok(self.read_one(&sql, [id.0.into()]).await?.map(user).transpose()?.map(Locked::under_lock))
    }

    async fn insert(&mut self, new: &NewUser) -> Result<User, StoreError> {
        let sql = format!("INSERT INTO users (id, name, role) VALUES ($1, $2, $3) RETURNING {COLUMNS}");
        let values = [new.id.0.into(), new.name.as_str().into(), new.role.as_str().into()];
        let row = self.read_one(&sql, values).await?;
        row.map(user).transpose()?.ok_or_else(|| inconsistent("users", new.id))
    }

    async fn save(&mut self, id: UserId, changes: &UserChanges) -> Result<Option<User>, StoreError> {
        let sql = format!(
            "UPDATE users SET name = coalesce($2, name), wallet_address = CASE WHEN $3 THEN $4 ELSE wallet_address END \
             WHERE id = $1 RETURNING {COLUMNS}"
        );
        let wallet = changes.wallet_address.clone();
        let values = [id.0.into(), changes.name.clone().into(), wallet.is_some().into(), wallet.flatten().into()];
        self.read_one(&sql, values).await?.map(user).transpose()
    }

    async fn has_admin(&mut self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM users WHERE role = 'admin')";
        Ok(self.read_value(sql, []).await?.unwrap_or_default())
    }

    async fn lock_first_admin(&mut self) -> Result<(), StoreError> {
        // A row that exists once in every database. It is written only at a start.
        let sql = "SELECT name FROM runtime_settings WHERE name = 'past_due_grace_days' FOR UPDATE";
        self.read_value::<String>(sql, []).await.map(drop)
    }

    async fn list_admins(&mut self, rows_max: u64) -> Result<Vec<User>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE role = 'admin' ORDER BY created_at, id LIMIT $1");
        let rows: Vec<UserRow> = self.read_all(&sql, [limit(rows_max)]).await?;
        rows.into_iter().map(user).collect()
    }

    async fn save_role(&mut self, id: UserId, role: Role) -> Result<bool, StoreError> {
        let sql = "UPDATE users SET role = $2 WHERE id = $1";
        Ok(self.run(sql, [id.0.into(), role.as_str().into()]).await? > 0)
    }

    async fn delete(&mut self, id: UserId) -> Result<bool, StoreError> {
        Ok(self.run("DELETE FROM users WHERE id = $1", [id.0.into()]).await? > 0)
    }

    async fn list(&mut self, page: &Page<UserPosition>) -> Result<Vec<User>, StoreError> {
        let rows = match page.after {
            None => {
                let sql = format!("SELECT {COLUMNS} FROM users ORDER BY created_at DESC, id DESC LIMIT $1");
                self.read_all(&sql, [limit(page.limit)]).await?
            }
            Some((created_at, id)) => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM users WHERE (created_at, id) < ($2, $3) \
                     ORDER BY created_at DESC, id DESC LIMIT $1"
                );
                self.read_all(&sql, [limit(page.limit), created_at.into(), id.into()]).await?
            }
        };
        rows.into_iter().map(user).collect()
    }

    async fn export(&mut self, id: UserId, rows_max: u64) -> Result<Vec<ExportSection>, StoreError> {
        let mut sections = Vec::with_capacity(EXPORTED.len());
        for (table, rows) in EXPORTED {
            let sql = format!("SELECT row_to_json(exported)::text FROM ({rows} LIMIT $2) AS exported");
            // One row above the limit shows whether there are more.
            let mut rows: Vec<String> =
                self.read_values(&sql, [id.0.into(), limit(rows_max.saturating_add(1))]).await?;
            let bound = usize::try_from(rows_max).unwrap_or(usize::MAX);
            let truncated = rows.len() > bound;
            rows.truncate(bound);
            sections.push(ExportSection { table, rows, truncated });
        }
        Ok(sections)
    }
}

/// The rows of a user, newest first. Columns are named where a table has some that are never shown, such as the hash of
/// an API key. Each statement filters by the user, whatever the role may see.
const EXPORTED: [(&str, &str); 20] = [
    ("users", include_str!("sql/export_users.sql")),
    ("user_subscriptions", "SELECT * FROM user_subscriptions WHERE user_id = $1 ORDER BY created_at DESC, id DESC"),
    ("scheduled_plan_changes", "SELECT * FROM scheduled_plan_changes WHERE user_id = $1"),
    ("feature_overrides", "SELECT * FROM feature_overrides WHERE user_id = $1 ORDER BY feature_id"),
    (
        "usage_counters",
        "SELECT * FROM usage_counters WHERE user_id = $1 ORDER BY period_start DESC, feature_id, period",
    ),
    ("usage_events", "SELECT * FROM usage_events WHERE user_id = $1 ORDER BY created_at DESC, id DESC"),
    ("usage_reservations", include_str!("sql/export_usage_reservations.sql")),
    ("usage_rollups", "SELECT * FROM usage_rollups WHERE user_id = $1 ORDER BY bucket DESC, feature_id, period"),
    ("usage_alerts", "SELECT * FROM usage_alerts WHERE user_id = $1 ORDER BY created_at DESC, id DESC"),
    ("ai_usage_logs", "SELECT * FROM ai_usage_logs WHERE user_id = $1 ORDER BY created_at DESC, id DESC"),
    ("token_transactions", "SELECT * FROM token_transactions WHERE user_id = $1 ORDER BY seq DESC"),
    ("api_keys", include_str!("sql/export_api_keys.sql")),
    ("chat_sessions", "SELECT * FROM chat_sessions WHERE user_id = $1 ORDER BY created_at DESC, id DESC"),
    ("chat_messages", include_str!("sql/export_chat_messages.sql")),
    ("billing_records", "SELECT * FROM billing_records WHERE user_id = $1 ORDER BY created_at DESC, id DESC"),
    ("organizations", include_str!("sql/export_organizations.sql")),
    ("generated_apis", "SELECT * FROM generated_apis WHERE user_id = $1 ORDER BY created_at DESC, id DESC"),
    ("learning_progress", "SELECT * FROM learning_progress WHERE user_id = $1 ORDER BY lesson_id"),
    ("tutorial_completion", "SELECT * FROM tutorial_completion WHERE user_id = $1 ORDER BY tutorial_id"),
    (
        "sessions",
        "SELECT id, user_id, kind, user_agent, created_at, last_seen_at, authenticated_at, expires_at, revoked_at
        FROM sessions WHERE user_id = $1 ORDER BY created_at DESC, id DESC",
    ),
];

fn user(row: UserRow) -> Result<User, StoreError> {
    let unfit = || inconsistent("users", row.id);
    Ok(User {
        id: UserId(row.id),
        email: row.email.as_deref().and_then(StoredEmail::new),
        role: row.role.parse().map_err(|_| unfit())?,
        plan_id: PlanId::parse(&row.plan_id).map_err(|_| unfit())?,
        name: row.name,
        wallet_address: row.wallet_address,
        token_balance: row.token_balance,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}
