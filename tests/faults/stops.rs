//! SIGTERM to the real program: what is under way ends, nothing new begins, and the process leaves with 0.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use harness::TestDatabase;
use harness::sqlx;
use serde_json::{Value, json};

use crate::clusters::signal;

/// The program beside this test's executable.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("product-base");
    assert!(
        program.exists(),
        "{} is missing: `cargo build -p product-base` makes it, and so does `make test`",
        program.display()
    );
    program
}

struct Service {
    child: Child,
    address: String,
    /// Kept open, since the program goes on to print.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Service {
    fn start(database: &TestDatabase) -> Self {
        let mut child = Command::new(program())
            .arg("serve")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .env("PB__ENVIRONMENT", "test")
            .env("PB__DATABASE__URL", database.service_url())
            .env("PB__DATABASE__DIRECT_URL", database.owner_url())
            .env("PB__DATABASE__LOCK_TIMEOUT_MS", "8000")
            .env("PB__DATABASE__STATEMENT_TIMEOUT_MS", "8000")
            .env("PB__SERVER__SHUTDOWN_GRACE_SECONDS", "10")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = said.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("listening on ")?;
            Some(address.to_owned())
        });
        Self { child, address: address.expect("the program says where it listens"), _said: said }
    }

    fn terminate(&self) {
        signal("TERM", &[self.child.id().to_string()]);
    }

    async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < limit, "the process is still there after {limit:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_at_sigterm_ends_and_the_process_leaves_in_order() {
    let database = TestDatabase::new().await;
    let mut service = Service::start(&database);
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().unwrap();
    let url = |path: &str| format!("{}{path}", service.address);
    let signup = json!({ "email": "ann@example.com", "password": "correct horse battery", "name": "ann" });
    let answer: Value = client.post(url("/api/auth/signup")).json(&signup).send().await.unwrap().json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap().to_owned();

    // A lock on the row holds the request in the middle of its statement.
    let mut holder = database.owner().begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM users FOR UPDATE").execute(&mut *holder).await.unwrap();
    let change = client.patch(url("/api/users/me")).bearer_auth(&token).json(&json!({ "name": "changed" })).send();
    let under_way = tokio::spawn(change);
    wait_for_lock(&database).await;
    service.terminate();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!under_way.is_finished(), "it waits for the lock");
    assert!(service.child.try_wait().unwrap().is_none(), "the process waits for the request");
    let fresh = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
    if let Ok(late) = fresh.get(url("/readyz")).send().await {
        assert_eq!(late.status(), 503, "nothing new is taken on");
    }
    holder.rollback().await.unwrap();

    let answered = under_way.await.unwrap().unwrap();
    assert_eq!(answered.status(), 200);
    let exit = service.exit(Duration::from_secs(5)).await;
    assert!(exit.success(), "{exit}");
    let name = "SELECT u.name::text FROM users u JOIN auth.users a ON a.id = u.id WHERE a.email = 'ann@example.com'";
    assert_eq!(database.query_scalar::<String>(name).await, "changed");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app_user'";
    assert_eq!(database.query_scalar::<i64>(left).await, 0, "its connections are closed");
}

async fn wait_for_lock(database: &TestDatabase) {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..200 {
        if database.query_scalar::<i64>(waiting).await > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the request never came to the lock");
}

/// Without anything under way it leaves at once.
#[tokio::test]
async fn an_idle_process_leaves_at_once() {
    let database = TestDatabase::new().await;
    let mut service = Service::start(&database);
    service.terminate();
    let begun = Instant::now();
    assert!(service.exit(Duration::from_secs(5)).await.success());
    println!("left in {:?}", begun.elapsed());
}
