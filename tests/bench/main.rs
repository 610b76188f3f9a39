//! The benchmark: `make bench`. The rates of the service, beside those of Postgres alone for the same work.
//!
//! One run, on one machine: Postgres with fsync, the `dist` build of the service, wrk and pgbench. Promise: every wait
//! has a time limit, every started process is stopped, and a figure with errors makes the run fail and is not recorded.

mod arguments;
mod cases;
mod duel;
mod gateway;
mod goals;
mod machine;
mod people;
mod pgbench;
mod processes;
mod report;
mod run;
mod service;
mod soak;
mod stage;
mod supabase;
mod tools;
mod warmth;
mod wrk;

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use adapters::clock::SystemClock;
use anyhow::{Context as _, bail};
use ports::clock::Clock as _;
use tokio::signal::unix::{SignalKind, signal};

use arguments::Arguments;
use duel::Duel;
use report::thousands;
use run::Run;
use soak::Soak;
use stage::Ground;

/// For everything but measurements: every step has its own limit, and this one covers the rest.
const AROUND_LIMIT: Duration = Duration::from_mins(20);
/// For a measurement, beside its own time: the warm-up, and starting programs.
const MEASUREMENT_GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    // Selects ring as the only TLS provider.
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
    // When one of them finishes, the others are dropped, which stops every started process.
    tokio::select! {
        finished = tokio::time::timeout(limit(&arguments), bench(&arguments)) => finished.context("the run took too long")?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

fn limit(arguments: &Arguments) -> Duration {
    let measurements = run::measurements();
    let soaking = Duration::from_secs(60 * u64::from(arguments.soak_minutes.unwrap_or_default()));
    AROUND_LIMIT + 2 * soaking + measurements * (Duration::from_secs(arguments.seconds.into()) + MEASUREMENT_GRACE)
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
    if let Some(minutes) = arguments.soak_minutes {
        let soaked = Soak { stage: &stage, tools: &tools, minutes }.run().await;
        stage.strike().await?;
        return soaked;
    }
    if let Some(against) = &arguments.against {
        let fought = Duel { arguments, stage: &stage, tools: &tools, against }.run().await;
        stage.strike().await?;
        return fought;
    }
    let rows = Run { arguments, stage: &stage, tools: &tools, best: OnceLock::new() }.measure().await?;
    let machine = machine::describe(arguments, &stage, &tools).await;
    let last_words = stage.service.last_words();
    stage.strike().await?;
    println!("{}\n{}\n{}", report::table(&rows), report::notes(&rows), goals::table(&rows));
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
