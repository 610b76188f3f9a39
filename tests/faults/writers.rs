//! Writers: each changes its own name again and again, and records every response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Answer, TestApp, TestUser};
use serde_json::json;
use tokio::task::JoinHandle;

/// The response to one request.
#[derive(Clone, Debug)]
pub struct Told {
    pub number: u64,
    pub sent: Instant,
    pub took: Duration,
    pub status: u16,
    pub retry_after: Option<u64>,
    /// The name in a 200 response.
    pub name: String,
}

/// The writers; each sends one request after the other until it is stopped.
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

    /// The number of 200 responses so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits for this many further 200 responses.
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

    /// The responses to each writer, in the order of its requests.
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

/// Polls until the condition holds; returns how long that took.
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

/// A response is right, or it is a 503 with `Retry-After`; both within 3 s.
#[track_caller]
pub fn assert_honest(told: &Told) {
    match told.status {
        200 => assert_eq!(told.name, name(told.number), "{told:?}"),
        503 => assert!(told.retry_after.is_some(), "503 says when to come again: {told:?}"),
        _ => panic!("neither done nor away: {told:?}"),
    }
    assert!(told.took < Duration::from_secs(3), "within 3 s: {told:?}");
}

/// The stored name is that of the last acknowledged write or of a later one: that one may have been committed although
/// its response was lost.
#[track_caller]
pub fn assert_kept(told: &[Told], kept: &str) {
    let acknowledged = told.iter().filter(|told| told.status == 200).map(|told| told.number).max().unwrap_or_default();
    let sent = told.iter().map(|told| told.number).max().unwrap_or_default();
    let kept = number(kept);
    assert!((acknowledged..=sent).contains(&kept), "acknowledged {acknowledged}, sent {sent}, in the database {kept}");
}
