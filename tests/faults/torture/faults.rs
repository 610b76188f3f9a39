//! The faults, injected one after the other while the clients work.

use std::time::{Duration, Instant};

use super::chances::Dice;
use super::doors::DOORS;
use super::ground::Ground;
use super::stage::Stage;

/// The next fault is injected after this many further decisions for each client.
const ANSWERS_EACH: u64 = 4;

/// It is a finding if the clients do not get these decisions within this time.
const ANSWERS_WITHIN: Duration = Duration::from_mins(1);

/// The longest outage, in milliseconds.
const AWAY_MS: u64 = 1_200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    PoolerKilled,
    ProcessKilled,
    DatabaseStopped,
    ProcessTerminated,
    /// Both processes, the pooler and the database at once.
    PowerCut,
}

/// The short form has each of them once, in this order.
pub const ALL: [Fault; 5] =
    [Fault::PoolerKilled, Fault::ProcessKilled, Fault::DatabaseStopped, Fault::ProcessTerminated, Fault::PowerCut];

/// Injects one fault after the other for as long as the form demands; returns the injected faults.
pub async fn break_everything(stage: &mut Stage, ground: &Ground) -> Vec<Fault> {
    let mut dice = Dice::seeded(ground.form.seed);
    let begun = Instant::now();
    let mut broken = Vec::new();
    let goes_on = |broken: &[Fault]| match ground.form.lasts {
        None => broken.len() < ALL.len(),
        Some(lasts) => broken.len() < ALL.len() || begun.elapsed() < lasts,
    };
    while goes_on(&broken) {
        let fault = ALL.get(broken.len()).copied().unwrap_or_else(|| *dice.pick(&ALL));
        wait_for_answers(ground, &format!("before {fault:?}")).await;
        inflict(fault, stage, ground, &mut dice).await;
        if let Some(finding) = stage.wait_until_ready(&ground.doors).await {
            ground.find(format!("after {fault:?}: {finding}"));
        }
        broken.push(fault);
    }
    wait_for_answers(ground, "at the end").await;
    broken
}

/// Waits for further decisions instead of a fixed time, so that a slow machine does not matter.
async fn wait_for_answers(ground: &Ground, when: &str) {
    let (begun, before) = (Instant::now(), ground.counts.answered());
    while ground.counts.answered() < before + ANSWERS_EACH * u64::from(ground.form.clients) {
        if begun.elapsed() > ANSWERS_WITHIN {
            return ground.find(format!("hardly anybody was answered {when}, for {ANSWERS_WITHIN:?}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn inflict(fault: Fault, stage: &mut Stage, ground: &Ground, dice: &mut Dice) {
    let door = usize::try_from(dice.below(DOORS as u64)).unwrap();
    let away = Duration::from_millis(dice.below(AWAY_MS));
    match fault {
        Fault::PoolerKilled => {
            let Some(pooler) = &mut stage.pooler else { return };
            pooler.kill();
            tokio::time::sleep(away).await;
            pooler.start_again();
        }
        Fault::ProcessKilled => {
            stage.kill_process(door, &ground.doors);
            tokio::time::sleep(away).await;
            stage.start_process(door, &ground.doors);
        }
        Fault::DatabaseStopped => {
            stage.cluster.stop_immediately().await;
            tokio::time::sleep(away).await;
            stage.cluster.start_again().await;
        }
        Fault::ProcessTerminated => restart(door, stage, ground).await,
        Fault::PowerCut => {
            (0..DOORS).for_each(|door| stage.kill_process(door, &ground.doors));
            if let Some(pooler) = &mut stage.pooler {
                pooler.kill();
            }
            stage.cluster.stop_immediately().await;
            tokio::time::sleep(away).await;
            stage.cluster.start_again().await;
            if let Some(pooler) = &mut stage.pooler {
                pooler.start_again();
            }
            (0..DOORS).for_each(|door| stage.start_process(door, &ground.doors));
        }
    }
}

/// Stops the process by SIGTERM and starts it again: the running requests have ended when it is back.
pub async fn restart(door: usize, stage: &mut Stage, ground: &Ground) {
    if let Some(finding) = stage.terminate_process(door, &ground.doors).await {
        ground.find(finding);
    }
    stage.start_process(door, &ground.doors);
}
