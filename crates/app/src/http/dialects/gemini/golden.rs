//! Compares the bytes of Gemini's dialect, and the translation of its requests, with texts written by hand.

use domain::ai::{
    Conversation, ConversationTurn, Dialect, FinishReason, MessagePart, ProviderId, Speaker, ToolAnswer, ToolCall,
    ToolChoice, ToolDefinition,
};

use super::conversation::translate;
use crate::http::dialects::leniency;
use crate::http::dialects::rendering::AnswerEnd;
use crate::http::dialects::request_summary::{OutputForm, refused};
use crate::http::dialects::samples::{ARRAY, EVENTS, everything, frame, native, piece, receipt, text, written};

const USAGE: &str = r#","usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":5,"cachedContentTokenCount":7,"thoughtsTokenCount":4,"totalTokenCount":21}"#;
const CALLS: &str =
    r#"{"functionCall":{"id":"c0","name":"f","args":{"a": 1}}},{"functionCall":{"id":"c1","name":"g","args":{}}}"#;
const OPENAI: ProviderId = ProviderId::OPENAI;

fn response(parts: &str, finish: &str, usage: &str) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}{finish},"index":0}}]{usage},"modelVersion":"m","responseId":"0000000000000000000000000000ca11"}}"#
    )
}

#[test]
fn a_whole_answer() {
    let parts = format!(r#"{{"text":"so","thought":true}},{{"text":"hi \"é\""}},{CALLS}"#);
    let renderer = frame(Dialect::Gemini, OutputForm::Whole, false).renderer();
    let told = written(renderer, &everything(), AnswerEnd::Settled(&receipt()));
    assert_eq!(told, response(&parts, r#","finishReason":"STOP""#, USAGE));
}

#[test]
fn both_streams() {
    let chunks = [
        response(r#"{"text":"so","thought":true}"#, "", ""),
        response(r#"{"text":"hi \"é\""}"#, "", ""),
        response(CALLS, r#","finishReason":"STOP""#, USAGE),
    ];
    let renderer = frame(Dialect::Gemini, EVENTS, false).renderer();
    let events = chunks.each_ref().map(|chunk| format!("data: {chunk}\r\n\r\n")).concat();
    assert_eq!(written(renderer, &everything(), AnswerEnd::Settled(&receipt())), events);
    let renderer = frame(Dialect::Gemini, ARRAY, false).renderer();
    assert_eq!(written(renderer, &everything(), AnswerEnd::Settled(&receipt())), format!("[{}]", chunks.join(",\r\n")));
}

#[test]
fn a_stream_that_is_cut_or_breaks() {
    let says = [piece(&[text("a")])];
    let first = response(r#"{"text":"a"}"#, "", "");
    let last = response(r#"{"text":""}"#, r#","finishReason":"MAX_TOKENS""#, USAGE);
    let renderer = frame(Dialect::Gemini, ARRAY, false).renderer();
    assert_eq!(written(renderer, &says, AnswerEnd::Cut(Some(&receipt()))), format!("[{first},\r\n{last}]"));
    for form in [EVENTS, ARRAY] {
        for is_native in [true, false] {
            let renderer = frame(Dialect::Gemini, form, is_native).renderer();
            let says = [native(&first)];
            let broken =
                written(renderer, if is_native { &says } else { &[] }, AnswerEnd::Broken(&refused("f", "is wrong")));
            let told = broken.rsplit_once("{\"error\"").unwrap().1;
            assert!(told.contains(r#""code":400"#) && told.contains(r#""status":"INVALID_ARGUMENT""#), "{broken}");
            if form == ARRAY {
                serde_json::from_str::<Vec<serde_json::Value>>(&broken).unwrap();
            }
        }
    }
}

#[test]
fn its_own_responses_pass_as_they_are() {
    let (one, two) = (r#"{"responseId":"x","modelVersion":"gem","n":1}"#, r#"{"n": 2 }"#);
    let pieces = [native(one), native(two)];
    let array = || frame(Dialect::Gemini, ARRAY, true).renderer();
    assert_eq!(written(array(), &pieces, AnswerEnd::Settled(&receipt())), format!("[{one},\r\n{two}]"));
    assert_eq!(written(array(), &[], AnswerEnd::Settled(&receipt())), "[]");
    let last = response(r#"{"text":""}"#, r#","finishReason":"MAX_TOKENS""#, USAGE);
    let last = last.replace("\"m\"", "\"gem\"").replace("0000000000000000000000000000ca11", "x");
    assert_eq!(written(array(), &pieces, AnswerEnd::Cut(Some(&receipt()))), format!("[{one},\r\n{two},\r\n{last}]"));
    let (one, two) = (format!("data: {one}\r\n\r\n"), format!("data: {two}\r\n\r\n"));
    let pieces = [native(&one), native(&two)];
    let events = || frame(Dialect::Gemini, EVENTS, true).renderer();
    assert_eq!(written(events(), &pieces, AnswerEnd::Settled(&receipt())), format!("{one}{two}"));
    assert_eq!(written(events(), &pieces, AnswerEnd::Cut(Some(&receipt()))), format!("{one}{two}data: {last}\r\n\r\n"));
}

#[test]
fn a_request_becomes_a_conversation() {
    let body = r#"{"systemInstruction":{"role":"user","parts":[{"text":"be kind"},{"text":"be brief"}]},
        "generationConfig":{"maxOutputTokens":40,"temperature":0.5,"topP":0.9,"stopSequences":["x"],"candidateCount":1,"seed":4,
        "responseMimeType":"text/plain"},"safetySettings":[{}],"labels":{},
        "tools":[{"functionDeclarations":[{"name":"f","description":"d","parameters":{"type":"OBJECT","properties":{"b":{"type":"STRING"}}}},
        {"name":"g","parametersJsonSchema":{"type":"object"}}]}],
        "toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}},
        "contents":[{"parts":[{"text":"one"}]},
        {"role":"model","parts":[{"text":"hm","thought":true},{"text":"two"},
        {"functionCall":{"name":"f","args":{"b": "1"}},"thoughtSignature":"s"},{"functionCall":{"id":"own","name":"f","args":{}}}]},
        {"role":"user","parts":[{"functionResponse":{"name":"f","response":{"result": 5}}},
        {"functionResponse":{"id":"own","name":"f","response":{"error":"no"}}}]},{"role":"user","parts":[{"text":"and?"}]}]}"#;
    let call = |id: &str, arguments: &str| {
        MessagePart::ToolCall(ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: arguments.to_owned() })
    };
    let answer = |id: &str, content: &str, is_error| {
        let (id, name, content) = (id.to_owned(), "f".to_owned(), content.to_owned());
        MessagePart::ToolAnswer(ToolAnswer { id, name, content, is_error })
    };
    let tool = |name: &str, description: Option<&str>, parameters: &str| ToolDefinition {
        name: name.to_owned(),
        description: description.map(str::to_owned),
        parameters: Some(parameters.to_owned()),
    };
    let expected = Conversation {
        system: Some("be kind\n\nbe brief".to_owned()),
        turns: vec![
            ConversationTurn::text(Speaker::User, "one"),
            ConversationTurn {
                speaker: Speaker::Assistant,
                parts: vec![MessagePart::Text("two".to_owned()), call("call_0", r#"{"b": "1"}"#), call("own", "{}")],
            },
            ConversationTurn {
                speaker: Speaker::User,
                parts: vec![
                    answer("call_0", r#"{"result": 5}"#, false),
                    answer("own", r#"{"error":"no"}"#, true),
                    MessagePart::Text("and?".to_owned()),
                ],
            },
        ],
        tools: vec![
            tool("f", Some("d"), r#"{"type":"object","properties":{"b":{"type":"string"}}}"#),
            tool("g", None, r#"{"type":"object"}"#),
        ],
        tool_choice: ToolChoice::Named("f".to_owned()),
        parallel_tools: None,
        max_output_tokens: Some(40),
        temperature: Some(0.5),
        top_p: Some(0.9),
        stop: vec!["x".to_owned()],
    };
    assert_eq!(translate(body, OPENAI).unwrap(), expected);
    let snake = body.replace("systemInstruction", "system_instruction").replace("toolConfig", "tool_config");
    let snake =
        snake.replace("functionDeclarations", "function_declarations").replace("maxOutputTokens", "max_output_tokens");
    assert_eq!(translate(&snake, OPENAI).unwrap(), expected, "the other names say the same");
}

#[test]
fn what_cannot_be_translated_is_named() {
    let with = |fields: &str| format!(r#"{{"contents":[{{"parts":[{{"text":"x"}}]}}],{fields}}}"#);
    let says = |part: &str| format!(r#"{{"contents":[{{"parts":[{{"text":"x"}},{part}]}}]}}"#);
    for (body, field) in [
        (with(r#""cachedContent":"c""#), "cachedContent"),
        (with(r#""generationConfig":{"topK":5}"#), "generationConfig.topK"),
        (with(r#""generationConfig":{"responseMimeType":"application/json"}"#), "generationConfig.responseMimeType"),
        (with(r#""generationConfig":{"thinkingConfig":{"thinkingBudget":5}}"#), "generationConfig.thinkingConfig"),
        (with(r#""tools":[{"googleSearch":{}}]"#), "tools[0].googleSearch"),
        (says(r#"{"inlineData":{"mimeType":"image/png","data":"AA"}}"#), "contents[0].parts[1].inlineData"),
        (says(r#"{"fileData":{}}"#), "contents[0].parts[1].fileData"),
    ] {
        let why = translate(&body, OPENAI).unwrap_err();
        assert_eq!((why.status.as_u16(), &why.fields["errors"][0]["field"]), (400, &field.into()), "{body}");
        let body = serde_json::from_str(&body).unwrap();
        assert!(leniency::conversation(Dialect::Gemini, &body).is_ok(), "the sandbox passes over {field}");
    }
    let choice = |mode: &str| with(&format!(r#""toolConfig":{{"functionCallingConfig":{{{mode}}}}}"#));
    for (body, field) in [
        (says(r#"{"functionResponse":{"name":"f","response":{}}}"#), "contents[0].parts[1].functionResponse.name"),
        (choice(r#""mode":"PERHAPS""#), "toolConfig.functionCallingConfig.mode"),
        (
            choice(r#""mode":"ANY","allowedFunctionNames":["f","g"]"#),
            "toolConfig.functionCallingConfig.allowedFunctionNames",
        ),
        (r#"{"contents":[{"parts":[]}]}"#.to_owned(), "contents"),
        (r#"{"contents":[{"role":"robot","parts":[]}]}"#.to_owned(), "contents[0].role"),
    ] {
        let why = translate(&body, OPENAI).unwrap_err();
        assert_eq!(why.fields["errors"][0]["field"], field, "{body}");
    }
}

#[test]
fn the_reasons_are_its_own() {
    for (reason, word) in [
        (FinishReason::Stop, "STOP"),
        (FinishReason::Length, "MAX_TOKENS"),
        (FinishReason::ToolCalls, "STOP"),
        (FinishReason::Filtered, "SAFETY"),
    ] {
        assert_eq!(super::words::finish_reason(reason), word);
    }
}
