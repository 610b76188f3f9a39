//! Common properties of all responses: problems, ids, headers, probes, limits, metrics.

use std::time::Duration;

use app::settings::shape::SecretText;
use harness::{Answer, TestApp};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::usage::limited;

#[track_caller]
fn has_the_headers_of_the_house(answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer}");
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer}");
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{answer}");
    assert_eq!(answer.header("server"), None, "{answer}");
    assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{answer}");
}

#[tokio::test]
async fn refusals_of_the_framework_are_problems_too() {
    let app = TestApp::start().await;
    let unknown = app.get("/api/nothing?token=secret").send().await;
    has_the_headers_of_the_house(&unknown);
    let unknown = unknown.expect_problem(404, "not_found");
    assert_eq!(unknown.text_at("/instance"), "/api/nothing");
    assert_eq!(unknown.header("x-request-id"), Some(unknown.text_at("/request_id")));

    let wrong_method = app.delete("/api/plans").send().await.expect_problem(405, "method_not_allowed");
    let allow = wrong_method.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{wrong_method}");

    let log_in = || app.post("/api/auth/login");
    log_in().raw("application/json", "{").send().await.expect_problem(400, "malformed");
    log_in().raw("text/plain", "{}").send().await.expect_problem(415, "not_json");
    log_in().raw("application/json", vec![b' '; 300 * 1024]).send().await.expect_problem(413, "too_large");
    log_in().json(json!({ "email": "a@example.com" })).send().await.expect_problem(422, "invalid");
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let app = TestApp::start().await;
    let answer = app.request(Method::HEAD, "/api/nothing").send().await.expect_status(404);
    assert_eq!(answer.text, "");
    has_the_headers_of_the_house(&answer);
}

#[tokio::test]
async fn a_request_id_is_echoed_if_it_is_one_and_made_if_not() {
    let app = TestApp::start().await;
    let sent = |id: &str| app.get("/healthz").header("x-request-id", id).send();
    assert_eq!(sent("order-7_a.B").await.header("x-request-id"), Some("order-7_a.B"));
    for refused in ["a b", "<script>", &"a".repeat(65)] {
        let answer = sent(refused).await;
        let made = answer.header("x-request-id").unwrap();
        assert_eq!(made.parse::<uuid::Uuid>().map(|id| id.get_version_num()), Ok(7), "{answer}");
    }
}

#[tokio::test]
async fn what_credentials_opened_is_stored_by_nobody() {
    let app = TestApp::start().await;
    let user = app.signup("ada@example.com").await;
    let own = app.get("/api/users/me").bearer(&user).send().await.expect_status(200);
    assert_eq!(own.header("cache-control"), Some("no-store"));
    has_the_headers_of_the_house(&own);
}

#[tokio::test]
async fn readiness_says_what_it_rests_on() {
    let app = TestApp::start().await;
    let live = app.get("/healthz").send().await.expect_status(200);
    assert_eq!(live.body, json!({ "status": "ok" }));
    let ready = app.get("/readyz").send().await.expect_status(200);
    assert_eq!(ready.text_at("/status"), "ready");
    assert_eq!(
        ready.at("/checks"),
        &json!({ "database": { "ok": true }, "migrations": { "ok": true, "pending": [] } })
    );
    // The tests log in as the restricted `app_user`, on a cluster whose data may be lost.
    let unsafe_settings =
        "A crash of the database's machine may lose what was answered: fsync is off, full_page_writes is off.";
    let warnings = ready.at("/warnings");
    assert!(warnings == &json!([unsafe_settings]) || warnings == &json!([]), "{warnings}");
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_show_pool_and_database() {
    let app = TestApp::start().await;
    app.get("/api/plans/free?secret=1").send().await.expect_status(200);
    app.get("/api/plans-of-nobody").send().await.expect_status(404);
    app.request(Method::from_bytes(b"BREW").unwrap(), "/api/plans").send().await.expect_status(405);
    let page = app.metrics().send().await.expect_status(200);
    assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{page}");
    for line in [
        r#"http_requests_total{method="GET",route="/api/plans/{plan_id}",status="200"} "#,
        r#"http_requests_total{method="GET",route="unmatched",status="404"} "#,
        r#"http_requests_total{method="other",route="/api/plans",status="405"} "#,
        r#"http_request_duration_seconds_bucket{method="GET",route="/api/plans/{plan_id}",le="0.001"} "#,
        "database_pool_connections ",
        "database_pool_max_connections 5\n",
        "database_up 1\n",
        "database_size_bytes ",
        "database_connections ",
        "process_resident_memory_bytes ",
        "process_uptime_seconds ",
    ] {
        assert!(page.text.contains(line), "expected {line}in {page}");
    }
    assert!(!page.text.contains("secret") && !page.text.contains("BREW"), "{page}");
}

#[tokio::test]
async fn counters_of_failures_are_there_before_the_first_failure() {
    let app = TestApp::start().await;
    let is_there = |page: &Answer| page.text.contains(r#"job_failures_total{job="integrity"}"#);
    let page = harness::eventually(Duration::from_secs(5), || app.metrics().send(), is_there).await;
    for line in [
        r#"job_failures_total{job="partitions"} "#,
        r#"http_requests_total{method="POST",route="/api/usage",status="500"} "#,
        r#"http_requests_total{method="POST",route="/v1/messages",status="504"} "#,
        r#"http_connections_refused_total{reason="full"} "#,
        r#"http_bodies_refused_total{bound="all"} "#,
        "ai_sdk_retries_total ",
        r#"gen_ai_refusals_total{gen_ai_provider_name="anthropic",gen_ai_request_model="claude-sonnet-5",reason="limit_reached"} "#,
    ] {
        assert!(page.text.contains(line), "expected {line}in {page}");
    }
}

#[tokio::test]
async fn metrics_count_what_was_consumed_and_in_how_many_batches() {
    let app = TestApp::start().await;
    let ada = limited(&app, 9).await;
    let one = || json!({ "feature_id": "ai_requests" });
    app.post("/api/usage").bearer(&ada).json(one()).send().await.expect_status(200);
    let both = json!({ "items": [one(), one()] });
    app.post("/api/usage/batch").bearer(&ada).json(both).send().await.expect_status(200);
    let page = app.metrics().send().await.expect_status(200);
    for line in ["# TYPE usage_batches_total counter\n", "usage_commands_total 3\n", "usage_commands_waiting 0\n"] {
        assert!(page.text.contains(line), "expected {line}in {page}");
    }
    let batches = page.text.lines().find_map(|line| line.strip_prefix("usage_batches_total "));
    let batches: u64 = batches.unwrap().parse().unwrap();
    assert!((2..=3).contains(&batches), "the first went alone, the others together or one by one: {batches}");
}

#[tokio::test]
async fn metrics_are_for_who_has_the_token_and_not_for_whoever_is_on_this_machine() {
    let app = TestApp::with(|settings| settings.metrics.token = SecretText::new("")).await;
    app.get("/metrics").send().await.expect_problem(404, "not_found");
    let app = TestApp::with(|settings| settings.metrics.token = SecretText::new("scrape-me")).await;
    app.get("/metrics").send().await.expect_problem(404, "not_found");
    app.get("/metrics").bearer("another").send().await.expect_problem(404, "not_found");
    app.get("/metrics").bearer("scrape-me").send().await.expect_status(200);
}

#[tokio::test]
async fn refused_credentials_are_limited_by_the_address_that_a_trusted_proxy_names() {
    let app = TestApp::with(|settings| {
        settings.rate_limits.failures_per_ip = 3;
        settings.server.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
    })
    .await;
    let ask = |client: &str| app.get("/api/users/me").bearer("nonsense").header("x-forwarded-for", client);
    for _ in 0..3 {
        ask("192.0.2.1").send().await.expect_problem(401, "unauthorized");
    }
    let refused = ask("192.0.2.1").send().await.expect_problem(429, "too_many_attempts");
    assert!(refused.header("retry-after").is_some(), "{refused}");
    ask("192.0.2.2").send().await.expect_problem(401, "unauthorized");
    ask("203.0.113.9, 192.0.2.1").send().await.expect_problem(429, "too_many_attempts");
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_and_no_others() {
    let origin = "https://app.example.com";
    let app = TestApp::with(|settings| settings.server.cors_origins = vec![origin.to_owned()]).await;
    let preflight = |origin: &str| {
        let asking = app.request(Method::OPTIONS, "/api/plans").header("origin", origin);
        asking.header("access-control-request-method", "POST").send()
    };
    let granted = preflight(origin).await.expect_status(204);
    assert_eq!(granted.header("access-control-allow-origin"), Some(origin));
    assert!(granted.header("access-control-allow-headers").unwrap().contains("Idempotency-Key"), "{granted}");
    assert_eq!(preflight("https://evil.test").await.header("access-control-allow-origin"), None);
    let read = app.get("/api/users/me").header("origin", origin).send().await.expect_problem(401, "unauthorized");
    assert_eq!(read.header("access-control-allow-origin"), Some(origin));
}

#[tokio::test]
async fn the_data_is_checked_for_administrators() {
    let app = TestApp::start().await;
    let (user, admin) = (app.signup("ada@example.com").await, app.admin().await);
    app.get("/api/admin/integrity").send().await.expect_problem(401, "unauthorized");
    app.get("/api/admin/integrity").bearer(&user).send().await.expect_problem(403, "forbidden");
    let checked = app.get("/api/admin/integrity").bearer(&admin).send().await.expect_status(200);
    assert!(checked.body["checked_at"].is_string(), "every piece was checked: {checked}");
    assert_eq!((&checked.body["data"], &checked.body["next_cursor"]), (&json!([]), &json!(null)));
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_and_its_connection_closed() {
    let app = TestApp::with(|settings| settings.server.request_timeout_seconds = 1).await;
    for framing in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let mut connection = TcpStream::connect(app.address()).await.unwrap();
        let head = "POST /api/auth/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n";
        connection.write_all(format!("{head}{framing}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = connection.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("the connection is closed").unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(r#""code":"too_slow""#), "{answer}");
    }
}
