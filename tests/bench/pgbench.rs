//! pgbench: the rate of Postgres alone for the same work, as one prepared statement in each transaction.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Url;
use tokio::process::Command;

use crate::cases::Yardstick;
use crate::processes::output;
use crate::tools::Tools;

/// The time limit of pgbench beyond its measurement: it connects every client first.
const GRACE: Duration = Duration::from_secs(30);

/// The time for each client to plan its statement, which Postgres repeats for the first five executions. The service's
/// connections have done so in the warm-up of their case.
const WARM_UP: Duration = Duration::from_secs(1);

/// The fraction of transactions that is logged, for the percentiles.
const SAMPLED: &str = "0.1";

/// As for wrk.
const THREADS_MAX: u32 = 2;

pub struct Pgbench<'a> {
    pub tools: &'a Tools,
    /// The URL of the tables' owner.
    pub owner: &'a Url,
    pub users: u32,
    /// The folder for scripts and logs.
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
        let duration = WARM_UP + Duration::from_secs(seconds.into());
        command.arg(format!("--time={}", duration.as_secs())).arg("--progress=1").arg("--file").arg(script);
        command.args(["--log", &format!("--sampling-rate={SAMPLED}")]).arg("--log-prefix").arg(&log);
        // The password is kept out of the arguments, which every user of the machine can read.
        let mut address = self.owner.clone();
        address.set_password(None).ok();
        command.arg(address.as_str()).env("PGPASSWORD", self.owner.password().unwrap_or_default()).env("LC_ALL", "C");
        let printed = output(&mut command, duration + GRACE).await;
        let printed = printed.with_context(|| yardstick.name)?;
        let (median, p99) = self.percentiles("pgbench_log")?;
        let per_second = per_second(&printed).with_context(|| format!("pgbench did not say `tps`: {printed}"))?;
        Ok(Measured { per_second, median, p99 })
    }

    /// From the logs, one for each thread, which are then removed.
    fn percentiles(&self, prefix: &str) -> anyhow::Result<(Duration, Duration)> {
        let mut logged: Vec<Logged> = Vec::new();
        for log in self.logs(prefix)? {
            logged.extend(fs::read_to_string(&log).context("the log of pgbench")?.lines().filter_map(Logged::read));
            fs::remove_file(&log)?;
        }
        let times = || logged.iter().map(|logged| logged.at);
        let start = times().min().unwrap_or_default() + WARM_UP;
        let logged_last = times().max().unwrap_or_default();
        // Of the whole log, if the machine stalled after the warm-up.
        let is_warm = |logged: &&Logged| logged.at >= start || logged_last < start;
        let mut latencies: Vec<Duration> = logged.iter().filter(is_warm).map(|logged| logged.latency).collect();
        latencies.sort_unstable();
        let at = |hundredths: usize| latencies.get(latencies.len() * hundredths / 100).copied();
        at(50).zip(at(99)).context("pgbench wrote down no transaction: it took all of its time to connect")
    }

    fn logs(&self, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.folder)?.collect::<Result<Vec<_>, _>>()?;
        let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        Ok(entries.into_iter().map(|entry| entry.path()).filter(is_log).collect())
    }
}

/// A line of a log.
struct Logged {
    latency: Duration,
    /// When it ended, since 1970.
    at: Duration,
}

impl Logged {
    /// Client, number, microseconds, script, and the time in seconds and microseconds.
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').map(str::parse::<u64>);
        let latency = Duration::from_micros(fields.nth(2)?.ok()?);
        let (seconds, microseconds) = (fields.nth(1)?.ok()?, fields.next()?.ok()?);
        Some(Self { latency, at: Duration::from_secs(seconds) + Duration::from_micros(microseconds) })
    }
}

/// The mean of the rates that pgbench printed each second after the warm-up; the rate of the whole run if it printed
/// none.
fn per_second(printed: &str) -> Option<f64> {
    let progress = |line: &str| {
        let (at, rest) = line.strip_prefix("progress: ")?.split_once(" s, ")?;
        let is_warm = at.parse::<f64>().ok()? > WARM_UP.as_secs_f64() * 1.5;
        is_warm.then(|| rest.split(' ').next()?.parse::<f64>().ok())?
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for transactions in printed.lines().filter_map(progress) {
        sum += transactions;
        count += 1.0;
    }
    let whole = || printed.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    if count > 0.0 { Some(sum / count) } else { whole() }
}
