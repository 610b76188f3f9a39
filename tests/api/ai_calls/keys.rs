//! Limits of API keys: exact under concurrent calls, freed by calls without a result, and counted in their own window.

use std::time::Duration;

use chrono::Timelike as _;
use futures_util::future::join_all;
use harness::Answer;
use serde_json::{Value, json};
use testkit::upstream::{AnswerPace, Fault, Refusal, Script, Why};

use super::stage::{Stage, hello, prices, words};
use crate::now;

const AT_ONCE: usize = 32;

fn bounded() -> Value {
    let mut body = hello("gpt-one");
    body["max_tokens"] = json!(20);
    body
}

/// Waits until the current minute is not about to end, so that the test stays within one.
pub async fn well_within_a_minute() {
    while now().second() >= 45 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Many concurrent calls with one API key, of which this many are granted.
async fn burst(stage: &Stage, key: &Answer, granted: usize, code: &str) -> Vec<Answer> {
    stage.upstream.script_others(Script::words(3).priced(prices()).with_fault(Fault::HoldAfter { events: 0 }));
    let calls = join_all((0..AT_ONCE).map(|_| stage.ask(key.text_at("/key"), bounded())));
    let waits = async {
        stage.upstream.until("the granted calls", |stub| stub.held() == granted as u64).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(stage.upstream.held(), granted as u64, "as long as they are held, no other is");
        stage.upstream.let_go(granted);
    };
    let (answers, ()) = tokio::join!(calls, waits);
    stage.upstream.script_others(Script::words(3).priced(prices()));
    let (passed, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(passed.len(), granted);
    refused.into_iter().map(|answer| answer.expect_problem(429, code)).collect()
}

async fn to_the_window_before(stage: &Stage, period: &str) {
    let sql = format!(
        "UPDATE api_key_counters SET period_start = period_start - interval '1 {period}' WHERE period = '{period}'"
    );
    stage.app.database().sql(&sql).await;
}

#[tokio::test]
async fn requests_of_a_minute_are_exact_and_start_again() {
    let stage = Stage::set().await;
    let key = stage.key(json!({ "requests_per_minute": 5 })).await;
    well_within_a_minute().await;
    let refused = burst(&stage, &key, 5, "key_request_limit").await;
    assert_eq!((refused[0].at("/limit"), refused[0].at("/current")), (&json!(5), &json!(5)));
    let wait: u64 = refused[0].header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    stage.ask(key.text_at("/key"), bounded()).await.expect_problem(429, "key_request_limit");
    stage.chat(bounded()).await.expect_status(200);
    to_the_window_before(&stage, "minute").await;
    stage.ask(key.text_at("/key"), bounded()).await.expect_status(200);
    stage.expect_bill(7).await;
}

#[tokio::test]
async fn tokens_of_a_minute_are_exact_and_what_is_not_used_is_free_again() {
    let stage = Stage::set().await;
    let quote = stage.quote(bounded()).await.expect_status(200);
    let each = quote.at("/input_tokens").as_i64().unwrap() + 20;
    let key = stage.key(json!({ "tokens_per_minute": 5 * each - 1 })).await;
    well_within_a_minute().await;
    let refused = burst(&stage, &key, 4, "key_token_limit").await;
    let numbers = (refused[0].at("/limit"), refused[0].at("/current"), refused[0].at("/needed"));
    assert_eq!(numbers, (&json!(5 * each - 1), &json!(4 * each), &json!(each)));
    let bill = stage.expect_bill(4).await;
    let used: u64 = bill.iter().map(|line| line.usage.input() + line.usage.output()).sum();
    let counted = "SELECT tokens FROM api_key_counters WHERE period = 'minute'";
    assert_eq!(stage.number(counted).await, i64::try_from(used).unwrap());
    let mut larger = bounded();
    larger["max_tokens"] = json!(900);
    let refused = stage.ask(key.text_at("/key"), larger.clone()).await.expect_problem(429, "key_token_limit");
    assert_eq!((refused.header("x-should-retry"), refused.header("retry-after")), (Some("false"), None));
    larger["lower_max_tokens"] = json!(true);
    let lowered = stage.ask(key.text_at("/key"), larger).await.expect_status(200);
    let room = 5 * each - 1 - i64::try_from(used).unwrap();
    assert_eq!(lowered.at("/lowered_to"), &json!(room - (each - 20)));
    stage.expect_bill(5).await;
}

#[tokio::test]
async fn the_cost_of_a_month_is_exact_and_counts_what_was_spent_before_the_limit() {
    let stage = Stage::set().await;
    stage.upstream.script_others(Script::words(3).priced(prices()));
    let quote = stage.quote(bounded()).await.expect_status(200);
    let each: rust_decimal::Decimal = quote.text_at("/max_cost_usd").parse().unwrap();
    let key = stage.key(json!({})).await;
    stage.ask(key.text_at("/key"), bounded()).await.expect_status(200);
    let before = stage.books().await[0].2;
    let limit = rust_decimal::Decimal::new(before, 9) + each * rust_decimal::Decimal::from(5);
    let path = format!("/api/keys/{}", key.text_at("/id"));
    let body = json!({ "limits": { "monthly_cost_usd": limit.to_string() } });
    stage.app.patch(&path).bearer(&stage.ada).json(body).send().await.expect_status(200);
    let refused = burst(&stage, &key, 5, "key_cost_limit").await;
    assert_eq!(refused[0].text_at("/limit_usd"), limit.normalize().to_string());
    assert_eq!(refused[0].header("x-should-retry"), Some("false"));
    stage.expect_bill(6).await;
    let spent: i64 = stage.books().await.iter().map(|(_, _, cost, ..)| cost).sum();
    assert_eq!(stage.number("SELECT cost_nano_usd FROM api_key_counters WHERE period = 'month'").await, spent);
}

#[tokio::test]
async fn a_call_that_came_to_nothing_frees_all_that_it_held_of_the_key() {
    let stage = Stage::set().await;
    let key =
        stage.key(json!({ "requests_per_minute": 1, "tokens_per_minute": 100, "monthly_cost_usd": "0.01" })).await;
    stage.upstream.script_others(Script::refuses(Refusal::of(Why::Invalid("no".to_owned()))));
    well_within_a_minute().await;
    for _ in 0..3 {
        stage.ask(key.text_at("/key"), bounded()).await.expect_problem(400, "provider_refused");
    }
    let counted: Vec<(i64, i64, i64)> =
        stage.app.database().query_all("SELECT requests, tokens, cost_nano_usd FROM api_key_counters").await;
    assert_eq!(counted, [(0, 0, 0), (0, 0, 0)]);
    stage.upstream.script_others(Script::words(3).priced(prices()));
    stage.ask(key.text_at("/key"), bounded()).await.expect_status(200);
    stage.ask(key.text_at("/key"), bounded()).await.expect_problem(429, "key_request_limit");
    stage.expect_bill(1).await;
}

/// A call first reserves less than it uses, and extends the reservation as it goes; the same holds for the key's
/// limits.
#[tokio::test]
async fn a_stream_without_a_bound_outgrows_no_limit_of_its_key() {
    let stage = Stage::with(|settings| settings.ai.calls.assumed_output_tokens = 100).await;
    let pace = AnswerPace { between: Duration::from_millis(2), ..AnswerPace::default() };
    // An output word costs 10,000.029 nano-dollars, so this is enough for about 300.
    for (limits, limit, used) in [
        (json!({ "tokens_per_minute": 350 }), 350, "SELECT tokens FROM api_key_counters WHERE period = 'minute'"),
        (
            json!({ "monthly_cost_usd": "0.0031" }),
            3_100_000,
            "SELECT cost_nano_usd FROM api_key_counters WHERE period = 'month' AND cost_nano_usd > 0",
        ),
    ] {
        stage.app.database().sql("DELETE FROM api_key_counters").await;
        let key = stage.key(limits).await;
        stage.upstream.script_others(Script::says(&words(150)).priced(prices()).paced(pace.clone()));
        well_within_a_minute().await;
        let whole = stage.begin(key.text_at("/key"), hello("gpt-one")).await.text().await.unwrap();
        assert!(whole.contains("\"finish_reason\":\"stop\""), "it grew beyond what was held at first: {whole}");
        let of_the_first = stage.number(used).await;
        assert!(of_the_first > 0 && of_the_first < limit);
        stage.upstream.script_others(Script::says(&words(900)).priced(prices()).paced(pace.clone()));
        let cut = stage.begin(key.text_at("/key"), hello("gpt-one")).await.text().await.unwrap();
        assert!(cut.contains("\"finish_reason\":\"length\""), "{cut}");
        let in_all = stage.number(used).await;
        assert!(
            (limit * 8 / 10..=limit).contains(&in_all),
            "nearly all that the key may, and no more: {in_all} of {limit}"
        );
        let held = "SELECT sum(tokens_reserved + cost_reserved_nano_usd)::bigint FROM api_key_counters";
        assert_eq!(stage.number(held).await, 0);
    }
    stage.expect_in_order().await;
}
