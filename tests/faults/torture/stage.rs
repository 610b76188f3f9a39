//! The stage: a durable cluster, a pooler in front of it, and two processes of the program. Each part can be killed.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::SIGNING_KEY;
use tempfile::TempDir;

use super::doors::{DOORS, Doors};
use crate::clusters::OwnCluster;
use crate::pgbouncer::PgBouncer;
use crate::service::Service;

/// Two processes share them, so that they are scarce at times.
const POOLER_CONNECTIONS: u32 = 8;

/// A stop waits for running work: two seconds of grace, the jobs, the connections.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// Long enough for a busy machine.
const READY_WITHIN: Duration = Duration::from_mins(1);

pub struct Stage {
    pub cluster: OwnCluster,
    /// `None` if `PgBouncer` is not installed.
    pub pooler: Option<PgBouncer>,
    processes: [Option<Service>; DOORS],
    /// How often each was started.
    starts: [usize; DOORS],
    logs: TempDir,
}

impl Stage {
    /// The processes are not started yet.
    pub async fn build() -> Self {
        let cluster = OwnCluster::durable().await;
        let pooler = PgBouncer::before(cluster.service_url(), POOLER_CONNECTIONS);
        let logs = tempfile::Builder::new().prefix("product-base-torture-").tempdir().unwrap();
        Self { cluster, pooler, processes: [None, None], starts: [0; DOORS], logs }
    }

    /// The starts of a process alternate between two ways to the database: first through the pooler, then direct.
    pub fn start_process(&mut self, door: usize, doors: &Doors) {
        let pooler = self.pooler.as_ref().filter(|_| self.starts[door].is_multiple_of(2));
        let url = pooler.map_or_else(|| self.cluster.service_url(), PgBouncer::url);
        let variables = [
            ("PB__DATABASE__URL", url),
            ("PB__DATABASE__DIRECT_URL", self.cluster.owner_url()),
            ("PB__DATABASE__POOLER", if pooler.is_some() { "transaction" } else { "none" }),
            ("PB__DATABASE__MAX_CONNECTIONS", "10"),
            ("PB__AUTH__SIGNING_KEY", SIGNING_KEY),
        ];
        let log = fs::File::options().create(true).append(true).open(self.log(door)).unwrap();
        // It blocks until the program prints a line.
        let started = tokio::task::block_in_place(|| Service::start(&variables, log.into()));
        doors.open(door, &started.address);
        self.processes[door] = Some(started);
        self.starts[door] += 1;
    }

    pub fn kill_process(&mut self, door: usize, doors: &Doors) {
        doors.close(door);
        if let Some(mut process) = self.processes[door].take() {
            process.kill();
        }
    }

    /// Stops it by SIGTERM. Returns a finding if it did not exit with success.
    pub async fn terminate_process(&mut self, door: usize, doors: &Doors) -> Option<String> {
        let mut process = self.processes[door].take()?;
        process.terminate();
        let status = process.exit(STOP_WITHIN).await;
        doors.close(door);
        (!status.success()).then(|| format!("the process at door {door} left with {status}"))
    }

    /// Waits until both are ready; returns a finding otherwise.
    pub async fn wait_until_ready(&self, doors: &Doors) -> Option<String> {
        let begun = Instant::now();
        for door in 0..DOORS {
            while !doors.is_ready(door).await {
                if begun.elapsed() > READY_WITHIN {
                    return Some(format!("the process at door {door} is not ready after {READY_WITHIN:?}"));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        None
    }

    fn log(&self, door: usize) -> PathBuf {
        self.logs.path().join(format!("process-{door}.log"))
    }

    /// Log lines that no injected fault explains.
    pub fn panics(&self) -> Vec<String> {
        let logs = (0..DOORS).map(|door| fs::read_to_string(self.log(door)).unwrap_or_default());
        let texts: Vec<String> = logs.collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines.filter(|line| line.contains("panicked") || line.contains("a fault of ours")).map(str::to_owned).collect()
    }
}
