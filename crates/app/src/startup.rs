//! The start: from settings to a running service, in one readable order, and the stop in the reverse one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use adapters::postgres::embedded::EmbeddedPostgres;
use adapters::postgres::{ChangeFeed, PgStore, PoolSettings, PoolerMode as PgPooler};
use adapters::secrets::opaque::OpaqueSecrets;
use anyhow::{Context, bail};
use ports::changes::ChangeListener;
use ports::clock::Clock;
use ports::identity::SecretMint;
use ports::store::{Scope, Store, StoreError};
use services::ai::AiService;
use services::identity::first_admin::FirstAdmin;
use services::maintenance::MaintenanceService;
use services::replays::ReplayService;
use services::usage::UsageService;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::assembly::rooms;
use crate::http::maintenance::Stopping;
use crate::http::server;
use crate::jobs::{JobsContext, RunningJobs};
use crate::preparation::StartPreparation;
use crate::settings::shape::{Environment, PoolerKind, SecretText, Settings, given};
use crate::telemetry::{self, export::CallExport};

/// The login of the service on its private cluster.
pub(crate) const SERVICE_LOGIN: &str = "app_user";

/// The file with the signing key, in the folder of the private cluster (0600).
const SIGNING_KEY_FILE: &str = "signing_key";

/// How long the stop waits for consumptions whose clients have disconnected.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// How long model calls that were broken off may take to be settled.
const SETTLE_PATIENCE: Duration = Duration::from_secs(4);

/// A running service. Dropping it stops nothing; `stop` does, in order.
pub struct RunningApp {
    pub address: SocketAddr,
    pub first_admin: FirstAdmin,
    store: Arc<PgStore>,
    usage: Arc<UsageService>,
    ai: Arc<AiService>,
    replays: Arc<ReplayService>,
    stopping: Stopping,
    /// How long a load balancer has to notice the stop.
    delay: Duration,
    /// How long requests in flight may go on.
    grace: Duration,
    jobs: RunningJobs,
    feed: Option<ChangeFeed>,
    export: Option<Arc<CallExport>>,
    server: ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
}

impl RunningApp {
    /// Readiness turns to 503, requests in flight end, pending data is written, connections close. A model's answer
    /// that takes longer is broken off in time, and billed as far as it came.
    pub async fn stop(self) -> anyhow::Result<()> {
        info!("stopping");
        self.stopping.begin();
        tokio::time::sleep(self.delay).await;
        let ending = self.ai.stop(self.grace.saturating_sub(SETTLE_PATIENCE), SETTLE_PATIENCE);
        tokio::join!(self.server.stop(true), ending);
        self.serving.await.context("the HTTP server broke")?.context("the HTTP server failed")?;
        self.usage.drain(DRAIN_PATIENCE).await;
        self.replays.drain(DRAIN_PATIENCE).await;
        self.jobs.stop().await;
        drop(self.feed);
        if let Some(export) = self.export {
            tokio::task::spawn_blocking(move || export.stop()).await.ok();
        }
        self.store.close().await;
        Ok(())
    }
}

/// Fills in the private cluster's addresses, and its signing key if the settings have none.
pub async fn prepare_embedded(settings: &mut Settings, postgres: &EmbeddedPostgres) -> anyhow::Result<()> {
    // No superuser: an attacker who can act as the owner of the schema has the schema and no more.
    let owner_url = postgres.schema_owner_url().await?;
    // The migration creates the service's login, so on a new cluster it comes first.
    migration::up(&owner_url).await.context("the schema could not be brought up to date")?;
    let password = postgres.set_password(SERVICE_LOGIN).await?;
    settings.database.url = SecretText::new(postgres.url_as(SERVICE_LOGIN, &password, postgres.database()));
    settings.database.direct_url = SecretText::new(owner_url);
    settings.database.pooler = PoolerKind::None;
    if !settings.auth.signing_key.is_set() {
        settings.auth.signing_key = SecretText::new(kept_signing_key(&postgres.data_dir().join(SIGNING_KEY_FILE))?);
    }
    Ok(())
}

/// The key in the file, created if there is none.
fn kept_signing_key(path: &std::path::Path) -> anyhow::Result<String> {
    if let Ok(key) = std::fs::read_to_string(path)
        && key.trim().len() >= 32
    {
        return Ok(key.trim().to_owned());
    }
    let key = OpaqueSecrets.mint().secret;
    adapters::postgres::embedded::write_private(path, &key)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(key)
}

/// Starts the service. `settings.database.url` must be set.
pub async fn start(settings: Settings, clock: Arc<dyn Clock>) -> anyhow::Result<RunningApp> {
    telemetry::keep_out_secrets(&settings);
    let url = settings.database.url.expose().context("database.url is not set")?.to_owned();
    if settings.database.migrate_on_start {
        migrate(&settings, &url).await?;
    }
    let signing_key = signing_key(&settings, &url).await?;
    telemetry::redaction::keep_out(&signing_key);
    let store = Arc::new(PgStore::connect(pool_settings(&settings, &url, signing_key.clone().into_bytes()))?);
    check_database(&settings, &store).await?;
    let export = given(&settings.telemetry.otlp_endpoint).map(|endpoint| {
        let interval = Duration::from_secs(settings.telemetry.otlp_interval_seconds.max(1).into());
        CallExport::start(endpoint, interval).map(Arc::new)
    });
    let export = export.transpose()?;
    let rooms = rooms(&settings, &store, &clock, &signing_key, export.clone())?;
    let first_admin = StartPreparation::new(&settings, &rooms)?.run().await?;
    let feed = change_feed(&settings, &url, &rooms.changes, &clock)?;
    let stopping = Stopping::default();
    let delay = Duration::from_secs(settings.server.shutdown_delay_seconds);
    let metrics = telemetry::install_metrics()?;
    telemetry::start_at_zero::register_models(&settings.ai.models);
    telemetry::calls::register_providers(rooms.prices.providers().ids());
    let jobs = RunningJobs::start(JobsContext {
        callers: Arc::clone(&rooms.callers),
        accounts: rooms.accounts.clone(),
        plans: Arc::clone(&rooms.plans),
        maintenance: Arc::clone(&rooms.maintenance),
        limits: Arc::clone(&rooms.limits),
        usage: Arc::clone(&rooms.usage),
        ai: Arc::clone(&rooms.ai),
        replays: Arc::clone(&rooms.replays),
        api_keys: Arc::clone(&rooms.api_keys),
        usage_history: Arc::clone(&rooms.usage_history),
        store: Arc::<PgStore>::clone(&store),
        metrics: metrics.clone(),
    });
    let (usage, ai, replays) = (Arc::clone(&rooms.usage), Arc::clone(&rooms.ai), Arc::clone(&rooms.replays));
    let grace = Duration::from_secs(settings.server.shutdown_grace_seconds);
    let (server, address) = server::bind(settings, rooms, stopping.clone(), metrics)?;
    let handle = server.handle();
    let serving = tokio::spawn(server);
    info!(%address, "listening");
    Ok(RunningApp {
        address,
        first_admin,
        store,
        usage,
        ai,
        replays,
        stopping,
        delay,
        grace,
        jobs,
        feed,
        export,
        server: handle,
        serving,
    })
}

async fn migrate(settings: &Settings, url: &str) -> anyhow::Result<()> {
    let direct = settings.database.direct_url.expose();
    if direct.is_none() && settings.database.pooler == PoolerKind::Transaction {
        bail!(
            "migrations cannot go through a transaction pooler: set PB__DATABASE__DIRECT_URL, or migrate beforehand and \
             set PB__DATABASE__MIGRATE_ON_START=false"
        );
    }
    let direct = direct.unwrap_or(url);
    let report = migration::up(direct).await.context("the schema could not be brought up to date")?;
    let seeds = migration::SeedSettings { stripe_price_ids: settings.stripe.price_ids.clone() };
    let seeded = migration::seed_with(direct, &seeds).await.context("the seeds could not be written")?;
    info!(
        applied = report.applied.len(),
        replaced = report.replaced.len(),
        seeded = seeded.seeded,
        "the schema is up to date"
    );
    Ok(())
}

/// The key from the settings; otherwise, outside production, one that is stored in the database for every process.
async fn signing_key(settings: &Settings, url: &str) -> anyhow::Result<String> {
    if let Some(key) = settings.auth.signing_key.expose() {
        return Ok(key.to_owned());
    }
    if settings.environment == Environment::Production {
        bail!("auth.signing_key is not set (PB__AUTH__SIGNING_KEY, at least 32 characters)");
    }
    let candidate = OpaqueSecrets.mint().secret;
    let store = PgStore::connect(pool_settings(settings, url, Vec::new()))?;
    let mut work = store.begin(Scope::SERVICE).await.context("the database cannot be reached")?;
    let kept = work.identity().keep_signing_key(candidate.as_bytes()).await?;
    work.commit().await?;
    store.close().await;
    warn!("auth.signing_key is not set: one is kept in the database; set PB__AUTH__SIGNING_KEY before production");
    String::from_utf8(kept).context("the signing key in the database is not text")
}

pub(crate) fn pool_settings(settings: &Settings, url: &str, answer_secret: Vec<u8>) -> PoolSettings {
    let database = &settings.database;
    PoolSettings {
        url: url.to_owned(),
        max_connections: database.max_connections,
        acquire_timeout: Duration::from_millis(database.acquire_timeout_ms),
        pooler: match database.pooler {
            PoolerKind::None => PgPooler::None,
            PoolerKind::Transaction => PgPooler::Transaction,
        },
        statement_timeout_ms: database.statement_timeout_ms.into(),
        lock_timeout_ms: database.lock_timeout_ms.into(),
        idle_in_transaction_timeout_ms: database.idle_in_transaction_timeout_ms.into(),
        answers_ttl: Duration::from_secs(u64::from(settings.idempotency.keep_hours) * 3_600),
        answer_secret,
    }
}

/// The feed listens over the direct address. A transaction pooler delivers no notifications, so behind one without a
/// direct address there is no feed, and cached data lives a second.
fn change_feed(
    settings: &Settings,
    url: &str,
    listener: &Arc<dyn ChangeListener>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Option<ChangeFeed>> {
    let direct = settings.database.direct_url.expose();
    let Some(url) = direct.or_else(|| (settings.database.pooler == PoolerKind::None).then_some(url)) else {
        info!("no change is heard through a transaction pooler: what is remembered lives a second");
        return Ok(None);
    };
    Ok(Some(ChangeFeed::start(url, Arc::clone(listener), Arc::clone(clock))?))
}

/// Refuses to serve if responses could be mixed up, or if the login has rights that the settings forbid.
async fn check_database(settings: &Settings, store: &Arc<PgStore>) -> anyhow::Result<()> {
    match store.self_test().await {
        Ok(()) => {}
        Err(StoreError::Unavailable(why)) if !settings.database.migrate_on_start => {
            warn!(%why, "the database is away; the service starts and waits for it");
            return Ok(());
        }
        Err(error) => return Err(error).context("the self-test of the database connection failed"),
    }
    let maintenance = MaintenanceService { store: Arc::<PgStore>::clone(store) };
    let state = maintenance.state().await?;
    if !state.unsafe_settings.is_empty() {
        let settings = state.unsafe_settings.join(", ");
        warn!(%settings, "a crash of the database's machine may lose what was answered, or the whole database");
    }
    let excess = state.excess_rights;
    if excess.is_empty() {
        return Ok(());
    }
    let rights = excess.join(", ");
    if settings.database.require_restricted_role {
        bail!("the database login has rights that it must not have ({rights}); use a login such as app_user");
    }
    warn!(%rights, "the database login has more rights than it needs; every transaction sets a lesser role");
    Ok(())
}
