//! Writers: each changes its own name again and again, and remembers every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Answer, TestApp, TestUser};
use serde_json::json;
use tokio::task::JoinHandle;

/// One answered request.
#[derive(Clone, Debug)]
pub struct Told {
    pub number: u64,
    pub sent: Instant,
    pub took: Duration,
    pub status: u16,
    pub retry_after: Option<u64>,
    /// The name that a 200 shows.
    pub name: String,
}

/// Sent one after the other until they are told to stop.
pub struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    running: Vec<(TestUser, JoinHandle<Vec<Told>>)>,
}

impl Writers {
    pub fn start(app: &Arc<TestApp>, users: &[TestUser]) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default());
        let start = |user: &TestUser| write(Arc::clone(app), user.clone(), Arc::clone(&stop), Arc::clone(&written));
        let running = users.iter().map(|user| (user.clone(), tokio::spawn(start(user)))).collect();
        Self { stop, written, running }
    }

    /// How many writes were answered 200 so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered 200.
    pub async fn write_more(&self, writes: u64) {
        let (begun, before) = (Instant::now(), self.written());
        while self.written() < before + writes {
            assert!(
                begun.elapsed() < Duration::from_secs(15),
                "{} writes in {:?}",
                self.written() - before,
                begun.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What each was told, in the order of its requests.
    pub async fn stop(self) -> Vec<(TestUser, Vec<Told>)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for (user, running) in self.running {
            told.push((user, running.await.unwrap()));
        }
        told
    }
}

async fn write(app: Arc<TestApp>, user: TestUser, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) -> Vec<Told> {
    let mut told = Vec::new();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let sent = Instant::now();
        let request = app.patch("/api/users/me").bearer(&user).json(json!({ "name": name(number) }));
        let answer = request.send().await;
        let found = Told {
            number,
            sent,
            took: sent.elapsed(),
            status: answer.status,
            retry_after: retry_after(&answer),
            name: answer.body["name"].as_str().unwrap_or_default().to_owned(),
        };
        if found.status == 200 {
            written.fetch_add(1, Ordering::Relaxed);
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told.push(found);
    }
    told
}

/// Tries until it is so; answers how long that took.
pub async fn within(limit: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < limit, "{what} took longer than {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    begun.elapsed()
}

pub fn retry_after(answer: &Answer) -> Option<u64> {
    answer.header("retry-after")?.parse().ok()
}

pub fn name(number: u64) -> String {
    format!("write {number}")
}

/// The number in a name.
pub fn number(name: &str) -> u64 {
    name.strip_prefix("write ").and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// An answer is right, or it says honestly and in time that the database is away.
#[track_caller]
pub fn assert_honest(told: &Told) {
    match told.status {
        200 => assert_eq!(told.name, name(told.number), "{told:?}"),
        503 => assert!(told.retry_after.is_some(), "503 says when to come again: {told:?}"),
        _ => panic!("neither done nor away: {told:?}"),
    }
    assert!(told.took < Duration::from_secs(3), "within 3 s: {told:?}");
}

/// The last write that was acknowledged stands, or a later one that was not: that one may have been committed in the
/// moment in which the answer was lost.
#[track_caller]
pub fn assert_kept(told: &[Told], kept: &str) {
    let acknowledged = told.iter().filter(|told| told.status == 200).map(|told| told.number).max().unwrap_or_default();
    let sent = told.iter().map(|told| told.number).max().unwrap_or_default();
    let kept = number(kept);
    assert!((acknowledged..=sent).contains(&kept), "acknowledged {acknowledged}, sent {sent}, in the database {kept}");
}
