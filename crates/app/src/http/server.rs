//! The HTTP server: the routes, their middleware, and the limits on connections.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::App;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::{Data, ServiceConfig};
use adapters::postgres::PgStore;
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use ports::changes::ChangeListener;
use ports::clock::Clock;
use ports::randomness::Randomness;
use services::ai::AiService;
use services::ai_usage::AiUsageService;
use services::api_keys::ApiKeyService;
use services::audit::AuditService;
use services::chat::ChatService;
use services::entitlements::EntitlementService;
use services::features::FeatureService;
use services::identity::accounts::AccountService;
use services::identity::callers::CallerService;
use services::maintenance::MaintenanceService;
use services::plans::PlanService;
use services::prices::PriceService;
use services::replays::ReplayService;
use services::tokens::TokenService;
use services::usage::UsageService;
use services::usage_history::UsageHistoryService;
use services::users::UserService;
use tokio::runtime::Handle;
use tracing::info;

use super::bodies::{BodyLimit, BodyMemory};
use super::caller::identify;
use super::connections::{ConnectionAdmission, ConnectionLimits, ConnectionTimeouts};
use super::identity::BuiltIn;
use super::listening;
use super::maintenance::{DatabaseWatch, Stopping};
use super::metrics::{self, MetricsSource};
use super::middleware::{MiddlewareSettings, finish};
use super::rate_limits::{RateLimits, networks};
use super::routes::routes;
use super::spawn::run_on;
use crate::settings::shape::Settings;

/// The services that the routes call.
pub struct Services {
    pub callers: Arc<CallerService>,
    /// The built-in accounts; `None` if Supabase keeps the identities.
    pub accounts: Option<Arc<AccountService>>,
    pub users: Arc<UserService>,
    pub plans: Arc<PlanService>,
    pub prices: Arc<PriceService>,
    pub ai: Arc<AiService>,
    pub clock: Arc<dyn Clock>,
    pub features: Arc<FeatureService>,
    pub entitlements: Arc<EntitlementService>,
    pub usage: Arc<UsageService>,
    pub tokens: Arc<TokenService>,
    pub usage_history: Arc<UsageHistoryService>,
    pub api_keys: Arc<ApiKeyService>,
    pub chat: Arc<ChatService>,
    pub ai_usage: Arc<AiUsageService>,
    pub replays: Arc<ReplayService>,
    pub audit: Arc<AuditService>,
    pub maintenance: Arc<MaintenanceService>,
    /// The feed of changes, for the metrics.
    pub changes: Arc<dyn ChangeListener>,
    pub limits: Arc<RateLimits>,
    pub randomness: Arc<dyn Randomness>,
    pub store: Arc<PgStore>,
}

/// Binds the listener and builds the server; it serves once it is polled.
pub fn bind(
    settings: Settings,
    rooms: Services,
    stopping: Stopping,
    recorder: PrometheusHandle,
) -> anyhow::Result<(Server, SocketAddr)> {
    let address = SocketAddr::new(settings.server.host, settings.server.port);
    let listener = TcpListener::bind(address).with_context(|| format!("{address} cannot be listened on"))?;
    let address = listener.local_addr()?;
    let workers = match settings.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        set => set,
    };
    let with_documentation = settings.server.docs;
    let grace = settings.server.shutdown_grace_seconds;
    let admission = ConnectionAdmission::new(bounds(&settings)?);
    let shared = Shared::new(settings, rooms, stopping, recorder, &admission)?;
    let runtime = Handle::current();
    let server = listening::server(listener, &admission, workers, grace, move || {
        run_on(&runtime);
        App::new()
            .configure(|config| shared.provide(config))
            .configure(|config| routes(config, with_documentation))
            // The last one is the outermost: it completes every request, whatever the others return.
            .wrap(from_fn(identify))
            .wrap(from_fn(finish))
    })?;
    Ok((server, address))
}

/// How many connections there may be, by the descriptors that the process has.
fn bounds(settings: &Settings) -> anyhow::Result<ConnectionLimits> {
    let server = &settings.server;
    let (descriptors, _) = rlimit::Resource::NOFILE.get().context("the limit of descriptors cannot be read")?;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let of_the_database = usize::try_from(settings.database.max_connections)?;
    let all = ConnectionLimits::all_within(server.connections_max, descriptors, of_the_database);
    info!(descriptors, connections = all, "connections are taken up to this bound");
    Ok(ConnectionLimits {
        all,
        // One address never takes all connections.
        per_address: server.connections_per_address.min((all / 4).max(1)),
        exempt: networks(&server.trusted_proxies)?,
        timeouts: ConnectionTimeouts {
            head: Duration::from_secs(server.head_timeout_seconds.max(1)),
            idle: Duration::from_secs(server.idle_timeout_seconds.max(1)),
            write: Duration::from_secs(server.write_timeout_seconds.max(1)),
        },
    })
}

/// What the handlers of every worker share.
#[derive(Clone)]
struct Shared {
    settings: Data<Settings>,
    finishing: Data<MiddlewareSettings>,
    stopping: Data<Stopping>,
    watch: Data<DatabaseWatch>,
    metrics: Data<MetricsSource>,
    limits: Data<RateLimits>,
    bodies: Data<BodyMemory>,
    callers: Data<CallerService>,
    accounts: Data<BuiltIn>,
    users: Data<UserService>,
    plans: Data<PlanService>,
    prices: Data<PriceService>,
    ai: Data<AiService>,
    clock: Data<dyn Clock>,
    features: Data<FeatureService>,
    entitlements: Data<EntitlementService>,
    usage: Data<UsageService>,
    tokens: Data<TokenService>,
    usage_history: Data<UsageHistoryService>,
    api_keys: Data<ApiKeyService>,
    chat: Data<ChatService>,
    ai_usage: Data<AiUsageService>,
    replays: Data<ReplayService>,
    audit: Data<AuditService>,
    maintenance: Data<MaintenanceService>,
}

impl Shared {
    fn new(
        settings: Settings,
        rooms: Services,
        stopping: Stopping,
        recorder: PrometheusHandle,
        admission: &Arc<ConnectionAdmission>,
    ) -> anyhow::Result<Self> {
        let watch = Arc::new(DatabaseWatch::new(Arc::clone(&rooms.maintenance)));
        let bodies = BodyMemory::new(&settings.server);
        let (store, usage, ai) = (rooms.store, Arc::clone(&rooms.usage), Arc::clone(&rooms.ai));
        let metrics = Data::new(
            MetricsSource::new(&settings, recorder, store, Arc::clone(&watch), rooms.changes, usage, ai)
                .with_load(Arc::clone(admission), Arc::clone(&bodies)),
        );
        if let Some(server) = metrics::loopback_server(metrics.clone(), settings.metrics.port)? {
            tokio::spawn(server);
        }
        Ok(Self {
            finishing: Data::new(MiddlewareSettings::new(&settings.server, rooms.randomness)?),
            bodies: Data::from(bodies),
            settings: Data::new(settings),
            stopping: Data::new(stopping),
            watch: Data::from(watch),
            metrics,
            limits: Data::from(rooms.limits),
            callers: Data::from(rooms.callers),
            accounts: Data::new(BuiltIn(rooms.accounts)),
            users: Data::from(rooms.users),
            plans: Data::from(rooms.plans),
            prices: Data::from(rooms.prices),
            ai: Data::from(rooms.ai),
            clock: Data::from(rooms.clock),
            features: Data::from(rooms.features),
            entitlements: Data::from(rooms.entitlements),
            usage: Data::from(rooms.usage),
            tokens: Data::from(rooms.tokens),
            usage_history: Data::from(rooms.usage_history),
            api_keys: Data::from(rooms.api_keys),
            chat: Data::from(rooms.chat),
            ai_usage: Data::from(rooms.ai_usage),
            replays: Data::from(rooms.replays),
            audit: Data::from(rooms.audit),
            maintenance: Data::from(rooms.maintenance),
        })
    }

    fn provide(&self, config: &mut ServiceConfig) {
        let body_limit = self.settings.server.body_limit_bytes;
        config
            .app_data(BodyLimit(body_limit))
            .app_data(self.settings.clone())
            .app_data(self.finishing.clone())
            .app_data(self.stopping.clone())
            .app_data(self.watch.clone())
            .app_data(self.metrics.clone())
            .app_data(self.limits.clone())
            .app_data(self.bodies.clone())
            .app_data(self.callers.clone())
            .app_data(self.accounts.clone())
            .app_data(self.users.clone())
            .app_data(self.plans.clone())
            .app_data(self.prices.clone())
            .app_data(self.ai.clone())
            .app_data(self.clock.clone())
            .app_data(self.features.clone())
            .app_data(self.entitlements.clone())
            .app_data(self.usage.clone())
            .app_data(self.tokens.clone())
            .app_data(self.usage_history.clone())
            .app_data(self.api_keys.clone())
            .app_data(self.chat.clone())
            .app_data(self.ai_usage.clone())
            .app_data(self.replays.clone())
            .app_data(self.audit.clone())
            .app_data(self.maintenance.clone());
    }
}
