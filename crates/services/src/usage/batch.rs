//! A batch: commands that are decided under one set of locks and written in one transaction.
//!
//! It takes two messages, however many commands it has: BEGIN with one SELECT that locks the counters in sorted order
//! and reads what the decisions need; and one statement that writes counters, events and keys, with COMMIT after it.
//! (Through a transaction pooler BEGIN and COMMIT are messages of their own.) Reservations are locked with the first
//! message; where only their rows say which feature they are for, the counters cost one more. A missing counter costs
//! two, once a period. Calls of models cost one more where messages of conversations are stored, another one that locks
//! those conversations, and one where API keys have limits of their own.
//!
//! Idempotency keys are not looked up beforehand, since nearly all are new. A command that is granted under an old one
//! violates the primary key of the keys; for a command that is not granted the key is looked up, for one message more.
//! In both cases the batch is decided again, with the keys looked up under the locks.
//!
//! Between reading and writing, `decider` decides every command in the order of its arrival: SQL only locks, reads and
//! writes. Nothing is answered before the COMMIT; the counts after it are noted in the cache that answers checks.

use std::collections::HashMap;

use domain::entitlements::Count;
use domain::usage::{ApiKeyUsage, Period};
use ports::entitlements::{EntitlementCache, Meter};
use ports::randomness::Randomness;
use ports::store::{LockPatience, LockResult, Scope, Store, StoreError, UnitOfWork};
use ports::usage::{ApiKeyWindow, KeyOfUser, LockedBatch, MeterState, StoredOutcome};
use uuid::Uuid;

use super::commands::LockMode;
use super::decider::{BatchDecider, DecidedBatch};
use super::locked_rows::LockedRows;
use super::queued_commands::{BatchEntry, QueuedCommand};

/// Whether idempotency keys are looked up before the batch is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLookup {
    UnderLocks,
    /// They are assumed to be new. If one is not, the batch fails with a conflict or a violated constraint.
    Optimistic,
}

/// Decides and writes `commands`, in their order; each keeps its result. `Err` means that nothing was written, for any
/// of them.
pub async fn run(
    store: &dyn Store,
    randomness: &dyn Randomness,
    cache: &dyn EntitlementCache,
    commands: &mut [QueuedCommand],
    lock_mode: LockMode,
    key_lookup: KeyLookup,
) -> Result<(), StoreError> {
    let patience = if lock_mode == LockMode::SkipLocked { LockPatience::Skip } else { LockPatience::Wait };
    let mut work = store.begin(Scope::Counting).await?;
    if lock_mode != LockMode::SkipLocked {
        work.wait_for_locks().await?;
    }
    if let LockMode::WaitAndSpend(user_id) = lock_mode {
        work.users().lock(user_id).await?;
    }
    let (rows, granted_before) = prepare(&mut *work, commands, patience, key_lookup).await?;
    let mut decider = BatchDecider::new(rows, granted_before, lock_mode, randomness);
    for (place, command) in commands.iter_mut().enumerate() {
        command.entry_mut().decide(place, &mut decider);
    }
    let to_write = decider.finish();
    if key_lookup == KeyLookup::Optimistic && was_granted_before(&mut *work, commands, patience).await? {
        // Nothing was written. The commit releases the locks before the next try.
        work.commit().await?;
        return Err(StoreError::Conflict);
    }
    let counts = write(&mut *work, to_write).await?;
    work.commit().await?;
    for (meter, period, count) in counts {
        cache.note(&meter, &period, &count);
    }
    Ok(())
}

/// Writes what was decided, a statement for each kind of rows. Returns the counts after it.
async fn write(work: &mut dyn UnitOfWork, decided: DecidedBatch) -> Result<Vec<(Meter, Period, Count)>, StoreError> {
    let DecidedBatch { counters, entries, reservations, key_changes, key_additions, calls, tokens, counts } = decided;
    if !counters.is_empty() || !entries.is_empty() {
        work.counters().record(&counters, &entries).await?;
    }
    if !reservations.is_empty() {
        work.reservations().save(&reservations).await?;
    }
    if !key_changes.is_empty() {
        work.api_key_usage().save(&key_changes).await?;
    }
    if !key_additions.is_empty() {
        work.api_key_usage().add(&key_additions).await?;
    }
    if !calls.is_empty() {
        work.call_log().record(&calls).await?;
    }
    for change in &tokens {
        work.tokens().move_tokens(change).await?;
    }
    Ok(counts)
}

/// Locks and reads the rows that the commands need: their reservations, their counters, and the outcomes of known
/// idempotency keys, by the place of the command.
async fn prepare(
    work: &mut dyn UnitOfWork,
    commands: &[QueuedCommand],
    patience: LockPatience,
    key_lookup: KeyLookup,
) -> Result<(LockedRows, HashMap<usize, StoredOutcome>), StoreError> {
    let mut rows = LockedRows::default();
    let entries = || commands.iter().map(QueuedCommand::entry);
    let mut meters: Vec<_> = entries().filter_map(BatchEntry::meter).collect();
    let with_keys = entries().enumerate().filter_map(|(place, entry)| Some((place, entry.idempotency_key()?)));
    let (places, keys): (Vec<_>, Vec<KeyOfUser<'_>>) =
        with_keys.filter(|_| key_lookup == KeyLookup::UnderLocks).unzip();
    // Sorted, so that every batch locks in the same order.
    let mut ids: Vec<_> = entries().filter_map(BatchEntry::reservation_id).collect();
    ids.sort_unstable();
    ids.dedup();
    if !ids.is_empty() {
        // If locks are skipped, counters need no fixed order with reservations; and if a counter has to be found out
        // first, another statement is needed anyway.
        let all_known = entries().all(|entry| entry.meter().is_some());
        let is_quick = patience == LockPatience::Skip && keys.is_empty() && all_known;
        let mut at_once = if is_quick { std::mem::take(&mut meters) } else { Vec::new() };
        at_once.sort_unstable();
        at_once.dedup();
        let (reservations, states) = work.reservations().lock(&ids, &at_once, patience).await?;
        rows.add_reservations(ids, reservations);
        let states = at_once.into_iter().zip(states);
        let (missing, found): (Vec<_>, Vec<_>) =
            states.partition(|(_, state)| matches!(state, MeterState::Uncounted(_)));
        rows.add_meters(found);
        meters.extend(missing.into_iter().map(|(meter, _)| meter));
        meters.extend(rows.meters_of_reservations());
    }
    meters.sort_unstable();
    meters.dedup();
    let mut granted_before = HashMap::new();
    if !meters.is_empty() {
        let locked = lock(work, &meters, &keys, patience).await?;
        let at_place = |(key, outcome)| Some((*places.get(key)?, outcome));
        granted_before = locked.granted.into_iter().filter_map(at_place).collect();
        rows.add_meters(meters.into_iter().zip(locked.meters));
    }
    let elsewhere = rows.counters_of_other_periods();
    if !elsewhere.is_empty() {
        let counters = work.counters().lock(&elsewhere, patience).await?;
        rows.add_counters(elsewhere, counters);
    }
    let sessions = sessions_of(commands);
    if !sessions.is_empty() {
        let states = work.call_log().lock_sessions(&sessions, patience).await?;
        rows.add_sessions(sessions, states);
    }
    let windows = rows.key_windows(commands.iter().filter_map(QueuedCommand::reserved_call));
    if !windows.is_empty() {
        let states = lock_keys(work, &windows, patience).await?;
        rows.key_counters.add(windows, states);
    }
    Ok((rows, granted_before))
}

/// The conversations that calls of this batch are stored in, sorted.
fn sessions_of(commands: &[QueuedCommand]) -> Vec<Uuid> {
    let mut sessions: Vec<_> = commands.iter().filter_map(|command| command.entry().session_id()).collect();
    sessions.sort_unstable();
    sessions.dedup();
    sessions
}

/// Locks the counters of API keys; creates the missing ones and locks again.
async fn lock_keys(
    work: &mut dyn UnitOfWork,
    windows: &[ApiKeyWindow],
    patience: LockPatience,
) -> Result<Vec<LockResult<ApiKeyUsage>>, StoreError> {
    let locked = work.api_key_usage().lock(windows, patience).await?;
    let missing = windows.iter().zip(&locked).filter(|(_, state)| matches!(state, LockResult::Missing));
    let missing: Vec<_> = missing.map(|(window, _)| *window).collect();
    if missing.is_empty() {
        return Ok(locked);
    }
    work.api_key_usage().open(&missing).await?;
    work.api_key_usage().lock(windows, patience).await
}

/// Whether a command that is not granted has an idempotency key that was granted before: then the first outcome is the
/// answer. Granted commands need no lookup, since the key would violate the primary key. For commands that leave the
/// batch, the key is looked up later.
async fn was_granted_before(
    work: &mut dyn UnitOfWork,
    commands: &[QueuedCommand],
    patience: LockPatience,
) -> Result<bool, StoreError> {
    let refused = commands.iter().filter_map(QueuedCommand::refused_request);
    let (meters, keys): (Vec<Meter>, Vec<KeyOfUser<'_>>) = refused.unzip();
    let Some(first) = meters.first() else { return Ok(false) };
    // Its counter is locked already, or missing, so there is no wait.
    let looked = work.counters().lock_batch(std::slice::from_ref(first), &keys, patience).await?;
    Ok(!looked.granted.is_empty())
}

/// Locks the counters; creates the missing ones and locks again.
async fn lock(
    work: &mut dyn UnitOfWork,
    meters: &[Meter],
    keys: &[KeyOfUser<'_>],
    patience: LockPatience,
) -> Result<LockedBatch, StoreError> {
    let locked = work.counters().lock_batch(meters, keys, patience).await?;
    let missing: Vec<_> = meters
        .iter()
        .zip(&locked.meters)
        .filter_map(|(meter, state)| match state {
            MeterState::Uncounted(period) => Some((meter.clone(), *period)),
            _ => None,
        })
        .collect();
    if missing.is_empty() {
        return Ok(locked);
    }
    work.counters().open(&missing).await?;
    work.counters().lock_batch(meters, keys, patience).await
}
