//! pgbench: what Postgres alone can do with the same work, as one prepared statement a transaction.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Url;
use tokio::process::Command;

use crate::cases::Yardstick;
use crate::processes::output;
use crate::tools::Tools;

/// How much longer than its measurement pgbench may take: it connects every client first.
const GRACE: Duration = Duration::from_secs(30);

/// Which part of the transactions is written down, for the percentiles.
const SAMPLED: &str = "0.1";

/// As for wrk.
const THREADS_MAX: u32 = 2;

pub struct Pgbench<'a> {
    pub tools: &'a Tools,
    /// Of the owner of the tables.
    pub owner: &'a Url,
    pub users: u32,
    /// Where scripts and logs may be written.
    pub folder: &'a Path,
}

pub struct Measured {
    pub per_second: f64,
    pub median: Duration,
    pub p99: Duration,
}

impl Pgbench<'_> {
    pub async fn measure(&self, yardstick: &Yardstick, clients: u32, seconds: u32) -> anyhow::Result<Measured> {
        let script = self.folder.join("yardstick.sql");
        fs::write(&script, yardstick.script).context("the script of pgbench")?;
        let log = self.folder.join("pgbench_log");
        let mut command = Command::new(&self.tools.pgbench);
        command.args(["--no-vacuum", "--protocol=prepared", &format!("--define=users={}", self.users)]);
        command.arg(format!("--client={clients}")).arg(format!("--jobs={}", clients.clamp(1, THREADS_MAX)));
        command.arg(format!("--time={seconds}")).arg("--file").arg(script);
        command.args(["--log", &format!("--sampling-rate={SAMPLED}")]).arg("--log-prefix").arg(&log);
        // The password does not stand where everybody on the machine may read it.
        let mut address = self.owner.clone();
        address.set_password(None).ok();
        command.arg(address.as_str()).env("PGPASSWORD", self.owner.password().unwrap_or_default()).env("LC_ALL", "C");
        let printed = output(&mut command, Duration::from_secs(seconds.into()) + GRACE).await;
        let printed = printed.with_context(|| yardstick.name)?;
        let per_second = printed.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let (median, p99) = self.percentiles("pgbench_log")?;
        let per_second = per_second.with_context(|| format!("pgbench did not say `tps`: {printed}"))?;
        Ok(Measured { per_second, median, p99 })
    }

    /// Out of the logs, which are removed: one a thread, with the microseconds of a transaction in the third field.
    fn percentiles(&self, prefix: &str) -> anyhow::Result<(Duration, Duration)> {
        let mut latencies: Vec<u64> = Vec::new();
        for log in self.logs(prefix)? {
            let text = fs::read_to_string(&log).context("the log of pgbench")?;
            latencies.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()));
            fs::remove_file(&log)?;
        }
        latencies.sort_unstable();
        let at =
            |hundredths: usize| latencies.get(latencies.len() * hundredths / 100).copied().map(Duration::from_micros);
        ensure!(!latencies.is_empty(), "pgbench wrote down no transaction");
        Ok((at(50).unwrap_or_default(), at(99).unwrap_or_default()))
    }

    fn logs(&self, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.folder)?.collect::<Result<Vec<_>, _>>()?;
        let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        Ok(entries.into_iter().map(|entry| entry.path()).filter(is_log).collect())
    }
}
