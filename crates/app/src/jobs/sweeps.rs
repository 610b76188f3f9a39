//! Sweeps: what each job does in one run.
//!
//! Every run is bounded: a backlog is processed in batches, each a short transaction, for as long as a run may take;
//! the next run does the rest. Removal is bounded by time alone, so that it is faster than what comes in.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use ports::store::{Store, StoreError};
use services::ai::AiService;
use services::api_keys::ApiKeyService;
use services::identity::accounts::AccountService;
use services::identity::callers::CallerService;
use services::maintenance::MaintenanceService;
use services::plans::PlanService;
use services::replays::ReplayService;
use services::usage::UsageService;
use services::usage_history::UsageHistoryService;
use tracing::{error, info, warn};

use crate::http::rate_limits::RateLimits;
use crate::telemetry::{FINDINGS, ROLLUP_LAG_SECONDS};

/// How many batches one run does at most.
const BATCHES_MAX: usize = 20;

/// How long a job that removes may go on in one run.
const REMOVING_AT_MOST: Duration = Duration::from_secs(40);

/// How long a run of the checks, or of the work on partitions, may go on.
const MAINTAINING_AT_MOST: Duration = Duration::from_mins(10);

/// The checks are due after an hour; a process that is a little early does not leave them for another hour.
const CHECKS_DUE_AFTER: TimeDelta = TimeDelta::minutes(50);

/// Removes batch by batch until one removes nothing or the run has lasted long enough.
async fn remove<F: Future<Output = Result<u64, StoreError>>>(remove_batch: impl Fn() -> F) -> Result<(), StoreError> {
    let begun = Instant::now();
    while begun.elapsed() < REMOVING_AT_MOST && remove_batch().await? > 0 {}
    Ok(())
}

/// Lets the recorder combine its samples, which keeps its memory small.
pub fn keep_metrics(metrics: &PrometheusHandle) -> Ready<Result<(), StoreError>> {
    metrics.run_upkeep();
    ready(Ok(()))
}

/// Removes inactive callers from the rate limits.
pub fn sweep_limits(limits: &RateLimits) -> Ready<Result<(), StoreError>> {
    limits.sweep();
    ready(Ok(()))
}

/// Stores when keys were last used.
pub async fn flush_key_uses(callers: Arc<CallerService>) -> Result<(), StoreError> {
    callers.flush_uses().await.map(drop)
}

/// Removes stored responses that have expired.
pub async fn sweep_answers(store: Arc<dyn Store>) -> Result<(), StoreError> {
    remove(|| services::idempotency::sweep_answers(&*store)).await
}

/// Removes stored responses of paid calls that have expired.
pub async fn sweep_replays(replays: Arc<ReplayService>) -> Result<(), StoreError> {
    remove(|| replays.sweep()).await
}

/// Removes stored outcomes of consumptions that have expired.
pub async fn sweep_outcomes(usage: Arc<UsageService>) -> Result<(), StoreError> {
    remove(|| usage.sweep_outcomes()).await
}

/// Removes reservations that ended long ago.
pub async fn sweep_reservations(usage: Arc<UsageService>) -> Result<(), StoreError> {
    remove(|| usage.sweep_reservations()).await
}

/// Removes the usage of keys in windows that ended long ago.
pub async fn sweep_key_counters(keys: Arc<ApiKeyService>) -> Result<(), StoreError> {
    remove(|| keys.sweep_counters()).await
}

/// Expires the reservations that were not settled in time.
pub async fn sweep_holds(usage: Arc<UsageService>) -> Result<(), StoreError> {
    for _ in 0..BATCHES_MAX {
        match usage.sweep_holds().await? {
            0 => break,
            swept => info!(swept, "holds were given back, since nobody settled them in time"),
        }
    }
    Ok(())
}

/// Settles the model calls whose process is gone.
pub async fn sweep_calls(ai: Arc<AiService>) -> Result<(), StoreError> {
    for _ in 0..BATCHES_MAX {
        if ai.sweep_calls().await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Ends running calls whose key was revoked.
pub async fn end_revoked_calls(ai: Arc<AiService>) -> Result<(), StoreError> {
    ai.end_revoked().await
}

/// Sums the past hours of usage. How far the sums are behind is reported even if they could not be made.
pub async fn roll_up_usage(history: Arc<UsageHistoryService>) -> Result<(), StoreError> {
    let summed = sum_hours(&history).await;
    if let Some(seconds) = history.lag_seconds().await? {
        gauge!(ROLLUP_LAG_SECONDS).set(f64::from(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)));
    }
    summed
}

/// Sums the past hours of model calls.
pub async fn roll_up_ai_usage(history: Arc<UsageHistoryService>) -> Result<(), StoreError> {
    for _ in 0..BATCHES_MAX {
        if history.roll_up_calls().await? == 0 {
            break;
        }
    }
    Ok(())
}

async fn sum_hours(history: &UsageHistoryService) -> Result<(), StoreError> {
    let mut hours_left = 0;
    for _ in 0..BATCHES_MAX {
        hours_left = history.roll_up().await?;
        if hours_left == 0 {
            return Ok(());
        }
    }
    warn!(hours_left, "the sums of use are behind; the next run goes on");
    Ok(())
}

/// Removes the sessions that ended long ago.
pub async fn sweep_sessions(accounts: Arc<AccountService>) -> Result<(), StoreError> {
    remove(|| accounts.sweep_sessions()).await
}

/// Stores plan changes that are due. They are in force already.
pub async fn apply_plan_changes(plans: Arc<PlanService>) -> Result<(), StoreError> {
    for _ in 0..BATCHES_MAX {
        match plans.apply_due_changes().await? {
            0 => break,
            applied => info!(applied, "plan changes were due"),
        }
    }
    Ok(())
}

/// Creates the partitions of the coming months and drops the oldest.
pub async fn maintain_partitions(maintenance: Arc<MaintenanceService>) -> Result<(), StoreError> {
    maintenance.maintain_partitions(MAINTAINING_AT_MOST).await
}

/// Runs the integrity checks of the data.
pub async fn check_integrity(maintenance: Arc<MaintenanceService>) -> Result<(), StoreError> {
    let findings = maintenance.check_integrity(CHECKS_DUE_AFTER, MAINTAINING_AT_MOST).await?.findings;
    for found in &findings {
        error!(finding = %found.finding, subject = %found.subject, detail = %found.detail, "the data is not as it must be");
    }
    gauge!(FINDINGS).set(f64::from(u32::try_from(findings.len()).unwrap_or(u32::MAX)));
    Ok(())
}
