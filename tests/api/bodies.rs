//! Bodies: a limit on all of them together, and a size limit for each dialect.

use std::time::Duration;

use harness::{TestApp, TestUser, eventually};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::dialects::asking::{ALL, Dialect, started};

/// A model call whose body stays incomplete after this many bytes.
async fn unfinished(app: &TestApp, who: &TestUser, sent: usize) -> TcpStream {
    let mut connection = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 2400000\r\n\r\n",
        who.access_token
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    // A refused request may be closed during this write, which is fine for the test.
    connection.write_all(&vec![b' '; sent]).await.ok();
    connection
}

fn body_bytes(page: &str) -> usize {
    let line = page.lines().find_map(|line| line.strip_prefix("http_body_bytes "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn all_bodies_together_are_bounded_and_the_bound_is_free_again() {
    let app = TestApp::with(|settings| {
        settings.server.body_memory_bytes = 2_000_000;
        settings.server.workers = 2;
    })
    .await;
    let (ada, bob) = (app.signup("ada@example.com").await, app.signup("bob@example.com").await);
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(unfinished(&app, &ada, 200_000).await);
    }
    let page =
        eventually(Duration::from_secs(5), || app.metrics().send(), |page| body_bytes(&page.text) > 1_000_000).await;
    assert!(body_bytes(&page.text) <= 2_000_000, "{}", body_bytes(&page.text));
    let large = || json!({ "model": "claude-sonnet-5", "max_tokens": 9, "x": "x".repeat(700_000) });
    let refused = app.post("/v1/messages").bearer(&bob).json(large()).send().await.expect_status(503);
    assert!(refused.header("retry-after").is_some(), "{refused}");
    // A single caller cannot use the whole limit, so small bodies of other callers still fit.
    let small = app.post("/api/usage").bearer(&bob).json(json!({ "feature_id": "ai_requests" }));
    small.send().await.expect_problem(403, "feature_not_in_plan");
    drop(held);
    eventually(Duration::from_secs(5), || app.metrics().send(), |page| body_bytes(&page.text) == 0).await;
}

#[tokio::test]
async fn a_body_of_a_dialect_may_be_as_large_as_its_provider_takes() {
    let (app, _, key) = started().await;
    for (dialect, limit) in [(Dialect::OpenAi, 50 << 20), (Dialect::Anthropic, 32 << 20), (Dialect::Gemini, 20 << 20)] {
        let request = app.post(&dialect.path(dialect.own_model())).raw("application/json", vec![b' '; limit + 1]);
        let answer = dialect.expect_error(dialect.signed(request, &key).send().await, 413);
        assert!(answer.text_at("/error/message").contains("larger"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_of_too_many_values_is_too_large_and_many_pictures_are_not() {
    let (app, _, key) = started().await;
    for dialect in ALL {
        let mut body = dialect.body(dialect.own_model(), "x").to_string();
        body.truncate(body.len() - 1);
        body.extend([",\"x\":[", &"1,".repeat(3_000_000), "1]}"]);
        let request = app.post(&dialect.path(dialect.own_model())).raw("application/json", body);
        dialect.expect_error(dialect.signed(request, &key).send().await, 413);
    }
}
