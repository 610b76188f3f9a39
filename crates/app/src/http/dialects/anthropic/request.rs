//! Reads what a message request asks for.

use domain::ai::{Geo, TOKENS_MAX, Tier};
use ports::ai::StreamFraming;
use serde_json::Value;

use crate::http::dialects::request_summary::{OutputForm, RequestSummary, bound, model, present, refused, says_true};
use crate::http::problem::Problem;

pub fn read(body: &Value) -> Result<RequestSummary, Problem> {
    let most = present(body, "max_tokens").ok_or_else(|| refused("max_tokens", "is missing"))?;
    let form =
        if says_true(body, "stream") { OutputForm::Stream(StreamFraming::ServerSentEvents) } else { OutputForm::Whole };
    Ok(RequestSummary {
        model: model(body)?,
        form,
        include_usage: true,
        // An invalid bound is passed on as it is, and as much is reserved as the model may generate.
        max_output_tokens: Some(bound(Some(most)).unwrap_or(TOKENS_MAX)),
        answers: 1,
        tier: tier(body),
        geo: geo(body),
    })
}

fn tier(body: &Value) -> Tier {
    let fast = body.get("speed").and_then(Value::as_str) == Some("fast");
    if fast { Tier::Fast } else { Tier::Standard }
}

/// A region without a price of its own has the price of any region.
fn geo(body: &Value) -> Geo {
    let named = body.get("inference_geo").and_then(Value::as_str).filter(|name| *name != "global");
    named.and_then(|name| Geo::parse(name).ok()).unwrap_or(Geo::ANYWHERE)
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
                "speed": "fast", "inference_geo": "us" }),
        )
        .unwrap();
        assert_eq!((asked.max_output_tokens, asked.answers, asked.tier), (Some(7), 1, Tier::Fast));
        assert_eq!((asked.form, asked.geo.as_str()), (OutputForm::Stream(StreamFraming::ServerSentEvents), "us"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let user = json!([{ "role": "user", "content": "x" }]);
        for (body, name) in [
            (json!({ "model": "m", "messages": user }), "max_tokens"),
            (json!({ "messages": user, "max_tokens": 1 }), "model"),
        ] {
            let refused = read(&body).unwrap_err();
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
                let asked = read(&body).unwrap();
                assert_eq!((asked.max_output_tokens, asked.form), (expected, OutputForm::Whole), "{body}");
            }
        }
    }
}
