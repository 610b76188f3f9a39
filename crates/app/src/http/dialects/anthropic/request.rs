//! What a message asks for.

use domain::ai::{TOKENS_MAX, Tier, ToolCalls};
use ports::ai::Framing;
use serde_json::Value;
use services::ai::calls::InputSize;

use crate::http::dialects::asked::{Asked, Form, bound, model, present, refused, says_true};
use crate::http::dialects::sizing::Scale;
use crate::http::problem::Problem;

/// How often a tool of the provider's may be called where the call does not say.
const TOOL_CALLS: u64 = 5;

pub fn read(body: &Value, count: &dyn Fn(&str) -> u64) -> Result<Asked, Problem> {
    let most = present(body, "max_tokens").ok_or_else(|| refused("max_tokens", "is missing"))?;
    let form = if says_true(body, "stream") { Form::Stream(Framing::ServerSentEvents) } else { Form::Whole };
    Ok(Asked {
        model: model(body)?,
        form,
        include_usage: true,
        input: input(body, count)?,
        // What is no bound goes on as it came, and as much is held as the model may say.
        max_output_tokens: Some(bound(Some(most)).unwrap_or(TOKENS_MAX)),
        answers: 1,
        tier: tier(body),
    })
}

/// What goes in, which is all that the counting of tokens asks for.
pub fn input(body: &Value, count: &dyn Fn(&str) -> u64) -> Result<InputSize, Problem> {
    let messages = present(body, "messages").and_then(Value::as_array).map_or(0, Vec::len);
    let mut scale = Scale::new(count);
    scale.weigh(body, "system")?;
    scale.weigh(body, "messages")?;
    for name in ["tools", "output_format", "output_config"] {
        scale.weigh_json(body, name);
    }
    let messages = u64::try_from(messages).unwrap_or(u64::MAX);
    Ok(InputSize { messages, tool_calls: tool_calls(body), ..scale.size })
}

/// The tools that run at the provider and are billed by the call.
fn tool_calls(body: &Value) -> ToolCalls {
    let mut calls = ToolCalls::default();
    for tool in present(body, "tools").and_then(Value::as_array).into_iter().flatten() {
        let kind = tool.get("type").and_then(Value::as_str).unwrap_or_default();
        let uses = tool.get("max_uses").and_then(Value::as_u64).unwrap_or(TOOL_CALLS);
        let place = match kind {
            _ if kind.starts_with("web_search") => &mut calls.web_search,
            _ if kind.starts_with("web_fetch") => &mut calls.web_fetch,
            _ if kind.starts_with("code_execution") => &mut calls.code_execution,
            _ => continue,
        };
        *place = place.saturating_add(uses);
    }
    calls
}

fn tier(body: &Value) -> Tier {
    let fast = body.get("speed").and_then(Value::as_str) == Some("fast");
    if fast { Tier::Fast } else { Tier::Standard }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> u64 {
        u64::try_from(text.split_whitespace().count()).unwrap()
    }

    #[test]
    fn a_message_is_read_as_far_as_it_is_held() {
        let asked = read(
            &json!({ "model": "m", "max_tokens": 7, "stream": true, "system": [{ "type": "text", "text": "be kind" }],
                "messages": [{ "role": "user", "content": [{ "type": "text", "text": "one" },
                { "type": "image", "source": { "type": "url", "url": "https://x" } }] }],
                "tools": [{ "type": "web_search_20250305", "name": "web_search", "max_uses": 3 },
                { "type": "web_fetch_20250910", "name": "f" }, { "name": "own", "input_schema": {} }],
                "speed": "fast" }),
            &words,
        )
        .unwrap();
        assert_eq!((asked.max_output_tokens, asked.answers, asked.tier), (Some(7), 1, Tier::Fast));
        assert_eq!(asked.form, Form::Stream(Framing::ServerSentEvents));
        assert_eq!((asked.input.text_tokens, asked.input.images, asked.input.messages), (4, 1, 1));
        assert_eq!(asked.input.tool_calls, ToolCalls { web_search: 3, web_fetch: 5, code_execution: 0 });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let user = json!([{ "role": "user", "content": "x" }]);
        for (body, name) in [
            (json!({ "model": "m", "messages": user }), "max_tokens"),
            (json!({ "messages": user, "max_tokens": 1 }), "model"),
        ] {
            let refused = read(&body, &words).unwrap_err();
            assert_eq!(refused.fields["errors"][0]["field"], name, "{body}");
        }
    }

    #[test]
    fn what_the_hold_does_not_need_is_the_providers_to_refuse() {
        for (bound, expected) in [
            (json!(0), Some(0)),
            (json!(10.0), Some(10)),
            (json!(-1), Some(TOKENS_MAX)),
            (json!("x"), Some(TOKENS_MAX)),
        ] {
            for messages in [json!([]), json!("x"), json!([{ "role": "system" }, { "role": "robot" }, 5])] {
                let body = json!({ "model": "m", "messages": messages, "max_tokens": bound, "stream": 1 });
                let asked = read(&body, &words).unwrap();
                assert_eq!((asked.max_output_tokens, asked.form), (expected, Form::Whole), "{body}");
            }
        }
    }
}
