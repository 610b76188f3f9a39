//! The sampler reads all counters in one statement, again and again: none may ever exceed its limit, and use that was
//! acknowledged to the clients is in the database from that moment on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::sqlx::{self, Connection as _, PgConnection};
use tokio::task::JoinHandle;

use super::ground::{Ground, count};

const PERIOD: Duration = Duration::from_millis(50);

/// The total use, and the counters whose values no grant can explain.
const SAMPLE: &str = "SELECT coalesce(sum(n.used), 0)::bigint,
        array_agg(n.user_id || ' ' || n.feature_id || ': used ' || n.used || ', overage ' || n.overage || ', reserved '
            || n.reserved || ', limit ' || coalesce(o.limit_value, p.limit_value))
        FILTER (WHERE n.used - n.overage + n.reserved > coalesce(o.limit_value, p.limit_value))
    FROM usage_counters n
    JOIN plan_features p ON p.plan_id = 'torture' AND p.feature_id = n.feature_id
    LEFT JOIN feature_overrides o ON o.user_id = n.user_id AND o.feature_id = n.feature_id";

pub struct Sampler {
    stop: Arc<AtomicBool>,
    running: JoinHandle<()>,
}

impl Sampler {
    pub fn start(owner_url: &str, ground: &Arc<Ground>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let running = tokio::spawn(sample(owner_url.to_owned(), Arc::clone(ground), Arc::clone(&stop)));
        Self { stop, running }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap();
    }
}

async fn sample(owner_url: String, ground: Arc<Ground>, stop: Arc<AtomicBool>) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        connection = match connection {
            None => PgConnection::connect(&owner_url).await.ok(),
            Some(connected) => look(connected, &ground).await,
        };
        // Sampling takes a fifth of the time at most, even with many counters.
        tokio::time::sleep(PERIOD.max(begun.elapsed() * 4)).await;
    }
}

/// `None` if the database is unreachable.
async fn look(mut connection: PgConnection, ground: &Ground) -> Option<PgConnection> {
    // Read before the sample is taken: all of this was acknowledged, so it is durable.
    let told = ground.counts.used.load(Ordering::SeqCst);
    let sampled: Result<(i64, Option<Vec<String>>), sqlx::Error> =
        sqlx::query_as(SAMPLE).fetch_one(&mut connection).await;
    let (used, over) = sampled.ok()?;
    count(&ground.counts.samples);
    if used < told {
        ground.find(format!("{told} were told to be used, and only {used} are in the database"));
    }
    for counter in over.unwrap_or_default() {
        ground.find(format!("over its limit: {counter}"));
    }
    Some(connection)
}
