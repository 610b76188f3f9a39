//! `cargo run -p migration -- up | down | status | fresh | seed | verify | repair | schema`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use migration::{FindingSeverity, MigrationReport, SeedSettings};

#[derive(Parser)]
#[command(name = "migration", about = "The database schema of Product Base", version)]
struct Arguments {
    /// How many seconds `up` and `repair` wait for locks in all, 300 ms at a time, before they give up
    #[arg(long, global = true, default_value_t = migration::LOCK_PATIENCE.as_secs())]
    lock_patience_seconds: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Apply what is missing: steps, replaceable objects, partitions
    Up,
    /// Undo steps: all of them, or the last few
    Down {
        /// How many, counted from the last
        #[arg(long)]
        steps: Option<u32>,
    },
    /// Name every step and whether it was applied
    Status,
    /// Drop everything of ours with its data, and make it again
    Fresh {
        /// Without it nothing happens, since the data is lost
        #[arg(long)]
        yes: bool,
    },
    /// Insert the catalogue: plans, features and what each plan contains
    Seed,
    /// Check steps, objects, rights and the integrity of the rows; exit code 1 on an error
    Verify {
        /// A line that an earlier `verify` printed last: ledgers must still hold what they held then
        #[arg(long)]
        since: Option<String>,
    },
    /// Put back the objects and rights that `verify` found missing or changed, and name what is left; exit code 1 on an error
    Repair,
    /// Print the schema as SQL (docs/schema.sql)
    Schema,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter("warn,migration=info")
        .init();
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The chain of causes, without those already quoted by the error above them.
fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match () {
        () if told.is_empty() => cause,
        () if told.contains(&cause) => told,
        () => format!("{told}: {cause}"),
    })
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let url = database_url()?;
    let patience = Duration::from_secs(arguments.lock_patience_seconds);
    match arguments.command {
        Command::Up => print_report(&migration::up_within(&url, patience).await?),
        Command::Down { steps } => {
            for name in migration::down(&url, steps).await? {
                println!("undone {name}");
            }
        }
        Command::Status => {
            for step in migration::status(&url).await? {
                println!("{} {}", if step.applied { "applied" } else { "pending" }, step.name);
            }
        }
        Command::Fresh { yes } => {
            if !yes {
                bail!("fresh drops every table of this product with its data: say `fresh --yes` if that is meant");
            }
            print_report(&migration::fresh(&url).await?);
        }
        Command::Seed => print_report(&migration::seed_with(&url, &SeedSettings::from_lookup(environment)).await?),
        Command::Verify { since } => return verify(&url, since.as_deref()).await,
        Command::Repair => {
            print_report(&migration::repair_within(&url, patience).await?);
            return verify(&url, None).await;
        }
        Command::Schema => print!("{}", migration::schema_sql(&url).await?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(url: &str, since: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut findings = migration::verify(url).await?;
    // If steps are missing, there may be no ledger.
    let is_whole = !findings.iter().any(|finding| finding.finding.ends_with("_STEP") || finding.finding == "NO_SCHEMA");
    if let Some(line) = since.filter(|_| is_whole) {
        findings.extend(migration::compare_ledgers(url, line).await?);
    }
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.severity == FindingSeverity::Error).count();
    println!("{errors} errors, {} warnings", findings.len() - errors);
    if is_whole {
        println!("{}", migration::ledger_line(url).await?);
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_report(report: &MigrationReport) {
    for name in &report.applied {
        println!("applied {name}");
    }
    println!(
        "{} steps applied, {} objects replaced, {} rows seeded",
        report.applied.len(),
        report.replaced.len(),
        report.seeded
    );
}

/// The direct URL: session settings, long transactions and DDL do not work through a transaction pooler.
fn database_url() -> anyhow::Result<String> {
    ["PB__DATABASE__DIRECT_URL", "SUPABASE_DIRECT_URL", "DATABASE_URL"]
        .into_iter()
        .find_map(environment)
        .context("no database is named: set PB__DATABASE__DIRECT_URL to the direct connection, postgres://user:password@host:5432/database")
}

#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
