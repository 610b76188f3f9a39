//! Whole and streamed responses; every number in them is the provider's.

use rust_decimal::Decimal;
use serde_json::{Value, json};
use testkit::upstream::{Script, UsageParts, UsageTold};

use super::stage::{MODELS, Stage, hello, prices, said};

fn usd(nano: u64) -> String {
    Decimal::new(i64::try_from(nano).unwrap(), 9).normalize().to_string()
}

/// A response with cache reads, cache writes and reasoning.
fn rich(text: &str) -> Script {
    let besides = UsageParts { cache_read: 31, cache_write_short: 17, cache_write_long: 5, ..UsageParts::default() };
    Script::says(text).thinking("I think about it").using(besides).priced(prices())
}

#[tokio::test]
async fn each_provider_answers_whole_and_as_events_at_the_price_of_its_bill() {
    let stage = Stage::set().await;
    let text = "Gut: 東京 und\n\"Zürich\" 🦀.";
    stage.upstream.script_others(rich(text));
    let opened = stage.app.post("/api/ai/sessions").bearer(&stage.ada).json(json!({})).send().await.expect_status(201);
    for (provider, model) in MODELS {
        let mut body = hello(model);
        body["session_id"] = opened.at("/id").clone();
        let whole = stage.chat(body.clone()).await.expect_status(200);
        assert_eq!((whole.text_at("/message/content"), whole.text_at("/message/role")), (text, "assistant"));
        let events = stage.stream(body).await;
        assert_eq!((events[0].name.as_str(), &events[0].data["provider"]), ("start", &json!(provider)));
        assert_eq!(said(&events), text);
        let done = events.last().unwrap();
        assert_eq!(done.name, "done", "{done:?}");
        let lines = stage.upstream.settled(1).await;
        for (outcome, line) in [&whole.body, &done.data].into_iter().zip(&lines[lines.len() - 2..]) {
            assert_eq!(
                (&outcome["cost_usd"], &outcome["source"]),
                (&json!(usd(line.nano_dollars)), &json!("provider"))
            );
            assert_eq!((&outcome["provider"], &outcome["model"]), (&json!(provider), &json!(model)));
            assert_eq!((&outcome["finish_reason"], &outcome["tokens_spent"]), (&json!("stop"), &json!(0)));
            let told = (&outcome["usage"]["input"], &outcome["usage"]["output"], &outcome["usage"]["cached"]);
            assert_eq!(told, (&json!(line.usage.input()), &json!(line.usage.output()), &json!(31)));
            assert_eq!(outcome["session_id"], *opened.at("/id"));
        }
        assert_eq!(whole.header("x-product-base-cost-usd"), whole.body["cost_usd"].as_str());
        assert_eq!(whole.header("x-product-base-call-id"), whole.body["id"].as_str());
    }
    let bill = stage.expect_bill(6).await;
    let (tokens, nano) = bill.iter().fold((0, 0), |(tokens, nano), line| {
        (tokens + line.usage.input() + line.usage.output(), nano + line.nano_dollars)
    });
    let usage = stage.app.get("/api/ai/usage").bearer(&stage.ada).send().await.expect_status(200);
    let told = (usage.at("/requests"), usage.at("/tokens/total"), usage.at("/cost_usd"));
    assert_eq!(told, (&json!(6), &json!(tokens), &json!(usd(nano))));
    let path = format!("/api/ai/sessions/{}", opened.text_at("/id"));
    let session = stage.app.get(&path).bearer(&stage.ada).send().await.expect_status(200);
    let told = (session.at("/tokens"), session.at("/cost_usd"), session.at("/messages"));
    assert_eq!(told, (&json!(tokens), &json!(usd(nano)), &json!(12)));
    let of_messages = "SELECT sum(cost_nano_usd)::bigint FROM chat_messages";
    assert_eq!(stage.number(of_messages).await, i64::try_from(nano).unwrap(), "the messages share the whole cost");
    assert_eq!(stage.number("SELECT used FROM usage_counters WHERE feature_id = 'ai_requests'").await, 6);
}

#[tokio::test]
async fn a_provider_that_says_nothing_of_its_usage_is_estimated_and_flagged() {
    let stage = Stage::set().await;
    ask_all(&stage, UsageTold::Absent).await;
    for (input, output, cost, source, outcome) in stage.books().await {
        assert_eq!((source.as_str(), outcome.as_str()), ("estimated", "ok"));
        assert!(input > 2 && output == 4 && cost > 0, "{input} {output} {cost}");
    }
    stage.expect_in_order().await;
}

#[tokio::test]
async fn a_provider_that_says_that_nothing_was_used_is_charged_nothing_for() {
    let stage = Stage::set().await;
    ask_all(&stage, UsageTold::Zero).await;
    for (input, output, cost, source, outcome) in stage.books().await {
        assert_eq!((source.as_str(), outcome.as_str()), ("provider", "ok"));
        assert_eq!((input, output, cost), (0, 0, 0));
    }
    stage.expect_in_order().await;
}

/// Calls every model, whole and streamed.
async fn ask_all(stage: &Stage, told: UsageTold) {
    stage.upstream.script_others(Script::says("a a a a").telling(told));
    for (_, model) in MODELS {
        for streamed in [false, true] {
            let mut body = hello(model);
            body["stream"] = json!(streamed);
            stage.chat(body).await.expect_status(200);
        }
    }
    stage.settled(6).await;
}

#[tokio::test]
async fn usage_that_comes_late_is_waited_for() {
    let stage = Stage::set().await;
    let late = UsageTold::Late(std::time::Duration::from_millis(300));
    stage.upstream.script_others(Script::words(5).telling(late).priced(prices()));
    for (_, model) in MODELS {
        let events = stage.stream(hello(model)).await;
        assert_eq!(events.last().unwrap().data["source"], "provider");
    }
    stage.expect_bill(3).await;
}

#[tokio::test]
async fn a_call_may_take_longer_than_any_other_request() {
    let stage = Stage::with(|settings| settings.server.request_timeout_seconds = 1).await;
    let pace =
        testkit::upstream::AnswerPace { before_head: std::time::Duration::from_millis(1_800), ..Default::default() };
    stage.upstream.script_others(Script::words(3).priced(prices()).paced(pace));
    let answer = stage.chat(hello("gpt-one")).await.expect_status(200);
    assert_eq!(answer.at("/usage/output"), &json!(3));
    let events = stage.stream(hello("claude-one")).await;
    assert_eq!(events.last().unwrap().name, "done");
    stage.expect_bill(2).await;
}

#[tokio::test]
async fn without_a_key_the_sandbox_answers_and_bills_nobody() {
    let stage = Stage::with(|settings| settings.ai.openai.api_key = app::settings::shape::SecretText::new("")).await;
    let answer = stage.chat(hello("gpt-one")).await.expect_status(200);
    assert_eq!((answer.at("/source"), answer.at("/cost_usd")), (&json!("sandbox"), &Value::Null));
    assert!(!answer.text_at("/message/content").is_empty());
    let events = stage.stream(hello("gpt-one")).await;
    assert_eq!(said(&events), answer.text_at("/message/content"), "it says the same to the same");
    stage.settled(2).await;
    assert!(stage.books().await.iter().all(|(.., cost, source, _)| (*cost, source.as_str()) == (0, "sandbox")));
    assert!(stage.upstream.requests().is_empty());
    stage.expect_in_order().await;
}
