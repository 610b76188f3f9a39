//! The store: begins units of work, and answers readiness and metrics.
//!
//! Costs: `begin` is one round trip on a pooled connection, `commit` one; a dropped unit of work is rolled back off the
//! caller's path. `probe` is one round trip within a second, `pool_state` none.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::ai_usage::AiUsageRepository;
use ports::api_keys::ApiKeyRepository;
use ports::audit::AuditRepository;
use ports::chat::ChatRepository;
use ports::entitlements::EntitlementRepository;
use ports::features::FeatureRepository;
use ports::idempotency::AnswerRepository;
use ports::identity::IdentityRepository;
use ports::maintenance::MaintenanceRepository;
use ports::plans::PlanRepository;
use ports::prices::PriceRepository;
use ports::replays::ReplayRepository;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use ports::subscriptions::SubscriptionRepository;
use ports::tokens::TokenRepository;
use ports::usage::{ApiKeyUsageRepository, CallLogRepository, CounterRepository, ReservationRepository};
use ports::usage_history::UsageHistoryRepository;
use ports::users::UserRepository;
use sea_orm::sqlx::PgPool;

use super::answer_sealing::AnswerSealing;
use super::begin_message::{Milliseconds, opening};
use super::pinned_connections::PinnedConnections;
use super::pool::{self, ACQUIRE_TIMEOUT_MAX, PoolSettings, PoolState, PoolerMode};
use super::transaction::{OpeningTerms, PgTransaction};

/// How long the readiness probe waits.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

pub struct PgStore {
    pub(super) pool: PgPool,
    counting: Option<Arc<PinnedConnections>>,
    pub(super) persistent: bool,
    limits: Milliseconds,
    acquire_timeout: Duration,
    sealing: Arc<AnswerSealing>,
}

// The pool's own Debug shows the address.
impl fmt::Debug for PgStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PgStore").field("pool", &self.pool_state()).finish_non_exhaustive()
    }
}

impl PgStore {
    /// Creates the store without contacting the database, which may be down. Call it within the tokio runtime.
    pub fn connect(settings: PoolSettings) -> Result<Self, StoreError> {
        let limits = Milliseconds {
            statement: settings.statement_timeout_ms,
            lock: settings.lock_timeout_ms,
            idle: settings.idle_in_transaction_timeout_ms,
        };
        let connection = pool::connection_options(&settings)?;
        let places = usize::try_from(pool::counting_connections(&settings)).unwrap_or_default();
        let counting = (places > 0).then(|| PinnedConnections::new(&connection, limits, places));
        Ok(Self {
            pool: pool::open(&settings, connection),
            counting,
            persistent: settings.pooler == PoolerMode::None,
            limits,
            acquire_timeout: settings.acquire_timeout.min(ACQUIRE_TIMEOUT_MAX),
            sealing: Arc::new(AnswerSealing::new(settings.answer_secret, settings.answers_ttl)),
        })
    }

    /// Whether the database works now, for the service's own use: a transaction is begun and dropped.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.open(&Scope::SERVICE, PROBE_PATIENCE).await.map(drop)
    }

    pub fn pool_state(&self) -> PoolState {
        let (size, idle, max) = self.counting.as_ref().map_or((0, 0, 0), |counting| counting.state());
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        PoolState {
            size: self.pool.size() + number(size),
            idle: number(self.pool.num_idle() + idle),
            max: self.pool.options().get_max_connections() + number(max),
        }
    }

    /// Closes every connection, waiting for those in use. Nothing can be begun afterwards.
    pub async fn close(&self) {
        if let Some(counting) = &self.counting {
            counting.close().await;
        }
        self.pool.close().await;
    }

    async fn open(&self, scope: &Scope, patience: Duration) -> Result<PgTransaction, StoreError> {
        let Milliseconds { statement: statement_ms, lock: lock_ms, .. } = self.limits;
        let terms = OpeningTerms { persistent: self.persistent, statement_ms, lock_ms, patience };
        if let (Scope::Counting | Scope::Reading, Some(counting)) = (scope, &self.counting)
            && let Some(transaction) = PgTransaction::lent(counting, *scope == Scope::Counting, terms).await?
        {
            return Ok(transaction);
        }
        PgTransaction::open(&self.pool, opening(scope, self.limits)?, terms).await
    }
}

#[async_trait]
impl Store for PgStore {
    async fn begin(&self, scope: Scope) -> Result<Box<dyn UnitOfWork>, StoreError> {
        let transaction = self.open(&scope, self.acquire_timeout).await?;
        Ok(Box::new(PgUnitOfWork { transaction, sealing: Arc::clone(&self.sealing) }))
    }
}

/// One transaction with all of its repositories: each room implements its port on this type.
pub struct PgUnitOfWork {
    pub(super) transaction: PgTransaction,
    pub(super) sealing: Arc<AnswerSealing>,
}

#[async_trait]
impl UnitOfWork for PgUnitOfWork {
    fn identity(&mut self) -> &mut dyn IdentityRepository {
        self
    }

    fn users(&mut self) -> &mut dyn UserRepository {
        self
    }

    fn plans(&mut self) -> &mut dyn PlanRepository {
        self
    }

    fn features(&mut self) -> &mut dyn FeatureRepository {
        self
    }

    fn subscriptions(&mut self) -> &mut dyn SubscriptionRepository {
        self
    }

    fn entitlements(&mut self) -> &mut dyn EntitlementRepository {
        self
    }

    fn counters(&mut self) -> &mut dyn CounterRepository {
        self
    }

    fn reservations(&mut self) -> &mut dyn ReservationRepository {
        self
    }

    fn api_key_usage(&mut self) -> &mut dyn ApiKeyUsageRepository {
        self
    }

    fn call_log(&mut self) -> &mut dyn CallLogRepository {
        self
    }

    fn tokens(&mut self) -> &mut dyn TokenRepository {
        self
    }

    fn usage_history(&mut self) -> &mut dyn UsageHistoryRepository {
        self
    }

    fn api_keys(&mut self) -> &mut dyn ApiKeyRepository {
        self
    }

    fn answers(&mut self) -> &mut dyn AnswerRepository {
        self
    }

    fn replays(&mut self) -> &mut dyn ReplayRepository {
        self
    }

    fn audit(&mut self) -> &mut dyn AuditRepository {
        self
    }

    fn maintenance(&mut self) -> &mut dyn MaintenanceRepository {
        self
    }

    fn prices(&mut self) -> &mut dyn PriceRepository {
        self
    }

    fn chat(&mut self) -> &mut dyn ChatRepository {
        self
    }

    fn ai_usage(&mut self) -> &mut dyn AiUsageRepository {
        self
    }

    async fn wait_for_locks(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT set_config('lock_timeout', $1, true)";
        self.run_last(sql, [self.transaction.lock_ms().to_string().into()]).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.transaction.commit().await
    }
}
