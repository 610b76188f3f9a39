//! Streams that reserve a first part of their token limit and extend it: admitted although the whole limit would not
//! be, cut off at the limit, and never beyond it.

use std::time::Duration;

use app::settings::models::parse;
use app::settings::shape::Settings;
use domain::ai::ProviderProfiles;
use futures_util::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};
use testkit::upstream::{AnswerPace, Fault, Script};

use super::stage::{Stage, prices, words};

const DIALECTS: [&str; 3] = ["openai", "claude", "gemini"];

/// Models with the token limits of real ones.
async fn stage(change: impl FnOnce(&mut Settings)) -> Stage {
    Stage::with(|settings| {
        let catalogue = super::stage::catalogue();
        let catalogue =
            catalogue.replace("tokens = 2000\n", "tokens = 1000000\n").replace("tokens = 1000\n", "tokens = 128000\n");
        settings.ai.models = parse(&catalogue, &ProviderProfiles::default()).unwrap();
        change(settings);
    })
    .await
}

/// No token limit, if the dialect allows that; Claude requires one.
const UNBOUNDED: u64 = 100_000;

/// A stream in its provider's dialect, with a token limit.
async fn ask(stage: &Stage, key: &str, dialect: &str, most: u64, is_strict: bool) -> Response {
    let message = json!([{ "role": "user", "content": "Hello there" }]);
    let (path, mut body): (_, Value) = match dialect {
        "openai" => (
            "/v1/chat/completions",
            json!({ "model": "gpt-one", "messages": message, "max_completion_tokens": most, "stream": true }),
        ),
        "claude" => {
            ("/v1/messages", json!({ "model": "claude-one", "messages": message, "max_tokens": most, "stream": true }))
        }
        _ => (
            "/v1beta/models/gemini-one:streamGenerateContent?alt=sse",
            json!({ "contents": [{ "parts": [{ "text": "Hello there" }] }], "generationConfig": { "maxOutputTokens": most } }),
        ),
    };
    if most == UNBOUNDED {
        body.as_object_mut()
            .unwrap()
            .retain(|name, _| !["max_completion_tokens", "generationConfig"].contains(&name.as_str()));
    }
    let mut request = stage.app.client().post(stage.app.url(path)).bearer_auth(key).json(&body);
    if is_strict {
        request = request.header("X-Product-Base-Strict-Hold", "true");
    }
    request.send().await.unwrap()
}

fn ends_by_length(text: &str) -> bool {
    ["\"finish_reason\":\"length\"", "\"stop_reason\":\"max_tokens\"", "\"finishReason\":\"MAX_TOKENS\""]
        .iter()
        .any(|word| text.replace(": ", ":").contains(word))
}

/// The token limit that the provider received.
fn told(stage: &Stage) -> u64 {
    let body = stage.upstream.requests().last().unwrap().json().unwrap();
    let places = ["/max_completion_tokens", "/max_tokens", "/generationConfig/maxOutputTokens"];
    places.iter().find_map(|place| body.pointer(place).and_then(Value::as_u64)).unwrap()
}

#[tokio::test]
async fn a_bound_that_cannot_be_paid_whole_is_no_reason_to_refuse_a_stream() {
    let stage = stage(|_| {}).await;
    stage.upstream.script_others(Script::words(3).priced(prices()));
    for dialect in DIALECTS {
        // 64,000 tokens cost 64 cents.
        let key = stage.key(json!({ "monthly_cost_usd": "0.5" })).await;
        let key = key.text_at("/key");
        let answer = ask(&stage, key, dialect, 64_000, false).await;
        let most: u64 = answer.headers()["x-product-base-max-tokens"].to_str().unwrap().parse().unwrap();
        assert_eq!(answer.status(), 200);
        assert!(
            (26_000..30_000).contains(&most) && told(&stage) == most,
            "half of what is left, and a first part: {most}"
        );
        assert!(!ends_by_length(&answer.text().await.unwrap()));
        assert_eq!(
            ask(&stage, key, dialect, 64_000, true).await.status(),
            429,
            "all of it is held where that is asked"
        );
        let small = ask(&stage, key, dialect, 40_000, true).await;
        assert_eq!((small.status().as_u16(), small.headers().get("x-product-base-max-tokens")), (200, None));
        small.text().await.unwrap();
    }
    stage.expect_bill(6).await;
}

/// Claude refuses a token limit that is not larger than the thinking budget.
#[tokio::test]
async fn a_bound_is_not_lowered_below_what_is_thought_with() {
    let stage = stage(|_| {}).await;
    stage.upstream.script_others(Script::words(3).priced(prices()));
    let key = stage.key(json!({ "monthly_cost_usd": "0.5" })).await;
    let mut body = json!({ "model": "claude-one", "max_tokens": 64_000, "stream": true,
        "messages": [{ "role": "user", "content": "Hello" }] });
    for (budget, status) in [(40_000, 200), (60_000, 429)] {
        body["thinking"] = json!({ "type": "enabled", "budget_tokens": budget });
        let answer = stage.app.post("/v1/messages").bearer(key.text_at("/key")).json(&body).send().await;
        assert_eq!(answer.status, status, "{answer}");
        assert!(status == 200 || answer.text.contains("can cost 0.6"), "{answer}");
    }
    assert!(told(&stage) > 40_000);
    stage.expect_bill(1).await;
}

#[tokio::test]
async fn an_operator_can_have_all_bounds_held_whole() {
    let stage = stage(|settings| settings.ai.calls.strict_holds = true).await;
    let key = stage.key(json!({ "monthly_cost_usd": "0.5" })).await;
    for dialect in DIALECTS {
        assert_eq!(ask(&stage, key.text_at("/key"), dialect, 64_000, false).await.status(), 429);
    }
    assert!(stage.upstream.requests().is_empty());
}

#[tokio::test]
async fn many_agents_share_the_tokens_of_a_minute() {
    let stage = stage(|_| {}).await;
    for dialect in DIALECTS {
        let key = stage.key(json!({ "tokens_per_minute": 100_000 })).await;
        stage.upstream.script_others(Script::words(40).priced(prices()).with_fault(Fault::HoldAfter { events: 3 }));
        let agents = join_all((0..4).map(|_| async {
            let answer = ask(&stage, key.text_at("/key"), dialect, 64_000, false).await;
            assert_eq!(answer.status(), 200);
            answer.text().await.unwrap()
        }));
        let waits = async {
            stage.upstream.until("all agents", |stub| stub.held() == 4).await;
            stage.upstream.let_go(4);
        };
        let (texts, ()) = tokio::join!(agents, waits);
        assert!(texts.iter().all(|text| !ends_by_length(text)), "{texts:?}");
    }
    stage.expect_bill(12).await;
}

#[tokio::test]
async fn a_stream_ends_at_what_is_held_for_it() {
    let stage = stage(|settings| settings.ai.calls.assumed_output_tokens = 100).await;
    for dialect in DIALECTS {
        let key = stage.key(json!({ "monthly_cost_usd": "0.005" })).await;
        let key = key.text_at("/key");
        stage.upstream.script_others(Script::says(&words(200)).priced(prices()));
        let whole = ask(&stage, key, dialect, 900, false).await.text().await.unwrap();
        assert!(!ends_by_length(&whole), "more than the first part is held: {whole}");
        stage.upstream.script_others(Script::says(&words(900)).priced(prices()));
        let mut admitted = 1;
        for _ in 0..20 {
            let answer = ask(&stage, key, dialect, 900, false).await;
            if answer.status() == 429 {
                break;
            }
            admitted += 1;
            assert!(ends_by_length(&answer.text().await.unwrap()));
            stage.settled(admitted).await;
        }
        let spent: i64 = stage.books().await.iter().map(|(_, _, cost, ..)| cost).sum();
        assert!((4_500_000..=5_000_000).contains(&spent), "{dialect}: nearly all of it, and no more: {spent}");
        stage.app.database().sql("DELETE FROM ai_usage_logs").await;
    }
    let spent = stage.upstream.totals().nano_dollars;
    assert!(spent <= 15_000_000, "by the provider's own bill too: {spent}");
}

/// Streams that extend their reservations at once get what is available, and together not more.
#[tokio::test]
async fn answers_that_grow_at_once_outgrow_no_limit() {
    let stage = stage(|settings| settings.ai.calls.assumed_output_tokens = 50).await;
    let pace = AnswerPace { between: Duration::from_millis(3), ..AnswerPace::default() };
    stage.upstream.script_others(Script::says(&words(700)).priced(prices()).paced(pace));
    for dialect in DIALECTS {
        let key = stage.key(json!({ "monthly_cost_usd": "0.01" })).await;
        let answers = join_all((0..6).map(|_| async {
            let answer = ask(&stage, key.text_at("/key"), dialect, 5_000, false).await;
            (answer.status().as_u16(), answer.text().await.unwrap())
        }));
        let answers = answers.await;
        assert!(answers.iter().any(|(status, text)| *status == 200 && ends_by_length(text)), "{answers:?}");
        let asked = i64::try_from(answers.iter().filter(|(status, _)| *status == 200).count()).unwrap();
        stage.settled(asked).await;
        let spent: i64 = stage.books().await.iter().map(|(_, _, cost, ..)| cost).sum();
        assert!((7_000_000..=10_000_000).contains(&spent), "{dialect}: {spent}");
        assert_eq!(stage.number("SELECT count(*) FROM ai_usage_logs WHERE usage ? 'beyond_hold'").await, 0);
        stage.app.database().sql("DELETE FROM ai_usage_logs").await;
    }
}

/// Hidden reasoning, with a token limit and without one, in many streams at once.
#[tokio::test]
async fn thinking_that_nobody_sees_outgrows_no_limit() {
    let stage = stage(|settings| settings.ai.calls.assumed_output_tokens = 50).await;
    stage.upstream.script_others(Script::says("So.").thinking(&words(5_000)).priced(prices()));
    for dialect in DIALECTS {
        for most in [5_000, UNBOUNDED] {
            let key = stage.key(json!({ "monthly_cost_usd": "0.01" })).await;
            let answers = join_all((0..8).map(|_| async {
                let answer = ask(&stage, key.text_at("/key"), dialect, most, false).await;
                (answer.status().as_u16(), answer.text().await.unwrap())
            }));
            let asked = answers.await.iter().filter(|(status, _)| *status == 200).count();
            assert!(asked > 1, "{dialect}: {asked}");
            stage.settled(i64::try_from(asked).unwrap()).await;
            let spent: i64 = stage.books().await.iter().map(|(_, _, cost, ..)| cost).sum();
            assert!((1..=10_000_000).contains(&spent), "{dialect}, {most}: {spent}");
            assert_eq!(stage.number("SELECT count(*) FROM ai_usage_logs WHERE usage ? 'beyond_hold'").await, 0);
            stage.app.database().sql("DELETE FROM ai_usage_logs").await;
        }
    }
    let spent = stage.upstream.totals().nano_dollars;
    assert!(spent <= 60_000_000, "by the provider's own bill too: {spent}");
}
