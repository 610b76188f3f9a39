//! Usage: counters, events, reservations and the outcomes that are stored under idempotency keys, a batch at a time.
//!
//! The one repository whose SQL crosses rooms: a decision needs the plan, the overrides, the balance and the counter as
//! they are in one transaction, in one round trip. All transactions take locks in one order: the user's row where
//! tokens are at stake, then reservations, then counters.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::ai::{CallUsage, ProviderId, ReportedUsage, Speaker};
use domain::api_keys::ApiKeyId;
use domain::entitlements::{Decision, Entitlement};
use domain::features::{FeatureId, FeatureKind};
use domain::idempotency::IdempotencyKey;
use domain::prices::{Cost, NanoUsd};
use domain::usage::{ApiKeyUsage, CounterTally, Hold, HoldId, Period, PeriodKind, ReservedCallState, WindowKind};
use domain::users::UserId;
use uuid::Uuid;

use crate::entitlements::Meter;
use crate::store::{Locked, StoreError};

/// Identifies a counter: a meter in one period.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CounterKey {
    pub meter: Meter,
    pub period_kind: PeriodKind,
    pub period_start: DateTime<Utc>,
}

/// What to do about a row that another transaction has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockPatience {
    /// Leave it out: one locked row must not stall the others.
    Skip,
    /// Wait for it, as long as the lock timeout allows (`StoreError::Busy` after that).
    Wait,
}

/// How a meter was found.
#[derive(Clone, Debug)]
pub enum MeterState {
    /// The counter is locked, and these are the facts under the lock.
    Locked {
        kind: FeatureKind,
        entitlement: Locked<Entitlement>,
    },
    /// There is no counter in force for the period yet.
    Uncounted(Period),
    /// Another transaction has locked the counter.
    Busy,
    UnknownUser,
    UnknownFeature,
}

/// How a reservation was found.
#[derive(Clone, Debug)]
pub enum HoldState {
    Locked {
        hold: Box<Locked<Hold>>,
        /// Whether its time is over, by the database's clock.
        is_due: bool,
        /// The stored answer to the command that ended it.
        outcome: Option<Decision>,
    },
    /// Another transaction has locked it.
    Busy,
    Unknown,
}

/// How the counter of a reservation was found.
#[derive(Clone, Debug)]
pub enum CounterState {
    Locked(Locked<CounterTally>),
    Busy,
    Missing,
}

/// The reservation that was made under an idempotency key, as it was answered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptHold {
    pub id: HoldId,
    pub expires_at: DateTime<Utc>,
}

/// A granted command as it is stored under its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptOutcome {
    pub amount: i64,
    pub decision: Decision,
    /// The reservation, where one was requested.
    pub hold: Option<KeptHold>,
}

/// What a batch starts from. `meters` is in the order of the request; `kept` has the outcomes of those idempotency keys
/// that were seen before, by their index in the list of keys.
#[derive(Clone, Debug)]
pub struct LockedBatch {
    pub meters: Vec<MeterState>,
    pub kept: Vec<(usize, KeptOutcome)>,
}

/// An idempotency key to look up, with the charged user to whom it belongs.
#[derive(Clone, Copy, Debug)]
pub struct KeyOfUser<'a> {
    pub user_id: UserId,
    pub key: &'a IdempotencyKey,
}

/// The new state of a counter; its row is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterChange {
    pub key: CounterKey,
    pub tally: CounterTally,
}

/// A grant or a settlement: an event where something was used, and an outcome where it came under an idempotency key.
#[derive(Clone, Debug)]
pub struct UsageEntry {
    pub counter: CounterKey,
    pub amount: i64,
    /// The part of `amount` beyond the limit or the reservation.
    pub overage: i64,
    pub api_key_id: Option<Uuid>,
    pub hold_id: Option<HoldId>,
    /// The event's id; `None` where nothing was used yet.
    pub event_id: Option<Uuid>,
    pub kept: Option<(IdempotencyKey, KeptOutcome)>,
}

/// The new state of a reservation: made, or changed under its lock.
#[derive(Clone, Debug)]
pub struct HoldChange {
    pub hold: Hold,
    /// The idempotency key under which it was made; for one that is made now.
    pub key: Option<IdempotencyKey>,
    /// The answer, where it has ended.
    pub outcome: Option<Decision>,
}

/// All that a batch writes, except tokens.
#[derive(Clone, Debug, Default)]
pub struct BatchRecord {
    pub counters: Vec<CounterChange>,
    pub entries: Vec<UsageEntry>,
    pub holds: Vec<HoldChange>,
    pub keys: Vec<KeyChange>,
    /// What calls by API keys without limits used, to be added to the months of their lineages.
    pub key_uses: Vec<KeyUse>,
    pub calls: Vec<CallRecord>,
}

/// Identifies a counter of what calls by the API keys of a lineage used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKeyWindow {
    pub user_id: UserId,
    /// The first key of the lineage.
    pub api_key_id: ApiKeyId,
    pub kind: WindowKind,
    pub start: DateTime<Utc>,
}

/// How the counter of an API key's window was found.
#[derive(Clone, Copy, Debug)]
pub enum KeyState {
    Locked(ApiKeyUsage),
    Busy,
    /// There is none yet.
    Uncounted,
}

/// The new state of the counter of an API key's window; its row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    pub window: ApiKeyWindow,
    pub tally: ApiKeyUsage,
}

/// What calls used in a window that is not locked; it is added to the row's values. Each window once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    pub window: ApiKeyWindow,
    pub requests: i64,
    pub tokens: i64,
    pub cost: i64,
}

/// The result of a call of a model: a row of the usage log, and the messages where it belongs to a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    /// The call's id is its reservation's.
    pub hold_id: HoldId,
    pub user_id: UserId,
    pub api_key_id: Option<Uuid>,
    pub result: CallResult,
    /// The tokens that were used beyond all that the balance had.
    pub unpaid_tokens: i64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The provider's answer is complete.
    Ok,
    /// The gateway ended it: no more could be reserved.
    Cut,
    /// The provider broke off.
    Broken,
    /// The caller left before the end.
    Left,
    /// Its process was gone; a sweep settled it.
    Swept,
}

impl CallOutcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cut => "cut",
            Self::Broken => "broken",
            Self::Left => "left",
            Self::Swept => "swept",
        }
    }
}

/// What a call of a model used and cost.
#[derive(Clone, Debug, PartialEq)]
pub struct CallResult {
    pub provider: ProviderId,
    pub model: String,
    pub usage: CallUsage,
    /// The usage as the provider reported it.
    pub reported: Option<ReportedUsage>,
    /// `None` for a model without a price.
    pub cost: Option<Cost>,
    pub outcome: CallOutcome,
    /// `None` where it was not measured.
    pub latency_ms: Option<i64>,
    pub session_id: Option<Uuid>,
    /// In their order in the conversation.
    pub messages: Vec<SaidMessage>,
    pub beyond: BeyondHold,
}

/// What a call used beyond its reservation: overage that no limit prevented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeyondHold {
    pub tokens: i64,
    pub cost_nano_usd: i64,
}

impl BeyondHold {
    pub const fn is_nothing(&self) -> bool {
        self.tokens == 0 && self.cost_nano_usd == 0
    }
}

/// A message of a conversation that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct SaidMessage {
    pub speaker: Speaker,
    pub content: String,
    pub tokens: i64,
    pub cost: NanoUsd,
}

/// A call whose time is over and that its process did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueCall {
    pub hold_id: HoldId,
    pub user_id: UserId,
    /// `None` where this release cannot read the row.
    pub call: Option<ReservedCallState>,
}

/// How a conversation that a batch writes to was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLock {
    Locked,
    /// Another transaction has locked it.
    Busy,
    Missing,
}

/// Tokens that are reserved, freed or spent for use beyond a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenChange {
    pub user_id: UserId,
    pub feature_id: FeatureId,
    /// What is added to the reserved tokens; negative where they are freed.
    pub held: i64,
    /// What is taken from the balance, with a row of the ledger.
    pub spent: i64,
    pub hold_id: Option<HoldId>,
}

#[async_trait]
pub trait UsageRepository: Send {
    /// Locks the counters of distinct `meters`, in their order, and reads what their decisions need: one statement.
    /// Where there are keys to look up, one more, after the locks, so that it sees every grant of them on these
    /// counters.
    async fn lock_batch(
        &mut self,
        meters: &[Meter],
        keys: &[KeyOfUser<'_>],
        patience: LockPatience,
    ) -> Result<LockedBatch, StoreError>;
    /// Puts the counters of these periods into force: creates those that are missing, and carries over what was used in
    /// a period that is still open where its kind or its anchor has changed. Locks the counters that it carries from.
    async fn open_counters(&mut self, counters: &[(Meter, Period)]) -> Result<(), StoreError>;
    /// Locks distinct reservations, in the order of `ids`, which are sorted, and then, as `lock_batch` does, the
    /// counters of `meters`, of which there may be none: a statement each, and one message.
    async fn lock_holds(
        &mut self,
        ids: &[HoldId],
        meters: &[Meter],
        patience: LockPatience,
    ) -> Result<(Vec<HoldState>, Vec<MeterState>), StoreError>;
    /// Lets the statements of this unit of work wait for locks as long as any other unit may. Without it a unit in
    /// `Scope::Counting` waits a fifth of a second, since users share it. `StoreError::Busy` after that.
    async fn wait_for_locks(&mut self) -> Result<(), StoreError>;
    /// Locks conversations, in the order of `ids`, which are sorted and distinct: one statement.
    async fn lock_sessions(&mut self, ids: &[Uuid], patience: LockPatience) -> Result<Vec<SessionLock>, StoreError>;
    /// Locks counters of other periods than the one in force, for reservations that were made in them.
    async fn lock_counters(
        &mut self,
        keys: &[CounterKey],
        patience: LockPatience,
    ) -> Result<Vec<CounterState>, StoreError>;
    /// Locks the counters of distinct windows of API keys, in their order: one statement.
    async fn lock_keys(
        &mut self,
        windows: &[ApiKeyWindow],
        patience: LockPatience,
    ) -> Result<Vec<KeyState>, StoreError>;
    /// Creates counters of windows; that of a month begins with what the key's calls have cost in it already.
    async fn open_keys(&mut self, windows: &[ApiKeyWindow]) -> Result<(), StoreError>;
    /// Writes counters, events and outcomes in one statement; reservations, counters of API keys and calls in one each,
    /// where there are any. `Constraint` on an idempotency key that was granted before; in `Scope::Counting` the next
    /// statement or the commit may be the one that returns it.
    async fn record_batch(&mut self, record: &BatchRecord) -> Result<(), StoreError>;
    /// Reserves, frees and spends tokens, under the lock of the user's row.
    async fn move_tokens(&mut self, change: &TokenChange) -> Result<(), StoreError>;
    /// Calls whose time is over after they were sent, the longest overdue first, at most `limit`, without those in
    /// `excluded`.
    async fn list_due_calls(&mut self, excluded: &[HoldId], limit: u64) -> Result<Vec<DueCall>, StoreError>;
    /// Reservations whose time is over and for which nothing was sent, the longest overdue first, at most `limit`, with
    /// their users, without those in `excluded`.
    async fn list_due_holds(&mut self, excluded: &[HoldId], limit: u64) -> Result<Vec<(HoldId, UserId)>, StoreError>;
    /// Deletes outcomes older than `age` by the database's clock, at most `limit` of each partition; returns how many.
    async fn delete_outcomes(&mut self, age: TimeDelta, limit: u64) -> Result<u64, StoreError>;
    /// Deletes reservations that ended longer than `age` ago by the database's clock, at most `limit`; returns how
    /// many.
    async fn delete_ended_reservations(&mut self, age: TimeDelta, limit: u64) -> Result<u64, StoreError>;
}
