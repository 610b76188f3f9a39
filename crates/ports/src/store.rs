//! The store: transactions, the scopes that they run in, and their errors.

use async_trait::async_trait;
use domain::users::UserId;
use thiserror::Error;

use crate::ai_usage::AiUsageRepository;
use crate::api_keys::ApiKeyRepository;
use crate::audit::AuditRepository;
use crate::chat::ChatRepository;
use crate::entitlements::EntitlementRepository;
use crate::features::FeatureRepository;
use crate::idempotency::AnswerRepository;
use crate::identity::IdentityRepository;
use crate::maintenance::MaintenanceRepository;
use crate::plans::PlanRepository;
use crate::prices::PriceRepository;
use crate::replays::ReplayRepository;
use crate::subscriptions::SubscriptionRepository;
use crate::tokens::TokenRepository;
use crate::usage::{ApiKeyUsageRepository, CallLogRepository, CounterRepository, ReservationRepository};
use crate::usage_history::UsageHistoryRepository;
use crate::users::UserRepository;

/// The scope of reads and writes; Postgres row-level security follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A user reads their own rows. The database shows nothing else, whatever the statement is.
    User(UserId),
    /// No user: the public catalogue only.
    Anonymous,
    /// The service at the counters: its statements touch a few rows by their keys, however large the tables are.
    Counting,
    /// The same where nothing is written: each statement may have a snapshot of its own.
    Reading,
    /// The service itself: money, quota, plans, keys. `actor` and `reason` go to the audit trail.
    Service { actor: Option<UserId>, reason: Option<String> },
}

impl Scope {
    /// The service without an order of a user: log-in, key look-up, jobs.
    pub const SERVICE: Self = Self::Service { actor: None, reason: None };

    /// The service on a user's order.
    pub const fn on_order_of(actor: UserId) -> Self {
        Self::Service { actor: Some(actor), reason: None }
    }
}

#[async_trait]
pub trait Store: Send + Sync {
    /// Opens a transaction. One round trip, which carries the role, the claims and the time limits with it.
    async fn begin(&self, scope: Scope) -> Result<Box<dyn UnitOfWork>, StoreError>;
}

/// An open transaction. Dropping it rolls back; only `commit` keeps the work.
/// The accessors borrow mutably: one statement at a time, checked by the compiler.
#[async_trait]
pub trait UnitOfWork: Send {
    fn identity(&mut self) -> &mut dyn IdentityRepository;
    fn users(&mut self) -> &mut dyn UserRepository;
    fn plans(&mut self) -> &mut dyn PlanRepository;
    fn features(&mut self) -> &mut dyn FeatureRepository;
    fn subscriptions(&mut self) -> &mut dyn SubscriptionRepository;
    fn entitlements(&mut self) -> &mut dyn EntitlementRepository;
    fn counters(&mut self) -> &mut dyn CounterRepository;
    fn reservations(&mut self) -> &mut dyn ReservationRepository;
    fn api_key_usage(&mut self) -> &mut dyn ApiKeyUsageRepository;
    fn call_log(&mut self) -> &mut dyn CallLogRepository;
    fn tokens(&mut self) -> &mut dyn TokenRepository;
    fn usage_history(&mut self) -> &mut dyn UsageHistoryRepository;
    fn api_keys(&mut self) -> &mut dyn ApiKeyRepository;
    fn answers(&mut self) -> &mut dyn AnswerRepository;
    fn replays(&mut self) -> &mut dyn ReplayRepository;
    fn audit(&mut self) -> &mut dyn AuditRepository;
    fn maintenance(&mut self) -> &mut dyn MaintenanceRepository;
    fn prices(&mut self) -> &mut dyn PriceRepository;
    fn chat(&mut self) -> &mut dyn ChatRepository;
    fn ai_usage(&mut self) -> &mut dyn AiUsageRepository;
    /// Lets the statements of this unit of work wait for locks as long as any other unit may. Without it a unit in
    /// `Scope::Counting` waits a fifth of a second, since users share it. `StoreError::Busy` after that.
    async fn wait_for_locks(&mut self) -> Result<(), StoreError>;
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// A row read under a row lock: writes that are only safe under the lock ask for this type.
/// Only an adapter that holds the lock makes one.
#[derive(Clone, Debug)]
pub struct Locked<T>(T);

impl<T> Locked<T> {
    pub const fn under_lock(row: T) -> Self {
        Self(row)
    }

    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What to do about a row that another transaction has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockPatience {
    /// Leave it out: one locked row must not stall the others.
    Skip,
    /// Wait for it, as long as the lock timeout allows (`StoreError::Busy` after that).
    Wait,
}

/// How a row that is to be locked was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockResult<T> {
    Locked(T),
    /// Another transaction has locked it.
    Busy,
    Missing,
}

/// The errors of a statement, by what the caller can do about them.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The transaction conflicted with another one: the same work can succeed when it is done again from the start.
    #[error("the transaction met a conflict and can be repeated")]
    Conflict,
    /// Another transaction holds a lock for longer than may be waited for. Nothing was done.
    #[error("another transaction keeps a row locked")]
    Busy,
    /// A constraint of the schema was violated. The name says which.
    #[error("the constraint `{constraint}` was violated")]
    Constraint { constraint: String },
    /// The database could not be reached, or did not answer in time.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// The database became unavailable during the commit: the work may be done, or not.
    #[error("the outcome of a commit is not known: {0}")]
    InDoubt(String),
    /// A row holds a value that it must not.
    #[error("the table `{table}` holds what it must not, at {key}")]
    Inconsistent { table: &'static str, key: String },
    /// Anything else: a bug of ours.
    #[error("the database refused a statement: {0}")]
    Unexpected(String),
}

/// A position in a list, and how many rows to read from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<C> {
    pub after: Option<C>,
    pub limit: u64,
}
