//! The server process: adopting a running one, starting, stopping.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::account::finish;
use super::error::EmbeddedError;
use super::files;
use super::home::ClusterFolder;
use super::log;
use super::pid_file::{self, PidFile, PidFileOwner};
use super::port;
use super::probe::{self, ServerProbe};
use super::programs::PostgresPrograms;

const START_LIMIT: Duration = Duration::from_secs(30);
const POLL_PERIOD: Duration = Duration::from_millis(20);
const RETRY_PERIOD: Duration = Duration::from_millis(200);
const FAST_LIMIT: Duration = Duration::from_secs(14);
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(4);
const EXIT_LIMIT: Duration = Duration::from_millis(500);
/// `pg_ctl` ends by its own limit; this is for one that hangs.
const PG_CTL_GRACE: Duration = Duration::from_secs(1);

/// What is needed to start the cluster.
pub struct ServerLaunch<'a> {
    pub home: &'a ClusterFolder,
    pub programs: &'a PostgresPrograms,
    pub password: &'a str,
    pub database: &'a str,
    pub is_ephemeral: bool,
}

/// A running server. Dropping it asks the server to stop.
#[derive(Debug)]
pub struct EmbeddedServer {
    home: ClusterFolder,
    programs: PostgresPrograms,
    child: Option<Child>,
    port: u16,
    is_stopped: bool,
}

impl ServerLaunch<'_> {
    /// Adopts the server that an earlier run left, or starts one; returns when it accepts connections.
    pub async fn run(&self, notices: &mut Vec<String>) -> Result<(EmbeddedServer, ServerProbe), EmbeddedError> {
        let deadline = Instant::now() + START_LIMIT;
        if let Some(adopted) = self.adopt(deadline, notices).await? {
            return Ok(adopted);
        }
        loop {
            let port = port::choose(&self.home.folder, notices)?;
            let log_start = log::length(&self.home.log());
            let mut server = self.spawn(port)?;
            match self.wait_ready(&mut server, deadline, log_start).await? {
                Some(probe) => return Ok((server, probe)),
                None => sleep(RETRY_PERIOD).await,
            }
        }
    }

    /// A running server of this cluster; waits while it starts or stops. A stale pid file is removed.
    async fn adopt(
        &self,
        deadline: Instant,
        notices: &mut Vec<String>,
    ) -> Result<Option<(EmbeddedServer, ServerProbe)>, EmbeddedError> {
        let cluster = self.home.cluster();
        while let Some(file) = PidFile::read(&cluster) {
            let holder = file.holder(&cluster);
            if holder != PidFileOwner::Postmaster {
                pid_file::remove(&cluster).map_err(EmbeddedError::file(&cluster))?;
                notices.push(stale_notice(file.pid, holder));
                return Ok(None);
            }
            if let Some(port) = file.port.filter(|_| file.is_ready) {
                // No answer: it may be stopping.
                if let Some(probe) = self.ask(port).await? {
                    port::keep(&self.home.folder, port)?;
                    notices.push(format!("Using the Postgres (process {}) that an earlier run left behind.", file.pid));
                    return Ok(Some((self.server(None, port), probe)));
                }
            }
            self.check_time(deadline, log::length(&self.home.log()))?;
            sleep(POLL_PERIOD).await;
        }
        Ok(None)
    }

    /// `None`: this attempt failed for a temporary reason, and there is time for another.
    async fn wait_ready(
        &self,
        server: &mut EmbeddedServer,
        deadline: Instant,
        log_start: u64,
    ) -> Result<Option<ServerProbe>, EmbeddedError> {
        let cluster = self.home.cluster();
        loop {
            if server.has_exited() {
                let said = log::read_since(&self.home.log(), log_start).unwrap_or_default();
                if passes_by_itself(&said) && Instant::now() < deadline {
                    return Ok(None);
                }
                return Err(EmbeddedError::Start { log: self.home.log(), tail: log::tail_of(&said) });
            }
            let is_ready = PidFile::read(&cluster).is_some_and(|file| file.is_ready && server.is_process(file.pid));
            if is_ready && let Some(probe) = self.ask(server.port).await? {
                return Ok(Some(probe));
            }
            self.check_time(deadline, log_start)?;
            sleep(POLL_PERIOD).await;
        }
    }

    async fn ask(&self, port: u16) -> Result<Option<ServerProbe>, EmbeddedError> {
        match probe::connect(port, self.password, self.database).await {
            ServerProbe::NotYet => Ok(None),
            ServerProbe::WrongPassword => Err(EmbeddedError::Password {
                path: files::password_file(&self.home.folder, super::cluster::OWNER),
                what: "not the one that the cluster asks for",
            }),
            answered => Ok(Some(answered)),
        }
    }

    fn spawn(&self, port: u16) -> Result<EmbeddedServer, EmbeddedError> {
        let path = self.home.log();
        let log = files::private(&path, true)?;
        let errors = log.try_clone().map_err(EmbeddedError::file(&path))?;
        let program = self.programs.path("postgres");
        let mut command = self.home.account.command(&program);
        command.arg("-D").arg(self.home.cluster()).arg("-p").arg(port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        command.args(["-c", "logging_collector=off", "-c", "log_destination=stderr"]);
        if self.is_ephemeral {
            command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        command.stdout(log).stderr(errors);
        let child = away_from_the_terminal(&mut command).spawn();
        let child = child.map_err(|cause| EmbeddedError::Program { program, cause })?;
        Ok(self.server(Some(child), port))
    }

    fn server(&self, child: Option<Child>, port: u16) -> EmbeddedServer {
        EmbeddedServer { home: self.home.clone(), programs: self.programs.clone(), child, port, is_stopped: false }
    }

    fn check_time(&self, deadline: Instant, log_start: u64) -> Result<(), EmbeddedError> {
        if Instant::now() < deadline {
            return Ok(());
        }
        let log = self.home.log();
        Err(EmbeddedError::StartSlow { tail: log::tail_since(&log, log_start), seconds: START_LIMIT.as_secs(), log })
    }
}

impl EmbeddedServer {
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Fast mode; immediate mode (which the next start repairs from the log) if that takes too long.
    pub async fn stop(&mut self) -> Result<(), EmbeddedError> {
        if self.is_stopped {
            return Ok(());
        }
        self.is_stopped = true; // in any case: a second attempt in `drop` would only double the wait
        let mut said = String::new();
        for (mode, limit) in [("fast", FAST_LIMIT), ("immediate", IMMEDIATE_LIMIT)] {
            let asked = finish(self.pg_ctl_stop(mode, limit), limit + PG_CTL_GRACE);
            tokio::select! {
                () = self.exit() => return Ok(()),
                ended = asked => said = ended.map_or_else(|error| error.to_string(), |ended| ended.output),
            }
            // `pg_ctl` ends when the pid file is gone, a moment before the process ends.
            if timeout(EXIT_LIMIT, self.exit()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(mode, "the embedded Postgres did not stop in time");
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
        Err(EmbeddedError::StopSlow { seconds: (FAST_LIMIT + IMMEDIATE_LIMIT).as_secs(), tail: log::tail_of(&said) })
    }

    /// `pg_ctl` alone would wait for a killed child of ours, whose process id exists until its status is read.
    async fn exit(&mut self) {
        while self.is_running() {
            sleep(POLL_PERIOD).await;
        }
    }

    fn is_running(&mut self) -> bool {
        if self.child.is_some() {
            return !self.has_exited();
        }
        let cluster = self.home.cluster();
        PidFile::read(&cluster).is_some_and(|file| file.holder(&cluster) == PidFileOwner::Postmaster)
    }

    /// Also reads the exit status, so that no zombie remains.
    fn has_exited(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    fn is_process(&self, pid: u32) -> bool {
        self.child.as_ref().is_some_and(|child| child.id() == pid)
    }

    fn pg_ctl_stop(&self, mode: &str, limit: Duration) -> Command {
        let mut command = self.home.account.command(&self.programs.path("pg_ctl"));
        command.args(["stop", "-w", "-m", mode, "-t", &limit.as_secs().to_string(), "-D"]);
        command.arg(self.home.cluster());
        away_from_the_terminal(&mut command);
        command
    }
}

impl Drop for EmbeddedServer {
    /// Best effort, for a panic or an early return: the usual way is `stop`.
    fn drop(&mut self) {
        if self.is_stopped || self.has_exited() {
            return;
        }
        let mut command = self.pg_ctl_stop("fast", FAST_LIMIT);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        self.has_exited();
    }
}

/// Ctrl-C goes to the foreground process group: the program flushes while the database still runs.
fn away_from_the_terminal(command: &mut Command) -> &mut Command {
    std::os::unix::process::CommandExt::process_group(command, 0)
}

/// Another program took the port first, or the last workers of a killed server are still exiting.
fn passes_by_itself(log: &str) -> bool {
    ["could not create any TCP/IP sockets", "pre-existing shared memory block"].iter().any(|sign| log.contains(sign))
}

fn stale_notice(pid: u32, holder: PidFileOwner) -> String {
    let who = match holder {
        PidFileOwner::OtherProgram => "is another program now",
        PidFileOwner::NoProcess | PidFileOwner::Postmaster => "is gone",
    };
    format!("An earlier Postgres ended without cleaning up (process {pid} {who}): its postmaster.pid was removed.")
}

/// Removes the files of an ephemeral cluster.
pub fn remove_cluster(home: &ClusterFolder) {
    let removed: PathBuf = if home.is_fallback() { home.folder.clone() } else { home.cluster() };
    if let Err(error) = fs::remove_dir_all(Path::new(&removed)) {
        tracing::warn!(%error, folder = %removed.display(), "the ephemeral database could not be removed");
    }
}
