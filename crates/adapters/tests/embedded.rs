//! Starts real clusters in temporary folders. Needs only the Postgres programs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use product_base_adapters::postgres::embedded::{EmbeddedError, EmbeddedPostgres, EmbeddedSettings};
use sea_orm::sqlx::{self, Connection as _, PgConnection};
use tempfile::TempDir;

const VICTIM_FOLDER: &str = "PB_EMBEDDED_TEST_FOLDER";

#[tokio::test]
async fn a_cluster_is_made_kept_and_started_again() {
    let folder = private_folder();
    let begun = Instant::now();
    let first = start(&durable(folder.path())).await;
    let made_in = begun.elapsed();
    assert!(first.notices().is_empty(), "{:?}", first.notices());
    assert_eq!(text(first.owner_url(), "select current_database()::text").await, "product_base");
    assert_safe_settings(first.owner_url()).await;
    let made = "create role app_user login; create table kept (word text); insert into kept values ('yes')";
    execute(first.owner_url(), made).await;
    let password = first.set_password("app_user").await.unwrap();
    let app_url = first.url_as("app_user", &password, "product_base");
    assert_eq!(text(&app_url, "select current_user::text").await, "app_user");
    let wrong = PgConnection::connect(&first.url_as("app_user", "wrong", "product_base")).await;
    assert!(wrong.is_err(), "a wrong password is refused");
    let of_running = || EmbeddedPostgres::url_of_running(&durable(folder.path()), "app_user").unwrap();
    assert_eq!(of_running(), Some(app_url), "a command beside a running service finds its database");
    let port = first.port();
    first.stop().await.unwrap();
    assert_eq!(of_running(), None);
    assert_private(folder.path());

    let begun = Instant::now();
    let second = start(&durable(folder.path())).await;
    let took = begun.elapsed();
    assert_eq!(second.port(), port, "the port is kept");
    assert_eq!(text(second.owner_url(), "select word from kept").await, "yes");
    assert_eq!(second.set_password("app_user").await.unwrap(), password, "the password is kept");
    second.stop().await.unwrap();
    println!("first start: {made_in:?}, second: {took:?}");
    assert!(took < Duration::from_secs(3), "the second start took {took:?}");
}

/// The role for migrations, on a new cluster and on one whose superuser owned everything.
#[tokio::test]
async fn the_owner_of_the_schema_is_no_superuser_and_takes_over_what_an_older_version_made() {
    let folder = private_folder();
    let first = start(&EmbeddedSettings::ephemeral(folder.path())).await;
    let made = "create role app_service; create schema auth; create table auth.users (id uuid primary key); \
        create table public.kept (id bigint generated always as identity, word text) partition by list (word); \
        create table public.kept_default partition of public.kept default; create view public.seen as select * from public.kept; \
        create function public.ours() returns text language sql security definer as 'select current_user::text'; \
        comment on function public.ours() is 'product-base'; \
        create function public.theirs() returns text language sql security definer as 'select current_user::text'";
    execute(first.owner_url(), made).await;
    for _ in 0..2 {
        let url = first.schema_owner_url().await.unwrap();
        let mighty = "select (rolsuper or rolbypassrls or rolcreatedb or rolreplication)::text from pg_roles where rolname = current_user";
        assert_eq!(text(&url, mighty).await, "false");
        assert_eq!(text(&url, "select public.ours() || ' ' || public.theirs()").await, "product_base_owner postgres");
        let others = "select count(*)::text from pg_class c where c.relnamespace::regnamespace::text in ('public', 'auth') \
            and c.relowner <> current_user::regrole";
        assert_eq!(text(&url, others).await, "0");
        execute(
            &url,
            "alter table public.kept add column if not exists more text; create table if not exists auth.more (id int)",
        )
        .await;
        execute(&url, "do $$ begin if not exists (select from pg_roles where rolname = 'made') then create role made; end if; grant app_service to made; end $$").await;
    }
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_started_says_why_in_one_line() {
    let folder = private_folder();
    start(&durable(folder.path())).await.stop().await.unwrap();
    let cluster = folder.path().join("postgres");

    let version = fs::read_to_string(cluster.join("PG_VERSION")).unwrap();
    fs::write(cluster.join("PG_VERSION"), "9\n").unwrap();
    let line = refusal(&durable(folder.path())).await;
    assert!(line.contains("of Postgres 9") && line.contains(&format!("are Postgres {}", version.trim())), "{line}");
    fs::write(cluster.join("PG_VERSION"), version).unwrap();

    let password_file = folder.path().join("postgres.password");
    let password = fs::read_to_string(&password_file).unwrap();
    fs::write(&password_file, "forgotten").unwrap();
    let line = refusal(&durable(folder.path())).await;
    assert!(line.contains("postgres.password, is not the one"), "{line}");
    fs::write(&password_file, password).unwrap();

    let configuration = cluster.join("postgresql.conf");
    let before = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, format!("{before}\nno_such_setting = 1\n")).unwrap();
    let line = refusal(&durable(folder.path())).await;
    assert!(line.starts_with("Postgres did not start") && line.contains("no_such_setting"), "{line}");
    fs::write(&configuration, before).unwrap();

    start(&durable(folder.path())).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_is_removed_with_a_notice() {
    let folder = private_folder();
    start(&durable(folder.path())).await.stop().await.unwrap();
    let cluster = folder.path().join("postgres");
    let another_program = Command::new("sleep").arg("60").spawn().unwrap();
    let gone = u32::MAX / 2; // above any pid_max
    for (pid, expected) in [(another_program.id(), "is another program now"), (gone, "is gone")] {
        let content = format!("{pid}\n{}\n1700000000\n5432\n\n127.0.0.1\n  1 2\nready   \n", cluster.display());
        fs::write(cluster.join("postmaster.pid"), content).unwrap();
        let running = start(&durable(folder.path())).await;
        assert!(running.notices().iter().any(|line| line.contains(expected)), "{:?}", running.notices());
        running.stop().await.unwrap();
    }
    kill_and_reap(another_program);
}

#[tokio::test]
async fn a_second_start_on_the_same_folder_is_refused_and_names_the_first() {
    let folder = private_folder();
    let first = start(&ephemeral(folder.path())).await;
    assert_eq!(text(first.owner_url(), "select current_setting('fsync')").await, "off");
    assert_eq!(text(first.owner_url(), "select current_setting('synchronous_commit')").await, "on");
    let line = refusal(&ephemeral(folder.path())).await;
    let ourselves = format!("Another Product Base (process {}) already uses", std::process::id());
    assert!(line.starts_with(&ourselves), "{line}");
    assert_eq!(text(first.owner_url(), "select 'still here'").await, "still here");
    first.stop().await.unwrap();
    assert!(!folder.path().join("postgres").exists(), "an ephemeral cluster leaves nothing");
}

#[tokio::test]
async fn a_dropped_cluster_stops() {
    let folder = private_folder();
    let dropped = start(&ephemeral(folder.path())).await;
    let url = dropped.owner_url().to_owned();
    drop(dropped);
    assert!(PgConnection::connect(&url).await.is_err());
    assert!(!folder.path().join("postgres").exists());
}

#[tokio::test]
async fn a_server_left_by_a_killed_program_is_taken_over_and_stopped() {
    let folder = private_folder();
    let url = kill_a_run_in(folder.path());
    assert_eq!(text(&url, "select 'alive'").await, "alive", "the server outlives the program");

    let adopted = start(&durable(folder.path())).await;
    assert_eq!(adopted.owner_url(), url);
    assert!(adopted.notices().iter().any(|line| line.contains("an earlier run left")), "{:?}", adopted.notices());
    adopted.stop().await.unwrap();
    assert!(PgConnection::connect(&url).await.is_err(), "it stops like our own");
}

#[tokio::test]
async fn a_killed_server_recovers() {
    let folder = private_folder();
    let running = start(&durable(folder.path())).await;
    execute(running.owner_url(), "create table kept (word text); insert into kept values ('yes')").await;
    let pid_file = fs::read_to_string(folder.path().join("postgres/postmaster.pid")).unwrap();
    let killed = Command::new("kill").args(["-9", pid_file.lines().next().unwrap()]).status().unwrap();
    assert!(killed.success());
    running.stop().await.unwrap();

    let again = start(&durable(folder.path())).await;
    assert!(again.notices().iter().any(|line| line.contains("without cleaning up")), "{:?}", again.notices());
    assert_eq!(text(again.owner_url(), "select word from kept").await, "yes");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn an_initdb_that_fails_is_quoted_and_leaves_nothing() {
    let programs = TempDir::new().unwrap();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    script(&programs.path().join("postgres"), "echo 'postgres (PostgreSQL) 15.99'");
    script(&programs.path().join("pg_ctl"), "exit 1");
    let full = "echo 'initdb: error: could not write: No space left on device' >&2; exit 1";
    script(&programs.path().join("initdb"), full);
    let folder = private_folder();
    let settings = EmbeddedSettings { bin: Some(programs.path().to_owned()), ..durable(folder.path()) };
    let line = refusal(&settings).await;
    assert!(line.contains("could not be made") && line.contains("No space left on device"), "{line}");
    for name in ["postgres", "postgres.new", "initdb.password"] {
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

/// As root under a closed folder, such as `/root`, the cluster is placed elsewhere; other users need no other place.
#[tokio::test]
async fn a_folder_below_a_closed_one_works() {
    let closed = private_folder();
    let data_dir = closed.path().join("project/.data");
    let running = start(&ephemeral(&data_dir)).await;
    assert_eq!(running.data_dir(), fs::canonicalize(&data_dir).unwrap());
    let lies_in = PathBuf::from(text(running.owner_url(), "select current_setting('data_directory')").await);
    if is_root(closed.path()) {
        assert!(lies_in.starts_with("/var/lib/product-base"), "{}", lies_in.display());
        let shown = lies_in.parent().unwrap().display().to_string();
        assert!(running.notices().iter().any(|line| line.contains(&shown)), "{:?}", running.notices());
        assert_ne!(fs::metadata(&lies_in).unwrap().uid(), 0, "the server is not root");
        assert_eq!(fs::metadata(&data_dir).unwrap().mode() & 0o777, 0o700);
    } else {
        assert!(lies_in.starts_with(&data_dir), "{}", lies_in.display());
    }
    running.stop().await.unwrap();
    assert!(!lies_in.exists(), "an ephemeral cluster leaves nothing");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_says_so() {
    let folder = private_folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let line = refusal(&durable(&file.join("data"))).await;
    assert!(line.contains("cannot be used for the database"), "{line}");
}

/// Not a test: the program that `a_server_left_by_a_killed_program_is_taken_over_and_stopped` kills.
#[tokio::test]
#[ignore = "another test starts it"]
async fn a_run_to_be_killed() {
    let Some(folder) = std::env::var_os(VICTIM_FOLDER) else {
        return;
    };
    let running = start(&durable(Path::new(&folder))).await;
    println!("\nurl {}", running.owner_url());
    tokio::time::sleep(Duration::from_mins(1)).await;
}

/// Starts a cluster in a process of its own, kills the process and returns the URL.
fn kill_a_run_in(folder: &Path) -> String {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_run_to_be_killed", "--ignored", "--nocapture"])
        .env(VICTIM_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(victim.stdout.take().unwrap());
    let mut lines = said.lines().map_while(Result::ok);
    let url = lines.find_map(|line| line.strip_prefix("url ").map(str::to_owned));
    kill_and_reap(victim);
    url.unwrap()
}

fn kill_and_reap(mut child: Child) {
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
}

/// With the programs in `.postgres`, where `make postgres` installs them for users who may not install packages.
fn durable(data_dir: &Path) -> EmbeddedSettings {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.postgres");
    EmbeddedSettings {
        data_dir: data_dir.to_owned(),
        bin: project.exists().then_some(project),
        ..EmbeddedSettings::default()
    }
}

fn ephemeral(data_dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings { bin: durable(data_dir).bin, ..EmbeddedSettings::ephemeral(data_dir) }
}

async fn start(settings: &EmbeddedSettings) -> EmbeddedPostgres {
    EmbeddedPostgres::start(settings).await.unwrap()
}

async fn refusal(settings: &EmbeddedSettings) -> String {
    let error: EmbeddedError = EmbeddedPostgres::start(settings).await.unwrap_err();
    let line = error.to_string();
    assert!(!line.contains('\n'), "one line: {line}");
    println!("{line}");
    line
}

async fn text(url: &str, query: &str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let query = sqlx::AssertSqlSafe(query.to_owned());
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let statements = sqlx::AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
}

fn is_root(made_by_us: &Path) -> bool {
    fs::metadata(made_by_us).unwrap().uid() == 0
}

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

async fn assert_safe_settings(url: &str) {
    for (setting, expected) in [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("max_connections", "200"),
        ("password_encryption", "scram-sha-256"),
    ] {
        let shown = text(url, &format!("select current_setting('{setting}')")).await;
        assert_eq!(shown, expected, "{setting}");
    }
}

fn private_folder() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// Other users can neither list the folder nor read a password in it.
fn assert_private(folder: &Path) {
    assert_eq!(fs::metadata(folder).unwrap().mode() & 0o067, 0, "the folder");
    for name in ["postgres.password", "app_user.password", "postgres.log", "port", "lock"] {
        assert_eq!(fs::metadata(folder.join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(folder.join("postgres")).unwrap().mode() & 0o777, 0o700, "postgres");
}
