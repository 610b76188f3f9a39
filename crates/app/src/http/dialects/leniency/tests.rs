use serde_json::json;

use super::*;

fn said(conversation: &Conversation) -> Vec<String> {
    let part = |part: &MessagePart| match part {
        MessagePart::Text(text) => text.clone(),
        MessagePart::ToolCall(call) => format!("{}={}({})", call.id, call.name, call.arguments),
        MessagePart::ToolAnswer(answer) => format!("{}:{}={}", answer.id, answer.name, answer.content),
    };
    let turn = |turn: &ConversationTurn| {
        let parts: Vec<String> = turn.parts.iter().map(part).collect();
        format!("{}: {}", if turn.speaker == Speaker::User { "u" } else { "a" }, parts.join(" | "))
    };
    conversation.turns.iter().map(turn).collect()
}

/// As Claude Code sends it: a system prompt in blocks, thinking, caching, tool results, a system message in between.
#[test]
fn what_coding_agents_send_in_anthropics_dialect_is_taken() {
    let body = json!({
        "model": "m", "max_tokens": 32_000.0, "stream": true, "temperature": 1, "metadata": { "user_id": "{\"a\":1}" },
        "thinking": { "type": "adaptive" }, "context_management": { "edits": [{ "type": "clear_thinking" }] },
        "output_config": { "effort": "high" }, "unheard_of": [[{}]],
        "system": [{ "type": "text", "text": "be terse", "cache_control": { "type": "ephemeral", "ttl": "1h" } }, "plain"],
        "tools": [{ "name": "Bash", "description": "d", "input_schema": { "$schema": "x", "type": ["object", "null"] },
            "eager_input_streaming": true, "defer_loading": 7 },
            { "type": "web_search_20250305", "name": "web_search", "max_uses": 8 }, { "type": "custom", "name": "Odd" }, 5],
        "tool_choice": { "type": "whatever" },
        "messages": [
            { "role": "user", "content": [{ "type": "text", "text": "hi", "cache_control": null },
                { "type": "image", "source": { "type": "base64", "data": "AA==" } }] },
            { "role": "assistant", "content": [{ "type": "thinking", "thinking": "t", "signature": "s" },
                { "type": "redacted_thinking", "data": "x" }, { "type": "server_tool_use", "id": "s" },
                { "type": "tool_use", "id": "t1", "name": "Bash", "input": { "command": "ls" }, "caller": {} }] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t1", "is_error": false,
                "content": [{ "type": "text", "text": "a" }, { "type": "image" }, { "type": "tool_reference" }] },
                { "type": "tool_result", "tool_use_id": "never-called" }] },
            { "role": "system", "content": "be terser" },
            { "role": "critic", "content": null },
            "not even an object",
        ],
    });
    let heard = conversation(Dialect::Anthropic, &body).unwrap();
    assert_eq!(heard.system.as_deref(), Some("be terse\n\nplain\n\nbe terser"));
    assert_eq!(
        said(&heard),
        ["u: hi", r#"a: t1=Bash({"command":"ls"})"#, "u: t1:Bash=a | never-called:unknown=", "u: ", "u: "]
    );
    assert_eq!(heard.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["Bash", "Odd"]);
    assert_eq!((heard.max_output_tokens, heard.tool_choice), (Some(32_000), ToolChoice::Auto));
    let warming = json!({ "max_tokens": 0, "messages": [{ "role": "user", "content": "x" }] });
    assert_eq!(conversation(Dialect::Anthropic, &warming).unwrap().max_output_tokens, Some(0));
}

#[test]
fn what_clients_send_in_openais_dialect_is_taken() {
    let body = json!({
        "model": "m", "max_completion_tokens": 9, "reasoning_effort": "xhigh", "n": 3, "logit_bias": [],
        "tools": [{ "type": "function", "function": { "name": "look", "strict": null, "parameters": null } },
            { "type": "custom", "custom": { "name": "exec" } }, { "name": "flat", "parameters": {} }],
        "functions": [{ "name": "old" }], "tool_choice": { "type": "allowed_tools" }, "parallel_tool_calls": false,
        "messages": [
            { "role": "developer", "content": "be terse" },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "input_audio" }, "b"], "name": 5 },
            { "role": "assistant", "content": null, "reasoning": "hm", "tool_calls": [
                { "id": "c1", "function": { "name": "look", "arguments": "not json" } }, { "index": 1 }] },
            { "role": "tool", "tool_call_id": "c1", "content": [{ "type": "text", "text": "rain" }] },
            { "role": "function", "name": "old", "content": "sun" },
        ],
    });
    let heard = conversation(Dialect::OpenAiChat, &body).unwrap();
    let expected = ["u: a | b", "a: c1=look(not json) | call_1=({})", "u: c1:look=rain", "u: :old=sun"];
    assert_eq!(said(&heard), expected);
    assert_eq!(heard.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["look", "flat", "old"]);
    assert_eq!((heard.parallel_tools, heard.system.as_deref()), (Some(false), Some("be terse")));
}

#[test]
fn what_clients_send_in_geminis_dialect_is_taken() {
    let body = json!({
        "systemInstruction": "be terse", "safetySettings": 5, "session_id": "s",
        "generationConfig": { "maxOutputTokens": 7.0, "thinkingConfig": { "includeThoughts": true }, "topK": 64 },
        "tools": [{ "functionDeclarations": [{ "name": "run", "parametersJsonSchema": { "type": "object" } }] },
            { "googleSearch": {} }],
        "toolConfig": { "functionCallingConfig": { "mode": "VALIDATED" } },
        "contents": [
            { "parts": { "text": "hi" } },
            { "role": "model", "parts": [{ "text": "hm", "thought": true }, { "thoughtSignature": "x",
                "functionCall": { "name": "run", "args": { "a": 1 } } }, { "executableCode": {} }] },
            { "role": "tool", "parts": [{ "functionResponse": { "name": "run", "response": { "output": "ok" } } }] },
            { "role": "robot" },
        ],
    });
    let heard = conversation(Dialect::Gemini, &body).unwrap();
    let expected = ["u: hi", r#"a: call_0=run({"a":1})"#, r#"u: :run={"output":"ok"}"#, "u: "];
    assert_eq!(said(&heard), expected);
    assert_eq!((heard.system.as_deref(), heard.max_output_tokens), (Some("be terse"), Some(7)));
    assert_eq!(heard.tools[0].parameters.as_deref(), Some(r#"{"type":"object"}"#));
}

#[test]
fn a_body_without_messages_is_refused() {
    for (dialect, name) in
        [(Dialect::OpenAiChat, "messages"), (Dialect::Anthropic, "messages"), (Dialect::Gemini, "contents")]
    {
        for messages in [json!([]), json!("x"), json!(null), json!({})] {
            let refused = conversation(dialect, &json!({ name: messages })).unwrap_err();
            assert_eq!(refused.fields["errors"][0]["field"], name, "{messages}");
        }
    }
}
