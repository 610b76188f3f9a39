//! API keys on Postgres. The hash of a key is written once and compared, never read back.
//!
//! Costs: one round trip per call. `record_use` writes a whole batch in one statement and locks the rows in the order
//! of their ids, so that two processes with the same API keys do not deadlock.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::api_keys::{ApiKey, ApiKeyDraft, ApiKeyId, KeyBudget, KeyBudgets, KeyHolder, KeyLimits};
use domain::identity::PermissionSet;
use domain::prices::NanoUsd;
use domain::users::UserId;
use ports::api_keys::{ApiKeyRepository, MintedKey};
use ports::store::{Locked, Page, StoreError};
use sea_orm::FromQueryResult;
use sea_orm::prelude::Json;
use serde::Deserialize;
use uuid::Uuid;

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// The columns of an API key that every statement reads.
const COLUMNS: &str = "k.id, k.user_id, k.name, k.key_prefix, k.last_four, k.permissions, k.on_behalf, \
    k.requests_per_minute, k.tokens_per_minute, k.monthly_cost_nano_usd, k.is_active, k.last_used_at, k.expires_at, \
    k.rotated_to, coalesce(k.lineage_id, k.id) AS lineage_id, k.makers, k.revoked_at, k.created_at";

/// An API key's owner role, and the limits of all keys above it.
const HOLDER: &str = "u.role, (SELECT jsonb_agg(jsonb_build_object('lineage_id', coalesce(m.lineage_id, m.id), \
    'requests_per_minute', m.requests_per_minute, 'tokens_per_minute', m.tokens_per_minute, \
    'monthly_cost_nano_usd', m.monthly_cost_nano_usd) ORDER BY array_position(k.makers, m.id)) \
    FROM api_keys AS m WHERE m.id = ANY (k.makers)) AS maker_budgets";

#[derive(FromQueryResult)]
struct KeyRow {
    id: Uuid,
    user_id: Uuid,
    name: String,
    key_prefix: String,
    last_four: String,
    permissions: Json,
    on_behalf: bool,
    requests_per_minute: Option<i64>,
    tokens_per_minute: Option<i64>,
    monthly_cost_nano_usd: Option<i64>,
    is_active: bool,
    last_used_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    rotated_to: Option<Uuid>,
    lineage_id: Uuid,
    makers: Vec<Uuid>,
    revoked_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct HolderRow {
    role: String,
    maker_budgets: Option<Json>,
    #[sea_orm(nested)]
    key: KeyRow,
}

/// The limits of a key above another one, as `HOLDER` writes them.
#[derive(Deserialize)]
struct MakerBudget {
    lineage_id: Uuid,
    requests_per_minute: Option<i64>,
    tokens_per_minute: Option<i64>,
    monthly_cost_nano_usd: Option<i64>,
}

#[derive(FromQueryResult)]
struct KeyId {
    id: Uuid,
}

#[async_trait]
impl ApiKeyRepository for PgUnitOfWork {
    async fn insert(&mut self, owner: UserId, draft: &ApiKeyDraft, minted: &MintedKey) -> Result<ApiKey, StoreError> {
        let sql = format!(
            "INSERT INTO api_keys AS k \
             (user_id, key_hash, key_prefix, last_four, name, permissions, on_behalf, expires_at, \
              requests_per_minute, tokens_per_minute, monthly_cost_nano_usd, lineage_id, makers) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING {COLUMNS}"
        );
        let permissions = serde_json::to_value(&draft.permissions)
            .map_err(|_| StoreError::Unexpected("permissions could not be written as JSON".into()))?;
        let values = [
            owner.0.into(),
            minted.hash.as_str().into(),
            minted.prefix.as_str().into(),
            minted.last_four.as_str().into(),
            draft.name.as_str().into(),
            permissions.into(),
            draft.on_behalf.into(),
            draft.expires_at.into(),
            draft.limits.requests_per_minute.into(),
            draft.limits.tokens_per_minute.into(),
            draft.limits.monthly_cost.map(|cost| cost.0).into(),
            draft.origin.lineage_id.map(|id| id.0).into(),
            draft.origin.makers.iter().map(|id| id.0).collect::<Vec<_>>().into(),
        ];
        let row = self.read_one(&sql, values).await?;
        row.map(api_key).transpose()?.ok_or_else(|| inconsistent("api_keys", owner))
    }

    async fn find(&mut self, owner: UserId, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM api_keys AS k WHERE k.id = $1 AND k.user_id = $2");
        self.read_one(&sql, [id.0.into(), owner.0.into()]).await?.map(api_key).transpose()
    }

    async fn find_holder(&mut self, owner: UserId, id: ApiKeyId) -> Result<Option<KeyHolder>, StoreError> {
        let sql = format!(
            "SELECT {HOLDER}, {COLUMNS} FROM api_keys AS k JOIN users AS u ON u.id = k.user_id \
             WHERE k.id = $1 AND k.user_id = $2"
        );
        self.read_one(&sql, [id.0.into(), owner.0.into()]).await?.map(holder).transpose()
    }

    async fn find_by_hash(&mut self, hash: &str) -> Result<Option<KeyHolder>, StoreError> {
        let sql = format!(
            "SELECT {HOLDER}, {COLUMNS} FROM api_keys AS k JOIN users AS u ON u.id = k.user_id WHERE k.key_hash = $1"
        );
        self.read_one(&sql, [hash.into()]).await?.map(holder).transpose()
    }

    async fn lock(&mut self, owner: UserId, id: ApiKeyId) -> Result<Option<Locked<ApiKey>>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM api_keys AS k WHERE k.id = $1 AND k.user_id = $2 FOR NO KEY UPDATE");
        let row = self.read_one(&sql, [id.0.into(), owner.0.into()]).await?;
        Ok(row.map(api_key).transpose()?.map(Locked::under_lock))
    }

    async fn list(&mut self, owner: UserId, page: &Page<(DateTime<Utc>, ApiKeyId)>) -> Result<Vec<ApiKey>, StoreError> {
        let rows = match page.after {
            None => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM api_keys AS k WHERE k.user_id = $1 \
                     ORDER BY k.created_at DESC, k.id DESC LIMIT $2"
                );
                self.read_all(&sql, [owner.0.into(), limit(page.limit)]).await?
            }
            Some((created_at, id)) => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM api_keys AS k WHERE k.user_id = $1 AND (k.created_at, k.id) < ($3, $4) \
                     ORDER BY k.created_at DESC, k.id DESC LIMIT $2"
                );
                self.read_all(&sql, [owner.0.into(), limit(page.limit), created_at.into(), id.0.into()]).await?
            }
        };
        rows.into_iter().map(api_key).collect()
    }

    async fn count_usable(&mut self, owner: UserId, now: DateTime<Utc>) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM api_keys \
            WHERE user_id = $1 AND is_active AND (expires_at IS NULL OR expires_at > $2)";
        Ok(self.read_value(sql, [owner.0.into(), now.into()]).await?.unwrap_or_default())
    }

    async fn list_usable(&mut self, ids: &[ApiKeyId]) -> Result<Vec<ApiKeyId>, StoreError> {
        let sql =
            "SELECT id FROM api_keys WHERE id = ANY($1) AND is_active AND (expires_at IS NULL OR expires_at > now())";
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let usable: Vec<KeyId> = self.read_all(sql, [ids.into()]).await?;
        Ok(usable.into_iter().map(|key| ApiKeyId(key.id)).collect())
    }

    async fn save_changes(
        &mut self,
        key: &Locked<ApiKey>,
        name: &str,
        limits: &KeyLimits,
    ) -> Result<ApiKey, StoreError> {
        // Locks the rows of a lineage in one order, so that two changes do not deadlock.
        let sql = format!(
            "WITH of_lineage AS ( \
                SELECT l.id FROM api_keys AS l WHERE l.user_id = $6 AND coalesce(l.lineage_id, l.id) = $7 \
                ORDER BY l.id FOR NO KEY UPDATE \
             ), changed AS ( \
                UPDATE api_keys AS k SET name = CASE WHEN k.id = $1 THEN $2 ELSE k.name END, requests_per_minute = $3, \
                    tokens_per_minute = $4, monthly_cost_nano_usd = $5 \
                FROM of_lineage WHERE k.id = of_lineage.id RETURNING k.* \
             ) SELECT {COLUMNS} FROM changed AS k WHERE k.id = $1"
        );
        let values = [
            key.id.0.into(),
            name.into(),
            limits.requests_per_minute.into(),
            limits.tokens_per_minute.into(),
            limits.monthly_cost.map(|cost| cost.0).into(),
            key.user_id.0.into(),
            key.lineage_id.0.into(),
        ];
        let row = self.read_one(&sql, values).await?;
        row.map(api_key).transpose()?.ok_or_else(|| inconsistent("api_keys", key.id.0))
    }

    async fn revoke(&mut self, key: &Locked<ApiKey>, at: DateTime<Utc>) -> Result<(), StoreError> {
        self.run(include_str!("sql/revoke_keys.sql"), [key.id.0.into(), at.into()]).await.map(drop)
    }

    async fn save_rotation(
        &mut self,
        key: &Locked<ApiKey>,
        successor: ApiKeyId,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE api_keys SET rotated_to = $2, expires_at = $3 WHERE id = $1";
        self.run(sql, [key.id.0.into(), successor.0.into(), expires_at.into()]).await.map(drop)
    }

    async fn record_use(&mut self, uses: &[(ApiKeyId, DateTime<Utc>)]) -> Result<(), StoreError> {
        if uses.is_empty() {
            return Ok(());
        }
        let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = uses.iter().map(|(id, at)| (id.0, *at)).unzip();
        self.run(include_str!("sql/record_key_use.sql"), [ids.into(), times.into()]).await.map(drop)
    }

    async fn delete_old_counters(&mut self, rows_max: u64) -> Result<u64, StoreError> {
        self.run(include_str!("sql/delete_old_key_counters.sql"), [limit(rows_max)]).await
    }
}

fn holder(row: HolderRow) -> Result<KeyHolder, StoreError> {
    let role = row.role.parse().map_err(|_| inconsistent("users", row.key.user_id))?;
    let unfit = row.key.id;
    let makers: Vec<MakerBudget> = row.maker_budgets.map_or_else(
        || Ok(Vec::new()),
        |budgets| serde_json::from_value(budgets).map_err(|_| inconsistent("api_keys", unfit)),
    )?;
    let makers = makers.into_iter().map(|maker| KeyBudget {
        lineage_id: ApiKeyId(maker.lineage_id),
        limits: limits(maker.requests_per_minute, maker.tokens_per_minute, maker.monthly_cost_nano_usd),
    });
    let key = api_key(row.key)?;
    let own = KeyBudget { lineage_id: key.lineage_id, limits: key.limits };
    Ok(KeyHolder { budgets: KeyBudgets::new(own, makers), role, key })
}

fn limits(requests: Option<i64>, tokens: Option<i64>, cost: Option<i64>) -> KeyLimits {
    KeyLimits { requests_per_minute: requests, tokens_per_minute: tokens, monthly_cost: cost.map(NanoUsd) }
}

fn api_key(row: KeyRow) -> Result<ApiKey, StoreError> {
    let permissions: PermissionSet =
        serde_json::from_value(row.permissions).map_err(|_| inconsistent("api_keys", row.id))?;
    Ok(ApiKey {
        id: ApiKeyId(row.id),
        user_id: UserId(row.user_id),
        name: row.name,
        prefix: row.key_prefix,
        last_four: row.last_four,
        permissions,
        on_behalf: row.on_behalf,
        limits: limits(row.requests_per_minute, row.tokens_per_minute, row.monthly_cost_nano_usd),
        is_active: row.is_active,
        last_used_at: row.last_used_at,
        expires_at: row.expires_at,
        rotated_to: row.rotated_to.map(ApiKeyId),
        lineage_id: ApiKeyId(row.lineage_id),
        makers: row.makers.into_iter().map(ApiKeyId).collect(),
        revoked_at: row.revoked_at,
        created_at: row.created_at,
    })
}
