//! Usage history on Postgres: the hourly sums up to the watermark, the events after it.
//!
//! Costs: `list` is one round trip (two for everybody's) that sums no more buckets than its page shows and the empty
//! ones before them; one user's go through an index by user and time; everybody's are summed already, hour by hour, in a table of their own.
//! `roll_up` is two round trips, and covers a day of events at most. No locks on what requests write.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::features::FeatureId;
use domain::usage_history::{Bucket, Stretch, UsageSum};
use ports::store::{Page, StoreError};
use ports::usage_history::{UsageFilter, UsageHistoryRepository, UsagePosition};
use sea_orm::{FromQueryResult, Value};

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// How long everybody's use may be summed for one page: longer than a request's statement, shorter than its deadline.
const EVERYBODY_MS: u64 = 10_000;

/// How long the sums of a day may take.
const ROLL_UP_MS: u64 = 300_000;

#[derive(FromQueryResult)]
struct SumRow {
    bucket: DateTime<Utc>,
    feature_id: String,
    period: String,
    period_start: DateTime<Utc>,
    amount: i64,
    overage: i64,
    events: i64,
}

#[async_trait]
impl UsageHistoryRepository for PgUnitOfWork {
    async fn list(
        &mut self,
        filter: &UsageFilter,
        stretch: &Stretch,
        page: &Page<UsagePosition>,
    ) -> Result<Vec<UsageSum>, StoreError> {
        let after = page.after.as_ref();
        // A cursor may come from a list by other buckets.
        let newest = after.map_or(stretch.last, |position| stretch.bucket.start_of(position.bucket).min(stretch.last));
        let mut values: Vec<Value> = vec![
            newest.into(),
            stretch.first.into(),
            length(stretch.bucket).into(),
            filter.feature_id.as_ref().map(ToString::to_string).into(),
            filter.period.map(|period| period.as_str().to_owned()).into(),
            after.is_some().into(),
            after.map(|position| position.bucket).into(),
            after.map(|position| position.feature_id.to_string()).into(),
            after.map(|position| position.period.as_str().to_owned()).into(),
            after.map(|position| position.period_start).into(),
            limit(page.limit),
        ];
        // One statement for one user and another for everybody, so that each has the plan that suits it.
        let (sums_of, events_of) = if let Some(user_id) = filter.user_id {
            values.push(user_id.0.into());
            ("usage_rollups AS r WHERE r.user_id = $12", "e.user_id = $12")
        } else {
            self.transaction.allow(EVERYBODY_MS).await?;
            ("usage_totals AS r WHERE true", "true")
        };
        let sql = include_str!("sql/list_usage_sums.sql");
        let sql = sql.replace("{sums_of}", sums_of).replace("{events_of}", events_of);
        let rows: Vec<SumRow> = self.read_all(&sql, values).await?;
        rows.iter().map(sum).collect()
    }

    async fn now(&mut self) -> Result<DateTime<Utc>, StoreError> {
        let now = self.read_value("SELECT clock_timestamp()", []).await?;
        now.ok_or_else(|| StoreError::Unexpected("the database does not know the time".into()))
    }

    async fn roll_up(&mut self) -> Result<i64, StoreError> {
        self.transaction.allow(ROLL_UP_MS).await?;
        Ok(self.read_value("SELECT roll_up_usage()", []).await?.unwrap_or_default())
    }

    async fn roll_up_calls(&mut self) -> Result<i64, StoreError> {
        self.transaction.allow(ROLL_UP_MS).await?;
        Ok(self.read_value("SELECT roll_up_ai_usage()", []).await?.unwrap_or_default())
    }

    async fn lag_seconds(&mut self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT extract(epoch FROM clock_timestamp() - reached_at)::bigint FROM rollup_watermarks \
             WHERE name = 'usage_events'";
        self.read_value(sql, []).await
    }
}

/// The length of a bucket as Postgres' interval.
const fn length(bucket: Bucket) -> &'static str {
    match bucket {
        Bucket::Hour => "1 hour",
        Bucket::Day => "1 day",
        Bucket::Month => "1 month",
    }
}

fn sum(row: &SumRow) -> Result<UsageSum, StoreError> {
    let unfit = || inconsistent("usage_rollups", format_args!("{}:{}", row.feature_id, row.period));
    Ok(UsageSum {
        feature_id: FeatureId::parse(&row.feature_id).map_err(|_| unfit())?,
        bucket: row.bucket,
        period: row.period.parse().map_err(|_| unfit())?,
        period_start: row.period_start,
        amount: row.amount,
        overage: row.overage,
        events: row.events,
    })
}
