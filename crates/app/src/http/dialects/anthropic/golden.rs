//! Compares the bytes of Anthropic's dialect, and the translation of its requests, with texts written by hand.

use domain::ai::{
    AnswerDelta, Conversation, ConversationTurn, Dialect, MessagePart, ProviderId, Speaker, ToolAnswer, ToolCall,
    ToolChoice, ToolDefinition,
};

use super::conversation::translate;
use crate::http::dialects::leniency;
use crate::http::dialects::rendering::AnswerEnd;
use crate::http::dialects::request_summary::{OutputForm, refused};
use crate::http::dialects::samples::{EVENTS, everything, frame, native, piece, receipt, text, written};

const USAGE: &str =
    r#"{"input_tokens":3,"cache_creation_input_tokens":2,"cache_read_input_tokens":7,"output_tokens":9}"#;
const START: &str = r#"{"type":"message_start","message":{"id":"msg_0000000000000000000000000000ca11","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;
const OPENAI: ProviderId = ProviderId::OPENAI;

/// A stream, built from the data alone: the name of an event is its type.
fn events(data: &[&str]) -> String {
    let name = |data: &str| data.split('"').nth(3).unwrap().to_owned();
    let events: Vec<String> = data.iter().map(|data| format!("event: {}\ndata: {data}\n\n", name(data))).collect();
    events.concat()
}

fn message_delta(stop: &str) -> String {
    format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}","stop_sequence":null}},"usage":{USAGE}}}"#)
}

#[test]
fn a_whole_answer() {
    let renderer = frame(Dialect::Anthropic, OutputForm::Whole, false).renderer();
    let expected = format!(
        r#"{{"id":"msg_0000000000000000000000000000ca11","type":"message","role":"assistant","model":"m","content":[{{"type":"thinking","thinking":"so","signature":""}},{{"type":"text","text":"hi \"é\""}},{{"type":"tool_use","id":"c0","name":"f","input":{{"a": 1}}}},{{"type":"tool_use","id":"c1","name":"g","input":{{}}}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{USAGE}}}"#
    );
    assert_eq!(written(renderer, &everything(), AnswerEnd::Settled(&receipt())), expected);
}

#[test]
fn a_stream_has_its_blocks_one_after_the_other() {
    let end = message_delta("tool_use");
    let expected = events(&[
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"so"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"hi \"é\""}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"c0","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":" 1}"}}"#,
        r#"{"type":"content_block_stop","index":2}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"c1","name":"g","input":{}}}"#,
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        r#"{"type":"content_block_stop","index":3}"#,
        &end,
        STOP,
    ]);
    let renderer = frame(Dialect::Anthropic, EVENTS, false).renderer();
    assert_eq!(written(renderer, &everything(), AnswerEnd::Settled(&receipt())), expected);
}

#[test]
fn text_after_calls_says_that_they_are_whole() {
    let begun =
        |index, name: &str| AnswerDelta::ToolCallBegun { index, id: format!("c{index}"), name: name.to_owned() };
    let pieces = [piece(&[begun(0, "f"), begun(1, "g"), text("so")])];
    let told = written(frame(Dialect::Anthropic, EVENTS, false).renderer(), &pieces, AnswerEnd::Settled(&receipt()));
    let order: Vec<usize> =
        ["\"name\":\"f\"", "\"name\":\"g\"", "text_delta"].iter().map(|word| told.find(word).unwrap()).collect();
    assert!(order.is_sorted(), "{told}");
    assert_eq!(told.matches("content_block_start\n").count(), told.matches("content_block_stop\n").count());
}

#[test]
fn a_stream_that_is_cut_or_breaks() {
    let says = [piece(&[text("a")])];
    let renderer = frame(Dialect::Anthropic, EVENTS, false).renderer();
    let end = message_delta("max_tokens");
    let expected = events(&[r#"{"type":"content_block_stop","index":0}"#, &end, STOP]);
    let cut = written(renderer, &says, AnswerEnd::Cut(Some(&receipt())));
    assert!(cut.ends_with(&expected), "{cut}");
    let renderer = frame(Dialect::Anthropic, EVENTS, false).renderer();
    let broken = written(renderer, &says, AnswerEnd::Broken(&refused("f", "is wrong")));
    let error = "event: error\ndata: {\"error\":{\"message\":\"`f` is wrong.\",\"type\":\"invalid_request_error\"},\"request_id\":\"r1\",\"type\":\"error\"}\n\n";
    assert!(broken.ends_with(error) && !broken.contains("message_stop"), "{broken}");
}

#[test]
fn its_own_events_pass_as_they_are_and_an_open_block_is_closed() {
    let start = events(&[r#"{"type":"content_block_start","index":4,"content_block":{"type":"text","text":""}}"#]);
    let delta = events(&[r#"{"type":"content_block_delta","index":4,"delta":{"type":"text_delta","text":"a"}}"#]);
    let stop = events(&[r#"{"type":"content_block_stop","index":4}"#]);
    let end = message_delta("max_tokens");
    let cut = events(&[&end, STOP]);
    let own = || frame(Dialect::Anthropic, EVENTS, true).renderer();
    let pieces = [native(&start), native(&delta)];
    assert_eq!(written(own(), &pieces, AnswerEnd::Settled(&receipt())), format!("{start}{delta}"));
    assert_eq!(written(own(), &pieces, AnswerEnd::Cut(Some(&receipt()))), format!("{start}{delta}{stop}{cut}"));
    let pieces = [native(&start), native(&format!("{delta}{stop}"))];
    assert_eq!(written(own(), &pieces, AnswerEnd::Cut(Some(&receipt()))), format!("{start}{delta}{stop}{cut}"));
}

#[test]
fn a_request_becomes_a_conversation() {
    let body = r#"{"model":"m","stream":true,"max_tokens":40,"temperature":1,"top_p":0.5,"stop_sequences":["x"],
        "metadata":{"user_id":"u"},"service_tier":"auto","thinking":{"type":"disabled"},
        "system":[{"type":"text","text":"be kind","cache_control":{"type":"ephemeral"}},{"type":"text","text":"be brief"}],
        "tools":[{"name":"f","description":"d","input_schema":{"z":1,"a":2},"cache_control":{"type":"ephemeral"}},{"type":"custom","name":"g"}],
        "tool_choice":{"type":"any","disable_parallel_tool_use":true},
        "messages":[{"role":"user","content":"one"},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"two"},
        {"type":"tool_use","id":"c1","name":"f","input":{"a": 1}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","is_error":true,"content":[{"type":"text","text":"5"},{"type":"text","text":"6"}]},
        {"type":"text","text":"and?"}]}]}"#;
    let tool = |name: &str, description: Option<&str>, parameters: Option<&str>| ToolDefinition {
        name: name.to_owned(),
        description: description.map(str::to_owned),
        parameters: parameters.map(str::to_owned),
    };
    let call = ToolCall { id: "c1".to_owned(), name: "f".to_owned(), arguments: r#"{"a": 1}"#.to_owned() };
    let answer = ToolAnswer { id: "c1".to_owned(), name: "f".to_owned(), content: "5\n\n6".to_owned(), is_error: true };
    let expected = Conversation {
        system: Some("be kind\n\nbe brief".to_owned()),
        turns: vec![
            ConversationTurn::text(Speaker::User, "one"),
            ConversationTurn {
                speaker: Speaker::Assistant,
                parts: vec![MessagePart::Text("two".to_owned()), MessagePart::ToolCall(call)],
            },
            ConversationTurn {
                speaker: Speaker::User,
                parts: vec![MessagePart::ToolAnswer(answer), MessagePart::Text("and?".to_owned())],
            },
        ],
        tools: vec![tool("f", Some("d"), Some(r#"{"z":1,"a":2}"#)), tool("g", None, None)],
        tool_choice: ToolChoice::Required,
        parallel_tools: Some(false),
        max_output_tokens: Some(40),
        temperature: Some(1.0),
        top_p: Some(0.5),
        stop: vec!["x".to_owned()],
    };
    assert_eq!(translate(body, OPENAI).unwrap(), expected);
}

#[test]
fn what_cannot_be_translated_is_named() {
    let with = |fields: &str| format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{fields}}}"#);
    let says =
        |block: &str| format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"x"}},{block}]}}]}}"#);
    for (body, field) in [
        (with(r#""top_k":5"#), "top_k"),
        (with(r#""thinking":{"type":"enabled","budget_tokens":1024}"#), "thinking"),
        (with(r#""mcp_servers":[]"#), "mcp_servers"),
        (with(r#""speed":"fast""#), "speed"),
        (with(r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#), "tools[0].type"),
        (says(r#"{"type":"image","source":{}}"#), "messages[0].content[1].image"),
        (says(r#"{"type":"document","source":{}}"#), "messages[0].content[1].document"),
    ] {
        let why = translate(&body, OPENAI).unwrap_err();
        assert_eq!((why.status.as_u16(), &why.fields["errors"][0]["field"]), (400, &field.into()), "{body}");
        let body = serde_json::from_str(&body).unwrap();
        assert!(leniency::conversation(Dialect::Anthropic, &body).is_ok(), "the sandbox passes over {field}");
    }
    for (body, field) in [
        (says(r#"{"type":"tool_result","tool_use_id":"c"}"#), "messages[0].content[1].tool_use_id"),
        (says(r#"{"text":"x"}"#), "messages[0].content[1].type"),
        (with(r#""tool_choice":{"type":"perhaps"}"#), "tool_choice.type"),
        (r#"{"messages":[{"role":"user"}]}"#.to_owned(), "messages[0].content"),
        (r#"{"messages":[{"role":"robot","content":"x"}]}"#.to_owned(), "messages[0].role"),
    ] {
        let why = translate(&body, OPENAI).unwrap_err();
        assert_eq!(why.fields["errors"][0]["field"], field, "{body}");
    }
}
