//! A cluster for a single test, which may stop, freeze and restart it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use adapters::postgres::embedded::{EmbeddedPostgres, EmbeddedSettings, place_for_ephemeral};
use app::settings::shape::{SecretText, Settings};
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

pub struct OwnCluster {
    postgres: Option<EmbeddedPostgres>,
    folder: TempDir,
    files: PathBuf,
    service_url: String,
}

impl OwnCluster {
    /// With schema and seeds, and durable: acknowledged writes must survive a crash.
    pub async fn durable() -> Self {
        let folder = tempfile::Builder::new().prefix("product-base-faults-").tempdir().unwrap();
        let postgres = start_in(&folder).await;
        Self::with(folder, postgres).await
    }

    /// With schema and seeds, in memory.
    pub async fn ephemeral() -> Self {
        let place = place_for_ephemeral();
        let folder = tempfile::Builder::new().prefix("product-base-faults-").tempdir_in(place).unwrap();
        let postgres = EmbeddedPostgres::start(&EmbeddedSettings::ephemeral(folder.path())).await;
        Self::with(folder, postgres.expect("a cluster of our own")).await
    }

    async fn with(folder: TempDir, postgres: EmbeddedPostgres) -> Self {
        let url = postgres.owner_url().to_owned();
        migration::up(&url).await.unwrap();
        migration::seed(&url).await.unwrap();
        let password = postgres.set_password("app_user").await.unwrap();
        let service_url = postgres.url_as("app_user", &password, postgres.database());
        let files = PathBuf::from(one_text(&url, "SHOW data_directory").await);
        Self { postgres: Some(postgres), folder, files, service_url }
    }

    /// Sets the database URLs in the settings of a `TestApp`.
    pub fn serve(&self, settings: &mut Settings) {
        settings.database.url = SecretText::new(&*self.service_url);
        settings.database.direct_url = SecretText::new(self.owner_url());
    }

    /// The URL of the restricted login of the service.
    pub fn service_url(&self) -> &str {
        &self.service_url
    }

    pub fn owner_url(&self) -> &str {
        self.postgres.as_ref().unwrap().owner_url()
    }

    /// The first column of one row, as the owner.
    pub async fn text(&self, query: &str) -> String {
        one_text(self.owner_url(), query).await
    }

    /// The immediate stop: no checkpoint, no orderly disconnects. Committed data is in the write-ahead log.
    pub async fn stop_immediately(&mut self) {
        signal("QUIT", &[self.postmaster()]);
        // Waits for the end of the process and frees the folder; the server is stopping already.
        self.postgres.take().unwrap().stop().await.unwrap();
    }

    /// Starts the server on the same port, with the same data.
    pub async fn start_again(&mut self) {
        self.postgres = Some(start_in(&self.folder).await);
    }

    /// Freezes every process that could respond: the postmaster first, so that it starts no new one, then its children.
    pub fn freeze(&self) -> Frozen {
        let postmaster = self.postmaster();
        signal("STOP", std::slice::from_ref(&postmaster));
        let mut processes = children_of(&postmaster);
        signal("STOP", &processes);
        processes.push(postmaster);
        Frozen(processes)
    }

    fn postmaster(&self) -> String {
        let file = fs::read_to_string(self.files.join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    pub async fn stop(mut self) {
        self.postgres.take().unwrap().stop().await.unwrap();
    }
}

/// Reads `/proc/<pid>/stat`: the fourth field is the parent; the second one, the name, may contain spaces and ends with
/// `)`.
fn children_of(parent: &str) -> Vec<String> {
    let is_child = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).is_some_and(|ppid| ppid == parent)
    };
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    entries.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(is_child).collect()
}

/// Frozen processes; they continue when this is dropped.
pub struct Frozen(Vec<String>);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

async fn start_in(folder: &TempDir) -> EmbeddedPostgres {
    let settings = EmbeddedSettings { data_dir: folder.path().to_owned(), ..EmbeddedSettings::default() };
    EmbeddedPostgres::start(&settings).await.expect("a cluster of our own")
}

async fn one_text(url: &str, query: &str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let answer = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    answer.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Sends a signal to processes that the test started, by their process ids.
pub fn signal(name: &str, processes: &[String]) {
    let sent = Command::new("kill").arg(format!("-{name}")).args(processes).status().unwrap();
    assert!(sent.success(), "kill -{name} {processes:?}");
}
