//! A service in front of the stub, a user who may call, and the kinds of calls.

use std::sync::Arc;
use std::time::Duration;

use app::settings::shape::{SecretText, Settings};
use harness::{Answer, Request, TestApp, TestUser, eventually};
use serde_json::{Value, json};
use testkit::upstream::Upstream;

const PATIENCE: Duration = Duration::from_secs(10);

/// One kind of model call.
#[derive(Clone, Debug)]
pub struct Ask {
    pub path: &'static str,
    pub body: Value,
}

pub fn openai(streamed: bool) -> Ask {
    let messages = json!([{ "role": "user", "content": "Say something." }]);
    Ask {
        path: "/v1/chat/completions",
        body: json!({ "model": "gpt-6-sol", "stream": streamed, "messages": messages }),
    }
}

pub fn anthropic(streamed: bool) -> Ask {
    let messages = json!([{ "role": "user", "content": "Say something." }]);
    let body = json!({ "model": "claude-sonnet-5", "max_tokens": 200, "stream": streamed, "messages": messages });
    Ask { path: "/v1/messages", body }
}

pub fn gemini(path: &'static str) -> Ask {
    Ask { path, body: json!({ "contents": [{ "role": "user", "parts": [{ "text": "Say something." }] }] }) }
}

pub fn ours(streamed: bool) -> Ask {
    let body = json!({ "model": "gpt-6-sol", "message": "Say something.", "stream": streamed });
    Ask { path: "/api/ai/chat", body }
}

pub fn embeddings() -> Ask {
    Ask { path: "/v1/embeddings", body: json!({ "model": "text-embedding-3-small", "input": "something" }) }
}

pub fn every_way() -> Vec<Ask> {
    vec![
        openai(false),
        openai(true),
        anthropic(false),
        anthropic(true),
        gemini("/v1beta/models/gemini-2.5-flash:generateContent"),
        gemini("/v1beta/models/gemini-2.5-flash:streamGenerateContent"),
        gemini("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        embeddings(),
        ours(false),
        ours(true),
    ]
}

pub struct Stage {
    pub stub: Upstream,
    pub app: TestApp,
    pub ada: TestUser,
    /// The API key of Ada.
    pub key: String,
}

impl Stage {
    pub async fn new() -> Self {
        let stub = Upstream::start();
        let urls = urls(&stub);
        let app = TestApp::with(move |settings| point(settings, urls)).await;
        let ada = app.signup("ada@example.com").await;
        let key = key_of(&app, &ada).await;
        let stage = Self { stub, app, ada, key };
        stage.allow(None).await;
        stage
    }

    /// Another process of the same service, over the same database.
    pub async fn beside(&self) -> TestApp {
        let urls = urls(&self.stub);
        TestApp::over(Arc::clone(self.app.database()), move |settings| point(settings, urls)).await
    }

    pub async fn allow(&self, calls: Option<i64>) {
        let path = format!("/api/admin/users/{}/overrides/ai_requests", self.ada.id);
        let body = json!({ "enabled": true, "limit_value": calls });
        let granted = self.app.put(&path).bearer(&self.app.admin().await).json(body).send().await;
        assert!(granted.status < 300, "{granted}");
    }

    pub fn ask(&self, ask: &Ask) -> Request {
        asked(&self.app, ask, &self.key)
    }

    pub async fn keyed(&self, ask: &Ask, key: &str) -> Answer {
        self.ask(ask).idempotency_key(key).send().await
    }

    /// The stub received this many calls, and no reservation is pending any more.
    pub async fn expect_calls(&self, calls: u64) {
        let requests = self.stub.settled(calls).await.len();
        assert_eq!(u64::try_from(requests).unwrap(), calls, "calls that came to the provider");
        let settled = async || self.count("usage_reservations WHERE status = 'pending'").await;
        eventually(PATIENCE, settled, |pending| *pending == 0).await;
    }

    pub async fn charged(&self) -> i64 {
        self.count("ai_usage_logs").await
    }

    pub async fn count(&self, rows: &str) -> i64 {
        self.app.database().query_scalar(&format!("SELECT count(*) FROM {rows}")).await
    }

    /// Waits until every stored call is complete in the database.
    pub async fn written(&self) {
        let open = async || self.count("ai_answers WHERE status IS NULL").await;
        eventually(PATIENCE, open, |open| *open == 0).await;
    }

    /// Waits until this many calls are stored.
    pub async fn kept(&self, calls: i64) {
        let kept = async || self.count("ai_answers").await;
        eventually(PATIENCE, kept, |kept| *kept == calls).await;
    }

    /// A request whose response the test reads itself.
    pub async fn begun(&self, ask: &Ask, key: &str) -> reqwest::Response {
        let request = self.app.client().post(self.app.url(ask.path)).bearer_auth(&self.key);
        request.header("Idempotency-Key", key).json(&ask.body).send().await.unwrap()
    }
}

pub fn asked(app: &TestApp, ask: &Ask, credential: &str) -> Request {
    app.post(ask.path).bearer(credential).json(&ask.body)
}

pub async fn key_of(app: &TestApp, user: &TestUser) -> String {
    let body = json!({ "name": "sdk", "permissions": ["ai:chat"] });
    app.post("/api/keys").bearer(user).json(body).send().await.expect_status(201).text_at("/key").to_owned()
}

#[track_caller]
pub fn expect_replay(first: &Answer, again: &Answer) {
    assert_eq!((again.status, &again.text), (first.status, &first.text), "{again}");
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
    for name in
        ["content-type", "cache-control", "x-product-base-call-id", "x-product-base-cost-usd", "x-accel-buffering"]
    {
        assert_eq!(again.header(name), first.header(name), "{name}: {again}");
    }
    assert!(again.header("x-product-base-call-id").is_some(), "{again}");
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
}

fn urls(stub: &Upstream) -> [String; 3] {
    [stub.openai_url(), stub.anthropic_url(), stub.gemini_url()]
}

fn point(settings: &mut Settings, urls: [String; 3]) {
    let ai = &mut settings.ai;
    for (provider, url) in [&mut ai.openai, &mut ai.claude, &mut ai.gemini].into_iter().zip(urls) {
        provider.base_url = url;
        provider.api_key = SecretText::new("sk-of-the-operator");
        provider.max_attempts = 1;
    }
}
