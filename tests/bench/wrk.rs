//! wrk: the load over HTTP. Its Lua script is written for each run, and its output is parsed here.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adapters::randomness::SystemRandomness;
use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use ports::randomness::Randomness as _;
use tokio::process::Command;

use crate::cases::{Callers, Case};
use crate::processes::output;
use crate::tools::Tools;

/// A request without a response for this long is an error. Longer than the service's own limits, so that its own
/// response (503) is counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time limit of wrk beyond its measurement.
const GRACE: Duration = Duration::from_secs(30);

/// More threads were never faster, and they take processors from the service.
const THREADS_MAX: u32 = 2;

/// The tokens of all users, one a line, all of the same length.
pub struct Tokens {
    pub file: PathBuf,
    pub length: usize,
    pub count: u32,
}

pub struct Wrk<'a> {
    pub tools: &'a Tools,
    pub tokens: &'a Tokens,
    /// `http://` and the address of each process of the service: one wrk runs for each, and they share the connections.
    pub urls: Vec<&'a str>,
    /// The folder for scripts.
    pub folder: &'a Path,
}

/// The result of one run. For several wrk, the sums, and the worse of their percentiles, because the distributions are
/// known to each of them only.
#[derive(Clone, Copy)]
pub struct Driven {
    pub per_second: f64,
    pub items_per_second: f64,
    pub median: Duration,
    pub p99: Duration,
    pub errors: Errors,
}

/// Requests without a good response.
#[derive(Clone, Copy, Default)]
pub struct Errors {
    /// Responses with a status of 400 or more.
    pub refused: u64,
    /// Not connected, not sent, not read.
    pub broken: u64,
    /// No response in time.
    pub late: u64,
}

impl Errors {
    pub fn sum(self) -> u64 {
        self.refused + self.broken + self.late
    }
}

impl Driven {
    fn beside(self, other: Self) -> Self {
        let (ours, theirs) = (self.errors, other.errors);
        Self {
            per_second: self.per_second + other.per_second,
            items_per_second: self.items_per_second + other.items_per_second,
            median: self.median.max(other.median),
            p99: self.p99.max(other.p99),
            errors: Errors {
                refused: ours.refused + theirs.refused,
                broken: ours.broken + theirs.broken,
                late: ours.late + theirs.late,
            },
        }
    }
}

impl Wrk<'_> {
    /// Runs the case for a second before it is measured, and checks every response: all must be 2xx.
    pub async fn warm_up(&self, case: &Case, connections: u32) -> anyhow::Result<()> {
        for printed in self.run(case, connections, 1, true).await? {
            let refusal = printed.lines().find_map(|line| line.strip_prefix("bench refusal "));
            if let Some(refusal) = refusal {
                bail!("{}: {} {} answered {refusal}", case.name, case.method, case.path);
            }
            let driven = driven(case, &printed)?;
            ensure!(driven.errors.sum() == 0, "{}: {} requests broke in the warm-up", case.name, driven.errors.sum());
        }
        Ok(())
    }

    pub async fn measure(&self, case: &Case, connections: u32, seconds: u32) -> anyhow::Result<Driven> {
        let printed = self.run(case, connections, seconds, false).await?;
        let driven: Vec<Driven> = printed.iter().map(|printed| driven(case, printed)).collect::<anyhow::Result<_>>()?;
        driven.into_iter().reduce(Driven::beside).context("no wrk ran")
    }

    /// The output of each wrk.
    async fn run(&self, case: &Case, connections: u32, seconds: u32, warming: bool) -> anyhow::Result<Vec<String>> {
        let several = u32::try_from(self.urls.len())?.max(1);
        let runs = self.urls.iter().zip(0..).map(async |(url, place)| {
            let script = self.folder.join(format!("case-{place}.lua"));
            fs::write(&script, self.script(case, warming)?).context("the script of wrk")?;
            let connections = connections / several + u32::from(place < connections % several);
            let threads = connections.clamp(1, (THREADS_MAX / several).max(1));
            let mut command = Command::new(&self.tools.wrk);
            command.args(["--threads", &threads.to_string(), "--connections", &connections.to_string()]);
            command.args(["--duration", &format!("{seconds}s"), "--timeout", &format!("{}s", PATIENCE.as_secs())]);
            command.arg("--script").arg(script).arg(format!("{url}{}", case.path));
            output(&mut command, Duration::from_secs(seconds.into()) + GRACE).await
        });
        try_join_all(runs).await
    }

    fn script(&self, case: &Case, warming: bool) -> anyhow::Result<String> {
        let mut script = String::new();
        writeln!(script, "METHOD, PATH = {:?}, {:?}", case.method, case.path)?;
        let run = SystemRandomness.new_id();
        // Lua's numbers are exact up to 2^53, and the last bits of an id are random.
        let seed = run.as_u128() % (1 << 48);
        writeln!(script, "RUN, SEED, WARMING = \"{}\", {seed}, {warming}", run.simple())?;
        let count = match case.callers {
            Callers::Nobody => 0,
            Callers::First(count) => count.min(self.tokens.count),
            Callers::Everybody => self.tokens.count,
        };
        if count > 0 {
            let (file, length) = (self.tokens.file.display().to_string(), self.tokens.length);
            writeln!(script, "TOKENS, TOKEN_LENGTH, TOKEN_COUNT = {file:?}, {length}, {count}")?;
        }
        script.push_str(include_str!("load.lua"));
        script.push_str(case.script);
        Ok(script)
    }
}

fn driven(case: &Case, printed: &str) -> anyhow::Result<Driven> {
    let text = |name: &str| {
        let said = |line: &str| line.strip_prefix("bench ")?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        printed.lines().find_map(said).with_context(|| format!("wrk did not say `{name}`: {printed}"))
    };
    let number = |name: &str| -> anyhow::Result<u64> { Ok(text(name)?.parse()?) };
    let float = |name: &str| -> anyhow::Result<f64> { Ok(text(name)?.parse()?) };
    let (requests, seconds) = (float("requests")?, float("microseconds")? / 1_000_000.0);
    let items = float("items").unwrap_or(requests * f64::from(case.items_per_request));
    Ok(Driven {
        per_second: requests / seconds,
        items_per_second: items / seconds,
        median: Duration::from_micros(number("p50")?),
        p99: Duration::from_micros(number("p99")?),
        errors: Errors { refused: number("refused")?, broken: number("broken")?, late: number("late")? },
    })
}
