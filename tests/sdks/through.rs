//! The official Python SDKs through the gateway, unchanged except for their base URL and API key: every model in every
//! dialect, whole and streamed, and errors as the SDKs' own exceptions. The sandbox serves all three providers.

use harness::TestApp;
use serde_json::json;

use super::run;

/// A gateway with a user who may call models, and the user's API key.
async fn gateway() -> (TestApp, String) {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    app.post("/api/users/me/plan").bearer(&ada).json(json!({ "plan_id": "platinum" })).send().await.expect_status(200);
    let made = app.post("/api/keys").bearer(&ada).json(json!({ "name": "sdk" })).send().await.expect_status(201);
    let key = made.text_at("/key").to_owned();
    (app, key)
}

async fn through(sdk: &'static str, unknown: &str, unauthorized: &str) {
    let (app, key) = gateway().await;
    let address = format!("http://{}", app.address());
    let driven = tokio::task::spawn_blocking(move || run("through.py", sdk, &address, &key)).await;
    let Some(told) = driven.expect("the SDK is driven") else { return app.stop().await };
    for provider in ["openai", "anthropic", "gemini"] {
        let (plain, streamed) = (&told[&format!("plain {provider}")], &told[&format!("streamed {provider}")]);
        assert_eq!([&plain["text"], &plain["output"]], [&streamed["text"], &streamed["output"]], "{provider}");
        let text = plain["text"].as_str().expect("a text");
        assert!(text.contains("You said \"Hi\"."), "{provider} said {text}");
        assert!(plain["output"].as_u64().is_some_and(|tokens| tokens > 5), "{plain}");
    }
    let refused = |case: &str| json!([told[case]["error"], told[case]["status"]]);
    assert_eq!(refused("unknown model"), json!([unknown, 404]));
    assert_eq!(refused("another key"), json!([unauthorized, 401]));
    let calls: i64 = app.database().query_scalar("SELECT count(*) FROM ai_usage_logs").await;
    assert_eq!(calls, 6, "what was refused is no call");
    app.stop().await;
}

#[tokio::test]
async fn openai() {
    through("openai", "NotFoundError", "AuthenticationError").await;
}

#[tokio::test]
async fn anthropic() {
    through("anthropic", "NotFoundError", "AuthenticationError").await;
}

#[tokio::test]
async fn gemini() {
    through("gemini", "ClientError", "ClientError").await;
}
