//! A batch: commands that are decided under one set of locks and written in one transaction.
//!
//! Four messages, however many commands: BEGIN with role and time limits; one SELECT that locks the counters in sorted
//! order and reads all that decides; one statement that writes counters, events and keys; COMMIT. Holds cost one more to
//! be locked and one more to be written; a counter that is not there yet costs two, once a period; a refusal one, to see
//! that its key was not granted meanwhile. Between reading and writing, `deciding` decides every command in the order of
//! its arrival: SQL only locks, reads and writes. Nothing is answered before the COMMIT is; and what it left is noted in
//! the memory that answers checks.

use std::collections::HashMap;

use ports::entitlements::{EntitlementCache, Meter};
use ports::randomness::Randomness;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use ports::usage::{KeptOutcome, KeyOfUser, KeyState, KeyWindow, MeterState, Patience};

use super::commands::{Command, Course, Demand, Fate, Outcome};
use super::deciding::{Decided, Deciding};
use super::ground::Ground;

/// Decides and writes `commands`, in their order. `Err` means that nothing was written, for any of them.
pub async fn run(
    store: &dyn Store,
    randomness: &dyn Randomness,
    memory: &dyn EntitlementCache,
    commands: &[&Command],
    course: Course,
) -> Result<Vec<Fate>, StoreError> {
    let patience = if course == Course::Swift { Patience::Skip } else { Patience::Wait };
    let mut work = store.begin(Scope::Counting).await?;
    if let Course::Paying(user_id) = course {
        work.users().lock(user_id).await?;
    }
    let (ground, kept) = prepare(&mut *work, commands, patience).await?;
    let mut deciding = Deciding::new(ground, kept, course, randomness);
    let fates: Vec<Fate> =
        commands.iter().enumerate().map(|(place, command)| deciding.decide(place, command)).collect();
    if was_granted_meanwhile(&mut *work, commands, &fates, patience).await? {
        return Err(StoreError::Conflict);
    }
    let Decided { record, tokens, counts } = deciding.finish();
    if !record.counters.is_empty() || !record.holds.is_empty() {
        work.usage().record_batch(&record).await?;
    }
    for change in &tokens {
        work.usage().move_tokens(change).await?;
    }
    work.commit().await?;
    for (meter, period, count) in counts {
        memory.note(&meter, &period, &count);
    }
    Ok(fates)
}

/// Locks and reads all that the commands rest on: their holds, their counters, and the outcomes of keys seen before, by
/// the place of the command.
async fn prepare(
    work: &mut dyn UnitOfWork,
    commands: &[&Command],
    patience: Patience,
) -> Result<(Ground, HashMap<usize, KeptOutcome>), StoreError> {
    let mut ground = Ground::default();
    let mut ids: Vec<_> = commands.iter().filter_map(|command| command.hold_id()).collect();
    if !ids.is_empty() {
        // Sorted, so that every batch locks in the same order.
        ids.sort_unstable();
        ids.dedup();
        let holds = work.usage().lock_holds(&ids, patience).await?;
        ground.add_holds(ids, holds);
    }
    let mut meters: Vec<_> = commands.iter().filter_map(|command| command.meter()).chain(ground.meters()).collect();
    meters.sort_unstable();
    meters.dedup();
    let demands = commands.iter().enumerate().filter_map(|(place, command)| Some((place, command.key()?)));
    let (places, keys): (Vec<_>, Vec<KeyOfUser<'_>>) = demands.unzip();
    let mut kept = HashMap::new();
    if !meters.is_empty() {
        let locked = lock(work, &meters, &keys, patience).await?;
        let at_place = |(key, outcome)| Some((*places.get(key)?, outcome));
        kept = locked.kept.into_iter().filter_map(at_place).collect();
        ground.add_meters(meters, locked.meters);
    }
    let elsewhere = ground.counters_of_other_periods();
    if !elsewhere.is_empty() {
        let counters = work.usage().lock_counters(&elsewhere, patience).await?;
        ground.add_counters(elsewhere, counters);
    }
    let windows = ground.key_windows(commands);
    if !windows.is_empty() {
        let keys = lock_keys(work, &windows, patience).await?;
        ground.add_keys(windows, keys);
    }
    Ok((ground, kept))
}

/// Locks the counters of keys that are there; makes what is missing and locks again.
async fn lock_keys(
    work: &mut dyn UnitOfWork,
    windows: &[KeyWindow],
    patience: Patience,
) -> Result<Vec<KeyState>, StoreError> {
    let locked = work.usage().lock_keys(windows, patience).await?;
    let missing = windows.iter().zip(&locked).filter(|(_, state)| matches!(state, KeyState::Uncounted));
    let missing: Vec<_> = missing.map(|(window, _)| *window).collect();
    if missing.is_empty() {
        return Ok(locked);
    }
    work.usage().open_keys(&missing).await?;
    work.usage().lock_keys(windows, patience).await
}

/// Whether a key of what is refused was granted to somebody else meanwhile. The keys were read as they stood before the
/// wait for the counters, so the first of two duplicates may have used up what the second is refused for. What is
/// granted needs no second look, since its key would violate the primary key.
async fn was_granted_meanwhile(
    work: &mut dyn UnitOfWork,
    commands: &[&Command],
    fates: &[Fate],
    patience: Patience,
) -> Result<bool, StoreError> {
    let refused = commands.iter().zip(fates).filter_map(|(command, fate)| match (command, fate) {
        (Command::Demand(demand), Fate::Settled(Ok(Outcome::Demanded(demanded)))) if !demanded.decision.allowed => {
            // A call's key is nobody else's.
            Some(demand).filter(|demand| demand.call.is_none())
        }
        _ => None,
    });
    let refused: Vec<&Demand> = refused.collect();
    let Some(first) = refused.first() else { return Ok(false) };
    let keys: Vec<_> = refused.iter().map(|demand| KeyOfUser { user_id: demand.user_id, key: &demand.key }).collect();
    // Its counter is locked already, so nothing is waited for.
    let looked = work.usage().lock_batch(&[first.meter()], &keys, patience).await?;
    Ok(!looked.kept.is_empty())
}

/// Locks what is there; makes what is missing and locks again.
async fn lock(
    work: &mut dyn UnitOfWork,
    meters: &[Meter],
    keys: &[KeyOfUser<'_>],
    patience: Patience,
) -> Result<ports::usage::LockedBatch, StoreError> {
    let locked = work.usage().lock_batch(meters, keys, patience).await?;
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
    work.usage().open_counters(&missing).await?;
    work.usage().lock_batch(meters, keys, patience).await
}
