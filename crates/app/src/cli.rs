//! The command line: `serve`, `admin`, `with-postgres`, `openapi`.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use adapters::clock::SystemClock;
use adapters::postgres::embedded::{EmbeddedPostgres, EmbeddedSettings, place_for_ephemeral};
use anyhow::Context;
use clap::{Parser, Subcommand};
use services::identity::first_admin::FirstAdmin;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::operators::{self, AdminCommand};
use crate::preparation::not_made;
use crate::settings::load::load;
use crate::settings::shape::{SecretText, Settings, given};
use crate::startup::{self, RunningApp};
use crate::{http, telemetry};

/// More descriptors than this are never needed, and some systems allow a billion.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// Plans, entitlements, metering and an LLM gateway for products that sell AI features.
#[derive(Debug, Parser)]
#[command(name = "product-base", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API (the default). Without `PB__DATABASE__URL` it starts a private Postgres of its own.
    Serve,
    /// Starts a throw-away Postgres, runs a command with its URL in `PB__TEST__DATABASE_URL`, and stops it.
    WithPostgres {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Lists the administrators and changes them: for anyone who can reach the database.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Prints the `OpenAPI` document.
    Openapi,
}

impl Cli {
    pub async fn run(self, variables: HashMap<String, String>) -> anyhow::Result<ExitCode> {
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(&variables).await,
            Command::WithPostgres { command } => with_postgres(&variables, &command).await,
            Command::Admin(command) => admin(&variables, command).await,
            Command::Openapi => {
                print_all(&http::openapi::document()?)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Prints a text. A reader that closes the pipe (`| head`) is no failure.
fn print_all(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

async fn serve(variables: &HashMap<String, String>) -> anyhow::Result<ExitCode> {
    let mut settings = load(variables, Path::new("config"))?;
    telemetry::keep_out_secrets(&settings);
    telemetry::init_logs(&settings.log)?;
    raise_descriptors();
    // Signals are caught from here on, so that a Ctrl-C during the start stops the private Postgres too.
    let mut signals = Signals::listen()?;
    let embedded = if settings.database.url.is_set() { None } else { Some(start_embedded(&mut settings).await?) };
    let outcome = tokio::select! {
        started = startup::start(settings, Arc::new(SystemClock)) => match started {
            Ok(app) => run_until_stopped(app, &mut signals).await,
            Err(error) => Err(error),
        },
        () = signals.next() => Ok(()),
    };
    if let Some(postgres) = embedded {
        postgres.stop().await.context("the private Postgres did not stop")?;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Lets the process open as many descriptors as the system allows: the usual soft limit is too low for a server.
fn raise_descriptors() {
    match rlimit::increase_nofile_limit(DESCRIPTORS_MAX) {
        Ok(descriptors) => info!(descriptors, "the limit of descriptors is raised"),
        Err(error) => warn!(%error, "the limit of descriptors cannot be raised"),
    }
}

async fn run_until_stopped(app: RunningApp, signals: &mut Signals) -> anyhow::Result<()> {
    print_welcome(&app);
    signals.next().await;
    tokio::select! {
        stopped = app.stop() => stopped,
        // A second signal stops at once.
        () = signals.next() => Ok(()),
    }
}

/// Works while a service runs, also on its private Postgres.
async fn admin(variables: &HashMap<String, String>, command: AdminCommand) -> anyhow::Result<ExitCode> {
    let mut settings = load(variables, Path::new("config"))?;
    let mut embedded = None;
    if !settings.database.url.is_set() {
        match EmbeddedPostgres::url_of_running(&embedded_wish(&settings), startup::SERVICE_LOGIN)? {
            Some(url) => settings.database.url = SecretText::new(url),
            None => embedded = Some(start_embedded(&mut settings).await?),
        }
    }
    let operator = ["SUDO_USER", "USER"].iter().find_map(|name| variables.get(*name));
    let outcome = operators::administer(&settings, command, operator.map(String::as_str)).await;
    if let Some(postgres) = embedded {
        postgres.stop().await.context("the private Postgres did not stop")?;
    }
    writeln!(std::io::stdout(), "{}", outcome?.join("\n")).ok();
    Ok(ExitCode::SUCCESS)
}

fn embedded_wish(settings: &Settings) -> EmbeddedSettings {
    EmbeddedSettings {
        data_dir: settings.database.embedded.dir.clone(),
        bin: given(&settings.database.embedded.bin).map(PathBuf::from),
        ..EmbeddedSettings::default()
    }
}

/// Starts the private cluster, and fills in its addresses if the settings have none.
async fn start_embedded(settings: &mut Settings) -> anyhow::Result<EmbeddedPostgres> {
    let postgres = EmbeddedPostgres::start(&embedded_wish(settings)).await?;
    for notice in postgres.notices() {
        println!("{notice}");
    }
    let prepared = startup::prepare_embedded(settings, &postgres).await;
    if let Err(error) = prepared {
        postgres.stop().await?;
        return Err(error);
    }
    Ok(postgres)
}

/// What a new user needs to see. The password goes to the terminal, never to a log. A failed write is ignored: the
/// terminal may be closed, and the service goes on.
fn print_welcome(app: &RunningApp) {
    let address = app.address;
    let mut lines = vec![
        format!("Product Base is listening on http://{address}"),
        format!("  Documentation   http://{address}/api/docs"),
    ];
    match &app.first_admin {
        FirstAdmin::Made { email, generated } => {
            lines.push(format!("  Administrator   {email}"));
            lines.extend(
                generated.as_ref().map(|password| format!("  Password        {password}   (shown once; keep it)")),
            );
        }
        FirstAdmin::NotMade { email, user_id } => {
            lines.push(format!("  Administrator   none ({email}): {}", not_made(*user_id)));
        }
        FirstAdmin::Present { .. } => {}
    }
    writeln!(std::io::stdout(), "{}", lines.join("\n")).ok();
}

async fn with_postgres(variables: &HashMap<String, String>, command: &[String]) -> anyhow::Result<ExitCode> {
    let (program, arguments) =
        command.split_first().context("with-postgres needs a command: with-postgres -- cargo test")?;
    let mut signals = Signals::listen()?;
    let folder = Scratch::make()?;
    let mut wish = EmbeddedSettings::ephemeral(&folder.0);
    wish.bin = variables.get("PB__DATABASE__EMBEDDED__BIN").and_then(|bin| given(bin)).map(PathBuf::from);
    let postgres = EmbeddedPostgres::start(&wish).await?;
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .env("PB__TEST__DATABASE_URL", postgres.owner_url())
        .env("PB__TEST__POSTGRES_BIN", postgres.bin())
        .kill_on_drop(true)
        .spawn();
    let status = match child {
        Ok(mut child) => tokio::select! {
            status = child.wait() => status.map(|status| status.code()),
            () = signals.next() => Ok(None),
        },
        Err(error) => Err(error),
    };
    postgres.stop().await?;
    let code = status.with_context(|| format!("`{program}` could not be run"))?;
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// A folder that is removed after the run.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> anyhow::Result<Self> {
        let folder = place_for_ephemeral().join(format!("product-base-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it is left behind, it is a few files in the folder for such files.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// SIGINT or SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
