//! What a message asks for.

use domain::ai::Tier;
use ports::ai::Framing;
use serde_json::Value;

use crate::http::dialects::asked::{Asked, Form, check_roles, filled_list, flag, model, refused, tokens};
use crate::http::problem::Problem;

const ROLES: [&str; 2] = ["user", "assistant"];

pub fn read(body: &Value) -> Result<Asked, Problem> {
    let most = tokens(body.get("max_tokens"), "max_tokens")?.ok_or_else(|| refused("max_tokens", "is missing"))?;
    let form = if flag(body, "stream")? { Form::Stream(Framing::ServerSentEvents) } else { Form::Whole };
    check_messages(body)?;
    Ok(Asked {
        model: model(body)?,
        form,
        include_usage: true,
        max_output_tokens: Some(most),
        answers: 1,
        tier: tier(body),
    })
}

/// Holds the messages to what a conversation is, which is all that the counting of tokens asks for.
pub fn check_messages(body: &Value) -> Result<(), Problem> {
    check_roles(filled_list(body, "messages")?, "messages", &ROLES, false)
}

fn tier(body: &Value) -> Tier {
    let fast = body.get("speed").and_then(Value::as_str) == Some("fast");
    if fast { Tier::Fast } else { Tier::Standard }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_read_as_far_as_it_is_held() {
        let asked = read(
            &json!({ "model": "m", "max_tokens": 7, "stream": true, "system": [{ "type": "text", "text": "be kind" }],
                "messages": [{ "role": "user", "content": [{ "type": "text", "text": "one" },
                { "type": "image", "source": { "type": "url", "url": "https://x" } }] }],
                "tools": [{ "type": "web_search_20250305", "name": "web_search", "max_uses": 3 },
                { "type": "web_fetch_20250910", "name": "f" }, { "name": "own", "input_schema": {} }],
                "speed": "fast" }),
        )
        .unwrap();
        assert_eq!((asked.max_output_tokens, asked.answers, asked.tier), (Some(7), 1, Tier::Fast));
        assert_eq!(asked.form, Form::Stream(Framing::ServerSentEvents));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let user = json!([{ "role": "user", "content": "x" }]);
        for (body, name) in [
            (json!({ "model": "m", "messages": user }), "max_tokens"),
            (json!({ "model": "m", "messages": user, "max_tokens": -1 }), "max_tokens"),
            (json!({ "messages": user, "max_tokens": 1 }), "model"),
            (json!({ "model": "m", "messages": [], "max_tokens": 1 }), "messages"),
            (json!({ "model": "m", "messages": [{ "role": "system" }], "max_tokens": 1 }), "messages[0].role"),
        ] {
            let refused = read(&body).unwrap_err();
            assert_eq!(refused.fields["errors"][0]["field"], name, "{body}");
        }
    }
}
