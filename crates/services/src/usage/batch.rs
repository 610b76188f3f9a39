//! A batch: commands that are decided under one set of locks and written in one transaction.
//!
//! Two messages, however many commands: one SELECT, with BEGIN before it, that locks the counters in sorted order and
//! reads all that decides; and one statement that writes counters, events and keys, with COMMIT after it. (Through a
//! transaction pooler BEGIN and COMMIT are messages of their own.) Holds are locked with the first message; where only
//! their rows tell of which feature they are, the counters cost one more. A counter that is not there yet costs two,
//! once a period. Keys are not looked up beforehand, since nearly all are new: what is granted under an old one
//! violates the primary key of the keys, and what is not granted has its key looked up, for one message more. In both
//! cases the batch is decided anew, with the keys looked up under the locks. Calls of models cost one more where
//! messages of conversations are kept, another one that locks those conversations, and one where API keys have limits of their own. Between reading and writing,
//! `deciding` decides every command in the order of its arrival: SQL only locks, reads and writes. Nothing is answered
//! before the COMMIT is; and what it left is noted in the memory that answers checks.

use std::collections::HashMap;

use ports::entitlements::{EntitlementCache, Meter};
use ports::randomness::Randomness;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use ports::usage::{KeptOutcome, KeyOfUser, KeyState, KeyWindow, MeterState, Patience};

use uuid::Uuid;

use super::commands::{Command, Course, Demand, Fate, Outcome};
use super::deciding::{Decided, Deciding};
use super::ground::Ground;

/// Whether the keys are looked up before anything is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    LookedUp,
    /// They are taken for new, and where one is not, the batch is a conflict or violates a constraint.
    Trusted,
}

/// Decides and writes `commands`, in their order. `Err` means that nothing was written, for any of them.
pub async fn run(
    store: &dyn Store,
    randomness: &dyn Randomness,
    memory: &dyn EntitlementCache,
    commands: &[&Command],
    course: Course,
    keys: Keys,
) -> Result<Vec<Fate>, StoreError> {
    let patience = if course == Course::Swift { Patience::Skip } else { Patience::Wait };
    let mut work = store.begin(Scope::Counting).await?;
    if course != Course::Swift {
        work.usage().wait_for_locks().await?;
    }
    if let Course::Paying(user_id) = course {
        work.users().lock(user_id).await?;
    }
    let (ground, kept) = prepare(&mut *work, commands, patience, keys).await?;
    let mut deciding = Deciding::new(ground, kept, course, randomness);
    let fates: Vec<Fate> =
        commands.iter().enumerate().map(|(place, command)| deciding.decide(place, command)).collect();
    if keys == Keys::Trusted && was_granted_before(&mut *work, commands, &fates, patience).await? {
        // Nothing was written. This lets go of the locks before the next try.
        work.commit().await?;
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
    keys: Keys,
) -> Result<(Ground, HashMap<usize, KeptOutcome>), StoreError> {
    let mut ground = Ground::default();
    let mut meters: Vec<_> = commands.iter().filter_map(|command| command.meter()).collect();
    let demands = commands.iter().enumerate().filter_map(|(place, command)| Some((place, command.key()?)));
    let (places, keys): (Vec<_>, Vec<KeyOfUser<'_>>) = demands.filter(|_| keys == Keys::LookedUp).unzip();
    // Sorted, so that every batch locks in the same order.
    let mut ids: Vec<_> = commands.iter().filter_map(|command| command.hold_id()).collect();
    ids.sort_unstable();
    ids.dedup();
    if !ids.is_empty() {
        // Where nothing is waited for, counters need not come in order with holds; and where one has to be looked for later,
        // another statement is needed anyway.
        let all_known = commands.iter().all(|command| command.meter().is_some());
        let is_quick = patience == Patience::Skip && keys.is_empty() && all_known;
        let mut at_once = if is_quick { std::mem::take(&mut meters) } else { Vec::new() };
        at_once.sort_unstable();
        at_once.dedup();
        let (holds, states) = work.usage().lock_holds(&ids, &at_once, patience).await?;
        ground.add_holds(ids, holds);
        let states = at_once.into_iter().zip(states);
        let (missing, found): (Vec<_>, Vec<_>) =
            states.partition(|(_, state)| matches!(state, MeterState::Uncounted(_)));
        ground.add_meters(found);
        meters.extend(missing.into_iter().map(|(meter, _)| meter));
        meters.extend(ground.meters_of_holds());
    }
    meters.sort_unstable();
    meters.dedup();
    let mut kept = HashMap::new();
    if !meters.is_empty() {
        let locked = lock(work, &meters, &keys, patience).await?;
        let at_place = |(key, outcome)| Some((*places.get(key)?, outcome));
        kept = locked.kept.into_iter().filter_map(at_place).collect();
        ground.add_meters(meters.into_iter().zip(locked.meters));
    }
    let elsewhere = ground.counters_of_other_periods();
    if !elsewhere.is_empty() {
        let counters = work.usage().lock_counters(&elsewhere, patience).await?;
        ground.add_counters(elsewhere, counters);
    }
    let sessions = sessions_of(commands);
    if !sessions.is_empty() {
        let states = work.usage().lock_sessions(&sessions, patience).await?;
        ground.add_sessions(sessions, states);
    }
    let windows = ground.key_windows(commands);
    if !windows.is_empty() {
        let keys = lock_keys(work, &windows, patience).await?;
        ground.add_keys(windows, keys);
    }
    Ok((ground, kept))
}

/// The conversations that calls of this batch are kept in, sorted.
fn sessions_of(commands: &[&Command]) -> Vec<Uuid> {
    let mut sessions: Vec<_> = commands.iter().filter_map(|command| command.session_id()).collect();
    sessions.sort_unstable();
    sessions.dedup();
    sessions
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

/// Whether a key of what is not granted was granted before: then its first outcome is the answer. What is granted needs no
/// look, since its key would violate the primary key; and what goes on beside has its key looked up there.
async fn was_granted_before(
    work: &mut dyn UnitOfWork,
    commands: &[&Command],
    fates: &[Fate],
    patience: Patience,
) -> Result<bool, StoreError> {
    let refused = commands.iter().zip(fates).filter_map(|(command, fate)| match (command, fate) {
        (_, Fate::Settled(Ok(Outcome::Demanded(demanded)))) if demanded.decision.allowed => None,
        // A call's key is nobody else's.
        (Command::Demand(demand), Fate::Settled(_)) => Some(demand).filter(|demand| demand.call.is_none()),
        _ => None,
    });
    let refused: Vec<&Demand> = refused.collect();
    let Some(first) = refused.first() else { return Ok(false) };
    let keys: Vec<_> = refused.iter().map(|demand| KeyOfUser { user_id: demand.user_id, key: &demand.key }).collect();
    // Its counter is locked already, or not there, so nothing is waited for.
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
