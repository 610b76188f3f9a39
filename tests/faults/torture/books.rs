//! The books: all metering rows in the database, read when there are no writers any more.

use harness::sqlx::{self, AssertSqlSafe, Connection as _, FromRow, PgConnection, postgres::PgRow};
use uuid::Uuid;

#[derive(Clone, Debug, Default)]
pub struct Books {
    pub keys: Vec<Kept>,
    pub events: Vec<Event>,
    pub holds: Vec<HoldRow>,
    pub counters: Vec<Counter>,
    pub payments: Vec<Payment>,
    /// Rows of work that was done in SQL: user, key, amount.
    pub work: Vec<(Uuid, String, i64)>,
    /// The findings of the product's own checks.
    pub integrity: Vec<String>,
}

/// A stored outcome.
#[derive(Clone, Debug)]
pub struct Kept {
    pub user: Uuid,
    pub key: String,
    pub feature: String,
    pub amount: i64,
    pub current: i64,
    pub limit: Option<i64>,
    pub remaining: Option<i64>,
    pub reserved: i64,
    pub hold: Option<Uuid>,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub user: Uuid,
    pub feature: String,
    pub amount: i64,
    pub overage: i64,
    pub key: Option<String>,
    pub hold: Option<Uuid>,
}

#[derive(Clone, Debug)]
pub struct HoldRow {
    pub id: Uuid,
    pub user: Uuid,
    pub key: Option<String>,
    pub amount: i64,
    pub status: String,
    pub settled: Option<i64>,
    pub overage: i64,
}

/// The sum over all periods of one user and feature.
#[derive(Clone, Debug)]
pub struct Counter {
    pub user: Uuid,
    pub feature: String,
    pub used: i64,
    pub reserved: i64,
    pub overage: i64,
}

/// A charge in tokens; `hold` names its reservation, if it has one.
#[derive(Clone, Debug)]
pub struct Payment {
    pub user: Uuid,
    pub tokens: i64,
    pub hold: Option<Uuid>,
}

/// The number of pending reservations.
pub async fn pending_holds(owner_url: &str) -> i64 {
    let mut owner = PgConnection::connect(owner_url).await.unwrap();
    let counted: Vec<(i64,)> =
        rows(&mut owner, "SELECT count(*) FROM usage_reservations WHERE status = 'pending'").await;
    counted[0].0
}

impl Books {
    pub async fn read(owner_url: &str) -> Self {
        let mut owner = PgConnection::connect(owner_url).await.unwrap();
        let sql =
            "SELECT user_id, key, feature_id::text, amount, current, limit_value, remaining, reserved, reservation_id
            FROM idempotency_keys";
        let keys: Vec<(_, _, _, _, _, _, _, _, _)> = rows(&mut owner, sql).await;
        let sql = "SELECT user_id, feature_id::text, amount, overage, idempotency_key::text, reservation_id FROM usage_events";
        let events: Vec<(_, _, _, _, _, _)> = rows(&mut owner, sql).await;
        let sql = "SELECT id, user_id, idempotency_key::text, amount, status::text, settled_amount, overage
            FROM usage_reservations";
        let holds: Vec<(_, _, _, _, _, _, _)> = rows(&mut owner, sql).await;
        let sql = "SELECT user_id, feature_id::text, sum(used)::bigint, sum(reserved)::bigint, sum(overage)::bigint
            FROM usage_counters GROUP BY 1, 2";
        let counters: Vec<(_, _, _, _, _)> = rows(&mut owner, sql).await;
        let sql = "SELECT user_id, -amount, reference_id FROM token_transactions WHERE type = 'usage'";
        let payments: Vec<(_, _, _)> = rows(&mut owner, sql).await;
        let integrity: Vec<(String,)> =
            rows(&mut owner, "SELECT finding || ' ' || subject || ': ' || detail FROM integrity_findings()").await;
        let work = rows(&mut owner, "SELECT user_id, key, amount FROM torture_work").await;
        let key = |(user, key, feature, amount, current, limit, remaining, reserved, hold)| Kept {
            user,
            key,
            feature,
            amount,
            current,
            limit,
            remaining,
            reserved,
            hold,
        };
        let event = |(user, feature, amount, overage, key, hold)| Event { user, feature, amount, overage, key, hold };
        let hold = |(id, user, key, amount, status, settled, overage)| HoldRow {
            id,
            user,
            key,
            amount,
            status,
            settled,
            overage,
        };
        let counter = |(user, feature, used, reserved, overage)| Counter { user, feature, used, reserved, overage };
        Self {
            keys: keys.into_iter().map(key).collect(),
            events: events.into_iter().map(event).collect(),
            holds: holds.into_iter().map(hold).collect(),
            counters: counters.into_iter().map(counter).collect(),
            payments: payments.into_iter().map(|(user, tokens, hold)| Payment { user, tokens, hold }).collect(),
            work,
            integrity: integrity.into_iter().map(|(finding,)| finding).collect(),
        }
    }
}

async fn rows<T>(owner: &mut PgConnection, sql: &str) -> Vec<T>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let read = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(owner).await;
    read.unwrap_or_else(|error| panic!("{sql}: {error}"))
}
