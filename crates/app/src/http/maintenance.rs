//! Maintenance: liveness, readiness, and the findings of the data checks.
//!
//! Promise: `/healthz` depends on nothing else. `/readyz` answers within two seconds whatever the database does, and
//! however often it is called: all calls within a second share one read of the database. No inner text of an error is
//! sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER};
use actix_web::web::{Data, Json};
use chrono::{DateTime, TimeDelta, Utc};
use domain::maintenance::{IntegrityFinding, IntegrityReport};
use ports::maintenance::DatabaseState;
use ports::store::StoreError;
use serde::Serialize;
use services::maintenance::MaintenanceService;
use tokio::sync::Mutex;
use tracing::{Instrument, warn};
use utoipa::ToSchema;

use super::caller::{PermittedCaller, ReadAudit};
use super::problem::Problem;
use super::spawn::detached;

/// How long readiness and metrics wait for the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one request begins further pieces of the integrity checks.
const INTEGRITY_PATIENCE: Duration = Duration::from_secs(2);

/// How long one read of the database's state serves for readiness.
const READY_FOR: Duration = Duration::from_secs(1);

/// When to retry, in seconds, while the service is not ready.
const ASK_AGAIN_SECONDS: u64 = 2;

/// Whether the process is stopping: it still answers, and wants no more requests. All clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the state of the database is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseTrouble {
    /// It does not answer, or not in time.
    Away,
    /// It answers, with an error: the schema or the rights are not what the service needs.
    Unworkable,
}

type Seen = Result<Arc<DatabaseState>, DatabaseTrouble>;

/// The last state of the database that was read, shared by all callers.
pub struct DatabaseWatch {
    maintenance: Arc<MaintenanceService>,
    last: Arc<Mutex<Option<(Instant, Seen)>>>,
}

impl DatabaseWatch {
    pub fn new(maintenance: Arc<MaintenanceService>) -> Self {
        Self { maintenance, last: Arc::default() }
    }

    /// The state of the database, at most `max_age` old; within two seconds.
    pub async fn state(&self, max_age: Duration) -> Seen {
        let (maintenance, last) = (Arc::clone(&self.maintenance), Arc::clone(&self.last));
        // In a task of its own: giving up the wait must not cut a transaction short. Concurrent callers wait at the
        // lock and take its result, so that there is one query to the database at a time.
        let look = async move {
            let mut last = last.lock().await;
            if let Some((_, seen)) = last.as_ref().filter(|(at, _)| at.elapsed() <= max_age) {
                return seen.clone();
            }
            let seen = maintenance.state().await.map(Arc::new).map_err(|error| trouble(&error));
            *last = Some((Instant::now(), seen.clone()));
            seen
        };
        let look = tokio::spawn(look.in_current_span());
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(_)) | Err(_) => Err(DatabaseTrouble::Away),
        }
    }
}

fn trouble(error: &StoreError) -> DatabaseTrouble {
    warn!(%error, "the state of the database cannot be read");
    match error {
        StoreError::Unavailable(_) | StoreError::InDoubt(_) | StoreError::Conflict | StoreError::Busy => {
            DatabaseTrouble::Away
        }
        _ => DatabaseTrouble::Unworkable,
    }
}

#[derive(Serialize, ToSchema)]
pub struct LivenessView {
    /// Always `ok`: a process that is not alive does not answer.
    #[schema(example = "ok")]
    pub status: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    Ready,
    NotReady,
    /// The process is stopping and finishes what it has begun.
    Stopping,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyView {
    /// Whether requests should be sent here.
    pub status: Readiness,
    /// What readiness depends on.
    pub checks: ReadyChecksView,
    /// What does not stop the service and should be fixed.
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyChecksView {
    /// Whether the database is usable.
    pub database: DatabaseCheckView,
    /// Whether the schema is the one that this version of the service needs.
    pub migrations: MigrationsCheckView,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DatabaseCheckView {
    /// Whether a transaction could be opened and the state be read.
    pub ok: bool,
    /// What is wrong, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub detail: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MigrationsCheckView {
    /// Whether every migration was applied; false also if that is not known.
    pub ok: bool,
    /// Migrations that were not applied, oldest first.
    pub pending: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct IntegrityFindingView {
    /// The stable code of the finding, such as `MISSING_AUTH_USER`.
    pub finding: String,
    /// Its subject: a table and a key, or the name of an object.
    pub subject: String,
    /// What was found there.
    pub detail: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct IntegrityView {
    pub data: Vec<IntegrityFindingView>,
    /// Always null: the list is complete.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
    /// When the piece that was checked longest ago was checked; null while one of them never was.
    #[schema(required = true)]
    pub checked_at: Option<DateTime<Utc>>,
}

impl From<IntegrityReport> for IntegrityView {
    fn from(report: IntegrityReport) -> Self {
        let IntegrityReport { findings, checked_at } = report;
        Self { data: findings.into_iter().map(Into::into).collect(), next_cursor: None, checked_at }
    }
}

impl From<IntegrityFinding> for IntegrityFindingView {
    fn from(found: IntegrityFinding) -> Self {
        let IntegrityFinding { finding, subject, detail } = found;
        Self { finding, subject, detail }
    }
}

/// Whether the process is alive. Depends on nothing else.
#[utoipa::path(get, path = "/healthz", tag = "operations", operation_id = "liveness", responses(
    (status = 200, description = "The process lives", body = LivenessView),
))]
pub async fn liveness() -> Json<LivenessView> {
    Json(LivenessView { status: "ok" })
}

/// Whether requests should be sent here: the database answers, its schema is complete, and the process is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "operations", operation_id = "readiness", responses(
    (status = 200, description = "Ready", body = ReadyView),
    (status = 503, description = "Not ready, or stopping", body = ReadyView, headers(
        ("Retry-After" = u64, description = "When to ask again, in seconds"),
    )),
))]
pub async fn readiness(watch: Data<DatabaseWatch>, stopping: Data<Stopping>) -> HttpResponse {
    let seen = watch.state(READY_FOR).await;
    let view = ready_view(&seen, &migration::names(), stopping.has_begun());
    let is_ready = view.status == Readiness::Ready;
    let mut response = HttpResponse::build(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE });
    response.insert_header((CACHE_CONTROL, "no-store"));
    if !is_ready {
        response.insert_header((RETRY_AFTER, ASK_AGAIN_SECONDS));
    }
    response.json(view)
}

/// The findings of the regular data checks, at most 1,000; there should be none. The checks run in pieces, the longest
/// unchecked first, for two seconds at most; the other pieces report their last findings.
#[utoipa::path(get, path = "/api/admin/integrity", tag = "operators", operation_id = "integrity", responses(
    (status = 200, description = "The findings", body = IntegrityView),
), security(("token" = []), ("key" = [])))]
pub async fn integrity(
    _: PermittedCaller<ReadAudit>,
    maintenance: Data<MaintenanceService>,
) -> Result<Json<IntegrityView>, Problem> {
    let maintenance = maintenance.into_inner();
    let checks = async move { maintenance.check_integrity(TimeDelta::zero(), INTEGRITY_PATIENCE).await };
    Ok(Json(detached(checks).await?.into()))
}

fn ready_view(seen: &Seen, steps: &[String], stopping: bool) -> ReadyView {
    let (database, migrations, warnings) = match seen {
        Ok(state) => {
            let pending: Vec<_> = steps.iter().filter(|step| !state.applied_steps.contains(step)).cloned().collect();
            let migrations = MigrationsCheckView { ok: pending.is_empty(), pending };
            (DatabaseCheckView { ok: true, detail: None }, migrations, warnings(state))
        }
        Err(trouble) => {
            let detail = match trouble {
                DatabaseTrouble::Away => "The database does not answer.",
                DatabaseTrouble::Unworkable => {
                    "The database answers with an error (it is in the log): are the schema and the login's rights complete?"
                }
            };
            let migrations = MigrationsCheckView { ok: false, pending: Vec::new() };
            (DatabaseCheckView { ok: false, detail: Some(detail) }, migrations, Vec::new())
        }
    };
    let status = match (stopping, database.ok && migrations.ok) {
        (true, _) => Readiness::Stopping,
        (false, true) => Readiness::Ready,
        (false, false) => Readiness::NotReady,
    };
    ReadyView { status, checks: ReadyChecksView { database, migrations }, warnings }
}

fn warnings(state: &DatabaseState) -> Vec<String> {
    let named = |what: &str, found: &[String]| (!found.is_empty()).then(|| format!("{what}: {}.", found.join(", ")));
    [
        named("The service's login in the database has rights that it should not have", &state.excess_rights),
        named("A crash of the database's machine may lose what was answered", &state.unsafe_settings),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(applied: &[&str], excess: &[&str]) -> DatabaseState {
        DatabaseState {
            applied_steps: applied.iter().map(|step| (*step).to_owned()).collect(),
            excess_rights: excess.iter().map(|right| (*right).to_owned()).collect(),
            unsafe_settings: vec!["fsync is off".to_owned()],
            size_bytes: 1,
            connections: 1,
            connections_max: 1,
        }
    }

    fn shown(seen: &Seen, stopping: bool) -> serde_json::Value {
        serde_json::to_value(ready_view(seen, &["one".to_owned(), "two".to_owned()], stopping)).unwrap()
    }

    #[test]
    fn ready_is_a_whole_schema_on_a_database_that_answers() {
        let view = shown(&Ok(Arc::new(state(&["one", "two", "newer"], &["superuser"]))), false);
        assert_eq!(view["status"], "ready");
        assert_eq!(view["checks"]["database"], serde_json::json!({ "ok": true }));
        assert_eq!(view["checks"]["migrations"], serde_json::json!({ "ok": true, "pending": [] }));
        assert!(view["warnings"][0].as_str().unwrap().contains("superuser"));
        assert!(view["warnings"][1].as_str().unwrap().contains("fsync is off"));
    }

    #[test]
    fn a_missing_step_a_lost_database_and_a_stop_are_not_ready() {
        let view = shown(&Ok(Arc::new(state(&["one"], &[]))), false);
        assert_eq!(view["status"], "not_ready");
        assert_eq!(view["checks"]["migrations"], serde_json::json!({ "ok": false, "pending": ["two"] }));
        let view = shown(&Err(DatabaseTrouble::Away), false);
        assert_eq!(view["status"], "not_ready");
        assert_eq!(view["checks"]["database"]["ok"], false);
        assert_eq!(shown(&Ok(Arc::new(state(&["one", "two"], &[]))), true)["status"], "stopping");
    }

    #[test]
    fn a_stop_is_known_to_all_clones() {
        let stopping = Stopping::default();
        let other = stopping.clone();
        stopping.begin();
        assert!(other.has_begun());
    }
}
