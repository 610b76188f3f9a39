//! Money: input is counted wherever it is in the body, every kind of token has a price, and every number that a
//! provider reports counts.

use app::settings::models::parse;
use domain::ai::ProviderProfiles;
use futures_util::future::join_all;
use harness::{Answer, Bearer};
use serde_json::{Value, json};
use testkit::upstream::{Script, ScriptedAnswer, UsageParts};

use super::stage::{Stage, prices};
use crate::usage::allow;

const CLAUDE: &str = "/v1/messages";
const OPENAI: &str = "/v1/chat/completions";
const GEMINI: &str = "/v1beta/models/gemini-one:generateContent";

/// Models with the input limits of real ones.
async fn stage() -> Stage {
    let wide = |settings: &mut app::settings::shape::Settings| {
        let catalogue = super::stage::catalogue().replace("max_input_tokens = 2000", "max_input_tokens = 1000000");
        settings.ai.models = parse(&catalogue, &ProviderProfiles::default()).unwrap();
    };
    Stage::with(wide).await
}

async fn post(stage: &Stage, who: &(impl Bearer + ?Sized), path: &str, body: &Value) -> Answer {
    stage.app.post(path).bearer(who).json(body).send().await
}

/// A conversation with a tool call or a tool result that contains this value, in each dialect.
fn with_tool(input: &Value) -> [(&'static str, Value); 3] {
    let claude = json!({ "model": "claude-one", "max_tokens": 9, "messages": [{ "role": "user", "content": "x" },
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "w", "input": input }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "ok" }] }] });
    let openai = json!({ "model": "gpt-one", "max_tokens": 9, "messages": [{ "role": "user", "content": "x" },
        { "role": "assistant", "tool_calls": [{ "id": "t", "type": "function",
            "function": { "name": "w", "arguments": input.to_string() } }] },
        { "role": "tool", "tool_call_id": "t", "content": "ok", "unheard_of": input }] });
    let gemini = json!({ "generationConfig": { "maxOutputTokens": 9 }, "contents": [
        { "role": "user", "parts": [{ "text": "x" }] },
        { "role": "model", "parts": [{ "functionCall": { "name": "w", "args": input } }] },
        { "role": "user", "parts": [{ "functionResponse": { "name": "w", "response": { "data": input } } }] }] });
    [(CLAUDE, claude), (OPENAI, openai), (GEMINI, gemini)]
}

/// The same two thousand words, or as many numbers, in places that are easily overlooked.
fn hidden() -> [Value; 4] {
    let words = "word ".repeat(2_000);
    let rows: Vec<u32> = (1..=2_000).collect();
    [json!({ "content": words }), json!({ "data": words }), json!({ words.clone(): 1 }), json!({ "rows": rows })]
}

#[tokio::test]
async fn tokens_are_counted_wherever_they_stand() {
    let stage = stage().await;
    for input in hidden() {
        let [(_, claude), _, (_, gemini)] = with_tool(&input);
        let counted = post(&stage, &stage.ada, "/v1/messages/count_tokens", &claude).await.expect_status(200);
        assert!(counted.at("/input_tokens").as_u64().unwrap() >= 2_000, "{counted}");
        let path = "/v1beta/models/gemini-one:countTokens";
        let counted = post(&stage, &stage.ada, path, &json!({ "contents": gemini["contents"] })).await;
        assert!(counted.expect_status(200).at("/totalTokens").as_u64().unwrap() >= 2_000);
    }
}

/// The upstream bills one token for every three bytes that it gets. Whatever is sent, and however much in parallel, no
/// key exceeds its limit.
#[tokio::test]
async fn no_limit_is_oversold_by_what_stands_in_a_body() {
    let stage = stage().await;
    stage.upstream.script_others(Script::words(3).counting_bytes(3).priced(prices()));
    for input in hidden() {
        for (path, body) in with_tool(&input) {
            stage.upstream.clear();
            // Enough for about three of them; the reservation is larger than the use.
            let key = stage.key(json!({ "monthly_cost_usd": "0.05" })).await;
            let key = key.text_at("/key");
            let answers = join_all((0..12).map(|_| post(&stage, key, path, &body))).await;
            assert!(answers.iter().all(|answer| [200, 429].contains(&answer.status)), "{answers:?}");
            assert!(answers.iter().any(|answer| answer.status == 429), "{path} {answers:?}");
            stage.upstream.until("for the end of all answers", |stub| stub.totals().answering == 0).await;
            let spent = stage.upstream.totals().nano_dollars;
            assert!(spent <= 50_000_000, "{path}: {spent}");
        }
    }
    let beyond = "SELECT count(*) FROM ai_usage_logs WHERE usage ? 'beyond_hold'";
    assert_eq!(stage.number(beyond).await, 0);
}

#[tokio::test]
async fn a_large_body_is_weighed_in_no_time_and_refused_where_it_cannot_be_paid() {
    let stage = stage().await;
    let key = stage.key(json!({ "monthly_cost_usd": "0.05" })).await;
    let rows: Vec<u32> = (1_000_000..1_200_000).collect();
    for (path, body) in with_tool(&json!({ "rows": rows })).into_iter().filter(|(path, _)| *path != OPENAI) {
        let answer = post(&stage, key.text_at("/key"), path, &body).await;
        assert!([400, 429].contains(&answer.status), "{answer}");
    }
    assert!(stage.upstream.requests().is_empty());
}

#[tokio::test]
async fn what_cannot_be_seen_is_held_at_the_window_of_its_model() {
    let stage = stage().await;
    let picture = json!({ "type": "image_url", "image_url": { "url": "https://example.com/x.png" } });
    let openai = json!({ "model": "gpt-one", "max_tokens": 9, "messages": [{ "role": "user", "content": [picture] }] });
    let file = json!({ "type": "document", "source": { "type": "file", "file_id": "f" } });
    let claude = json!({ "model": "claude-one", "max_tokens": 9, "messages": [{ "role": "user", "content": [file] }] });
    let gemini = json!({ "cachedContent": "c", "contents": [{ "parts": [{ "text": "x" }] }] });
    // A million tokens cost 2 dollars and more.
    for (limit, status) in [("1.9", 429), ("20", 200)] {
        let key = stage.key(json!({ "monthly_cost_usd": limit })).await;
        for (path, body) in [(OPENAI, &openai), (CLAUDE, &claude), (GEMINI, &gemini)] {
            let answer = post(&stage, key.text_at("/key"), path, body).await;
            assert_eq!(answer.status, status, "{path}: {answer}");
        }
    }
    // The input limit of this model is unknown.
    let admin = stage.app.admin().await;
    for kind in ["input", "output"] {
        let price =
            json!({ "provider": "claude", "model": "own", "kind": kind, "usd_per_million": "1", "version": "v" });
        stage.app.post("/api/admin/prices").bearer(&admin).json(price).send().await.expect_status(201);
    }
    let mut own = claude.clone();
    own["model"] = json!("own");
    let key = stage.key(json!({ "monthly_cost_usd": "20" })).await;
    let refused = post(&stage, key.text_at("/key"), CLAUDE, &own).await.expect_status(403);
    assert!(refused.text_at("/error/message").contains("cannot be seen"), "{refused}");
    post(&stage, &stage.ada, CLAUDE, &own).await.expect_status(200);
    stage.pays_beyond(0, 5_000_000).await;
    post(&stage, &stage.ada, CLAUDE, &own).await.expect_status(403);
    stage.settled(4).await;
    stage.expect_in_order().await;
}

#[tokio::test]
async fn what_a_provider_counts_beyond_all_bounds_is_told_as_overage() {
    let stage = Stage::set().await;
    let answer = ScriptedAnswer { input_tokens: Some(5_000), ..ScriptedAnswer::default() };
    stage.upstream.script_others(Script { answer, ..Script::default() }.priced(prices()));
    let [(_, claude), ..] = with_tool(&json!({}));
    post(&stage, &stage.ada, CLAUDE, &claude).await.expect_status(200);
    stage.expect_bill(1).await;
    let told = "SELECT (usage->'beyond_hold'->>'tokens')::bigint FROM ai_usage_logs";
    assert!(stage.number(told).await > 3_000);
    let page = stage.app.metrics().send().await.expect_status(200);
    assert!(page.text.contains("ai_beyond_hold_total{gen_ai_provider_name=\"anthropic\"}"), "{page}");
}

#[tokio::test]
async fn a_kind_without_a_price_costs_what_another_costs() {
    let stage = Stage::set().await;
    let admin = stage.app.admin().await;
    for (kind, usd) in [("input", "2"), ("output", "10")] {
        let price =
            json!({ "provider": "claude", "model": "own", "kind": kind, "usd_per_million": usd, "version": "v" });
        stage.app.post("/api/admin/prices").bearer(&admin).json(price).send().await.expect_status(201);
    }
    let key = stage.key(json!({ "monthly_cost_usd": "0.01" })).await;
    let body = json!({ "model": "own", "max_tokens": 20, "messages": [{ "role": "user", "content": "hi" }] });
    let cached = UsageParts { cache_read: 500, cache_write_short: 500, cache_write_long: 100, ..UsageParts::default() };
    let answer = ScriptedAnswer { input_tokens: Some(12), ..ScriptedAnswer::default() };
    stage.upstream.script_others(Script { answer, ..Script::default() }.using(cached));
    let mut passed = 0;
    for _ in 0..12 {
        let answer = post(&stage, key.text_at("/key"), CLAUDE, &body).await;
        passed += i64::from(answer.status == 200);
        assert!([200, 429].contains(&answer.status), "{answer}");
    }
    // Each call takes 1,112 tokens at 2,000 nano-dollars and 8 at 10,000; the fifth is admitted while its reservation
    // fits.
    assert_eq!(passed, 5);
    stage.settled(passed).await;
    assert_eq!(stage.number("SELECT sum(cost_nano_usd)::bigint FROM ai_usage_logs").await, passed * 2_304_000);
    let marked = "SELECT count(*) FROM ai_usage_logs
        WHERE usage->'assumed_prices' = '[\"cache_read\", \"cache_write_short\", \"cache_write_long\"]'::jsonb";
    assert_eq!(stage.number(marked).await, passed);
    let page = stage.app.metrics().send().await.expect_status(200);
    let line = "ai_assumed_prices_total{gen_ai_provider_name=\"anthropic\",kind=\"cache_write_short\"}";
    assert!(page.text.contains(line), "{page}");
}

#[tokio::test]
async fn a_word_that_nobody_knows_costs_what_the_standard_costs() {
    let stage = Stage::set().await;
    for (model, tier) in [("claude-one", "flexi"), ("gpt-one", "ultra"), ("gemini-one", "EXPRESS")] {
        let answer =
            ScriptedAnswer { input_tokens: Some(3_000), tier: Some(tier.to_owned()), ..ScriptedAnswer::default() };
        stage.upstream.script(model, Script { answer, ..Script::default() }.priced(prices()));
        for streamed in [false, true] {
            stage.chat(json!({ "message": "hi", "model": model, "stream": streamed })).await.expect_status(200);
        }
    }
    stage.expect_bill(6).await;
    assert!(
        stage
            .books()
            .await
            .iter()
            .all(|(input, output, _, source, _)| { (*input, *output, source.as_str()) == (3_000, 8, "provider") })
    );
}

#[tokio::test]
async fn a_plan_that_counts_requests_needs_no_price_for_tools_and_sound() {
    let stage = stage().await;
    allow(&stage.app, &stage.ada, "limit_value = 1000, overage = 'block'").await;
    let claude = json!({ "model": "claude-one", "max_tokens": 9, "messages": [{ "role": "user", "content": "x" }],
        "tools": [{ "type": "web_search_20250305", "name": "web_search", "max_uses": 2 },
            { "type": "web_fetch_20250910", "name": "f" }, { "type": "code_execution_20250825", "name": "c" }] });
    let gemini = json!({ "contents": [{ "parts": [{ "text": "x" },
        { "inlineData": { "mimeType": "audio/mp3", "data": "SUQzBAAAAAAAAAAAAAAAAAAA" } }] }],
        "tools": [{ "googleSearch": {} }, { "codeExecution": {} }] });
    let sound = json!({ "type": "input_audio", "input_audio": { "data": "SUQzBAAAAAAAAAAA", "format": "mp3" } });
    let openai = json!({ "model": "gpt-one", "max_tokens": 9, "web_search_options": {}, "modalities": ["text", "audio"],
        "messages": [{ "role": "user", "content": [sound] }] });
    let searches = UsageParts { web_searches: 2, ..UsageParts::default() };
    stage.upstream.script_others(Script::words(3).using(searches).priced(prices()));
    for (path, body) in [(CLAUDE, &claude), (GEMINI, &gemini), (OPENAI, &openai)] {
        post(&stage, &stage.ada, path, body).await.expect_status(200);
    }
    stage.settled(3).await;
    let of_searches = "SELECT cost_nano_usd FROM ai_usage_logs WHERE provider = 'claude'";
    assert!(stage.number(of_searches).await > 2 * 35_000_000, "settled by the provider's count");
    // Two searches, five fetches and five runs at their assumed prices, and a window of a million tokens.
    for (limit, status) in [("5.3", 429), ("20", 200)] {
        let key = stage.key(json!({ "monthly_cost_usd": limit })).await;
        let answer = post(&stage, key.text_at("/key"), CLAUDE, &claude).await;
        assert_eq!(answer.status, status, "{answer}");
    }
    stage.settled(4).await;
    stage.expect_in_order().await;
}
