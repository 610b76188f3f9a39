//! Unexpected provider responses: they are passed to a caller of the same dialect, and billed. The texts of errors are
//! kept, and no API key is passed on.

use std::time::Duration;

use harness::{Answer, TestApp, TestUser, eventually};
use serde_json::{Value, json};
use testkit::raw::{RawReply, RawUpstream};

use super::asking::{ALL, Dialect, key_of};
use super::calls::{allow, events, streamed, used};
use app::settings::shape::SecretText;

const KEY: &str = "sk-0perat0r-Zk8qP3xW7v7Lm";

struct World {
    app: TestApp,
    ada: TestUser,
    key: String,
    upstream: RawUpstream,
}

/// A service whose three providers are the raw upstream.
async fn world() -> World {
    world_with(1).await
}

/// The same, with this many attempts at a provider.
async fn world_with(max_attempts: u32) -> World {
    let upstream = RawUpstream::start(RawReply::json(200, "{}"));
    let url = upstream.url();
    let app = TestApp::with(move |settings| {
        let ai = &mut settings.ai;
        let urls = [format!("{url}/v1"), url.clone(), url];
        for (provider, url) in [&mut ai.openai, &mut ai.claude, &mut ai.gemini].into_iter().zip(urls) {
            provider.base_url = url;
            provider.api_key = SecretText::new(KEY);
            provider.max_attempts = max_attempts;
        }
    })
    .await;
    let ada = app.signup("ada@example.com").await;
    let key = key_of(&app, &ada, &["ai:chat"]).await;
    allow(&app, &ada, None).await;
    World { app, ada, key, upstream }
}

impl World {
    async fn ask(&self, dialect: Dialect, reply: RawReply) -> Answer {
        self.upstream.answer(reply);
        dialect.ask(&self.app, &self.key, dialect.own_model()).send().await
    }

    async fn stream(&self, dialect: Dialect, reply: RawReply) -> Answer {
        self.upstream.answer(reply);
        streamed(dialect, &self.app, &self.key, dialect.own_model(), "x").send().await
    }
}

const ODD: [(Dialect, &[&str]); 3] = [
    (
        Dialect::OpenAi,
        &[
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"a\",\"reasoning_content\":\"a\",\"content\":\"x\\ud83d\"}}]}\n\n",
            "data: {}\n\n",
            "event: ping\r\ndata:{\"type\":\"ping\"}\r\n\r\n",
            "data: no JSON\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\ude00y\"},\"finish_reason\":\"tired\"}]}\n\n",
            "data: {\"choices\":null,\"usage\":{\"prompt_tokens\":7.0,\"completion_tokens\":3}}\n\n",
        ],
    ),
    (
        Dialect::Anthropic,
        &[
            "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"xy\"}}\n\n",
            "data: {\"type\":\"unheard_of\",\"a\":[1]}\n\n",
            "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
        ],
    ),
    (
        Dialect::Gemini,
        &["data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"xy\"}]}}]}\r\n\r\n", "data: {\"a\":1}\n\n"],
    ),
];

/// Usage that is reported is billed, whatever stands around it and however the answer ends.
#[tokio::test]
async fn reported_usage_is_billed_however_the_answer_ends() {
    let world = world().await;
    let start =
        "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\n";
    let untyped = "data: {\"message\":{\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\n";
    let words = format!(
        "data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{}\"}}}}\n\n",
        "word ".repeat(900)
    );
    let thought = "data: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":4000}}\n\n";
    let failed =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";
    let stop = "data: {\"type\":\"message_stop\"}\n\n";
    let chunk = |usage: &str, text: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":{usage}}}\n\n")
    };
    let early = chunk("{\"prompt_tokens\":1000,\"completion_tokens\":1}", "a");
    let later = chunk("null", &"word ".repeat(900));
    let cases: [(Dialect, Vec<&str>, i64, i64); 6] = [
        (Dialect::Anthropic, vec![start, &words], 1_000, 800),
        (Dialect::Anthropic, vec![start, &words, stop], 1_000, 800),
        (Dialect::Anthropic, vec![start, thought, failed], 1_000, 4_000),
        (Dialect::Anthropic, vec![untyped, thought, stop], 1_000, 4_000),
        (Dialect::OpenAi, vec![&early, &later], 1_000, 800),
        (Dialect::OpenAi, vec![&early, &later, "data: [DONE]\n\n"], 1_000, 800),
    ];
    for (number, (dialect, frames, input, output)) in (1..).zip(cases) {
        world.stream(dialect, RawReply::events(&frames)).await;
        let (booked_input, booked_output) = last_booked(&world.app, number).await;
        assert_eq!(booked_input, input, "{frames:?}");
        assert!(booked_output >= output, "{booked_output} of {frames:?}");
    }
    for (number, kind) in (7..).zip(["null", "\"Message\"", "\"message\""]) {
        let body = format!("{{\"type\":{kind},\"usage\":{{\"input_tokens\":1000,\"output_tokens\":900}}}}");
        world.ask(Dialect::Anthropic, RawReply::json(200, &body)).await.expect_status(200);
        let (input, output) = last_booked(&world.app, number).await;
        assert_eq!((input, output), (1_000, 900), "{body}");
    }
}

/// What a provider bills is booked, and it is never asked to do the same again.
#[tokio::test]
async fn an_answer_that_fails_after_it_was_generated_is_sent_once_and_booked() {
    let world = world_with(3).await;
    let error = r#""error":{"code":503,"status":"UNAVAILABLE","type":"overloaded_error","message":"m"}"#;
    let usage = |dialect| match dialect {
        Dialect::OpenAi => r#""usage":{"prompt_tokens":1000,"completion_tokens":900}"#,
        Dialect::Anthropic => r#""usage":{"input_tokens":1000,"output_tokens":900}"#,
        Dialect::Gemini => r#""usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":900}"#,
    };
    let mut calls = 0;
    for dialect in ALL {
        let failed = format!("{{{error},{}}}", usage(dialect));
        let event = format!("data: {failed}\n\n");
        let asked = usize::try_from(calls).unwrap();
        let whole = world.ask(dialect, RawReply::json(200, &failed)).await;
        assert!(whole.status >= 500, "{whole}");
        world.stream(dialect, RawReply::events(&[&event])).await;
        let lost = world.ask(dialect, RawReply::json(200, "{\"id\":\"x\"").cut_off()).await.expect_status(502);
        assert_eq!(lost.header("x-should-retry"), Some("false"), "it would be charged again: {lost}");
        calls += 3;
        let count = async || world.app.database().query_scalar::<i64>("SELECT count(*) FROM ai_usage_logs").await;
        eventually(Duration::from_secs(10), count, |rows| *rows >= calls).await;
        let sql = "SELECT input_tokens::bigint, output_tokens::bigint, outcome::text FROM ai_usage_logs ORDER BY created_at, id";
        let rows: Vec<(i64, i64, String)> = world.app.database().query_all(sql).await;
        let of_dialect: Vec<_> = rows.iter().skip(asked).collect();
        assert!(of_dialect.iter().all(|(_, _, outcome)| outcome == "broken"), "{dialect:?}: {rows:?}");
        for (input, output, _) in of_dialect.iter().take(2) {
            assert_eq!((*input, *output), (1_000, 900), "{dialect:?}: {rows:?}");
        }
        assert!(of_dialect[2].0 > 0, "{dialect:?}: the input of a lost answer is booked: {rows:?}");
        assert_eq!(world.upstream.requests().len(), asked + 3, "{dialect:?}: each is sent once");
    }
}

/// The call that was booked last, once so many are.
async fn last_booked(app: &TestApp, calls: i64) -> (i64, i64) {
    let count = async || app.database().query_scalar::<i64>("SELECT count(*) FROM ai_usage_logs").await;
    eventually(Duration::from_secs(10), count, |rows| *rows >= calls).await;
    let sql = "SELECT input_tokens::bigint, output_tokens::bigint FROM ai_usage_logs ORDER BY created_at DESC, id DESC LIMIT 1";
    app.database().query_all(sql).await.remove(0)
}

#[tokio::test]
async fn odd_streams_pass_byte_by_byte_and_are_billed() {
    let world = world().await;
    let mut calls = 0;
    for (dialect, frames) in ODD {
        for content_type in ["text/event-stream", "text/plain"] {
            let reply = RawReply::events(frames).with_header("content-type", content_type);
            let answer = world.stream(dialect, reply.clone()).await.expect_status(200);
            assert_eq!(answer.text.as_bytes(), reply.body(), "{dialect:?} {content_type}");
            calls += 1;
        }
    }
    for dialect in ALL {
        let odd = RawReply::json(200, "{\"choices\": no JSON");
        let answer = world.ask(dialect, odd.clone()).await.expect_status(200);
        assert_eq!(answer.text.as_bytes(), odd.body(), "{dialect:?}");
        assert!(answer.header("x-product-base-cost-usd").is_some_and(|cost| cost != "0"), "{answer}");
        calls += 1;
    }
    assert_eq!(used(&world.app, &world.ada).await, calls, "each is counted");
    let metrics = world.app.metrics().send().await.expect_status(200).text;
    for provider in ["openai", "anthropic", "gcp.gemini"] {
        let of = |name: &str| -> u64 {
            let line = format!("{name}{{gen_ai_provider_name=\"{provider}\"}} ");
            metrics.lines().find_map(|text| text.strip_prefix(&line)).unwrap().parse().unwrap()
        };
        assert!(of("ai_unread_events_total") > 0, "{provider}");
        assert_eq!(of("ai_failures_total"), 0, "{provider} did nothing wrong");
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_off_ends_with_an_error() {
    let world = world().await;
    for (dialect, frames) in ODD {
        let answer = world.stream(dialect, RawReply::events(frames).cut_off()).await.expect_status(200);
        assert!(events(&answer.text).last().unwrap()["error"].is_object(), "{answer}");
    }
}

#[tokio::test]
async fn what_the_gateway_does_not_need_is_the_providers_to_judge() {
    let world = world().await;
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.1: no such role"}}"#;
    for (dialect, change) in [
        (Dialect::Anthropic, json!({ "messages": [{ "role": "robot", "content": 5 }], "max_tokens": -1 })),
        (Dialect::Anthropic, json!({ "messages": "x", "stream": "yes" })),
        (Dialect::OpenAi, json!({ "messages": [], "max_tokens": "many", "n": -3 })),
        (Dialect::Gemini, json!({ "contents": {}, "generationConfig": { "maxOutputTokens": "9" } })),
    ] {
        world.upstream.answer(RawReply::json(400, refusal));
        let mut body = dialect.body(dialect.own_model(), "x");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let request = world.app.post(&dialect.path(dialect.own_model())).json(&body);
        let answer = dialect.signed(request, &world.key).send().await.expect_status(400);
        assert_eq!(answer.text, refusal, "{body}");
        let sent: Value = serde_json::from_slice(&world.upstream.requests().last().unwrap().body).unwrap();
        for (name, value) in change.as_object().unwrap().iter().filter(|(name, _)| *name != "stream") {
            assert_eq!(&sent[name], value, "it goes on as it came");
        }
    }
}

#[tokio::test]
async fn refusals_keep_their_status_words_and_headers() {
    let world = world().await;
    let refusal = |dialect: Dialect, status: u16| {
        let error = json!({ "type": "x", "message": "not so", "code": status });
        let body = if dialect == Dialect::Anthropic {
            json!({ "type": "error", "error": error })
        } else {
            json!({ "error": error })
        };
        RawReply::json(status, &body.to_string())
            .with_header("x-ratelimit-remaining-tokens", "77")
            .with_header("anthropic-ratelimit-requests-remaining", "5")
            .with_header("x-request-id", "theirs")
            .with_header("openai-organization", "acme")
    };
    for dialect in ALL {
        for status in [400, 403, 404, 409, 413, 422] {
            let reply = refusal(dialect, status);
            let answer = world.ask(dialect, reply.clone()).await.expect_status(status);
            assert_eq!(answer.text.as_bytes(), reply.body(), "{answer}");
            assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("77"), "{answer}");
            assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), Some("5"), "{answer}");
            assert_eq!(answer.header("x-product-base-upstream-request-id"), Some("theirs"), "{answer}");
            assert_ne!(answer.header("x-request-id"), Some("theirs"), "{answer}");
            assert_eq!(answer.header("openai-organization"), None, "{answer}");
            // A proxy's HTML page becomes an error in the dialect.
            let page = RawReply { status, ..RawReply::of("text/html", &[b"<html>nginx</html>"]) };
            let told = Dialect::expect_status_and_shape(world.ask(dialect, page).await, status);
            assert!(!told.text.contains("nginx"), "{told}");
        }
        for status in [401, 403] {
            let reply = RawReply::json(
                status,
                r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#,
            );
            dialect.expect_error(world.ask(dialect, reply).await, 502);
        }
        let slow = world.ask(dialect, refusal(dialect, 429).with_header("retry-after", "9")).await.expect_status(429);
        assert_eq!((slow.header("retry-after"), slow.header("x-ratelimit-remaining-tokens")), (Some("9"), Some("77")));
    }
    assert_eq!(used(&world.app, &world.ada).await, 0, "what is refused is not charged");
    let answered = RawReply::json(200, r#"{"type":"message","content":[{"type":"text","text":"x"}]}"#);
    let answered = answered.with_header("request-id", "req_1").with_header("anthropic-ratelimit-tokens-limit", "100");
    let answer = world.ask(Dialect::Anthropic, answered).await.expect_status(200);
    assert_eq!(answer.header("request-id"), Some("req_1"));
    assert_eq!(answer.header("anthropic-ratelimit-tokens-limit"), Some("100"));
}

#[tokio::test]
async fn an_overloaded_provider_is_told_as_overloaded() {
    let world = world().await;
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for dialect in ALL {
        let answer = world.ask(dialect, RawReply::json(529, overloaded)).await.expect_status(529);
        assert!(answer.at("/error").is_object(), "{answer}");
    }
    let answer = world.ask(Dialect::Anthropic, RawReply::json(529, overloaded)).await;
    Dialect::Anthropic.expect_error(answer, 529);
    let first =
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";
    let error = format!("event: error\ndata: {overloaded}\n\n");
    let answer = world.stream(Dialect::Anthropic, RawReply::events(&[first, &error])).await.expect_status(200);
    let last = events(&answer.text).pop().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("overloaded_error")), "{answer}");
}

#[tokio::test]
async fn a_provider_that_echoes_the_key_hands_it_to_nobody() {
    let world = world().await;
    for dialect in ALL {
        for (model, status) in
            ALL.into_iter().flat_map(|of| [400, 404, 429, 500, 529].map(|status| (of.own_model(), status)))
        {
            for echo in [format!("Authorization: Bearer {KEY}"), KEY.to_uppercase(), KEY[..16].to_owned()] {
                let body = format!(r#"{{"error":{{"type":"x","message":"you sent {echo}","code":"{echo}"}}}}"#);
                let reply = RawReply::json(status, &body).with_header("x-ratelimit-echo", &echo);
                world.upstream.answer(reply);
                let answer = dialect.ask(&world.app, &world.key, model).send().await;
                let headers = format!("{:?}", answer.headers);
                for text in [&answer.text, &headers] {
                    assert!(!text.to_lowercase().contains("zk8qp"), "{dialect:?} {model} {status}: {text}");
                    assert!(!text.contains("0perat0r"), "{dialect:?} {model} {status}: {text}");
                }
            }
        }
    }
}
