//! Writes a conversation for each provider and parses its reply: compared with texts written by hand.

use domain::ai::{
    AnswerDelta, Conversation, ConversationTurn, Dialect, FinishReason, MessagePart, ModelId, Speaker, ToolAnswer,
    ToolCall, ToolChoice, ToolDefinition,
};
use ports::ai::ProviderCall;
use testkit::upstream::{PieceSplit, Script, Upstream};

use crate::asking::{ask, conversing, provider, saying};

const SCHEMA: &str = r#"{"type":"object", "properties":{"city":{"type":"string"}},"additionalProperties":false}"#;

/// A conversation with every feature.
fn everything() -> Conversation {
    let call = |id: &str, name: &str, arguments: &str| {
        MessagePart::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() })
    };
    let answer = |id: &str, name: &str, content: &str, is_error| {
        MessagePart::ToolAnswer(ToolAnswer { id: id.into(), name: name.into(), content: content.into(), is_error })
    };
    let turn = |speaker, parts| ConversationTurn { speaker, parts };
    Conversation {
        system: Some("be \"kind\"".into()),
        turns: vec![
            turn(Speaker::User, vec![MessagePart::Text("one".into()), MessagePart::Text("two é".into())]),
            turn(
                Speaker::Assistant,
                vec![
                    MessagePart::Text("I look.".into()),
                    call("c1", "weather", r#"{"city": "Zürich"}"#),
                    call("c2", "time", ""),
                ],
            ),
            turn(
                Speaker::User,
                vec![
                    MessagePart::Text("and?".into()),
                    answer("c1", "weather", "rain", false),
                    answer("c2", "time", "no", true),
                ],
            ),
            turn(Speaker::Assistant, vec![MessagePart::Text(String::new())]),
        ],
        tools: vec![
            ToolDefinition {
                name: "weather".into(),
                description: Some("The weather.".into()),
                parameters: Some(SCHEMA.into()),
            },
            ToolDefinition { name: "time".into(), description: None, parameters: None },
        ],
        tool_choice: ToolChoice::Named("weather".into()),
        parallel_tools: Some(false),
        max_output_tokens: Some(500),
        temperature: Some(1.5),
        top_p: Some(0.5),
        stop: vec!["END".into()],
    }
}

async fn written(stub: &Upstream, call: &ProviderCall) -> String {
    ask(&provider(stub, call.provider.dialect), call).await;
    String::from_utf8(stub.requests().pop().unwrap().body).unwrap()
}

#[tokio::test]
async fn everything_is_said_to_openai() {
    let stub = Upstream::start();
    let messages = r#"[{"role":"system","content":"be \"kind\""},{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two é"}]},{"role":"assistant","content":"I look.","tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Zürich\"}"}},{"id":"c2","type":"function","function":{"name":"time","arguments":"{}"}}]},{"role":"tool","content":"rain","tool_call_id":"c1"},{"role":"tool","content":"no","tool_call_id":"c2"},{"role":"user","content":"and?"},{"role":"assistant","content":""}]"#;
    let expected = format!(
        r#"{{"model":"m","messages":{messages},"tools":[{{"type":"function","function":{{"name":"weather","description":"The weather.","parameters":{SCHEMA}}}}},{{"type":"function","function":{{"name":"time"}}}}],"tool_choice":{{"type":"function","function":{{"name":"weather"}}}},"parallel_tool_calls":false,"max_completion_tokens":500,"temperature":1.5,"top_p":0.5,"stop":["END"]}}"#
    );
    assert_eq!(written(&stub, &conversing(Dialect::OpenAiChat, everything(), false)).await, expected);
    let streamed =
        expected.trim_end_matches('}').to_owned() + r#","stream":true,"stream_options":{"include_usage":true}}"#;
    assert_eq!(written(&stub, &conversing(Dialect::OpenAiChat, everything(), true)).await, streamed);
    let small = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(written(&stub, &conversing(Dialect::OpenAiChat, saying("hi"), false)).await, small);
}

#[tokio::test]
async fn everything_is_said_to_claude() {
    let stub = Upstream::start();
    let messages = r#"[{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two é"}]},{"role":"assistant","content":[{"type":"text","text":"I look."},{"type":"tool_use","id":"c1","name":"weather","input":{"city": "Zürich"}},{"type":"tool_use","id":"c2","name":"time","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":"rain"},{"type":"tool_result","tool_use_id":"c2","content":"no","is_error":true},{"type":"text","text":"and?"}]}]"#;
    let expected = format!(
        r#"{{"model":"m","max_tokens":500,"system":"be \"kind\"","messages":{messages},"tools":[{{"name":"weather","description":"The weather.","input_schema":{SCHEMA}}},{{"name":"time","input_schema":{{"type":"object"}}}}],"tool_choice":{{"type":"tool","name":"weather","disable_parallel_tool_use":true}},"temperature":1.0,"stop_sequences":["END"]}}"#
    );
    assert_eq!(written(&stub, &conversing(Dialect::Anthropic, everything(), false)).await, expected);
    let streamed = expected.trim_end_matches('}').to_owned() + r#","stream":true}"#;
    assert_eq!(written(&stub, &conversing(Dialect::Anthropic, everything(), true)).await, streamed);
    let small =
        r#"{"model":"m","max_tokens":4096,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}"#;
    assert_eq!(written(&stub, &conversing(Dialect::Anthropic, saying("hi"), false)).await, small);
}

#[tokio::test]
async fn everything_is_said_to_gemini() {
    let stub = Upstream::start();
    let contents = r#"[{"role":"user","parts":[{"text":"one"},{"text":"two é"}]},{"role":"model","parts":[{"text":"I look."},{"functionCall":{"name":"weather","args":{"city": "Zürich"}}},{"functionCall":{"name":"time","args":{}}}]},{"role":"user","parts":[{"text":"and?"},{"functionResponse":{"name":"weather","response":{"output":"rain"}}},{"functionResponse":{"name":"time","response":{"error":"no"}}}]}]"#;
    let expected = format!(
        r#"{{"systemInstruction":{{"parts":[{{"text":"be \"kind\""}}]}},"contents":{contents},"tools":[{{"functionDeclarations":[{{"name":"weather","description":"The weather.","parametersJsonSchema":{SCHEMA}}},{{"name":"time","description":"time"}}]}}],"toolConfig":{{"functionCallingConfig":{{"mode":"ANY","allowedFunctionNames":["weather"]}}}},"generationConfig":{{"maxOutputTokens":500,"temperature":1.5,"topP":0.5,"stopSequences":["END"]}}}}"#
    );
    for streamed in [false, true] {
        assert_eq!(written(&stub, &conversing(Dialect::Gemini, everything(), streamed)).await, expected);
        let target = stub.requests().pop().unwrap().target;
        let verb = if streamed { "streamGenerateContent?alt=sse" } else { "generateContent" };
        assert_eq!(target, format!("/v1beta/models/m:{verb}"));
    }
    let small = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
    assert_eq!(written(&stub, &conversing(Dialect::Gemini, saying("hi"), false)).await, small);
    let mut newer = conversing(Dialect::Gemini, everything(), false);
    newer.model = ModelId::parse("gemini-3.1-pro-preview").unwrap();
    let signed = expected
        .replace(
            r#"{"city": "Zürich"}}}"#,
            r#"{"city": "Zürich"}},"thoughtSignature":"skip_thought_signature_validator"}"#,
        )
        .replace(r#""args":{}}}"#, r#""args":{}},"thoughtSignature":"skip_thought_signature_validator"}"#);
    assert_eq!(written(&stub, &newer).await, signed);
}

#[tokio::test]
async fn the_choice_of_a_tool_has_each_providers_word() {
    let stub = Upstream::start();
    for (choice, openai, claude, gemini) in [
        (ToolChoice::Auto, None, None, None),
        (
            ToolChoice::Never,
            Some(r#""tool_choice":"none""#),
            Some(r#""tool_choice":{"type":"none"}"#),
            Some(r#"{"mode":"NONE"}"#),
        ),
        (
            ToolChoice::Required,
            Some(r#""tool_choice":"required""#),
            Some(r#""tool_choice":{"type":"any"}"#),
            Some(r#"{"mode":"ANY"}"#),
        ),
    ] {
        for (of, expected) in [(Dialect::OpenAiChat, openai), (Dialect::Anthropic, claude), (Dialect::Gemini, gemini)] {
            let conversation = Conversation { tool_choice: choice.clone(), parallel_tools: None, ..everything() };
            let body = written(&stub, &conversing(of, conversation.clone(), false)).await;
            match expected {
                Some(expected) => assert!(body.contains(expected), "{of}: {body}"),
                None => assert!(!body.contains("tool_choice") && !body.contains("toolConfig"), "{of}: {body}"),
            }
            // Without tools there is nothing to choose, and the providers refuse the field.
            let body = written(&stub, &conversing(of, Conversation { tools: vec![], ..conversation }, false)).await;
            assert!(!body.contains("tool_choice") && !body.contains("toolConfig"), "{of}: {body}");
        }
    }
}

#[tokio::test]
async fn the_bound_of_the_call_goes_before_that_of_the_conversation() {
    let stub = Upstream::start();
    for (of, name) in [
        (Dialect::OpenAiChat, "max_completion_tokens"),
        (Dialect::Anthropic, "max_tokens"),
        (Dialect::Gemini, "maxOutputTokens"),
    ] {
        let call = ProviderCall { max_output_tokens: Some(7), ..conversing(of, everything(), false) };
        let body = written(&stub, &call).await;
        assert!(body.contains(&format!("\"{name}\":7")) && !body.contains("500"), "{of}: {body}");
    }
}

#[tokio::test]
async fn a_reply_is_read_whole_and_streamed() {
    let stub = Upstream::start();
    let script = Script::says("Ich sehe nach 🦀.")
        .thinking("so so")
        .calling("weather", r#"{"city": "Zürich"}"#)
        .calling("time", "{}");
    for of in Dialect::ALL {
        for (streamed, split) in [
            (false, PieceSplit::Events),
            (true, PieceSplit::Events),
            (true, PieceSplit::Every(1)),
            (true, PieceSplit::InsideCharacters),
        ] {
            stub.script("m", script.clone().split(split));
            let got = ask(&provider(&stub, of), &conversing(of, saying("hi"), streamed)).await;
            got.is_whole();
            assert_eq!(got.frames(), "", "what nobody is shown is not kept");
            let number = stub.requests().pop().unwrap().number;
            let id = |index: u32| match of {
                Dialect::OpenAiChat => format!("call_stub{number}_0_{index}"),
                Dialect::Anthropic => format!("toolu_stub{number}_{index}"),
                Dialect::Gemini => format!("call_stub{number}_{index}"),
            };
            let mut expected = vec![
                AnswerDelta::Text("Ich sehe nach 🦀.".into()),
                AnswerDelta::ToolCallBegun { index: 0, id: id(0), name: "weather".into() },
                AnswerDelta::ToolArguments { index: 0, json: r#"{"city": "Zürich"}"#.into() },
                AnswerDelta::ToolCallBegun { index: 1, id: id(1), name: "time".into() },
                AnswerDelta::ToolArguments { index: 1, json: "{}".into() },
                AnswerDelta::Finished(FinishReason::ToolCalls),
            ];
            // OpenAI counts its thinking and does not show it.
            if of != Dialect::OpenAiChat {
                expected.insert(0, AnswerDelta::Thinking("so so".into()));
            }
            assert_eq!(got.deltas(), expected, "{of} {streamed} {split:?}");
        }
    }
}

#[tokio::test]
async fn a_call_without_arguments_has_an_empty_object_of_them() {
    let stub = Upstream::start();
    stub.script("m", Script::says("").calling("now", ""));
    for of in Dialect::ALL {
        let got = ask(&provider(&stub, of), &conversing(of, saying("hi"), true)).await;
        got.is_whole();
        let arguments: Vec<AnswerDelta> =
            got.deltas().into_iter().filter(|delta| matches!(delta, AnswerDelta::ToolArguments { .. })).collect();
        assert_eq!(arguments, [AnswerDelta::ToolArguments { index: 0, json: "{}".into() }], "{of}");
    }
}

#[tokio::test]
async fn a_schema_that_is_no_json_never_leaves() {
    let stub = Upstream::start();
    let tool = ToolDefinition { name: "t".into(), description: None, parameters: Some("{oops".into()) };
    for of in Dialect::ALL {
        let conversation = Conversation { tools: vec![tool.clone()], ..saying("hi") };
        let got = ask(&provider(&stub, of), &conversing(of, conversation, false)).await;
        let told = got.fault.unwrap().to_string();
        assert!(told.contains("400") && told.contains("the schema of a tool is not JSON"), "{told}");
    }
    assert_eq!(stub.totals().requests, 0);
}
