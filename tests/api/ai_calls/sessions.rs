//! Calls within a conversation: earlier messages are sent along, and new ones are stored.

use harness::Answer;
use serde_json::{Value, json};
use testkit::upstream::{Fault, Refusal, Script, Why};

use super::stage::{MODELS, Stage, hello, prices, words};
use crate::NOBODY;

async fn open(stage: &Stage, body: Value) -> Answer {
    stage.app.post("/api/ai/sessions").bearer(&stage.ada).json(body).send().await.expect_status(201)
}

fn say(session: &Answer, message: &str) -> Value {
    json!({ "session_id": session.at("/id"), "message": message })
}

/// The last request to the provider.
fn sent(stage: &Stage) -> Value {
    stage.upstream.requests().last().unwrap().json().unwrap()
}

async fn kept(stage: &Stage, session: &Answer) -> Vec<(String, String)> {
    let path = format!("/api/ai/sessions/{}/messages", session.text_at("/id"));
    let messages = stage.app.get(&path).bearer(&stage.ada).send().await.expect_status(200);
    let text = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
    messages
        .at("/data")
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (text(message, "role"), text(message, "content")))
        .collect()
}

#[tokio::test]
async fn what_was_said_last_goes_along_with_the_system_prompt() {
    let stage = Stage::with(|settings| settings.ai.calls.context_messages = 4).await;
    stage.upstream.script_others(Script::says("Yes.").priced(prices()));
    let session = open(&stage, json!({ "model": "gpt-one", "system": "Be brief." })).await;
    for number in 0..4 {
        stage.chat(say(&session, &format!("Question {number}"))).await.expect_status(200);
    }
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    let expected = json!([
        message("system", "Be brief."),
        message("user", "Question 1"),
        message("assistant", "Yes."),
        message("user", "Question 2"),
        message("assistant", "Yes."),
        message("user", "Question 3"),
    ]);
    assert_eq!(sent(&stage)["messages"], expected);
    let messages = json!([
        message("system", "Shout."),
        message("user", "Hm"),
        message("assistant", "Oh"),
        message("user", "Well")
    ]);
    let body = json!({ "session_id": session.at("/id"), "messages": messages, "model": "claude-one" });
    stage.chat(body).await.expect_status(200);
    let to_claude = sent(&stage);
    assert_eq!((&to_claude["system"], to_claude["messages"].as_array().unwrap().len()), (&json!("Shout."), 4 + 3));
    let all = kept(&stage, &session).await;
    assert_eq!((all.len(), all[8].1.as_str(), all[9].1.as_str()), (10, "Well", "Yes."));
    stage.expect_bill(5).await;
    let costs = "SELECT count(*) FROM chat_messages WHERE tokens > 0 AND cost_nano_usd > 0";
    assert_eq!(stage.number(costs).await, 10, "each has its tokens and its cost");
}

#[tokio::test]
async fn the_oldest_stay_behind_where_the_model_has_no_room() {
    let stage = Stage::set().await;
    stage.upstream.script_others(Script::says("Yes.").priced(prices()));
    let session = open(&stage, json!({ "model": "gpt-one" })).await;
    for number in 0..5 {
        stage.chat(say(&session, &format!("{number} {}", words(200)))).await.expect_status(200);
    }
    let messages = sent(&stage)["messages"].as_array().unwrap().clone();
    assert!((3..9).contains(&messages.len()) && messages[0]["role"] == "user", "{}", messages.len());
    assert!(messages.last().unwrap()["content"].as_str().unwrap().starts_with("4 "));
    let too_long = stage.chat(say(&session, &words(3_000))).await.expect_problem(400, "input_too_long");
    assert_eq!(too_long.at("/limit"), &json!(2_000));
    stage.expect_bill(5).await;
}

#[tokio::test]
async fn a_session_that_ended_is_anothers_or_is_none() {
    let stage = Stage::set().await;
    let session = open(&stage, json!({})).await;
    let eve = stage.app.signup("eve@example.com").await;
    for route in ["/api/ai/chat", "/api/ai/quote"] {
        let request = stage.app.post(route).bearer(&eve).json(say(&session, "Hello"));
        request.send().await.expect_problem(404, "not_found");
        let request =
            stage.app.post(route).bearer(&stage.ada).json(json!({ "session_id": NOBODY, "message": "Hello" }));
        request.send().await.expect_problem(404, "not_found");
    }
    let end = format!("/api/ai/sessions/{}/end", session.text_at("/id"));
    stage.app.post(&end).bearer(&stage.ada).send().await.expect_status(200);
    stage.chat(say(&session, "Hello")).await.expect_problem(409, "session_ended");
    stage.quote(say(&session, "Hello")).await.expect_problem(409, "session_ended");
    assert!(stage.upstream.requests().is_empty());
    stage.settled(0).await;
}

#[tokio::test]
async fn a_session_that_is_deleted_meanwhile_costs_all_the_same() {
    let stage = Stage::set().await;
    let session = open(&stage, json!({})).await;
    let held = Fault::HoldAfter { events: 0 };
    stage.upstream.script_others(Script::words(3).priced(prices()).with_fault(held));
    let waits = async {
        stage.upstream.until("the call", |stub| stub.held() == 1).await;
        let path = format!("/api/ai/sessions/{}", session.text_at("/id"));
        stage.app.delete(&path).bearer(&stage.ada).send().await.expect_status(204);
        stage.upstream.let_go(1);
    };
    let (answer, ()) = tokio::join!(stage.chat(say(&session, "Hello")), waits);
    answer.expect_status(200);
    stage.expect_bill(1).await;
}

/// A refused message is not stored; an interrupted response is stored as far as it came, and the conversation can
/// continue.
#[tokio::test]
async fn a_conversation_goes_on_after_an_answer_without_words() {
    let stage = Stage::set().await;
    for (_, model) in MODELS {
        let session = open(&stage, json!({ "model": model })).await;
        stage.upstream.script(model, Script::refuses(Refusal::of(Why::Invalid("no".to_owned()))));
        stage.chat(say(&session, "One")).await.expect_problem(400, "provider_refused");
        assert_eq!(kept(&stage, &session).await, []);
        stage.upstream.script(model, Script::says("").thinking("Only thoughts").priced(prices()));
        stage.chat(say(&session, "Two")).await.expect_status(200);
        stage.upstream.script(model, Script::says("Three words come").priced(prices()));
        stage.chat(say(&session, "Three")).await.expect_status(200);
        let body = sent(&stage);
        let told = body["messages"].as_array().or(body["contents"].as_array()).unwrap();
        let empty = |message: &Value| {
            message["content"] == "" || message["content"] == json!([]) || message["parts"] == json!([])
        };
        let says_nothing = |message: &Value| {
            let parts = message["parts"].as_array().or(message["content"].as_array());
            empty(message) || parts.is_some_and(|parts| parts.iter().any(|part| part["text"] == ""))
        };
        assert!(!told.iter().any(says_nothing), "providers refuse a message without a word: {body}");
        assert_eq!(kept(&stage, &session).await.len(), 4);
    }
    stage.expect_bill(6).await;
}

#[tokio::test]
async fn the_model_is_the_one_that_is_named_or_the_sessions_or_the_settings() {
    let stage = Stage::set().await;
    let session = open(&stage, json!({ "model": "gemini-one" })).await;
    assert_eq!(stage.chat(say(&session, "Hello")).await.expect_status(200).text_at("/model"), "gemini-one");
    let mut body = say(&session, "Hello");
    body["model"] = json!("claude/claude-one");
    assert_eq!(stage.chat(body).await.expect_status(200).text_at("/model"), "claude-one");
    let without = stage.chat(json!({ "message": "Hello" })).await.expect_status(200);
    assert_eq!((without.text_at("/model"), without.at("/session_id")), ("gpt-one", &Value::Null));
    let mut other = hello("gpt-one");
    other["provider"] = json!("gemini");
    stage.chat(other).await.expect_problem(404, "unknown_model");
}
