//! A cluster for this process only, for `cargo test` without `make`.
//!
//! A test process cannot run code at its end (libtest exits, Ctrl-C kills it), so a shell waits for that end: it reads
//! from a pipe that only this process holds open, and when the pipe closes, it stops the server and removes the files.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use adapters::postgres::embedded::{EmbeddedPostgres, EmbeddedSettings, place_for_ephemeral};
use anyhow::Context as _;
use sea_orm::sqlx::{self, Connection as _, PgConnection};

/// $1 is the data directory of the cluster, $2 the folder that was made for it.
/// SIGQUIT is the immediate stop of Postgres; it is safe because the data is not read again.
const WATCH: &str = r#"
cat >/dev/null
pid=$(head -n 1 "$1/postmaster.pid") && kill -QUIT "$pid"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 1
done
rm -rf "$1" "$2"
"#;

pub struct LoneCluster {
    postgres: EmbeddedPostgres,
    _watch: Child,
}

impl LoneCluster {
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("product-base-tests-").tempdir_in(place_for_ephemeral())?;
        let settings =
            EmbeddedSettings { database: "postgres".to_owned(), ..EmbeddedSettings::ephemeral(folder.path()) };
        let postgres = EmbeddedPostgres::start(&settings).await?;
        let mut connection = PgConnection::connect(postgres.owner_url()).await?;
        let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await?;
        connection.close().await?;
        let watch = watch(Path::new(&data), &folder.keep()).context("sh watches over the cluster")?;
        Ok(Self { postgres, _watch: watch })
    }

    pub fn owner_url(&self) -> &str {
        self.postgres.owner_url()
    }
}

/// The shell runs in its own process group, so that Ctrl-C does not stop it before this process.
fn watch(data: &Path, folder: &Path) -> std::io::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", WATCH, "watch"]).arg(data).arg(folder);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()
}
