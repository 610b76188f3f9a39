//! The shared state of a run: endpoints, users, counts, and findings.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use harness::sqlx::PgPool;
use harness::sqlx::postgres::PgPoolOptions;

use super::doors::Doors;
use super::form::Form;
use super::people::People;

/// The connections that all clients share for consuming in SQL.
const SQL_CONNECTIONS: u32 = 8;

/// After this number of refusals the next hot user is used.
const HOT_REFUSALS: u32 = 30;

/// Further findings would add no information.
const FINDINGS_MAX: usize = 200;

pub struct Ground {
    pub form: Form,
    pub doors: Doors,
    pub people: People,
    pub sql: PgPool,
    pub counts: Counts,
    pub stop: AtomicBool,
    hot_refusals: AtomicU32,
    findings: Mutex<Vec<String>>,
}

#[derive(Default)]
pub struct Counts {
    pub sent: AtomicU64,
    pub granted: AtomicU64,
    pub refused: AtomicU64,
    pub unanswered: AtomicU64,
    pub away: AtomicU64,
    pub retried: AtomicU64,
    pub repeated: AtomicU64,
    pub cut: AtomicU64,
    pub ended: AtomicU64,
    pub samples: AtomicU64,
    /// The use that was acknowledged to the clients so far: the database must contain at least as much.
    pub used: AtomicI64,
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    /// The number of decisions of the service so far.
    pub fn answered(&self) -> u64 {
        self.granted.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }
}

impl Ground {
    pub fn new(form: Form, people: People, service_url: &str) -> Self {
        let sql = PgPoolOptions::new().max_connections(SQL_CONNECTIONS).acquire_timeout(Duration::from_secs(5));
        Self {
            form,
            doors: Doors::new(),
            people,
            sql: sql.connect_lazy(service_url).unwrap(),
            counts: Counts::default(),
            stop: AtomicBool::new(false),
            hot_refusals: AtomicU32::new(0),
            findings: Mutex::default(),
        }
    }

    pub fn find(&self, finding: String) {
        let mut findings = self.findings.lock().unwrap();
        if findings.len() < FINDINGS_MAX {
            findings.push(finding);
        }
    }

    pub fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap().clone()
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The current hot user.
    pub fn hot(&self) -> u32 {
        self.people.hot(self.hot_refusals.load(Ordering::Relaxed) / HOT_REFUSALS)
    }

    pub fn refuse_hot(&self) {
        self.hot_refusals.fetch_add(1, Ordering::Relaxed);
    }
}
