//! Limits of the plan and of the balance: every call that reaches the provider has a reservation, which is settled with
//! the actual use.

use std::time::Duration;

use app::settings::models::parse;
use domain::ai::ProviderProfiles;
use futures_util::future::join_all;
use harness::{Answer, eventually};
use serde_json::{Value, json};
use testkit::upstream::{AnswerPace, Fault, Refusal, Script, ScriptedAnswer, Why};

use super::stage::{Stage, catalogue, hello, prices, said, words};
use crate::HEARD_WITHIN;
use crate::usage::allow;

/// A call with this limit on its output tokens.
fn bounded(most: u64) -> Value {
    let mut body = hello("gpt-one");
    body["max_tokens"] = json!(most);
    body
}

fn held_at_once() -> Script {
    Script::words(3).priced(prices()).with_fault(Fault::HoldAfter { events: 0 })
}

async fn ledger(stage: &Stage) -> Vec<(i64, String)> {
    let sql = "SELECT amount::bigint, type::text FROM token_transactions ORDER BY seq DESC LIMIT 3";
    stage.app.database().query_all(sql).await
}

#[tokio::test]
async fn a_plan_without_the_feature_and_a_limit_that_is_reached() {
    let stage = Stage::set().await;
    let eve = stage.app.signup("eve@example.com").await;
    stage.ask(&eve, hello("gpt-one")).await.expect_problem(403, "feature_not_in_plan");
    allow(&stage.app, &stage.ada, "limit_value = 1, overage = 'block'").await;
    stage.chat(hello("gpt-one")).await.expect_status(200);
    for streamed in [false, true] {
        let mut body = hello("gpt-one");
        body["stream"] = json!(streamed);
        let refused = stage.chat(body).await.expect_problem(429, "limit_reached");
        assert_eq!(
            (refused.at("/limit"), refused.at("/current"), refused.at("/remaining")),
            (&json!(1), &json!(1), &json!(0))
        );
        assert_eq!(refused.header("x-should-retry"), Some("false"));
        assert!(refused.text_at("/resets_at").ends_with('Z'));
    }
    allow(&stage.app, &stage.ada, "enabled = false").await;
    stage.chat(hello("gpt-one")).await.expect_problem(403, "feature_not_in_plan");
    assert_eq!(stage.upstream.requests().len(), 1);
    stage.settled(1).await;
}

#[tokio::test]
async fn a_model_without_a_price_is_for_those_who_have_no_limit() {
    let priceless = "[[models]]\nid = \"free-one\"\nprovider = \"openai\"\nuntil = \"2020-01-01\"\n\
                     prices = { input = \"1\", output = \"1\" }\n";
    let stage = Stage::with(|settings| {
        settings.ai.models = parse(&(catalogue() + priceless), &ProviderProfiles::default()).unwrap();
    })
    .await;
    let quote = stage.quote(hello("free-one")).await.expect_status(200);
    assert_eq!((quote.at("/max_cost_usd"), quote.at("/affordable")), (&Value::Null, &json!(true)));
    let answer = stage.chat(hello("free-one")).await.expect_status(200);
    assert_eq!(answer.at("/cost_usd"), &Value::Null);
    stage.settled(1).await;
    assert_eq!(
        stage.number("SELECT count(*) FROM ai_usage_logs WHERE cost_nano_usd = 0 AND price_version IS NULL").await,
        1
    );
    let key = stage.app.post("/api/keys").bearer(&stage.ada);
    let key =
        key.json(json!({ "name": "small", "limits": { "monthly_cost_usd": "5" } })).send().await.expect_status(201);
    stage.ask(key.text_at("/key"), hello("free-one")).await.expect_problem(403, "unpriced_model");
    allow(&stage.app, &stage.ada, "limit_value = 100, overage = 'block'").await;
    let refused = |quote: &Answer| quote.status == 403;
    let quote = eventually(HEARD_WITHIN, || stage.quote(hello("free-one")), refused).await;
    quote.expect_problem(403, "unpriced_model");
    stage.chat(hello("free-one")).await.expect_problem(403, "unpriced_model");
    assert_eq!(stage.upstream.requests().len(), 1);
}

/// A key that can pay for the called model is not refused because of a fallback; one that can pay for both has it.
#[tokio::test]
async fn a_fallback_that_a_key_cannot_pay_for_is_passed_over() {
    let dear = "[[models]]\nid = \"dear-one\"\nprovider = \"claude\"\nmax_input_tokens = 2000\n\
                max_output_tokens = 1000\nprices = { input = \"2000\", output = \"10000\" }\n";
    let stage = Stage::with(|settings| {
        settings.ai.models = parse(&(catalogue() + dear), &ProviderProfiles::default()).unwrap();
        let fallbacks = vec!["dear-one".to_owned(), "gemini-one".to_owned()];
        settings.ai.fallbacks = [("gpt-one".to_owned(), fallbacks)].into();
    })
    .await;
    stage.upstream.script_others(Script::words(3).priced(prices()));
    let small = stage.key(json!({ "monthly_cost_usd": "0.05" })).await;
    let large = stage.key(json!({ "monthly_cost_usd": "100" })).await;
    let mut calls = 0;
    for body in [bounded(50), hello("gpt-one")] {
        let answer = stage.ask(small.text_at("/key"), body.clone()).await.expect_status(200);
        assert_eq!(answer.at("/model"), "gpt-one");
        stage.begin(small.text_at("/key"), body).await.text().await.unwrap();
        calls += 2;
    }
    stage.settled(calls).await;
    stage.upstream.script("gpt-one", Script::refuses(Refusal::of(Why::Unavailable)));
    let answer = stage.ask(small.text_at("/key"), bounded(50)).await.expect_status(200);
    assert_eq!(answer.at("/model"), "gemini-one", "the fallback that it can pay for");
    let answer = stage.ask(large.text_at("/key"), bounded(50)).await.expect_status(200);
    assert_eq!(answer.at("/model"), "dear-one");
    let broke = stage.key(json!({ "monthly_cost_usd": "0.00001" })).await;
    stage.ask(broke.text_at("/key"), bounded(50)).await.expect_problem(429, "key_cost_limit");
}

#[tokio::test]
async fn beyond_the_limit_the_balance_is_held_and_spent_by_the_tokens_of_the_model() {
    let stage = Stage::set().await;
    stage.pays_beyond(1, 1_000).await;
    stage.upstream.script_others(Script::words(7).priced(prices()));
    let within = stage.chat(bounded(50)).await.expect_status(200);
    assert_eq!((within.at("/tokens_spent"), stage.available().await), (&json!(0), 1_000));
    stage
        .upstream
        .script_others(Script { fault: Some(Fault::HoldAfter { events: 0 }), ..Script::words(7).priced(prices()) });
    let quote = stage.quote(bounded(50)).await.expect_status(200);
    let tokens = quote.at("/tokens").as_i64().unwrap();
    assert_eq!((quote.at("/max_output_tokens"), quote.at("/affordable")), (&json!(50), &json!(true)));
    assert_eq!(tokens, quote.at("/input_tokens").as_i64().unwrap() + 50);
    let waits = async {
        stage.upstream.until("the call", |stub| stub.held() == 1).await;
        assert_eq!(stage.available().await, 1_000 - tokens, "what was quoted is held");
        let hold = "SELECT (detail->>'max_cost_nano_usd')::bigint FROM usage_reservations WHERE status = 'pending'";
        let most: rust_decimal::Decimal = quote.text_at("/max_cost_usd").parse().unwrap();
        assert_eq!(rust_decimal::Decimal::new(stage.number(hold).await, 9), most);
        stage.upstream.let_go(1);
    };
    let (beyond, ()) = tokio::join!(stage.chat(bounded(50)), waits);
    let beyond = beyond.expect_status(200);
    let bill = stage.expect_bill(2).await;
    let used = i64::try_from(bill[1].usage.input() + bill[1].usage.output()).unwrap();
    assert_eq!((beyond.at("/tokens_spent"), stage.available().await), (&json!(used), 1_000 - used));
    assert_eq!(ledger(&stage).await[0], (-used, "usage".to_owned()));
    assert_eq!(stage.number("SELECT overage FROM usage_counters WHERE feature_id = 'ai_requests'").await, 1);
}

#[tokio::test]
async fn what_the_balance_does_not_pay_is_refused_or_lowered_where_that_was_asked() {
    let stage = Stage::set().await;
    stage.pays_beyond(0, 100).await;
    stage.upstream.script_others(Script::words(500).priced(prices()));
    let refused = stage.chat(bounded(900)).await.expect_problem(402, "insufficient_tokens");
    let needed = refused.at("/needed").as_i64().unwrap();
    assert_eq!((needed > 900, refused.at("/available")), (true, &json!(100)));
    assert_eq!(stage.quote(bounded(900)).await.expect_status(200).at("/affordable"), &json!(false));
    assert!(stage.upstream.requests().is_empty());
    let most = 100 - (needed - 900);
    for model in ["gpt-one", "claude-one", "gemini-one"] {
        stage.pays_beyond(0, 100).await;
        let mut body = bounded(900);
        (body["lower_max_tokens"], body["model"]) = (json!(true), json!(model));
        let lowered = stage.chat(body).await.expect_status(200);
        let lowered_to = lowered.at("/lowered_to").as_i64().unwrap();
        assert!(lowered_to <= most && lowered_to >= most - needed, "{lowered_to} of {most}");
        assert_eq!(lowered.header("x-product-base-max-tokens"), Some(lowered_to.to_string().as_str()));
        assert_eq!((lowered.text_at("/finish_reason"), lowered.at("/usage/output")), ("length", &json!(lowered_to)));
        let told = stage.upstream.requests().last().unwrap().json().unwrap().to_string();
        assert!(told.contains(&format!(":{lowered_to}")), "the provider is told: {told}");
        assert!(stage.available().await >= 0);
    }
    let spent = stage.chat(json!({ "message": words(200), "lower_max_tokens": true })).await;
    spent.expect_problem(402, "insufficient_tokens");
    stage.expect_bill(3).await;
}

#[tokio::test]
async fn a_stream_holds_more_than_its_first_part_where_there_is_more() {
    let stage = Stage::with(|settings| settings.ai.calls.assumed_output_tokens = 100).await;
    stage.pays_beyond(0, 1_500).await;
    stage.upstream.script_others(Script::says(&words(600)).priced(prices()));
    let events = stage.stream(hello("gpt-one")).await;
    assert_eq!(said(&events), words(600));
    let done = events.last().unwrap();
    assert_eq!((&done.data["finish_reason"], &done.data["lowered_to"]), (&json!("stop"), &json!(790)));
    let bill = stage.expect_bill(1).await;
    let used = i64::try_from(bill[0].usage.input() + bill[0].usage.output()).unwrap();
    assert_eq!((&done.data["tokens_spent"], stage.available().await), (&json!(used), 1_500 - used));
    assert_eq!(stage.number("SELECT unpaid_tokens FROM ai_usage_logs").await, 0);
}

#[tokio::test]
async fn a_stream_is_told_what_is_held_for_it_and_ends_there() {
    let stage = Stage::with(|settings| settings.ai.calls.assumed_output_tokens = 100).await;
    stage.pays_beyond(0, 350).await;
    let pace = AnswerPace { between: Duration::from_millis(2), ..AnswerPace::default() };
    stage.upstream.script_others(Script::says(&words(900)).priced(prices()).paced(pace));
    let events = stage.stream(hello("gpt-one")).await;
    let done = events.last().unwrap();
    assert_eq!((done.name.as_str(), &done.data["finish_reason"]), ("done", &json!("length")));
    stage.settled(1).await;
    let (input, output, cost, source, outcome) = stage.books().await.remove(0);
    assert_eq!((source.as_str(), outcome.as_str(), cost > 0), ("provider", "ok", true));
    assert_eq!(done.data["tokens_spent"], json!(input + output));
    assert!((200..=350).contains(&(input + output)), "all that the balance pays, and no more: {input} + {output}");
    assert_eq!(stage.number("SELECT unpaid_tokens FROM ai_usage_logs").await, 0);
    assert_eq!(stage.available().await, 350 - input - output);
    stage.expect_in_order().await;
}

#[tokio::test]
async fn what_was_used_beyond_all_that_is_there_is_recorded_as_unpaid() {
    let stage = Stage::set().await;
    stage.pays_beyond(0, 100).await;
    let answer = ScriptedAnswer { input_tokens: Some(1_200), ..ScriptedAnswer::default() };
    stage.upstream.script_others(Script { answer, ..Script::default() }.priced(prices()));
    let answered = stage.chat(bounded(20)).await.expect_status(200);
    assert_eq!((answered.at("/tokens_spent"), stage.available().await), (&json!(100), 0));
    assert_eq!(stage.number("SELECT unpaid_tokens FROM ai_usage_logs").await, 1_208 - 100);
    stage.expect_bill(1).await;
}

#[tokio::test]
async fn of_64_calls_at_once_on_a_balance_for_five_exactly_five_reach_the_provider() {
    let stage = Stage::set().await;
    stage.pays_beyond(0, 100).await;
    let each = stage.quote(bounded(20)).await.expect_status(200).at("/tokens").as_i64().unwrap();
    stage.pays_beyond(0, 6 * each - 1).await;
    stage.upstream.script_others(held_at_once());
    let calls = join_all((0..64).map(|_| stage.chat(bounded(20))));
    let waits = async {
        stage.upstream.until("five calls", |stub| stub.held() == 5).await;
        // Refused calls take no longer than granted ones.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((stage.upstream.held(), stage.available().await), (5, each - 1));
        stage.upstream.let_go(64);
    };
    let (answers, ()) = tokio::join!(calls, waits);
    let granted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(granted, 5);
    assert!(answers.iter().all(|answer| [200, 402].contains(&answer.status)), "{answers:?}");
    assert_eq!(stage.upstream.totals().requests, 5);
    stage.expect_bill(5).await;
    let used: i64 = stage.books().await.iter().map(|(input, output, ..)| input + output).sum();
    assert_eq!(stage.available().await, 6 * each - 1 - used);
}

#[tokio::test]
async fn a_limit_of_requests_is_exact_under_64_calls_at_once() {
    let stage = Stage::set().await;
    allow(&stage.app, &stage.ada, "limit_value = 5, overage = 'block'").await;
    stage.upstream.script_others(Script::words(3).priced(prices()));
    let answers = join_all((0..64).map(|_| stage.chat(hello("gpt-one")))).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(429), stage.upstream.totals().requests), (5, 59, 5));
    stage.expect_bill(5).await;
}

#[tokio::test]
async fn the_hold_of_a_call_is_nobodys_reservation() {
    let stage = Stage::set().await;
    stage.upstream.script_others(held_at_once());
    let waits = async {
        stage.upstream.until("the call", |stub| stub.held() == 1).await;
        let id: String =
            stage.app.database().query_scalar("SELECT id::text FROM usage_reservations WHERE status = 'pending'").await;
        for (action, body) in
            [("settle", json!({ "amount": 0 })), ("release", json!({})), ("extend", json!({ "amount": 5 }))]
        {
            let path = format!("/api/usage/reservations/{id}/{action}");
            let request = stage.app.post(&path).bearer(&stage.ada);
            let request = if action == "release" { request } else { request.json(body) };
            request.send().await.expect_problem(404, "not_found");
        }
        stage.upstream.let_go(1);
    };
    let (answer, ()) = tokio::join!(stage.chat(hello("gpt-one")), waits);
    answer.expect_status(200);
    stage.expect_bill(1).await;
}
