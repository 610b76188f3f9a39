//! Access: credentials in every place that an SDK uses, the permission, and unknown paths and methods.

use harness::TestApp;
use serde_json::json;

use super::asking::{ALL, Dialect, key_of, started};

#[tokio::test]
async fn a_credential_is_taken_wherever_an_sdk_puts_it() {
    let (app, ada, key) = started().await;
    for credential in [key.as_str(), ada.access_token.as_str()] {
        for dialect in ALL {
            let path = dialect.path("no-such-model");
            let ask = || app.post(&path).json(dialect.body("no-such-model", "x"));
            for request in [
                ask().bearer(credential),
                ask().header("x-api-key", credential),
                ask().header("x-goog-api-key", credential),
                ask().query(&[("key", credential)]),
            ] {
                // The credential was accepted: only the model does not exist.
                let status = request.send().await.status;
                assert_eq!(status, 404, "{dialect:?}");
            }
        }
    }
}

#[tokio::test]
async fn who_shows_nothing_good_is_refused_in_the_dialect() {
    let app = TestApp::start().await;
    for dialect in ALL {
        let ask = || app.post(&dialect.path("m")).json(dialect.body("m", "x"));
        for request in [
            ask(),
            dialect.signed(ask(), "garbage"),
            ask().bearer("garbage"),
            ask().query(&[("key", "garbage")]),
            ask().header("authorization", "Basic eDp5"),
        ] {
            let answer = dialect.expect_error(request.header("x-request-id", "mine").send().await, 401);
            assert_eq!(answer.header("x-request-id"), Some("mine"));
            assert!(!answer.text.contains("garbage"), "{answer}");
        }
    }
}

#[tokio::test]
async fn the_routes_of_the_house_take_no_key_from_the_address() {
    let (app, ada, key) = started().await;
    app.get("/api/models").query(&[("key", &ada.access_token)]).send().await.expect_problem(401, "unauthorized");
    app.get("/api/models").header("x-goog-api-key", &key).send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_key_without_the_permission_is_told_so() {
    let (app, ada, _) = started().await;
    let key = key_of(&app, &ada, &["plans:read", "usage:write"]).await;
    for dialect in ALL {
        let answer = dialect.expect_error(dialect.ask(&app, &key, dialect.own_model()).send().await, 403);
        assert!(answer.text_at("/error/message").contains("ai:chat"), "{answer}");
        let models = if dialect == Dialect::Gemini { "/v1beta/models" } else { "/v1/models" };
        dialect.expect_error(dialect.signed(app.get(models), &key).send().await, 403);
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_dialect() {
    let (app, _, key) = started().await;
    for (dialect, path) in [
        (Dialect::OpenAi, "/v1"),
        (Dialect::OpenAi, "/v1/nothing"),
        (Dialect::OpenAi, "/v1/chat"),
        (Dialect::Anthropic, "/v1/messages/batches"),
        (Dialect::Gemini, "/v1beta/nothing"),
        (Dialect::Gemini, "/v1beta/cachedContents/x"),
    ] {
        let answer = dialect.signed(app.get(path), &key).send().await;
        dialect.expect_error(answer, 404);
    }
    let verb = app.post("/v1beta/models/gemini-2.5-flash:dance").json(json!({}));
    let answer = Dialect::Gemini.expect_error(Dialect::Gemini.signed(verb, &key).send().await, 404);
    assert!(answer.text_at("/error/message").contains("dance"), "{answer}");
}

#[tokio::test]
async fn another_method_is_a_405_that_names_the_right_one() {
    let (app, _, key) = started().await;
    for (dialect, method, path, allow) in [
        (Dialect::OpenAi, "GET", "/v1/chat/completions", "POST"),
        (Dialect::OpenAi, "POST", "/v1/models", "GET, HEAD"),
        (Dialect::OpenAi, "DELETE", "/v1/models/gpt-6-sol", "GET, HEAD"),
        // The colon may precede a Gemini verb or be part of the name.
        (Dialect::OpenAi, "DELETE", "/v1/models/ft:gpt-4o:acme::1", "POST, GET, HEAD"),
        (Dialect::Anthropic, "PUT", "/v1/messages", "POST"),
        (Dialect::Gemini, "PUT", "/v1beta/models/m:generateContent", "POST, GET, HEAD"),
    ] {
        let request = app.request(method.parse().unwrap(), path);
        let answer = dialect.expect_error(dialect.signed(request, &key).send().await, 405);
        assert_eq!(answer.header("allow"), Some(allow), "{answer}");
    }
}
