//! Compares the bytes of `OpenAI`'s dialect, and the translation of its requests, with texts written by hand.

use domain::ai::{
    Conversation, ConversationTurn, Dialect, FinishReason, MessagePart, ProviderId, Speaker, ToolAnswer, ToolCall,
    ToolChoice, ToolDefinition,
};

use super::conversation::translate;
use crate::http::dialects::leniency;
use crate::http::dialects::rendering::AnswerEnd;
use crate::http::dialects::request_summary::{OutputForm, refused};
use crate::http::dialects::samples::{EVENTS, everything, frame, native, piece, receipt, text, written};

const USAGE: &str = r#"{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":7,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;
const CLAUDE: ProviderId = ProviderId::CLAUDE;

fn chunk(choices: &str, usage: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-0000000000000000000000000000ca11\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{choices}]{usage}}}\n\n"
    )
}

fn choice(delta: &str, finish: &str) -> String {
    let choice = format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#);
    chunk(&choice, r#","usage":null"#)
}

#[test]
fn a_whole_answer() {
    let renderer = frame(Dialect::OpenAiChat, OutputForm::Whole, false).renderer();
    let expected = format!(
        r#"{{"id":"chatcmpl-0000000000000000000000000000ca11","object":"chat.completion","created":1700000000,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"hi \"é\"","refusal":null,"reasoning_content":"so","tool_calls":[{{"id":"c0","type":"function","function":{{"name":"f","arguments":"{{\"a\": 1}}"}}}},{{"id":"c1","type":"function","function":{{"name":"g","arguments":"{{}}"}}}}],"annotations":[]}},"logprobs":null,"finish_reason":"tool_calls"}}],"usage":{USAGE}}}"#
    );
    assert_eq!(written(renderer, &everything(), AnswerEnd::Settled(&receipt())), expected);
    let renderer = frame(Dialect::OpenAiChat, OutputForm::Whole, false).renderer();
    let cut = written(renderer, &[piece(&[text("a")])], AnswerEnd::Cut(Some(&receipt())));
    assert!(cut.contains(r#""content":"a""#) && cut.contains(r#""finish_reason":"length""#), "{cut}");
}

#[test]
fn a_stream() {
    let call = |index: u8, name: &str| {
        format!(
            r#"{{"tool_calls":[{{"index":{index},"id":"c{index}","type":"function","function":{{"name":"{name}","arguments":""}}}}]}}"#
        )
    };
    let arguments =
        |index: u8, json: &str| format!(r#"{{"tool_calls":[{{"index":{index},"function":{{"arguments":{json}}}}}]}}"#);
    let expected = [
        choice(r#"{"role":"assistant","content":"","refusal":null}"#, "null"),
        choice(r#"{"reasoning_content":"so"}"#, "null"),
        choice(r#"{"content":"hi \"é\""}"#, "null"),
        choice(&call(0, "f"), "null"),
        choice(&arguments(0, r#""{\"a\":""#), "null"),
        choice(&call(1, "g"), "null"),
        choice(&arguments(1, r#""{}""#), "null"),
        choice(&arguments(0, r#"" 1}""#), "null"),
        choice("{}", "\"tool_calls\""),
        chunk("", &format!(r#","usage":{USAGE}"#)),
        "data: [DONE]\n\n".to_owned(),
    ];
    let renderer = frame(Dialect::OpenAiChat, EVENTS, false).renderer();
    assert_eq!(written(renderer, &everything(), AnswerEnd::Settled(&receipt())), expected.concat());
}

#[test]
fn a_stream_whose_caller_wants_no_usage() {
    let mut frame = frame(Dialect::OpenAiChat, EVENTS, false);
    frame.include_usage = false;
    let told = written(frame.renderer(), &[piece(&[text("a")])], AnswerEnd::Settled(&receipt()));
    assert!(!told.contains("usage") && told.ends_with("\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"), "{told}");
}

#[test]
fn a_stream_that_is_cut_or_breaks() {
    let says = [piece(&[text("a")])];
    let renderer = frame(Dialect::OpenAiChat, EVENTS, false).renderer();
    let cut = written(renderer, &says, AnswerEnd::Cut(Some(&receipt())));
    let end = [choice("{}", "\"length\""), chunk("", &format!(r#","usage":{USAGE}"#)), "data: [DONE]\n\n".to_owned()];
    assert!(cut.ends_with(&end.concat()), "{cut}");
    let renderer = frame(Dialect::OpenAiChat, EVENTS, false).renderer();
    let broken = written(renderer, &says, AnswerEnd::Broken(&refused("f", "is wrong")));
    let error = "data: {\"error\":{\"code\":\"invalid\",\"message\":\"`f` is wrong.\",\"param\":\"f\",\"type\":\"invalid_request_error\"}}\n\n";
    assert!(broken.ends_with(error) && !broken.contains("[DONE]"), "{broken}");
}

#[test]
fn its_own_chunks_pass_as_they_are() {
    let first = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"obfuscation\":\"x\"}\n\n";
    let pieces = [native(first), native("data: [DONE]\n\n")];
    let renderer = frame(Dialect::OpenAiChat, EVENTS, true).renderer();
    assert_eq!(written(renderer, &pieces, AnswerEnd::Settled(&receipt())), format!("{first}data: [DONE]\n\n"));
    let mut two = frame(Dialect::OpenAiChat, EVENTS, true);
    two.answers = 2;
    let cut = written(two.renderer(), &[native(first)], AnswerEnd::Cut(Some(&receipt())));
    let opening = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"gpt","choices":["#;
    let choice = |index: u8| {
        let choice = format!(r#"{{"index":{index},"delta":{{}},"logprobs":null,"finish_reason":"length"}}"#);
        format!("data: {opening}{choice}],\"usage\":null}}\n\n")
    };
    let usage = format!("data: {opening}],\"usage\":{USAGE}}}\n\n");
    assert_eq!(cut, format!("{first}{}{}{usage}data: [DONE]\n\n", choice(0), choice(1)));
    let renderer = frame(Dialect::OpenAiChat, OutputForm::Whole, true).renderer();
    assert_eq!(written(renderer, &[native("{\"id\": 1 }")], AnswerEnd::Settled(&receipt())), "{\"id\": 1 }");
}

#[test]
fn a_request_becomes_a_conversation() {
    let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":50,"max_completion_tokens":40,
        "temperature":0.5,"top_p":0.9,"stop":["x","y"],"user":"u","metadata":{"a":"b"},"store":false,"n":1,"seed":7,
        "presence_penalty":0,"logit_bias":{},"parallel_tool_calls":false,"response_format":{"type":"text"},
        "tool_choice":{"type":"function","function":{"name":"f"}},
        "tools":[{"type":"function","function":{"name":"f","description":"d","strict":true,"parameters":{"z":1.0,"a":2}}}],
        "messages":[{"role":"system","content":"be kind"},{"role":"developer","content":[{"type":"text","text":"be brief"}]},
        {"role":"user","name":"ada","content":[{"type":"text","text":"one "},{"type":"text","text":"two"}]},
        {"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},
        {"id":"c2","type":"function","function":{"name":"f","arguments":""}}]},
        {"role":"tool","tool_call_id":"c1","content":"5"},{"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"6"}]},
        {"role":"user","content":"and?"}]}"#;
    let call = |id: &str, arguments: &str| {
        MessagePart::ToolCall(ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: arguments.to_owned() })
    };
    let answer = |id: &str, content: &str| {
        let (id, name, content) = (id.to_owned(), "f".to_owned(), content.to_owned());
        MessagePart::ToolAnswer(ToolAnswer { id, name, content, is_error: false })
    };
    let expected = Conversation {
        system: Some("be kind\n\nbe brief".to_owned()),
        turns: vec![
            ConversationTurn::text(Speaker::User, "one two"),
            ConversationTurn { speaker: Speaker::Assistant, parts: vec![call("c1", "{\"a\": 1}"), call("c2", "{}")] },
            ConversationTurn {
                speaker: Speaker::User,
                parts: vec![answer("c1", "5"), answer("c2", "6"), MessagePart::Text("and?".to_owned())],
            },
        ],
        tools: vec![ToolDefinition {
            name: "f".to_owned(),
            description: Some("d".to_owned()),
            parameters: Some(r#"{"z":1.0,"a":2}"#.to_owned()),
        }],
        tool_choice: ToolChoice::Named("f".to_owned()),
        parallel_tools: Some(false),
        max_output_tokens: Some(40),
        temperature: Some(0.5),
        top_p: Some(0.9),
        stop: vec!["x".to_owned(), "y".to_owned()],
    };
    assert_eq!(translate(body, CLAUDE).unwrap(), expected);
}

#[test]
fn what_cannot_be_translated_is_named() {
    let with = |fields: &str| format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{fields}}}"#);
    let says =
        |part: &str| format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"x"}},{part}]}}]}}"#);
    for (body, field) in [
        (with(r#""reasoning_effort":"high""#), "reasoning_effort"),
        (with(r#""response_format":{"type":"json_object"}"#), "response_format"),
        (with(r#""logprobs":true"#), "logprobs"),
        (with(r#""store":true"#), "store"),
        (with(r#""presence_penalty":1"#), "presence_penalty"),
        (with(r#""web_search_options":{}"#), "web_search_options"),
        (with(r#""tools":[{"type":"custom","custom":{"name":"x"}}]"#), "tools[0].type"),
        (says(r#"{"type":"image_url","image_url":{"url":"https://x"}}"#), "messages[0].content[1].image_url"),
        (says(r#"{"type":"input_audio","input_audio":{}}"#), "messages[0].content[1].input_audio"),
    ] {
        let why = translate(&body, CLAUDE).unwrap_err();
        assert_eq!((why.status.as_u16(), &why.fields["errors"][0]["field"]), (400, &field.into()), "{body}");
        let body = serde_json::from_str(&body).unwrap();
        assert!(leniency::conversation(Dialect::OpenAiChat, &body).is_ok(), "the sandbox passes over {field}");
    }
    for (body, field) in [
        (r#"{"messages":[{"role":"tool","tool_call_id":"c","content":"x"}]}"#, "messages[0].tool_call_id"),
        (r#"{"messages":[{"role":"function","name":"f","content":"x"}]}"#, "messages[0].role"),
        (r#"{"messages":[{"role":"system","content":"x"}]}"#, "messages"),
        (r#"{"messages":[{"role":"user","content":"x"}],"tool_choice":"perhaps"}"#, "tool_choice"),
        (r#"{"messages":[{"role":"user","content":5}]}"#, "messages[0].content"),
        (
            r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"no"}}]}]}"#,
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        let why = translate(body, CLAUDE).unwrap_err();
        assert_eq!(why.fields["errors"][0]["field"], field, "{body}");
    }
}

#[test]
fn the_reasons_are_its_own() {
    for (reason, word) in [
        (FinishReason::Stop, "stop"),
        (FinishReason::Length, "length"),
        (FinishReason::ToolCalls, "tool_calls"),
        (FinishReason::Filtered, "content_filter"),
    ] {
        assert_eq!(super::words::finish(reason), word);
    }
}
