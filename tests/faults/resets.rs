//! Clients that reset their connection during a request (design/security.md, hazard 2): writes that were acknowledged
//! to other clients are kept, and no database connection stays in a transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{TestApp, TestDatabase, TestUser};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::writers::{Writers, assert_honest, assert_kept, name};

const BATCHES: u32 = 120;
const RESETTERS: u32 = 4;

/// Sends a whole request, waits a moment, and resets the connection without a FIN.
async fn reset(app: &TestApp, user: &TestUser, number: u32) {
    let (method, path, body) = match number % 4 {
        0 => ("PATCH", "/api/users/me", r#"{"name":"reset"}"#),
        1 => ("POST", "/api/users/me/plan", r#"{"plan_id":"gold"}"#),
        2 => ("POST", "/api/keys", r#"{"name":"reset"}"#),
        _ => ("GET", "/api/users/me/export", ""),
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        user.access_token,
        body.len()
    );
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // From immediately to after the response, in steps shorter than one statement.
    tokio::time::sleep(Duration::from_micros(u64::from(number % 97) * 100)).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
}

/// The value of a metric without labels.
async fn metric(app: &TestApp, name: &str) -> f64 {
    let page = app.metrics().send().await.expect_status(200);
    let line = page.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in {page}"))
}

/// The user's name in the database.
async fn name_of(app: &TestApp, user: &TestUser) -> String {
    app.database().query_scalar(&format!("SELECT name::text FROM users WHERE id = '{}'", user.id)).await
}

async fn left_open(database: &TestDatabase) -> i64 {
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_user' AND datname = current_database()
        AND state LIKE 'idle in transaction%'";
    database.query_scalar(open).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_reset_lose_nothing_of_others_and_poison_no_connection() {
    let app = Arc::new(TestApp::start().await);
    let mut users = Vec::new();
    for number in 0..5 {
        users.push(app.signup(&format!("writer{number}@example.com")).await);
    }
    let rude = app.signup("rude@example.com").await;
    let writers = Writers::start(&app, &users);
    let begun = Instant::now();
    for batch in 0..BATCHES {
        let together = (0..RESETTERS).map(|offset| reset(&app, &rude, batch * RESETTERS + offset));
        futures_util::future::join_all(together).await;
        // An abandoned request continues in the service: without a pause they would exceed the capacity of the pool.
        writers.write_more(2).await;
    }
    println!(
        "{} writes were answered 200 beside {} resets, in {:?}",
        writers.written(),
        BATCHES * RESETTERS,
        begun.elapsed()
    );
    for (user, told) in writers.stop().await {
        told.iter().for_each(assert_honest);
        assert_kept(&told, &name_of(&app, &user).await);
    }
    assert_recovered(&app).await;
    every_connection_still_writes(&app, &users).await;
}

/// Within 5 s no connection is in use, and no connection is idle in a transaction.
async fn assert_recovered(app: &TestApp) {
    let begun = Instant::now();
    loop {
        // Reading the metrics may itself use one connection.
        let at_work =
            metric(app, "database_pool_connections").await - metric(app, "database_pool_idle_connections").await;
        if at_work <= 0.0 && left_open(app.database()).await == 0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{at_work} connections are still at work");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Many writes in parallel, so that each pooled connection is used: on a broken one a write would get a 200 and be
/// lost.
async fn every_connection_still_writes(app: &Arc<TestApp>, users: &[TestUser]) {
    for round in 1_000..1_010 {
        let writes = users.iter().map(|user| async move {
            let body = serde_json::json!({ "name": name(round) });
            app.patch("/api/users/me").bearer(user).json(body).send().await.expect_status(200);
            let kept: String =
                app.database().query_scalar(&format!("SELECT name::text FROM users WHERE id = '{}'", user.id)).await;
            assert_eq!(kept, name(round));
        });
        futures_util::future::join_all(writes).await;
    }
}
