//! Decisions from the head of a request alone: the host, HEAD, `Expect`, credentials.

use std::time::Duration;

use harness::{TestApp, TestUser};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes and reads until the connection ends or is silent for a moment.
async fn exchange(app: &TestApp, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(app.address()).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    read_some(&mut connection).await
}

async fn read_some(connection: &mut TcpStream) -> String {
    let (mut answer, mut chunk) = (Vec::new(), [0; 4_096]);
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(300), connection.read(&mut chunk)).await {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_host_is_one_host() {
    let app = TestApp::start().await;
    let asked = async |hosts: &str| exchange(&app, format!("GET /healthz HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await;
    for good in ["Host: a\r\n", "Host: a.example.com:8080\r\n", "Host: [::1]:1\r\n", "Host:\r\n"] {
        let answer = asked(good).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{good}: {answer}");
    }
    for bad in ["Host: a b@c/\r\n", "Host: a/b\r\n", "Host: a:b\r\n", "Host: a\r\nHost: b\r\n", "Host: a@b\r\n", ""] {
        let answer = asked(bad).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad}: {answer}");
    }
}

#[tokio::test]
async fn what_answers_get_answers_head_without_a_body() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for path in ["/healthz", "/readyz", "/api/plans", "/api/users/me", "/api/keys", "/api/openapi.json", "/api/docs/"] {
        let get = app.get(path).bearer(&ada).send().await.expect_status(200);
        let head = app.request(Method::HEAD, path).bearer(&ada).send().await.expect_status(200);
        assert_eq!((head.text.as_str(), head.header("content-type")), ("", get.header("content-type")), "{path}");
        assert!(!get.text.is_empty());
    }
    app.request(Method::HEAD, "/api/users/me").send().await.expect_status(401);
    let post_only = app.request(Method::HEAD, "/api/auth/login").send().await.expect_status(405);
    assert_eq!(post_only.header("allow"), Some("POST"));
    let get_only = app.delete("/api/models").send().await.expect_status(405);
    assert_eq!(get_only.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn a_body_is_asked_for_only_where_it_is_read() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let head = |path: &str, token: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    for (path, token, length, status) in [
        ("/api/usage", "nonsense", 10, 401),
        ("/v1/messages", "nonsense", 10, 401),
        ("/api/usage", ada.access_token.as_str(), 300_000, 413),
        ("/v1/messages", &ada.access_token, 40 * 1_024 * 1_024, 413),
        ("/v1/chat/completions", &ada.access_token, 60 * 1_024 * 1_024, 413),
        ("/v1beta/models/m:generateContent", &ada.access_token, 21 * 1_024 * 1_024, 413),
        ("/api/admin/prices", &ada.access_token, 10, 403),
        ("/api/nothing", "x", 10, 404),
    ] {
        let answer = exchange(&app, head(path, token, length).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    let body = json!({ "feature_id": "ai_requests" }).to_string();
    let mut connection = TcpStream::connect(app.address()).await.unwrap();
    // Twice over one connection.
    for _ in 0..2 {
        connection.write_all(head("/api/usage", &ada.access_token, body.len()).as_bytes()).await.unwrap();
        assert_eq!(read_some(&mut connection).await, "HTTP/1.1 100 Continue\r\n\r\n");
        connection.write_all(body.as_bytes()).await.unwrap();
        let answer = read_some(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("feature_not_in_plan"), "{answer}");
    }
}

#[tokio::test]
async fn pages_of_the_documentation_say_what_they_load_and_can_be_off() {
    let app = TestApp::with(|settings| settings.server.hsts_seconds = 600).await;
    let page = app.get("/api/docs/").send().await.expect_status(200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("strict-transport-security"), Some("max-age=600"));
    let app = TestApp::with(|settings| settings.server.docs = false).await;
    for path in ["/api/docs", "/api/docs/", "/api/docs/index.html", "/api/openapi.json"] {
        let answer = app.get(path).send().await.expect_problem(404, "not_found");
        assert_eq!(answer.header("strict-transport-security"), None);
    }
}

#[tokio::test]
async fn a_log_in_that_is_refused_names_the_scheme() {
    let app = TestApp::start().await;
    let wrong = json!({ "email": "ada@example.com", "password": "not the password" });
    let answer = app.post("/api/auth/login").json(wrong).send().await.expect_status(401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

async fn key_of(app: &TestApp, user: &TestUser) -> String {
    let made = app.post("/api/keys").bearer(user).json(json!({ "name": "k", "permissions": ["users:read"] }));
    made.send().await.expect_status(201).text_at("/key").to_owned()
}

#[tokio::test]
async fn failures_of_an_address_refuse_nobody_whose_credential_is_good() {
    let app = TestApp::with(|settings| settings.rate_limits.failures_per_ip = 3).await;
    let ada = app.signup("ada@example.com").await;
    let key = key_of(&app, &ada).await;
    let bob = app.signup("bob@example.com").await;
    let with = |credential: &str| app.get("/api/users/me").bearer(credential).send();
    with(&key).await.expect_status(200);
    for _ in 0..3 {
        with("nonsense").await.expect_status(401);
    }
    for _ in 0..5 {
        with("nonsense").await.expect_problem(429, "too_many_attempts");
        with(&ada.access_token).await.expect_status(200);
        // A credential that this process has not seen before.
        with(&bob.access_token).await.expect_status(200);
        with(&key).await.expect_status(200);
    }
    // Unknown keys in our format are looked up three times, then refused without a lookup.
    let mut gone = Vec::new();
    for _ in 0..4 {
        gone.push(key_of(&app, &bob).await);
    }
    app.database().sql(&format!("DELETE FROM api_keys WHERE user_id = '{}'", bob.id)).await;
    for unknown in &gone[..3] {
        with(unknown).await.expect_status(401);
    }
    with(&gone[3]).await.expect_problem(429, "too_many_attempts");
    with(&key).await.expect_status(200);
    app.database().sql("UPDATE users SET name = name").await;
    with(&key).await.expect_status(200);
}
