//! The token ledger on Postgres. The trigger sets sequence and hash, whatever is sent.
//!
//! Costs: one round trip per call, each by a key: `list` is bounded by the page, `find_spent` reads the refunds of one
//! use. Locks: `record` and `move_tokens` require that the user's row is locked, and write the balance and its row in one
//! statement.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::idempotency::IdempotencyKey;
use domain::tokens::{TokenBalance, TokenCredit, TokenTransaction, TokensSpent, TransactionId};
use domain::users::{User, UserId};
use ports::store::{Locked, Page, StoreError};
use ports::tokens::{TokenChange, TokenRepository};
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// The columns of a ledger row that every statement reads.
const COLUMNS: &str =
    "t.id, t.seq, t.amount, t.type AS kind, t.description, t.reference_id, t.balance_after, t.created_at";

#[derive(FromQueryResult)]
struct TransactionRow {
    id: Uuid,
    seq: i64,
    amount: i64,
    kind: String,
    description: Option<String>,
    reference_id: Option<Uuid>,
    balance_after: i64,
    created_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct BalanceRow {
    token_balance: i64,
    token_reserved: i64,
}

#[derive(FromQueryResult)]
struct SpentRow {
    amount: i64,
    refunded: i64,
}

#[async_trait]
impl TokenRepository for PgUnitOfWork {
    async fn find_balance(&mut self, user_id: UserId) -> Result<Option<TokenBalance>, StoreError> {
        let sql = "SELECT token_balance, token_reserved FROM users WHERE id = $1";
        let row: Option<BalanceRow> = self.read_one(sql, [user_id.0.into()]).await?;
        Ok(row.map(|row| TokenBalance { balance: row.token_balance, reserved: row.token_reserved }))
    }

    async fn list(&mut self, user_id: UserId, page: &Page<TransactionId>) -> Result<Vec<TokenTransaction>, StoreError> {
        let rows = match page.after {
            None => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM token_transactions AS t WHERE t.user_id = $1 ORDER BY t.seq DESC LIMIT $2"
                );
                self.read_all(&sql, [user_id.0.into(), limit(page.limit)]).await?
            }
            Some(after) => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM token_transactions AS t WHERE t.user_id = $1 \
                     AND t.seq < (SELECT a.seq FROM token_transactions AS a WHERE a.id = $3 AND a.user_id = $1) \
                     ORDER BY t.seq DESC LIMIT $2"
                );
                self.read_all(&sql, [user_id.0.into(), limit(page.limit), after.0.into()]).await?
            }
        };
        rows.into_iter().map(transaction).collect()
    }

    async fn find_by_key(
        &mut self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<TokenTransaction>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM token_transactions AS t WHERE t.user_id = $1 AND t.idempotency_key = $2");
        self.read_one(&sql, [user_id.0.into(), key.as_str().into()]).await?.map(transaction).transpose()
    }

    async fn find_spent(
        &mut self,
        user_id: UserId,
        id: TransactionId,
        before: Option<i64>,
    ) -> Result<Option<TokensSpent>, StoreError> {
        let sql = "SELECT u.amount, coalesce((SELECT sum(r.amount) FROM token_transactions AS r \
                WHERE r.reference_id = u.id AND r.type = 'refund' AND r.user_id = u.user_id AND r.seq < $3), 0)::bigint AS refunded \
            FROM token_transactions AS u WHERE u.id = $2 AND u.user_id = $1 AND u.type = 'usage'";
        let values = [user_id.0.into(), id.0.into(), before.unwrap_or(i64::MAX).into()];
        let row: Option<SpentRow> = self.read_one(sql, values).await?;
        Ok(row.map(|row| TokensSpent { taken: row.amount.saturating_neg(), refunded: row.refunded }))
    }

    async fn record(
        &mut self,
        user: &Locked<User>,
        id: TransactionId,
        credit: &TokenCredit,
        key: Option<&IdempotencyKey>,
    ) -> Result<TokenTransaction, StoreError> {
        let sql = format!(
            "WITH credited AS (UPDATE users SET token_balance = token_balance + $3 WHERE id = $1 RETURNING id, token_balance) \
             INSERT INTO token_transactions AS t \
             (id, user_id, amount, type, description, reference_id, balance_after, idempotency_key) \
             SELECT $2, c.id, $3, $4, $5, $6, c.token_balance, $7 FROM credited AS c RETURNING {COLUMNS}"
        );
        let values = [
            user.id.0.into(),
            id.0.into(),
            credit.amount.into(),
            credit.kind.as_str().into(),
            credit.description.clone().into(),
            credit.reference_id.into(),
            key.map(|key| key.as_str().to_owned()).into(),
        ];
        let row = self.read_one(&sql, values).await?;
        row.map(transaction).transpose()?.ok_or_else(|| inconsistent("users", user.id))
    }

    async fn move_tokens(&mut self, change: &TokenChange) -> Result<(), StoreError> {
        let sql = "WITH moved AS ( \
                UPDATE users SET token_reserved = token_reserved + $2, token_balance = token_balance - $3 WHERE id = $1 \
                RETURNING id, token_balance \
            ) \
            INSERT INTO token_transactions (user_id, amount, type, description, reference_id, balance_after) \
            SELECT id, -$3, 'usage', $4, $5, token_balance FROM moved WHERE $3 > 0";
        let description = format!("{} beyond the limit", change.feature_id);
        let reference_id = change.reservation_id.map(|id| id.0);
        let values: [Value; 5] = [
            change.user_id.0.into(),
            change.reserved.into(),
            change.spent.into(),
            description.into(),
            reference_id.into(),
        ];
        self.run(sql, values).await.map(drop)
    }
}

fn transaction(row: TransactionRow) -> Result<TokenTransaction, StoreError> {
    Ok(TokenTransaction {
        id: TransactionId(row.id),
        seq: row.seq,
        amount: row.amount,
        kind: row.kind.parse().map_err(|_| inconsistent("token_transactions", row.id))?,
        description: row.description,
        reference_id: row.reference_id,
        balance_after: row.balance_after,
        created_at: row.created_at,
    })
}
