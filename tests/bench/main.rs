//! The benchmark: `make bench`. What the service does a second, beside what Postgres alone does with the same work.
//!
//! One run, on one machine: Postgres with fsync, the release build of the service, wrk and pgbench. Promise: every
//! wait is bounded, whatever was started is stopped, and a figure with errors behind it makes the run fail and is not
//! written down.

mod arguments;
mod cases;
mod machine;
mod people;
mod pgbench;
mod processes;
mod report;
mod service;
mod stage;
mod tools;
mod wrk;

use std::process::ExitCode;
use std::time::Duration;

use adapters::clock::SystemClock;
use anyhow::{Context as _, anyhow, bail};
use ports::clock::Clock as _;
use tokio::signal::unix::{SignalKind, signal};

use arguments::Arguments;
use cases::{CASES, CONNECTIONS, Case, YARDSTICKS, Yardstick};
use pgbench::Pgbench;
use processes::{Usage, resident_mebibytes};
use report::{Row, thousands};
use stage::{Ground, Stage};
use tools::Tools;
use wrk::Wrk;

/// For all that is not a measurement: every step has its own limit, and this is for what nobody thought of.
const AROUND_LIMIT: Duration = Duration::from_mins(20);
/// For a measurement, beside its own time: the warm-up, and programs that start.
const MEASUREMENT_GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    // Nobody else says which cryptography TLS uses: ring, and only ring.
    rustls::crypto::ring::default_provider().install_default().ok();
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Whichever comes first: what the others hold is dropped, and stops everything that was started.
    tokio::select! {
        finished = tokio::time::timeout(limit(&arguments), bench(&arguments)) => finished.context("the run took too long")?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

fn limit(arguments: &Arguments) -> Duration {
    let of_cases: usize = CASES.iter().map(|case| case.connections.len()).sum();
    let of_yardsticks = 2 * YARDSTICKS.len() * CONNECTIONS.len();
    let measurements = u32::try_from(of_cases + of_yardsticks).unwrap_or(u32::MAX);
    AROUND_LIMIT + measurements * (Duration::from_secs(arguments.seconds.into()) + MEASUREMENT_GRACE)
}

async fn bench(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let ground = Ground::prepare().await.context("Postgres")?;
    let tools = match ground.tools().await {
        Ok(tools) => tools,
        Err(missing) => {
            println!("bench: skipped: {missing}");
            ground.strike().await?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    eprintln!("bench: {} users, {} s a measurement", thousands(arguments.users.into()), arguments.seconds);
    let stage = ground.build(arguments).await?;
    let rows = Run { arguments, stage: &stage, tools: &tools }.measure().await?;
    let machine = machine::describe(arguments, &stage, &tools).await;
    let last_words = stage.service.last_words();
    stage.strike().await?;
    println!("{}", report::table(&rows));
    let errors: u64 = rows.iter().map(|row| row.errors).sum();
    if errors > 0 {
        bail!("{errors} requests had no good answer, so nothing was written.\nThe service's last words:\n{last_words}");
    }
    if arguments.only.is_some() {
        println!("A part of the cases: nothing was written.");
        return Ok(ExitCode::SUCCESS);
    }
    let when = SystemClock.now().format("%Y-%m-%d %H:%M UTC").to_string();
    let report = arguments.report.display();
    std::fs::write(&arguments.report, report::page(arguments, &when, &machine, &rows))
        .with_context(|| format!("{report} cannot be written"))?;
    println!("Written to {report}.");
    Ok(ExitCode::SUCCESS)
}

struct Run<'a> {
    arguments: &'a Arguments,
    stage: &'a Stage,
    tools: &'a Tools,
}

impl Run<'_> {
    /// The yardsticks come before and after, since a machine has better and worse minutes.
    async fn measure(&self) -> anyhow::Result<Vec<Row>> {
        let mut standards = self.yardsticks().await?;
        let mut cases = Vec::new();
        for case in CASES.iter().filter(|case| self.arguments.wants(case.name)) {
            cases.push((case, self.case(case).await?));
        }
        for (kept, (yardstick, row)) in standards.iter_mut().zip(self.yardsticks().await?) {
            if row.per_second > kept.1.per_second {
                *kept = (yardstick, row);
            }
        }
        let best = |yardstick: &Yardstick| {
            let rows = standards.iter().filter(|(other, _)| *other == yardstick).map(|(_, row)| row.per_second);
            rows.fold(f64::NAN, f64::max)
        };
        let mut rows = Vec::new();
        for (case, measured) in cases {
            let items = f64::from(case.items_per_request);
            let best = case.yardstick.map(best);
            rows.extend(
                measured.into_iter().map(|row| Row { ratio: best.map(|best| row.per_second * items / best), ..row }),
            );
        }
        rows.extend(standards.into_iter().map(|(_, row)| row));
        Ok(rows)
    }

    async fn yardsticks(&self) -> anyhow::Result<Vec<(&'static Yardstick, Row)>> {
        let (users, folder) = (self.arguments.users, self.stage.folder());
        let pgbench = Pgbench { tools: self.tools, owner: &self.stage.owner, users, folder };
        let mut rows = Vec::new();
        let wanted = |yardstick: &Yardstick| {
            let compared = |case: &Case| case.yardstick == Some(yardstick) && self.arguments.wants(case.name);
            CASES.iter().any(compared)
        };
        for yardstick in YARDSTICKS.into_iter().filter(|yardstick| wanted(yardstick)) {
            for clients in CONNECTIONS {
                let before = self.stage.actors().read();
                let measured = pgbench.measure(yardstick, *clients, self.arguments.seconds).await?;
                let usage = Usage { service: None, ..self.stage.actors().usage_since(&before) };
                let row = Row {
                    name: yardstick.name,
                    connections: *clients,
                    per_second: measured.per_second,
                    median: measured.median,
                    p99: measured.p99,
                    errors: 0,
                    usage,
                    resident_mebibytes: None,
                    ratio: None,
                };
                rows.push((yardstick, told(row)));
            }
        }
        Ok(rows)
    }

    async fn case(&self, case: &'static Case) -> anyhow::Result<Vec<Row>> {
        let (service, folder) = (&self.stage.service, self.stage.folder());
        let wrk = Wrk { tools: self.tools, tokens: &self.stage.tokens, url: service.url(), folder };
        let mut rows = Vec::new();
        for connections in case.connections {
            let warmed_up = wrk.warm_up(case, *connections).await;
            warmed_up.map_err(|error| anyhow!("{error:#}\nThe service's last words:\n{}", service.last_words()))?;
            let before = self.stage.actors().read();
            let driven = wrk.measure(case, *connections, self.arguments.seconds).await?;
            let usage = self.stage.actors().usage_since(&before);
            let row = Row {
                name: case.name,
                connections: *connections,
                per_second: driven.per_second,
                median: driven.median,
                p99: driven.p99,
                errors: driven.errors.sum(),
                usage,
                resident_mebibytes: service.process().and_then(resident_mebibytes),
                ratio: None,
            };
            rows.push(told(row));
        }
        Ok(rows)
    }
}

/// Says on the terminal that there is one figure more.
fn told(row: Row) -> Row {
    let errors = if row.errors > 0 { format!(", {} ERRORS", row.errors) } else { String::new() };
    eprintln!("  {} ({}): {}/s{errors}", row.name, row.connections, thousands(row.per_second));
    row
}
