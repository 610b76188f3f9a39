//! SIGTERM to the real program: running requests complete, new ones are refused, and the exit code is 0.

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::TestDatabase;
use harness::sqlx;
use serde_json::{Value, json};

use crate::service::Service;

/// With longer time limits than usual, because the request waits for a lock.
fn start(database: &TestDatabase) -> Service {
    let variables = [
        ("PB__DATABASE__URL", &*database.service_url()),
        ("PB__DATABASE__DIRECT_URL", &*database.owner_url()),
        ("PB__DATABASE__LOCK_TIMEOUT_MS", "8000"),
        ("PB__DATABASE__STATEMENT_TIMEOUT_MS", "8000"),
        ("PB__SERVER__SHUTDOWN_GRACE_SECONDS", "10"),
    ];
    Service::start(&variables, Stdio::inherit())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_at_sigterm_ends_and_the_process_leaves_in_order() {
    let database = TestDatabase::new().await;
    let mut service = start(&database);
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().unwrap();
    let address = service.address.clone();
    let url = |path: &str| format!("{address}{path}");
    let signup = json!({ "email": "ann@example.com", "password": "correct horse battery", "name": "ann" });
    let answer: Value = client.post(url("/api/auth/signup")).json(&signup).send().await.unwrap().json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap().to_owned();

    // A lock on the row blocks the request in its statement.
    let mut holder = database.owner().begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM users FOR UPDATE").execute(&mut *holder).await.unwrap();
    let change = client.patch(url("/api/users/me")).bearer_auth(&token).json(&json!({ "name": "changed" })).send();
    let under_way = tokio::spawn(change);
    wait_for_lock(&database).await;
    service.terminate();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!under_way.is_finished(), "it waits for the lock");
    assert!(service.is_running(), "the process waits for the request");
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

#[tokio::test]
async fn an_idle_process_leaves_at_once() {
    let database = TestDatabase::new().await;
    let mut service = start(&database);
    service.terminate();
    let begun = Instant::now();
    assert!(service.exit(Duration::from_secs(5)).await.success());
    println!("left in {:?}", begun.elapsed());
}
