//! The running cluster.

use std::fmt;
use std::path::Path;

use tokio::task::JoinHandle;

use super::cluster::{self, OWNER};
use super::error::EmbeddedError;
use super::files::{self, FolderLock};
use super::home::ClusterFolder;
use super::log;
use super::port;
use super::probe::{self, ServerProbe};
use super::programs::PostgresPrograms;
use super::server::{self, EmbeddedServer, ServerLaunch};
use super::settings::EmbeddedSettings;

/// A cluster that accepts connections and stops with this value. The fields drop in this order: the server stops before
/// the lock is released.
pub struct EmbeddedPostgres {
    server: EmbeddedServer,
    ephemeral: Option<RemovedAtEnd>,
    rotation: AbortedAtEnd,
    home: ClusterFolder,
    programs: PostgresPrograms,
    owner_url: String,
    password: String,
    database: String,
    notices: Vec<String>,
    _lock: FolderLock,
}

/// Removes the files of an ephemeral cluster that this run created.
struct RemovedAtEnd(ClusterFolder);

struct AbortedAtEnd(JoinHandle<()>);

impl EmbeddedPostgres {
    /// Finds the programs, creates the cluster if needed, starts or adopts it, and creates the database.
    pub async fn start(settings: &EmbeddedSettings) -> Result<Self, EmbeddedError> {
        let mut notices = Vec::new();
        let home = ClusterFolder::prepare(settings, &mut notices)?;
        let lock = FolderLock::take(&home.folder)?;
        let cluster_folder = home.cluster();
        let major = cluster::major_of(&cluster_folder);
        let existing = major.as_deref().map(|major| (cluster_folder.as_path(), major));
        let programs = PostgresPrograms::find(settings.bin.as_deref(), existing).await?;
        programs.require_runnable_by(&home.account)?;
        let ephemeral = (settings.ephemeral && existing.is_none()).then(|| RemovedAtEnd(home.clone()));
        let password = cluster::ensure(&home, &programs, settings.ephemeral).await?;
        let launch = ServerLaunch {
            home: &home,
            programs: &programs,
            password: &password,
            database: &settings.database,
            is_ephemeral: settings.ephemeral,
        };
        let (server, probe) = launch.run(&mut notices).await?;
        finish_database(probe, server.port(), &password, &settings.database).await?;
        let rotation = AbortedAtEnd(tokio::spawn(log::keep_bounded(home.log())));
        let mut running = Self {
            server,
            ephemeral,
            rotation,
            home,
            programs,
            owner_url: String::new(),
            password,
            database: settings.database.clone(),
            notices,
            _lock: lock,
        };
        running.owner_url = running.url_as(OWNER, &running.password, &running.database);
        Ok(running)
    }

    /// The address of the cluster that another process runs in this folder, for a login whose password is stored there.
    /// `None` where none runs.
    pub fn url_of_running(settings: &EmbeddedSettings, role: &str) -> Result<Option<String>, EmbeddedError> {
        let home = ClusterFolder::prepare(settings, &mut Vec::new())?;
        let in_use = match FolderLock::take(&home.folder) {
            Ok(_free) => return Ok(None),
            Err(error @ EmbeddedError::InUse { .. }) => error,
            Err(error) => return Err(error),
        };
        let found = port::kept(&home.folder).zip(files::kept_password(&home.folder, role));
        // They are missing while the cluster is being created.
        let (port, password) = found.ok_or(in_use)?;
        Ok(Some(url(role, &password, port, &settings.database)))
    }

    /// The superuser of the private cluster, for tests and for an administrator. Migrations use `schema_owner_url`.
    pub fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// The database that the settings name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Lines for the terminal, such as where the data is if not in the folder of the setting.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The folder of the setting, for secrets of the program. Other users cannot list it, but write files with mode
    /// 0600 (when root runs the program, the server's group may traverse it).
    pub fn data_dir(&self) -> &Path {
        &self.home.data_dir
    }

    /// The folder of `initdb`, `postgres` and `pg_ctl`, and perhaps `psql` and `pgbench`.
    pub fn bin(&self) -> &Path {
        self.programs.bin()
    }

    pub fn major(&self) -> u32 {
        self.programs.major()
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Sets the password of a login role, the same one at every start, and returns it.
    pub async fn set_password(&self, role: &str) -> Result<String, EmbeddedError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if role == OWNER || role.is_empty() || !role.chars().all(is_plain) {
            return Err(EmbeddedError::Statement(format!("{role:?} is not a role whose password may be set.")));
        }
        let password = files::kept_password(&self.home.folder, role).unwrap_or_else(files::new_password);
        let literal = password.replace('\'', "''");
        self.execute(format!("ALTER ROLE {} PASSWORD '{literal}'", probe::quote_name(role))).await?;
        files::write_private(&files::password_file(&self.home.folder, role), &password)?;
        Ok(password)
    }

    /// Runs statements as the superuser, in one transaction.
    pub(super) async fn execute(&self, statements: String) -> Result<(), EmbeddedError> {
        let ServerProbe::Ready(connection) = probe::connect(self.port(), &self.password, &self.database).await else {
            return Err(EmbeddedError::Statement("the connection was refused.".to_owned()));
        };
        probe::execute_and_close(*connection, statements).await
    }

    pub fn url_as(&self, role: &str, password: &str, database: &str) -> String {
        url(role, password, self.port(), database)
    }

    /// Stops the server in fast mode and waits for it.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.rotation.0.abort();
        self.server.stop().await
    }
}

fn url(role: &str, password: &str, port: u16, database: &str) -> String {
    let encoded = probe::percent_encode;
    let (role, password, database) = (encoded(role), encoded(password), encoded(database));
    format!("postgres://{role}:{password}@127.0.0.1:{port}/{database}")
}

/// Creates the database if the cluster is new.
async fn finish_database(probe: ServerProbe, port: u16, password: &str, database: &str) -> Result<(), EmbeddedError> {
    let maintenance = match probe {
        ServerProbe::NoDatabase => probe::connect(port, password, "postgres").await,
        answered => {
            drop(answered);
            return Ok(());
        }
    };
    let ServerProbe::Ready(connection) = maintenance else {
        return Err(EmbeddedError::Statement("the connection was refused.".to_owned()));
    };
    let statement = format!("CREATE DATABASE {}", probe::quote_name(database));
    probe::execute_and_close(*connection, statement).await
}

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        server::remove_cluster(&self.0);
    }
}

impl Drop for AbortedAtEnd {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Omits the passwords.
impl fmt::Debug for EmbeddedPostgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("EmbeddedPostgres");
        shown.field("home", &self.home).field("port", &self.port()).field("is_ephemeral", &self.ephemeral.is_some());
        shown.finish_non_exhaustive()
    }
}
