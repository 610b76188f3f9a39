//! `PgBouncer` in transaction mode with two connections to the server, as Debian packages it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use harness::TestDatabase;
use reqwest::Url;
use tempfile::TempDir;

/// The settings file, in the same folder as the log.
const SETTINGS: &str = "pgbouncer.ini";

/// The default number of connections to the server.
const POOL_SIZE: u32 = 2;

/// A running `PgBouncer`; it is killed when this is dropped.
pub struct PgBouncer {
    child: Child,
    program: &'static str,
    url: Url,
    folder: TempDir,
}

impl PgBouncer {
    /// Starts it in front of a database, for the service's login. `None`, with a message, if the program is missing.
    pub fn start(database: &TestDatabase) -> Option<Self> {
        Self::before(&database.service_url(), POOL_SIZE)
    }

    /// Starts it in front of the server and for the login that the URL names.
    pub fn before(service_url: &str, pool_size: u32) -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: there is no pgbouncer on this machine (`make postgres-tests` as root installs it)");
            return None;
        };
        let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let mut url = Url::parse(service_url).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        write_settings(folder.path(), &url, port, pool_size);
        url.set_port(Some(port)).unwrap();
        let started = Self { child: run(program, folder.path()), program, url, folder };
        started.wait();
        Some(started)
    }

    /// SIGKILL: every connection breaks.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it on the same port, with the same settings.
    pub fn start_again(&mut self) {
        self.child = run(self.program, self.folder.path());
        self.wait();
    }

    /// The URL of the service's login, through the pooler.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    fn wait(&self) {
        let port = self.url.port().unwrap();
        for _ in 0..200 {
            if TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let said = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("pgbouncer did not start: {said}");
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether this version mixes up prepared statements in transaction mode. Version 1.24 and later track them by default.
pub fn mixes_statements() -> bool {
    let told = program().and_then(|program| Command::new(program).arg("--version").output().ok());
    let told = told.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = told.split_whitespace().nth(1).and_then(|version| version.strip_prefix("1.")).unwrap_or_default();
    version.split('.').next().and_then(|minor| minor.parse().ok()).is_some_and(|minor: u32| minor < 24)
}

fn program() -> Option<&'static str> {
    ["pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok())
}

fn run(program: &str, folder: &Path) -> Child {
    let mut command = Command::new(program);
    // It refuses to run as root, and can switch to another account itself.
    if fs::metadata(folder).unwrap().uid() == 0 {
        command.args(["-u", "postgres"]);
    }
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command.arg(folder.join(SETTINGS)).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// `server_login_retry`: an unreachable server is tried again after one second instead of fifteen.
fn write_settings(folder: &Path, server: &Url, port: u16, pool_size: u32) {
    let users = folder.join("users.txt");
    fs::write(&users, format!("\"{}\" \"{}\"\n", server.username(), server.password().unwrap())).unwrap();
    let (host, server_port) = (server.host_str().unwrap(), server.port().unwrap());
    let database = server.path().trim_start_matches('/');
    let settings = format!(
        "[databases]\n{database} = host={host} port={server_port} dbname={database}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = {}\n\
         pool_mode = transaction\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\n\
         server_login_retry = 1\n",
        users.display()
    );
    fs::write(folder.join(SETTINGS), settings).unwrap();
}
