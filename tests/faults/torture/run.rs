//! A run: build the stage, let the clients work while faults are injected, resolve what is in doubt, and audit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::audit::audit;
use super::books::{Books, pending_holds};
use super::client::Client;
use super::doors::DOORS;
use super::faults::{ALL, Fault, break_everything, restart};
use super::form::Form;
use super::ground::Ground;
use super::journal::{Outcome, Use};
use super::people::People;
use super::sampler::Sampler;
use super::stage::Stage;

/// The expiry job runs every five or six seconds, and expires up to five hundred reservations at a time.
const GIVEN_BACK_WITHIN: Duration = Duration::from_mins(1);

/// More of them would hide the first.
const FINDINGS_SHOWN: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_breaks_nothing_acknowledged_is_lost_or_counted_twice_and_no_limit_is_broken() {
    let begun = Instant::now();
    let form = Form::told();
    println!("{form:?}: TORTURE_SEED={} throws the same dice again", form.seed);
    let mut stage = Stage::build().await;
    let owner_url = stage.cluster.owner_url().to_owned();
    let people = People::settle(&owner_url, &form).await;
    let ground = Arc::new(Ground::new(form, people, stage.cluster.service_url()));
    (0..DOORS).for_each(|door| stage.start_process(door, &ground.doors));
    if let Some(finding) = stage.wait_until_ready(&ground.doors).await {
        panic!("{finding}");
    }
    let sampler = Sampler::start(&owner_url, &ground);
    let clients: Vec<JoinHandle<Client>> =
        (0..form.clients).map(|number| tokio::spawn(Client::new(number, Arc::clone(&ground)).work())).collect();

    let broken = break_everything(&mut stage, &ground).await;
    ground.stop.store(true, Ordering::Relaxed);
    let journals = resolve(clients, &mut stage, &ground).await;
    sampler.stop().await;
    for door in 0..DOORS {
        if let Some(finding) = stage.terminate_process(door, &ground.doors).await {
            ground.find(finding);
        }
    }
    ground.sql.close().await;

    let mut findings = ground.findings();
    findings.extend(stage.panics());
    findings.extend(audit(&journals, &Books::read(&owner_url).await));
    report(&ground, &broken, &journals, findings.len(), begun.elapsed());
    findings.truncate(FINDINGS_SHOWN);
    assert!(findings.is_empty(), "seed {}:\n{}", form.seed, findings.join("\n"));
    assert_was_a_torture(&ground, &broken, &journals);
    // The data is not needed any more.
    stage.cluster.stop_immediately().await;
}

/// Lets the clients complete everything that they began, and waits until every abandoned reservation expires.
async fn resolve(clients: Vec<JoinHandle<Client>>, stage: &mut Stage, ground: &Arc<Ground>) -> Vec<Use> {
    let mut stopped = Vec::new();
    for client in clients {
        stopped.push(client.await.unwrap());
    }
    // Requests that clients abandoned end with the processes, so that nothing is executed after the responses from here
    // on.
    for door in 0..DOORS {
        restart(door, stage, ground).await;
    }
    if let Some(finding) = stage.wait_until_ready(&ground.doors).await {
        ground.find(finding);
    }
    let finishing: Vec<_> = stopped.into_iter().map(|client| tokio::spawn(client.finish())).collect();
    let mut journals = Vec::new();
    for client in finishing {
        journals.extend(client.await.unwrap());
    }
    let waiting = Instant::now();
    while pending_holds(stage.cluster.owner_url()).await > 0 && waiting.elapsed() < GIVEN_BACK_WITHIN {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    journals
}

fn report(ground: &Ground, broken: &[Fault], journals: &[Use], findings: usize, took: Duration) {
    let counts = &ground.counts;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} uses and holds were sent: {} granted, {} of them in SQL; {} ends of holds; {} answers were refusals, {} said to \
         come again, {} requests were not answered and {} cut off on purpose",
        of(&counts.sent),
        journals.iter().filter(|asked| asked.told().is_some()).count(),
        journals.iter().filter(|asked| asked.told().is_some() && asked.in_sql).count(),
        of(&counts.ended),
        of(&counts.refused),
        of(&counts.away),
        of(&counts.unanswered),
        of(&counts.cut),
    );
    println!(
        "{} were sent again until they were resolved, {} that were granted again",
        of(&counts.retried),
        of(&counts.repeated)
    );
    for fault in ALL {
        println!("{fault:?}: {} times", broken.iter().filter(|other| **other == fault).count());
    }
    println!("{} samples; {findings} findings; {took:?}", of(&counts.samples));
}

/// A run without findings proves nothing unless all of this occurred.
fn assert_was_a_torture(ground: &Ground, broken: &[Fault], journals: &[Use]) {
    assert!(ALL.iter().all(|fault| broken.contains(fault)), "{broken:?}");
    let granted = || journals.iter().filter(|asked| asked.told().is_some());
    let refused = journals.iter().filter(|asked| asked.outcome == Outcome::Refused).count();
    let counted = [
        ("uses", granted().filter(|asked| asked.hold.is_none() && !asked.in_sql).count()),
        ("uses in SQL", granted().filter(|asked| asked.in_sql).count()),
        (
            "holds that ended",
            granted().filter(|asked| asked.hold.as_ref().is_some_and(|hold| hold.ended.is_some())).count(),
        ),
        (
            "holds that expired",
            granted().filter(|asked| asked.hold.as_ref().is_some_and(|hold| hold.ended.is_none())).count(),
        ),
        ("grants after a doubt", granted().filter(|asked| asked.doubts > 0).count()),
        ("refusals", refused),
    ];
    for (what, number) in counted {
        assert!(number > 0, "no {what} in {} uses", journals.len());
    }
    assert!(ground.counts.samples.load(Ordering::Relaxed) > 10, "the sampler was asleep");
}
