//! Running: each job in a task of its own, again and again, until the process stops.
//!
//! Promise: a job never runs twice at a time in one process; a run that fails or panics is logged and the next one
//! comes at its time; `stop` lets current runs end, begins none, and stores what only memory has.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
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
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{Instrument, error, error_span, info, warn};

use super::sweeps;
use crate::http::rate_limits::RateLimits;
use crate::telemetry::JOB_FAILURES;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The first run comes no later than this, whatever the interval: partitions are needed soon after a start.
const FIRST_RUN_WITHIN: Duration = MINUTE;

/// How long a stop waits for the current runs.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How far an interval is stretched at most: processes that start together must not stay in step.
const JITTER: f64 = 0.2;

/// What the jobs work with.
#[derive(Clone)]
pub struct JobsContext {
    pub store: Arc<dyn Store>,
    pub callers: Arc<CallerService>,
    /// `None` if Supabase keeps the accounts.
    pub accounts: Option<Arc<AccountService>>,
    pub plans: Arc<PlanService>,
    pub usage: Arc<UsageService>,
    pub ai: Arc<AiService>,
    pub replays: Arc<ReplayService>,
    pub api_keys: Arc<ApiKeyService>,
    pub usage_history: Arc<UsageHistoryService>,
    pub maintenance: Arc<MaintenanceService>,
    pub limits: Arc<RateLimits>,
    pub metrics: PrometheusHandle,
}

pub struct RunningJobs {
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
    callers: Arc<CallerService>,
}

impl RunningJobs {
    /// Starts all jobs, on the tokio runtime that it is called in.
    pub fn start(context: JobsContext) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut jobs = Self { stop, running: Vec::new(), callers: Arc::clone(&context.callers) };
        let JobsContext {
            store,
            callers,
            accounts,
            plans,
            usage,
            ai,
            replays,
            api_keys,
            usage_history,
            maintenance,
            limits,
            metrics,
        } = context;
        let mut every =
            |name, interval, job: Job| jobs.running.push(tokio::spawn(repeat(name, interval, job, stopping.clone())));
        every("metrics_upkeep", 5 * SECOND, job(move || sweeps::keep_metrics(&metrics)));
        every("key_uses", 5 * SECOND, job(move || sweeps::flush_key_uses(Arc::clone(&callers))));
        every("rate_limits", MINUTE, job(move || sweeps::sweep_limits(&limits)));
        every("answers", MINUTE, job(move || sweeps::sweep_answers(Arc::clone(&store))));
        every("replays", MINUTE, job(move || sweeps::sweep_replays(Arc::clone(&replays))));
        let holding = Arc::clone(&usage);
        every("holds", 5 * SECOND, job(move || sweeps::sweep_holds(Arc::clone(&holding))));
        let calling = Arc::clone(&ai);
        every("calls", 5 * SECOND, job(move || sweeps::sweep_calls(Arc::clone(&calling))));
        every("revoked_calls", SECOND, job(move || sweeps::end_revoked_calls(Arc::clone(&ai))));
        let ended = Arc::clone(&usage);
        every("reservations", MINUTE, job(move || sweeps::sweep_reservations(Arc::clone(&ended))));
        every("outcomes", MINUTE, job(move || sweeps::sweep_outcomes(Arc::clone(&usage))));
        every("key_counters", MINUTE, job(move || sweeps::sweep_key_counters(Arc::clone(&api_keys))));
        let calls = Arc::clone(&usage_history);
        every("ai_usage_rollups", MINUTE, job(move || sweeps::roll_up_ai_usage(Arc::clone(&calls))));
        every("usage_rollups", MINUTE, job(move || sweeps::roll_up_usage(Arc::clone(&usage_history))));
        every("plan_changes", MINUTE, job(move || sweeps::apply_plan_changes(Arc::clone(&plans))));
        if let Some(accounts) = accounts {
            every("sessions", HOUR, job(move || sweeps::sweep_sessions(Arc::clone(&accounts))));
        }
        let checked = Arc::clone(&maintenance);
        every("integrity", HOUR, job(move || sweeps::check_integrity(Arc::clone(&checked))));
        every("partitions", 6 * HOUR, job(move || sweeps::maintain_partitions(Arc::clone(&maintenance))));
        jobs
    }

    /// Ends all jobs, waits a few seconds for the current runs, and stores the last uses of keys.
    pub async fn stop(self) {
        let Self { stop, running, callers } = self;
        // It fails if no job runs any more, which is fine.
        let _ = stop.send(true);
        let ended = tokio::time::timeout(STOP_PATIENCE, futures_util::future::join_all(running)).await;
        if ended.is_err() {
            warn!("a job did not end in time; the process stops without it");
        }
        match tokio::time::timeout(STOP_PATIENCE, sweeps::flush_key_uses(callers)).await {
            Ok(Ok(())) => info!("the jobs have stopped"),
            Ok(Err(error)) => error!(%error, "the last uses of keys could not be written down"),
            Err(_) => error!("the last uses of keys could not be written down in time"),
        }
    }
}

type Run = JoinHandle<Result<(), StoreError>>;
/// Starts one run of a job. The run is a task of its own, so that a panic affects nothing else.
type Job = Box<dyn Fn() -> Run + Send + Sync>;

fn job<F>(run: impl Fn() -> F + Send + Sync + 'static) -> Job
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let run = Arc::new(run);
    Box::new(move || {
        let run = Arc::clone(&run);
        tokio::spawn(async move { run().await }.in_current_span())
    })
}

async fn repeat(name: &'static str, interval: Duration, job: Job, mut stopping: watch::Receiver<bool>) {
    // An alert on its increase needs it to exist before the first failure.
    counter!(JOB_FAILURES, "job" => name).increment(0);
    let mut pause = interval.min(FIRST_RUN_WITHIN).mul_f64(share());
    loop {
        tokio::select! {
            // An error means that the sender is gone, and with it the process.
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        let run = error_span!("job", name).in_scope(&job);
        report(name, run.await);
        pause = interval.mul_f64(1.0 + JITTER * share());
    }
}

fn report(name: &'static str, ended: Result<Result<(), StoreError>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error!(job = name, %error, "a job failed; it is tried again at its time"),
        Err(broken) => error!(job = name, %broken, "a job broke; it is tried again at its time"),
    }
    counter!(JOB_FAILURES, "job" => name).increment(1);
}

/// A random share between 0 and 1. The seed of a hash is random enough to keep processes apart.
fn share() -> f64 {
    let chance = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(chance >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts its runs and the most that were at work at once; every third panics, every third fails.
    #[derive(Default)]
    struct Counted {
        begun: AtomicUsize,
        at_work: AtomicUsize,
        at_work_most: AtomicUsize,
    }

    async fn run(counted: Arc<Counted>) -> Result<(), StoreError> {
        let number = counted.begun.fetch_add(1, Ordering::SeqCst);
        let at_work = counted.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        counted.at_work_most.fetch_max(at_work, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        counted.at_work.fetch_sub(1, Ordering::SeqCst);
        assert!(number % 3 != 1, "every third run breaks");
        if number % 3 == 2 { Err(StoreError::Conflict) } else { Ok(()) }
    }

    #[tokio::test]
    async fn a_job_goes_on_after_a_failure_and_a_panic_and_ends_with_the_stop() {
        let counted = Arc::new(Counted::default());
        let (stop, stopping) = watch::channel(false);
        let counting = Arc::clone(&counted);
        let counting = job(move || run(Arc::clone(&counting)));
        let running = tokio::spawn(repeat("counted", Duration::from_millis(1), counting, stopping));
        while counted.begun.load(Ordering::SeqCst) < 7 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.send(true).unwrap();
        running.await.unwrap();
        let begun = counted.begun.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(counted.begun.load(Ordering::SeqCst), begun, "none begins after the stop");
        assert_eq!(counted.at_work.load(Ordering::SeqCst), 0, "none is at work after the stop");
        assert_eq!(counted.at_work_most.load(Ordering::SeqCst), 1, "none runs beside itself");
    }

    #[test]
    fn a_share_is_a_share() {
        let shares: Vec<f64> = (0..100).map(|_| share()).collect();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.01));
    }
}
