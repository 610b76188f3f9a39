//! Outages: the database is lost and comes back; the service reports that and recovers by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use app::settings::shape::SecretText;
use harness::{Answer, Request, TestApp, TestDatabase, TestUser, eventually};
use reqwest::Url;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// The time limit for a response, whatever the state of the database.
const PATIENCE: Duration = Duration::from_secs(3);

/// The time limit for the service to recover after the database has.
const RECOVERY: Duration = Duration::from_secs(5);

/// Reads and writes, with a token, with a key and with neither.
fn requests(app: &TestApp, user: &TestUser, key: &str) -> Vec<Request> {
    let account = json!({ "email": "ada@example.com", "password": "correct horse battery" });
    vec![
        app.get("/api/plans"),
        app.get("/api/features"),
        app.post("/api/auth/login").json(account),
        app.post("/api/auth/refresh").json(json!({ "refresh_token": user.refresh_token })),
        app.get("/api/users/me").bearer(user),
        app.get("/api/users/me/plan").bearer(key),
        app.get("/api/users/me/features/ai_requests").bearer(key),
        app.post("/api/users/me/plan").bearer(user).idempotency_key("k1").json(json!({ "plan_id": "gold" })),
        app.post("/api/keys").bearer(user).json(json!({ "name": "server" })),
    ]
}

async fn timed(request: Request) -> (Answer, Duration) {
    let asked = Instant::now();
    (request.send().await, asked.elapsed())
}

fn expect_away((answer, took): (Answer, Duration)) {
    let answer = answer.expect_problem(503, "database_away");
    assert!(took < PATIENCE, "it took {took:?}: {answer}");
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or_default();
    assert!((1..=60).contains(&wait), "a useful Retry-After: {answer}");
    for inner in ["sqlx", "postgres", "SQLSTATE", "app_user", "too many"] {
        assert!(!answer.text.contains(inner), "inner text came out: {answer}");
    }
}

/// The service works again without a restart.
async fn expect_recovery(app: &TestApp, user: &TestUser) {
    let since = Instant::now();
    loop {
        let answer = app.get("/api/users/me").bearer(user).send().await;
        if answer.status == 200 {
            break;
        }
        assert!(since.elapsed() < RECOVERY, "no recovery: {answer}");
        sleep(Duration::from_millis(100)).await;
    }
    app.post("/api/keys").bearer(user).json(json!({ "name": "afterwards" })).send().await.expect_status(201);
    eventually(RECOVERY, || app.get("/readyz").send(), |answer| answer.status == 200).await;
}

async fn make_key(app: &TestApp, user: &TestUser) -> String {
    let key = app.post("/api/keys").bearer(user).json(json!({ "name": "server" })).send().await.expect_status(201);
    key.text_at("/key").to_owned()
}

#[tokio::test]
async fn a_lost_database_is_a_503_soon_and_the_service_recovers() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let key = make_key(&app, &ada).await;
    app.database().take_away().await;
    app.advance(Duration::from_millis(1_100)); // rows that are cached for a second have expired
    let answers = futures_util::future::join_all(requests(&app, &ada, &key).into_iter().map(timed)).await;
    answers.into_iter().for_each(expect_away);
    app.get("/healthz").send().await.expect_status(200);
    let (readiness, took) = timed(app.get("/readyz")).await;
    let readiness = readiness.expect_status(503);
    assert!(took < PATIENCE && readiness.header("retry-after").is_some(), "{took:?}: {readiness}");
    assert_eq!(readiness.at("/checks/database/ok"), false);
    app.database().give_back().await;
    expect_recovery(&app, &ada).await;
    let plan = app.get("/api/users/me/plan").bearer(&ada).send().await.expect_status(200);
    assert_eq!(plan.text_at("/plan_id"), "free", "what was refused was not done");
}

#[tokio::test]
async fn killed_connections_are_not_noticed_by_the_next_caller() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for _ in 0..3 {
        app.database().take_away().await;
        app.database().give_back().await;
        app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
        let change = json!({ "name": "Ada" });
        app.patch("/api/users/me").bearer(&ada).json(change).send().await.expect_status(200);
    }
}

#[tokio::test]
async fn a_frozen_database_is_a_503_soon_too() {
    let database = Arc::new(TestDatabase::new().await);
    let line = Line::to(&database.service_url()).await;
    let url = line.url.clone();
    let app = TestApp::over(database, |settings| settings.database.url = SecretText::new(url)).await;
    let ada = app.signup("ada@example.com").await;
    let key = make_key(&app, &ada).await;
    line.frozen.send_replace(true);
    app.advance(Duration::from_millis(1_100));
    let answers = futures_util::future::join_all(requests(&app, &ada, &key).into_iter().map(timed)).await;
    answers.into_iter().for_each(expect_away);
    expect_away(timed(app.get("/api/users/me").bearer(&ada)).await);
    line.frozen.send_replace(false);
    expect_recovery(&app, &ada).await;
}

#[tokio::test]
async fn the_service_starts_without_its_database_and_finds_it_later() {
    let database = Arc::new(TestDatabase::new().await);
    database.take_away().await;
    let app = TestApp::over(Arc::clone(&database), |settings| {
        settings.auth.signing_key = SecretText::new("a signing key that these tests alone know");
    })
    .await;
    app.get("/healthz").send().await.expect_status(200);
    expect_away(timed(app.get("/api/plans")).await);
    database.give_back().await;
    let ada = app.signup("ada@example.com").await;
    expect_recovery(&app, &ada).await;
}

/// A proxy to the database that can be frozen: connections stay open, and no bytes pass.
pub struct Line {
    pub url: String,
    pub frozen: watch::Sender<bool>,
}

impl Line {
    pub async fn to(url: &str) -> Self {
        let mut url: Url = url.parse().unwrap();
        let target = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (frozen, thaw) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, thaw.clone()));
                tokio::spawn(carry(from_server, to_client, thaw.clone()));
            }
        });
        url.set_ip_host(address.ip()).unwrap();
        url.set_port(Some(address.port())).unwrap();
        Self { url: url.to_string(), frozen }
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let thawed = frozen.wait_for(|frozen| !frozen).await.is_ok();
        if !thawed || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
