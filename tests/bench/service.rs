//! The service under measurement: the `dist` build, as a separate process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use adapters::randomness::SystemRandomness;
use anyhow::{Context as _, bail};
use ports::randomness::Randomness as _;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const START_LIMIT: Duration = Duration::from_mins(1);
/// Longer than the grace that the service gives to its requests.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The time limit for reading its metrics.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// The bearer token for the metrics of the service.
const METRICS_TOKEN: &str = "the scraper of the bench";

/// What the service prints before its address, once it listens.
const WELCOME: &str = "Product Base is listening on ";

/// A running service; it is killed when this is dropped. `stop` is the usual way.
pub struct Service {
    child: Child,
    url: String,
    log: PathBuf,
    _printed: Lines<BufReader<ChildStdout>>,
}

/// The settings of each service of the run, beyond the defaults.
pub struct Orders {
    pub program: PathBuf,
    pub database_url: String,
    pub signing_key: String,
    /// Its working folder, which also gets its log.
    pub folder: PathBuf,
}

/// Further settings of one service.
#[derive(Clone, Copy, Default)]
pub struct Special<'a> {
    /// The URL of an issuer's keys: the service accepts tokens of that issuer, and makes none of its own.
    pub jwks_url: Option<&'a str>,
    /// The base URL of `OpenAI`.
    pub openai_url: Option<&'a str>,
    /// Another build than the run's.
    pub program: Option<&'a Path>,
}

/// What the group commit of a service did since it started.
#[derive(Clone, Copy, Default)]
pub struct Gathered {
    pub batches: f64,
    pub commands: f64,
}

impl Service {
    pub async fn start(orders: &Orders, special: Special<'_>) -> anyhow::Result<Self> {
        let log = orders.folder.join(format!("service-{}.log", SystemRandomness.new_id().simple()));
        let mut command = orders.command(special.program.unwrap_or(&orders.program));
        if let Some(url) = special.jwks_url {
            command.env("PB__AUTH__SUPABASE__JWKS_URL", url);
        }
        if let Some(url) = special.openai_url {
            command.env("PB__AI__OPENAI__BASE_URL", url).env("PB__AI__OPENAI__API_KEY", "bench");
        }
        let mut child = command.stderr(File::create(&log)?).spawn().context("the service cannot be started")?;
        let printed = child.stdout.take().context("the output of the service")?;
        let mut printed = BufReader::new(printed).lines();
        let url = async {
            while let Some(line) = printed.next_line().await? {
                if let Some(url) = line.strip_prefix(WELCOME) {
                    return Ok(url.to_owned());
                }
            }
            bail!("it ended")
        };
        match timeout(START_LIMIT, url).await.unwrap_or_else(|_| bail!("it took over {START_LIMIT:?}")) {
            Ok(url) => Ok(Self { child, url, log, _printed: printed }),
            Err(error) => Err(error.context(format!("the service did not start: {}", tail(&log)))),
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// `None` after it has ended.
    pub fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Read from its metrics.
    pub async fn gathered(&self) -> anyhow::Result<Gathered> {
        let page = reqwest::Client::builder().timeout(QUESTION_LIMIT).build()?.get(format!("{}/metrics", self.url));
        let page = page.bearer_auth(METRICS_TOKEN);
        let page = page.send().await?.error_for_status()?.text().await?;
        let number = |name: &str| {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
            value.with_context(|| format!("the service does not say `{name}`"))
        };
        Ok(Gathered { batches: number("usage_batches_total")?, commands: number("usage_commands_total")? })
    }

    /// The end of its log: warnings and errors only.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// Stops it with SIGTERM, like an operator.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let Some(process) = self.process() else { bail!("the service has ended by itself: {}", tail(&self.log)) };
        Command::new("kill").args(["-TERM", &process.to_string()]).status().await.context("kill")?;
        let status = timeout(STOP_LIMIT, self.child.wait()).await.context("the service did not stop in time")??;
        if !status.success() {
            bail!("the service ended with {status}: {}", tail(&self.log));
        }
        Ok(())
    }
}

impl Orders {
    /// Without our own environment, whose settings are for other databases.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("serve")
            .env_clear()
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .env("PB__ENVIRONMENT", "local")
            .env("PB__SERVER__PORT", "0")
            .env("PB__DATABASE__URL", &self.database_url)
            .env("PB__DATABASE__MIGRATE_ON_START", "false")
            .env("PB__AUTH__SIGNING_KEY", &self.signing_key)
            .env("PB__METRICS__TOKEN", METRICS_TOKEN)
            .env("PB__ADMIN__EMAIL", "admin@bench.example")
            .env("PB__ADMIN__PASSWORD", &self.signing_key)
            .env("PB__LOG__FILTER", "warn");
        for limit in ["LOGINS_PER_IP", "LOGINS_PER_ACCOUNT", "SIGNUPS_PER_IP", "FAILURES_PER_IP"] {
            command.env(format!("PB__RATE_LIMITS__{limit}"), "1000000000");
        }
        command
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
