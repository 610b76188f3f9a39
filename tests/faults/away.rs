//! The database is stopped under load and started again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{TestApp, TestUser};
use serde_json::json;

use crate::clusters::OwnCluster;
use crate::writers::{Writers, assert_honest, assert_kept, retry_after, within};

const WRITERS: usize = 6;

async fn ready(app: &TestApp) -> u16 {
    app.get("/readyz").send().await.status
}

async fn sign_up(app: &TestApp) -> Vec<TestUser> {
    let mut users = Vec::new();
    for number in 0..WRITERS {
        users.push(app.signup(&format!("writer{number}@example.com")).await);
    }
    users
}

/// Every kind of request gets a 503 with `Retry-After`. Returns the requests that took 3 s or longer.
async fn ask_everything(app: &TestApp, user: &TestUser) -> Vec<(String, Duration)> {
    let account = json!({ "email": user.email, "password": "correct horse battery" });
    let refresh = json!({ "refresh_token": user.refresh_token });
    let asked = [
        ("GET", "/api/users/me", true, None),
        ("GET", "/api/users/me/plan", true, None),
        ("POST", "/api/users/me/plan", true, Some(json!({ "plan_id": "gold" }))),
        ("GET", "/api/plans", false, None),
        ("GET", "/api/plans/gold", true, None),
        ("GET", "/api/users/me/features/ai_requests", true, None),
        ("POST", "/api/entitlements/check", true, Some(json!({ "feature_id": "ai_requests" }))),
        ("POST", "/api/keys", true, Some(json!({ "name": "key" }))),
        ("POST", "/api/auth/login", false, Some(account.clone())),
        ("POST", "/api/auth/login", true, Some(account)),
        ("POST", "/api/auth/refresh", false, Some(refresh.clone())),
        ("POST", "/api/auth/refresh", true, Some(refresh)),
        ("POST", "/api/ai/chat", true, Some(json!({ "message": "Hello" }))),
        ("POST", "/api/ai/chat", true, Some(json!({ "message": "Hello", "stream": true }))),
        ("POST", "/api/ai/quote", true, Some(json!({ "message": "Hello" }))),
    ]
    .map(|(method, path, has_token, body)| async move {
        let mut request = app.request(method.parse().unwrap(), path);
        if has_token {
            request = request.bearer(user);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let begun = Instant::now();
        let answer = request.send().await.expect_problem(503, "database_away");
        assert!(retry_after(&answer).is_some(), "{answer}");
        (format!("{method} {path}, token {has_token}"), begun.elapsed())
    });
    let mut late = futures_util::future::join_all(asked).await;
    late.retain(|(_, took)| *took >= Duration::from_secs(3));
    app.get("/healthz").send().await.expect_status(200);
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stops_is_told_honestly_and_found_again() {
    let mut cluster = OwnCluster::durable().await;
    let app = Arc::new(TestApp::with(|settings| cluster.serve(settings)).await);
    let users = sign_up(&app).await;
    assert_eq!(ready(&app).await, 200);
    let writers = Writers::start(&app, &users);
    writers.write_more(40).await;

    cluster.stop_immediately().await;
    let gone = Instant::now();
    let not_ready = within(Duration::from_secs(3), "not being ready", async || ready(&app).await == 503).await;
    tokio::time::sleep(Duration::from_secs(1).saturating_sub(not_ready)).await; // snapshots are at most a second old
    let late = ask_everything(&app, &users[0]).await;
    let back = Instant::now();
    cluster.start_again().await;

    let begun = Instant::now();
    within(Duration::from_secs(5), "the recovery", async || {
        app.get("/api/users/me").bearer(&users[0]).send().await.status == 200
    })
    .await;
    within(Duration::from_secs(3), "readiness", async || ready(&app).await == 200).await;
    println!("ready {:?} after the start of the database", begun.elapsed());
    writers.write_more(20).await;

    let mut counted = (0, 0);
    for (user, told) in writers.stop().await {
        told.iter().for_each(assert_honest);
        for answer in &told {
            let was_away = answer.sent > gone && answer.sent + answer.took < back;
            assert!(!(was_away && answer.status == 200), "nothing can have been written then: {answer:?}");
        }
        let done = told.iter().filter(|answer| answer.status == 200).count();
        assert!(told.last().unwrap().status == 200, "at the end all is well: {:?}", told.last());
        counted = (counted.0 + done, counted.1 + told.len() - done);
        assert_kept(&told, &cluster.text(&format!("SELECT name::text FROM users WHERE id = '{}'", user.id)).await);
    }
    println!("{} writes were answered 200, {} 503", counted.0, counted.1);
    assert!(counted.0 >= 60 && counted.1 >= WRITERS, "{counted:?}");
    assert_eq!(cluster.text("SELECT count(*)::text FROM integrity_findings").await, "0");
    assert!(late.is_empty(), "an answer comes within 3 s: {late:?}");
    drop(app);
    cluster.stop().await;
}
