//! The service, a stub of all three providers behind it, and a user who may call.

use std::time::Duration;

use app::settings::models::parse;
use app::settings::shape::{SecretText, Settings};
use domain::ai::ProviderProfiles;
use harness::{Answer, Bearer, TestApp, TestUser};
use reqwest::Response;
use serde_json::{Value, json};
use testkit::upstream::{BillLine, Upstream, UpstreamPrices, UsageParts};

use crate::usage::allow;

/// Each provider's name, with one of its models.
pub const MODELS: [(&str, &str); 3] = [("openai", "gpt-one"), ("claude", "claude-one"), ("gemini", "gemini-one")];

/// The time limit for the settlement after a response has ended.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Stage {
    pub app: TestApp,
    pub upstream: Upstream,
    pub ada: TestUser,
}

/// An event of a streamed response.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// The stub's prices as a model catalogue file; none is a divisor of another.
pub fn catalogue() -> String {
    let models = MODELS.map(|(provider, model)| {
        let written = if provider == "gemini" { "" } else { r#", cache_write_short = "2.500007""# };
        let long = if provider == "claude" { r#", cache_write_long = "5.000011""# } else { "" };
        format!(
            "[[models]]\nid = \"{model}\"\nprovider = \"{provider}\"\nmax_input_tokens = 2000\nmax_output_tokens = 1000\n\
             prices = {{ input = \"2.000001\", output = \"10.000029\", cache_read = \"0.200003\"{written}{long} }}\n"
        )
    });
    format!("version = \"2026-11-12\"\n[providers]\n{}", models.concat())
}

/// The stub's prices: the same, and reasoning costs as much as other output.
pub fn prices() -> UpstreamPrices {
    UpstreamPrices(UsageParts {
        uncached_in: 2_000_001_000,
        cache_read: 200_003_000,
        cache_write_short: 2_500_007_000,
        cache_write_long: 5_000_011_000,
        out_visible: 10_000_029_000,
        out_reasoning: 10_000_029_000,
        ..UsageParts::default()
    })
}

impl Stage {
    pub async fn set() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts it with a plan that allows any number of requests.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let upstream = Upstream::start();
        let serve = |settings: &mut Settings| {
            let ai = &mut settings.ai;
            for (provider, url) in [
                (&mut ai.openai, upstream.openai_url()),
                (&mut ai.claude, upstream.anthropic_url()),
                (&mut ai.gemini, upstream.gemini_url()),
            ] {
                provider.base_url = url;
                provider.api_key = SecretText::new("the-key-of-the-stub");
                provider.max_attempts = 2;
            }
            ai.models = parse(&catalogue(), &ProviderProfiles::default()).unwrap();
            "gpt-one".clone_into(&mut ai.calls.default_model);
            change(settings);
        };
        let app = TestApp::with(serve).await;
        let ada = app.signup("ada@example.com").await;
        allow(&app, &ada, "limit_value = NULL, overage = 'block'").await;
        Self { app, upstream, ada }
    }

    pub async fn ask(&self, who: &(impl Bearer + ?Sized), body: Value) -> Answer {
        self.app.post("/api/ai/chat").bearer(who).json(body).send().await
    }

    pub async fn chat(&self, body: Value) -> Answer {
        self.ask(&self.ada, body).await
    }

    pub async fn quote(&self, body: Value) -> Answer {
        self.app.post("/api/ai/quote").bearer(&self.ada).json(body).send().await
    }

    /// A streamed response, returned once its head has arrived.
    pub async fn begin(&self, who: &(impl Bearer + ?Sized), mut body: Value) -> Response {
        body["stream"] = json!(true);
        let request = self.app.client().post(self.app.url("/api/ai/chat")).bearer_auth(who.bearer_token());
        request.json(&body).send().await.unwrap()
    }

    /// A streamed response, read to its end.
    pub async fn stream(&self, body: Value) -> Vec<Event> {
        let response = self.begin(&self.ada, body).await;
        let (status, content_type) = (response.status(), response.headers().get("content-type").cloned());
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        assert_eq!(content_type.unwrap(), "text/event-stream");
        events(&text)
    }

    pub async fn number(&self, query: &str) -> i64 {
        self.app.database().query_scalar(query).await
    }

    /// Sets the plan's request limit; requests beyond it are paid from the balance.
    pub async fn pays_beyond(&self, limit: i64, tokens: i64) {
        allow(&self.app, &self.ada, &format!("limit_value = {limit}, overage = 'tokens'")).await;
        let admin = self.app.admin().await;
        let body = json!({ "user_id": self.ada.id, "amount": tokens - self.available().await });
        if body["amount"].as_i64() > Some(0) {
            self.app.post("/api/tokens/topup").bearer(&admin).json(body).send().await.expect_status(201);
        }
    }

    pub async fn available(&self) -> i64 {
        let balance = self.app.get("/api/tokens").bearer(&self.ada).send().await.expect_status(200);
        balance.at("/available").as_i64().unwrap()
    }

    /// `(input, output, nano-dollars, source, outcome)` of each logged call, in order.
    pub async fn books(&self) -> Vec<(i64, i64, i64, String, String)> {
        let sql = "SELECT input_tokens, output_tokens, cost_nano_usd, source::text, outcome::text FROM ai_usage_logs ORDER BY created_at, id";
        self.app.database().query_all(sql).await
    }

    /// Waits until this many calls are logged and nothing is reserved any more.
    pub async fn settled(&self, calls: i64) {
        let pending = "SELECT count(*) FROM usage_reservations WHERE status = 'pending'";
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.number("SELECT count(*) FROM ai_usage_logs").await < calls || self.number(pending).await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waited.await.is_ok(), "{calls} calls should be settled: {:?}", self.books().await);
        assert_eq!(self.number("SELECT count(*) FROM ai_usage_logs").await, calls);
    }

    /// The log has the amounts that the stub charges for every call, and the checks have no findings.
    pub async fn expect_bill(&self, calls: usize) -> Vec<BillLine> {
        self.settled(i64::try_from(calls).unwrap()).await;
        self.upstream.until("for the end of all answers", |stub| stub.totals().answering == 0).await;
        let bill: Vec<BillLine> = self.upstream.bill().into_iter().filter(|line| line.nano_dollars > 0).collect();
        let number = |number: u64| i64::try_from(number).unwrap();
        let charged =
            |line: &BillLine| (number(line.usage.input()), number(line.usage.output()), number(line.nano_dollars));
        let mut charged: Vec<_> = bill.iter().map(charged).collect();
        let mut booked: Vec<_> =
            self.books().await.into_iter().map(|(input, output, cost, ..)| (input, output, cost)).collect();
        charged.sort_unstable();
        booked.sort_unstable();
        assert_eq!(booked, charged, "the books and the bill");
        self.expect_in_order().await;
        bill
    }

    /// Nothing is reserved, and no check has findings.
    pub async fn expect_in_order(&self) {
        let findings = self.app.get("/api/admin/integrity").bearer(&self.app.admin().await).send().await;
        assert_eq!(findings.at("/data"), &json!([]));
        let held = "SELECT coalesce(sum(reserved), 0)::bigint + (SELECT sum(token_reserved) FROM users)::bigint
                + (SELECT coalesce(sum(tokens_reserved + cost_reserved_nano_usd), 0) FROM api_key_counters)::bigint
                + (SELECT count(*) FROM usage_reservations WHERE status = 'pending') FROM usage_counters";
        assert_eq!(self.number(held).await, 0, "nothing is held");
    }

    /// An API key of Ada's with these limits.
    pub async fn key(&self, limits: Value) -> Answer {
        let body = json!({ "name": "k", "permissions": ["ai:chat"], "limits": limits });
        self.app.post("/api/keys").bearer(&self.ada).json(body).send().await.expect_status(201)
    }
}

pub fn hello(model: &str) -> Value {
    json!({ "message": "Hello there", "model": model })
}

/// Parses the events of a stream.
pub fn events(text: &str) -> Vec<Event> {
    let frames = text.split("\n\n").filter(|frame| !frame.is_empty());
    let event = |frame: &str| {
        let (name, data) = frame.split_once('\n').unwrap_or_else(|| panic!("a frame of two lines: {text}"));
        Event {
            name: name.strip_prefix("event: ").unwrap().to_owned(),
            data: serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
        }
    };
    frames.map(event).collect()
}

/// The text of all `delta` events.
pub fn said(events: &[Event]) -> String {
    events.iter().filter(|event| event.name == "delta").map(|event| event.data["text"].as_str().unwrap()).collect()
}

/// This many words, which every tokenizer counts as one token each.
pub fn words(number: usize) -> String {
    vec!["a"; number].join(" ")
}
