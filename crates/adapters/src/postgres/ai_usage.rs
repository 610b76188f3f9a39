//! AI usage on Postgres, summed from the log of the calls.
//!
//! Costs: two round trips. Every row of the range is read once. For one user: the calls, through the index by user and
//! time. For all users: one row per hour and model, and the calls of hours that are not summed yet or lie partly in the
//! range. The result is bounded: 100 models, 401 days, 15 months. No locks.

use async_trait::async_trait;
use chrono::NaiveDate;
use domain::ai_usage::{AiTotals, AiUsageOf, AiUsageRange, AiUsageSums, MODELS_SHOWN, RecordedModel};
use domain::prices::NanoUsd;
use ports::ai_usage::{AiUsageFilter, AiUsageRepository};
use ports::store::StoreError;
use sea_orm::{FromQueryResult, Value};

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// Time limit of a sum: longer than the statement timeout of a request, shorter than its deadline.
const SUM_MS: u64 = 10_000;

#[derive(FromQueryResult)]
struct SumRow {
    divided_by: String,
    provider: Option<String>,
    model: Option<String>,
    day: Option<NaiveDate>,
    month: Option<NaiveDate>,
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_tokens: i64,
    total_tokens: i64,
    cost_nano_usd: i64,
}

#[async_trait]
impl AiUsageRepository for PgUnitOfWork {
    async fn sum(&mut self, filter: &AiUsageFilter, range: &AiUsageRange) -> Result<AiUsageSums, StoreError> {
        self.transaction.allow(SUM_MS).await?;
        let mut values: Vec<Value> = vec![
            range.from.into(),
            range.to.into(),
            filter.provider.map(|provider| provider.as_str().to_owned()).into(),
            filter.model.clone().into(),
            filter.session_id.map(|id| id.0).into(),
            limit(MODELS_SHOWN),
        ];
        // One user and all users have statements of their own, so that each gets a suitable plan.
        let of_one = include_str!("sql/calls_of_one.sql");
        let calls = if let Some(user_id) = filter.user_id {
            values.push(user_id.0.into());
            of_one.replace("{whose}", "l.user_id = $7")
        } else if filter.session_id.is_some() {
            of_one.replace("{whose}", "true")
        } else {
            include_str!("sql/calls_of_all.sql").to_owned()
        };
        let sql = include_str!("sql/sum_ai_usage.sql").replace("{calls}", &calls);
        let rows: Vec<SumRow> = self.read_all(&sql, values).await?;
        sums(rows)
    }
}

fn sums(rows: Vec<SumRow>) -> Result<AiUsageSums, StoreError> {
    let mut sums = AiUsageSums::default();
    for row in rows {
        let totals = totals(&row);
        let unfit = || inconsistent("ai_usage_logs", &row.divided_by);
        let provider = || row.provider.as_deref().and_then(|name| name.parse().ok()).ok_or_else(unfit);
        match row.divided_by.as_str() {
            "nothing" => sums.all = totals,
            "provider" => sums.by_provider.push(AiUsageOf { of: provider()?, totals }),
            "model" => {
                let of = RecordedModel { provider: provider()?, model: row.model.clone() };
                sums.by_model.push(AiUsageOf { of, totals });
            }
            "other" => sums.other_models = Some(totals),
            "day" => sums.by_day.push(AiUsageOf { of: row.day.ok_or_else(unfit)?, totals }),
            "month" => sums.by_month.push(AiUsageOf { of: row.month.ok_or_else(unfit)?, totals }),
            _ => return Err(unfit()),
        }
    }
    Ok(sums)
}

const fn totals(row: &SumRow) -> AiTotals {
    AiTotals {
        requests: row.requests,
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        cached_tokens: row.cached_tokens,
        total_tokens: row.total_tokens,
        cost: NanoUsd(row.cost_nano_usd),
    }
}
