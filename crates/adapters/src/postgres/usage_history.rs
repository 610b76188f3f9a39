//! Usage history on Postgres: hourly sums up to the watermark, events after it.
//!
//! Costs: `list` is one round trip (two for all users) that sums only the buckets of its page and the empty ones before
//! them; one user's rows are read by an index on user and time; all users' rows are already summed per hour in a table
//! of their own. `roll_up` is two round trips and covers at most a day of events. Requests' writes are not locked.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::features::FeatureId;
use domain::usage_history::{TimeRange, UsageBucket, UsageSum};
use ports::store::{Page, StoreError};
use ports::usage_history::{UsageFilter, UsageHistoryRepository, UsagePosition};
use sea_orm::{FromQueryResult, Value};

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// Time limit of one page for all users: longer than the statement timeout of a request, shorter than its deadline.
const EVERYBODY_MS: u64 = 10_000;

/// Time limit of the sums of a day.
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
        stretch: &TimeRange,
        page: &Page<UsagePosition>,
    ) -> Result<Vec<UsageSum>, StoreError> {
        let after = page.after.as_ref();
        // A cursor may come from a list with other buckets.
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
        // One user and all users have statements of their own, so that each gets a suitable plan.
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

/// The length of a bucket as a Postgres interval.
const fn length(bucket: UsageBucket) -> &'static str {
    match bucket {
        UsageBucket::Hour => "1 hour",
        UsageBucket::Day => "1 day",
        UsageBucket::Month => "1 month",
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
