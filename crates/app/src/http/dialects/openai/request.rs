//! Reads what a chat completion or a call for embeddings asks for.

use domain::ai::{Geo, Tier};
use ports::ai::StreamFraming;
use serde_json::Value;

use crate::http::dialects::request_summary::{
    OutputForm, RequestSummary, answers, bound, model, present, refused, says_true,
};
use crate::http::problem::Problem;

/// How many texts one call may embed.
const INPUTS_MAX: usize = 2_048;

pub fn read(body: &Value) -> Result<RequestSummary, Problem> {
    let answers = answers(body.get("n"));
    let include_usage = present(body, "stream_options").is_some_and(|options| says_true(options, "include_usage"));
    let form =
        if says_true(body, "stream") { OutputForm::Stream(StreamFraming::ServerSentEvents) } else { OutputForm::Whole };
    // Both are passed on as they came, and the provider decides which one counts.
    let most = bound(body.get("max_completion_tokens")).max(bound(body.get("max_tokens")));
    Ok(RequestSummary {
        model: model(body)?,
        form,
        include_usage,
        max_output_tokens: most,
        answers,
        tier: tier(body),
        geo: Geo::ANYWHERE,
    })
}

pub fn read_embeddings(body: &Value) -> Result<RequestSummary, Problem> {
    let input = present(body, "input").ok_or_else(|| refused("input", "is missing"))?;
    if !is_embeddable(input) {
        let why = format!("is text, a list of at most {INPUTS_MAX} texts, or tokens, and is not empty");
        return Err(refused("input", why));
    }
    Ok(RequestSummary {
        model: model(body)?,
        form: OutputForm::Whole,
        include_usage: false,
        max_output_tokens: Some(0),
        answers: 1,
        tier: Tier::Standard,
        geo: Geo::ANYWHERE,
    })
}

/// Text, texts, or tokens that the client encoded itself.
fn is_embeddable(input: &Value) -> bool {
    let is_one = |item: &Value| match item {
        Value::String(_) => true,
        Value::Array(tokens) => !tokens.is_empty() && tokens.iter().all(Value::is_u64),
        _ => false,
    };
    match input {
        Value::Array(items) if items.first().is_some_and(|item| !item.is_number()) => {
            items.len() <= INPUTS_MAX && items.iter().all(is_one)
        }
        other => is_one(other),
    }
}

/// The requested tier. `auto`, and a word that is not known, may be served at the highest price, so that is reserved.
fn tier(body: &Value) -> Tier {
    match present(body, "service_tier").map(|tier| tier.as_str().unwrap_or_default()) {
        None | Some("default" | "standard") => Tier::Standard,
        Some("flex") => Tier::Flex,
        Some("batch") => Tier::Batch,
        Some(_) => Tier::Priority,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(refused: &Problem) -> String {
        refused.fields["errors"][0]["field"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_tier_that_may_be_served_dearer_is_reserved_for() {
        for (named, expected) in [
            (json!(null), Tier::Standard),
            (json!("default"), Tier::Standard),
            (json!("flex"), Tier::Flex),
            (json!("priority"), Tier::Priority),
            (json!("auto"), Tier::Priority),
            (json!("ultra"), Tier::Priority),
            (json!(7), Tier::Priority),
        ] {
            assert_eq!(tier(&json!({ "service_tier": named })), expected, "{named}");
        }
    }

    #[test]
    fn a_request_is_read_as_far_as_it_is_held() {
        let asked = read(&json!({ "model": "m", "messages": [{ "role": "system", "content": "be kind" },
                { "role": "user", "content": [{ "type": "text", "text": "one" },
                { "type": "image_url", "image_url": { "url": "https://x" } }] }],
                "tools": [{ "type": "function" }], "max_tokens": 9, "n": 2, "stream": true,
                "stream_options": { "include_usage": true }, "service_tier": "flex", "web_search_options": {},
                "unheard_of": [1] }))
        .unwrap();
        assert_eq!((asked.model.as_str(), asked.max_output_tokens, asked.answers), ("m", Some(9), 2));
        assert_eq!((asked.form, asked.include_usage), (OutputForm::Stream(StreamFraming::ServerSentEvents), true));
        assert_eq!(asked.tier, Tier::Flex);
        let both =
            json!({ "model": "m", "messages": [{ "role": "user" }], "max_tokens": 9, "max_completion_tokens": 5 });
        assert_eq!(read(&both).unwrap().max_output_tokens, Some(9));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let user = json!([{ "role": "user", "content": "x" }]);
        for (body, name) in [(json!({ "messages": user }), "model"), (json!({ "model": 1, "messages": user }), "model")]
        {
            assert_eq!(field(&read(&body).unwrap_err()), name, "{body}");
        }
    }

    #[test]
    fn what_the_hold_does_not_need_is_the_providers_to_refuse() {
        for (change, most, answers) in [
            (json!({}), None, 1),
            (json!({ "messages": [{ "role": "user" }, { "role": "robot" }, "x"] }), None, 1),
            (json!({ "messages": "x", "stream": "yes", "stream_options": { "include_usage": 1 } }), None, 1),
            (json!({ "max_tokens": 0, "n": 0 }), Some(0), 1),
            (json!({ "max_completion_tokens": 10.0, "max_tokens": 5, "n": 2.0 }), Some(10), 2),
            (json!({ "max_completion_tokens": "many", "max_tokens": -1, "n": 129 }), None, 129),
        ] {
            let mut body = json!({ "model": "m" });
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let asked = read(&body).unwrap();
            assert_eq!(
                (asked.max_output_tokens, asked.answers, asked.form),
                (most, answers, OutputForm::Whole),
                "{body}"
            );
        }
    }

    #[test]
    fn embeddings_take_texts_and_tokens() {
        let read = |input: Value| read_embeddings(&json!({ "model": "m", "input": input }));
        for good in [json!("a b"), json!(["a b", "c"]), json!([1, 2, 3]), json!([[1, 2], [3]])] {
            assert!(read(good).is_ok());
        }
        for bad in [json!([]), json!({}), json!([{}]), json!(null), json!([1, "a"]), json!(vec!["a"; 2_049])] {
            assert_eq!(field(&read(bad).unwrap_err()), "input");
        }
    }
}
