//! The start: from settings to a running service, in one readable order, and the stop in the reverse one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use adapters::clock::SystemClock;
use adapters::memory::Memory;
use adapters::postgres::embedded::EmbeddedPostgres;
use adapters::postgres::{ChangeFeed, PgStore, PoolSettings, Pooler as PgPooler};
use adapters::randomness::SystemRandomness;
use adapters::secrets::access_tokens::BuiltInTokens;
use adapters::secrets::api_keys::ApiKeys;
use adapters::secrets::opaque::OpaqueSecrets;
use adapters::secrets::passwords::{Argon2Passwords, CONCURRENCY};
use adapters::secrets::supabase::SupabaseTokens;
use adapters::secrets::verified::CachedVerifier;
use anyhow::{Context, bail};
use chrono::TimeDelta;
use ports::api_keys::KeyMint;
use ports::changes::ChangeListener;
use ports::clock::Clock;
use ports::identity::{CallerCache, SecretMint, TokenVerifier};
use ports::randomness::Randomness;
use ports::store::{Scope, Store, StoreError};
use services::ai::{AiParts, AiService, AiSettings};
use services::ai_usage::AiUsageService;
use services::api_keys::ApiKeyService;
use services::audit::AuditService;
use services::chat::ChatService;
use services::entitlements::EntitlementService;
use services::features::FeatureService;
use services::identity::accounts::{AccountService, FirstAdmin};
use services::identity::callers::CallerService;
use services::maintenance::MaintenanceService;
use services::plans::PlanService;
use services::prices::PriceService;
use services::readings::Readings;
use services::tokens::TokenService;
use services::usage::{LaneSettings, UsageService};
use services::usage_history::UsageHistoryService;
use services::users::{IdentityProvider, UserService};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::http::maintenance::Stopping;
use crate::http::server::{self, Rooms};
use crate::jobs::{Jobs, JobsContext};
use crate::preparation::{Preparation, admin_email};
use crate::settings::shape::{Environment, Pooler, Secret, Settings, given};
use crate::telemetry;

/// The login of the service on its private cluster.
const SERVICE_LOGIN: &str = "app_user";

/// Where the private cluster keeps the signing key, in its folder (0600).
const SIGNING_KEY_FILE: &str = "signing_key";

/// How long the stop waits for consumptions whose clients have gone already.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// A running service. Dropping it stops nothing; `stop` does, in order.
pub struct RunningApp {
    pub address: SocketAddr,
    pub first_admin: FirstAdmin,
    store: Arc<PgStore>,
    usage: Arc<UsageService>,
    stopping: Stopping,
    /// How long a balancer is given to notice.
    delay: Duration,
    jobs: Jobs,
    feed: Option<ChangeFeed>,
    server: ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
}

impl RunningApp {
    /// Readiness says no, requests in flight end, what is noted is written, connections close.
    pub async fn stop(self) -> anyhow::Result<()> {
        info!("stopping");
        self.stopping.begin();
        tokio::time::sleep(self.delay).await;
        self.server.stop(true).await;
        self.serving.await.context("the HTTP server broke")?.context("the HTTP server failed")?;
        self.usage.drain(DRAIN_PATIENCE).await;
        self.jobs.stop().await;
        drop(self.feed);
        self.store.close().await;
        Ok(())
    }
}

/// Puts the private cluster's addresses and signing key where the settings have none.
pub async fn prepare_embedded(settings: &mut Settings, postgres: &EmbeddedPostgres) -> anyhow::Result<()> {
    let owner_url = postgres.owner_url().to_owned();
    // The service's login is made by the migration, so on a new cluster that comes first.
    migration::up(&owner_url).await.context("the schema could not be brought up to date")?;
    let password = postgres.set_password(SERVICE_LOGIN).await?;
    settings.database.url = Secret::new(postgres.url_as(SERVICE_LOGIN, &password, postgres.database()));
    settings.database.direct_url = Secret::new(owner_url);
    settings.database.pooler = Pooler::None;
    if !settings.auth.signing_key.is_set() {
        settings.auth.signing_key = Secret::new(kept_signing_key(&postgres.data_dir().join(SIGNING_KEY_FILE))?);
    }
    Ok(())
}

/// The key in the file, made if there is none.
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

/// Starts the service. `settings.database.url` is set.
pub async fn start(settings: Settings) -> anyhow::Result<RunningApp> {
    let url = settings.database.url.expose().context("database.url is not set")?.to_owned();
    if settings.database.migrate_on_start {
        migrate(&settings, &url).await?;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let signing_key = signing_key(&settings, &url).await?;
    let store = Arc::new(PgStore::connect(pool_settings(&settings, &url, signing_key.clone().into_bytes()))?);
    check_database(&settings, &store).await?;
    let rooms = rooms(&settings, &store, &clock, &signing_key)?;
    let first_admin = Preparation::new(&settings, &rooms)?.run().await?;
    let feed = change_feed(&settings, &url, &rooms.changes)?;
    let stopping = Stopping::default();
    let delay = Duration::from_secs(settings.server.shutdown_delay_seconds);
    let metrics = telemetry::install_metrics()?;
    let jobs = Jobs::start(JobsContext {
        callers: Arc::clone(&rooms.callers),
        accounts: rooms.accounts.clone(),
        plans: Arc::clone(&rooms.plans),
        maintenance: Arc::clone(&rooms.maintenance),
        limits: Arc::clone(&rooms.limits),
        usage: Arc::clone(&rooms.usage),
        api_keys: Arc::clone(&rooms.api_keys),
        usage_history: Arc::clone(&rooms.usage_history),
        store: Arc::<PgStore>::clone(&store),
        metrics: metrics.clone(),
    });
    let usage = Arc::clone(&rooms.usage);
    let (server, address) = server::bind(settings, rooms, stopping.clone(), metrics)?;
    let handle = server.handle();
    let serving = tokio::spawn(server);
    info!(%address, "listening");
    Ok(RunningApp { address, first_admin, store, usage, stopping, delay, jobs, feed, server: handle, serving })
}

async fn migrate(settings: &Settings, url: &str) -> anyhow::Result<()> {
    let direct = settings.database.direct_url.expose();
    if direct.is_none() && settings.database.pooler == Pooler::Transaction {
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

/// The key from the settings; else, outside production, one that is kept in the database for every process.
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

fn pool_settings(settings: &Settings, url: &str, answer_secret: Vec<u8>) -> PoolSettings {
    let database = &settings.database;
    PoolSettings {
        url: url.to_owned(),
        max_connections: database.max_connections,
        acquire_timeout: Duration::from_millis(database.acquire_timeout_ms),
        pooler: match database.pooler {
            Pooler::None => PgPooler::None,
            Pooler::Transaction => PgPooler::Transaction,
        },
        statement_timeout_ms: database.statement_timeout_ms.into(),
        lock_timeout_ms: database.lock_timeout_ms.into(),
        idle_in_transaction_timeout_ms: database.idle_in_transaction_timeout_ms.into(),
        answers_ttl: Duration::from_secs(u64::from(settings.idempotency.keep_hours) * 3_600),
        answer_secret,
    }
}

/// The feed listens over the direct address. A transaction pooler hands notifications to nobody, so behind one without a
/// direct address there is no feed, and what is remembered lives a second.
fn change_feed(
    settings: &Settings,
    url: &str,
    listener: &Arc<dyn ChangeListener>,
) -> anyhow::Result<Option<ChangeFeed>> {
    let direct = settings.database.direct_url.expose();
    let Some(url) = direct.or_else(|| (settings.database.pooler == Pooler::None).then_some(url)) else {
        info!("no change is heard through a transaction pooler: what is remembered lives a second");
        return Ok(None);
    };
    Ok(Some(ChangeFeed::start(url, Arc::clone(listener))?))
}

/// Refuses to serve where answers could be mixed up, or where the login has rights that the settings forbid.
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
    let excess = maintenance.state().await?.excess_rights;
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

/// The services, each with its ports.
fn rooms(settings: &Settings, pg: &Arc<PgStore>, clock: &Arc<dyn Clock>, signing_key: &str) -> anyhow::Result<Rooms> {
    let store: Arc<dyn Store> = Arc::<PgStore>::clone(pg);
    let memory = Arc::new(Memory::new());
    let cache: Arc<dyn CallerCache> = Arc::<Memory>::clone(&memory);
    let changes: Arc<dyn ChangeListener> = Arc::<Memory>::clone(&memory);
    let readings = Arc::new(Readings::new(Arc::clone(&store), Arc::clone(&cache), Arc::<Memory>::clone(&memory) as _));
    let mint: Arc<dyn KeyMint> = Arc::new(ApiKeys::new(settings.api_keys.prefix.clone())?);
    let randomness: Arc<dyn Randomness> = Arc::new(SystemRandomness);
    let supabase = &settings.auth.supabase;
    let built_in =
        || BuiltInTokens::new(signing_key.as_bytes(), settings.auth.access_token_ttl_seconds, Arc::clone(clock));
    let verifier: Arc<dyn TokenVerifier> = if supabase.is_provider() {
        Arc::new(CachedVerifier::new(supabase_tokens(settings, clock)?, Arc::clone(clock)))
    } else {
        Arc::new(CachedVerifier::new(built_in()?, Arc::clone(clock)))
    };
    let accounts = (!supabase.is_provider()).then(built_in).transpose()?.map(|tokens| {
        Arc::new(AccountService {
            store: Arc::clone(&store),
            clock: Arc::clone(clock),
            randomness: Arc::clone(&randomness),
            passwords: Arc::new(Argon2Passwords::new(CONCURRENCY)),
            tokens: Arc::new(tokens),
            secrets: Arc::new(OpaqueSecrets),
            cache: Arc::clone(&cache),
            session_ttl: TimeDelta::days(settings.auth.session_ttl_days.into()),
        })
    });
    let prices = Arc::new(PriceService::new(&store, clock, &randomness, settings.ai.models.clone()));
    let provider = if supabase.is_provider() { IdentityProvider::Supabase } else { IdentityProvider::BuiltIn };
    let admin_email = admin_email(settings)?.filter(|_| supabase.is_provider());
    let entitlements = Arc::new(EntitlementService::new(
        Arc::clone(&store),
        Arc::<Memory>::clone(&memory) as _,
        Arc::clone(&changes),
        Arc::clone(&readings),
    ));
    let usage = Arc::new(UsageService::start(
        Arc::clone(&store),
        Arc::clone(&randomness),
        Arc::<Memory>::clone(&memory) as _,
        lane_settings(settings),
    ));
    let tokens = Arc::new(TokenService { store: Arc::clone(&store), randomness: Arc::clone(&randomness) });
    Ok(Rooms {
        callers: Arc::new(CallerService::new(
            Arc::clone(&store),
            Arc::clone(clock),
            verifier,
            Arc::clone(&mint),
            Arc::clone(&cache),
            Arc::clone(&readings),
        )),
        accounts,
        users: Arc::new(UserService { store: Arc::clone(&store), cache: Arc::clone(&cache), provider, admin_email }),
        plans: Arc::new(PlanService::new(Arc::clone(&store), settings.billing.mode, Arc::clone(&changes))),
        ai: ai_service(&store, &prices, &usage, &entitlements, &tokens, clock),
        clock: Arc::clone(clock),
        prices,
        features: Arc::new(FeatureService { store: Arc::clone(&store), changes: Arc::clone(&changes) }),
        usage,
        ai_usage: Arc::new(AiUsageService { store: Arc::clone(&store), entitlements: Arc::clone(&entitlements) }),
        entitlements,
        tokens,
        usage_history: Arc::new(UsageHistoryService { store: Arc::clone(&store) }),
        chat: Arc::new(ChatService { store: Arc::clone(&store) }),
        api_keys: Arc::new(ApiKeyService { store: Arc::clone(&store), clock: Arc::clone(clock), mint, cache }),
        audit: Arc::new(AuditService { store: Arc::clone(&store) }),
        maintenance: Arc::new(MaintenanceService { store }),
        changes,
        limits: Arc::new(crate::http::limits::RateLimits::new(settings)?),
        randomness,
        store: Arc::clone(pg),
    })
}

/// Until the providers are wired: the dialects find models and count.
fn ai_service(
    store: &Arc<dyn Store>,
    prices: &Arc<PriceService>,
    usage: &Arc<UsageService>,
    entitlements: &Arc<EntitlementService>,
    tokens: &Arc<TokenService>,
    clock: &Arc<dyn Clock>,
) -> Arc<AiService> {
    Arc::new(AiService::new(AiParts {
        store: Arc::clone(store),
        prices: Arc::clone(prices),
        usage: Arc::clone(usage),
        entitlements: Arc::clone(entitlements),
        tokens: Arc::clone(tokens),
        attempts: services::ai::attempts::Attempts {},
        counter: Arc::new(FourBytes),
        observer: Arc::new(Unobserved),
        clock: Arc::clone(clock),
        settings: AiSettings {
            hold_ttl: TimeDelta::minutes(5),
            assumed_output_tokens: 1_024,
            may_lower: false,
            drain: Duration::from_secs(5),
            fallbacks: std::collections::HashMap::new(),
        },
    }))
}

struct FourBytes;

impl ports::ai::TokenCounter for FourBytes {
    fn count(&self, text: &str) -> u64 {
        u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX)
    }
}

struct Unobserved;

impl ports::ai::CallObserver for Unobserved {
    fn ended(&self, _: &ports::ai::CallReport) {}

    fn refused(&self, _: domain::ai::Provider, _: &domain::ai::ModelId, _: &'static str) {}
}

fn lane_settings(settings: &Settings) -> LaneSettings {
    let usage = &settings.usage;
    let keep = TimeDelta::days(usage.keep_keys_days.into());
    LaneSettings { lanes: usage.lanes, queue: usage.queue, batch: usage.batch, keep }
}

fn supabase_tokens(settings: &Settings, clock: &Arc<dyn Clock>) -> anyhow::Result<SupabaseTokens> {
    let supabase = &settings.auth.supabase;
    let (issuer, audience, clock) = (given(&supabase.issuer), supabase.audience.as_str(), Arc::clone(clock));
    Ok(match supabase.jwt_secret.expose() {
        Some(secret) => SupabaseTokens::with_secret(secret.as_bytes(), issuer, audience, clock)?,
        None => SupabaseTokens::with_jwks(&supabase.jwks_url, issuer, audience, clock)?,
    })
}
