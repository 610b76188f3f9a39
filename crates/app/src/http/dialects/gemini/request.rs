//! Reads what a verb of Gemini asks for. The model and the form of the answer are in the path.

use domain::ai::{Geo, Tier};
use serde_json::Value;

use crate::http::dialects::request_summary::{
    OutputForm, RequestSummary, answers, bound, filled_list, present, refused,
};
use crate::http::problem::Problem;

/// Tiers that cost no more than the standard one.
const PLAIN_TIERS: [&str; 4] = ["standard", "flex", "service_tier_unspecified", "unspecified"];

/// How many texts one call may embed.
const INPUTS_MAX: usize = 100;

pub fn read(model: String, form: OutputForm, body: &Value) -> Result<RequestSummary, Problem> {
    Ok(RequestSummary {
        model,
        form,
        include_usage: true,
        max_output_tokens: most(body),
        answers: configured(body, ["candidateCount", "candidate_count"])
            .map(|value| answers(Some(value)))
            .max()
            .unwrap_or(1),
        tier: tier(body),
        geo: Geo::ANYWHERE,
    })
}

/// The requested tier. A word that is not known may be served at the highest price, so that is reserved.
fn tier(body: &Value) -> Tier {
    let names = ["serviceTier", "service_tier"];
    let tiers = names.into_iter().filter_map(|name| present(body, name)).chain(configured(body, names));
    let is_plain = |tier: &Value| tier.as_str().is_some_and(|tier| PLAIN_TIERS.contains(&tier.to_lowercase().as_str()));
    if tiers.into_iter().all(is_plain) { Tier::Standard } else { Tier::Priority }
}

/// The field under each of its names that is present: Google reads all of them.
fn configured<'a>(body: &'a Value, names: [&'static str; 2]) -> impl Iterator<Item = &'a Value> {
    let configs = ["generationConfig", "generation_config"].into_iter().filter_map(|name| present(body, name));
    configs.flat_map(move |config| names.into_iter().filter_map(|name| present(config, name)))
}

/// The largest bound of the output; `None` if one of them is not understood.
fn most(body: &Value) -> Option<u64> {
    let bounds = configured(body, ["maxOutputTokens", "max_output_tokens"]).map(|value| bound(Some(value)));
    bounds.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

/// Reads one text to embed: `content`.
pub fn read_embedding(model: String, body: &Value) -> Result<RequestSummary, Problem> {
    if !body.get("content").is_some_and(Value::is_object) {
        return Err(refused("content", "is missing"));
    }
    Ok(embedding(model))
}

/// Reads several of them: `requests`, each with a `content`.
pub fn read_embeddings(model: String, body: &Value) -> Result<RequestSummary, Problem> {
    let requests = filled_list(body, "requests")?;
    if requests.len() > INPUTS_MAX {
        return Err(refused("requests", format!("has at most {INPUTS_MAX} of them")));
    }
    for (index, request) in requests.iter().enumerate() {
        if !request.get("content").is_some_and(Value::is_object) {
            return Err(refused(format!("requests[{index}].content"), "is missing"));
        }
    }
    Ok(embedding(model))
}

fn embedding(model: String) -> RequestSummary {
    RequestSummary {
        model,
        form: OutputForm::Whole,
        include_usage: true,
        max_output_tokens: Some(0),
        answers: 1,
        tier: Tier::Standard,
        geo: Geo::ANYWHERE,
    }
}

#[cfg(test)]
mod tests {
    use ports::ai::StreamFraming;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tier_that_may_be_served_dearer_is_reserved_for() {
        for (body, expected) in [
            (json!({}), Tier::Standard),
            (json!({ "serviceTier": "STANDARD" }), Tier::Standard),
            (json!({ "serviceTier": "priority" }), Tier::Priority),
            (json!({ "generationConfig": { "service_tier": "PRIORITY" } }), Tier::Priority),
            (json!({ "service_tier": 7 }), Tier::Priority),
        ] {
            assert_eq!(tier(&body), expected, "{body}");
        }
    }

    #[test]
    fn a_request_is_read_as_far_as_it_is_held() {
        let asked = read(
            "m".to_owned(),
            OutputForm::Stream(StreamFraming::JsonArray),
            &json!({ "system_instruction": { "parts": [{ "text": "be kind" }] },
                "contents": [{ "parts": [{ "text": "one" }, { "inlineData": { "mimeType": "image/png", "data": "AA" } }] },
                { "role": "model", "parts": [{ "functionCall": { "name": "f", "args": { "a": "two" } } }] }],
                "generationConfig": { "maxOutputTokens": 7, "candidateCount": 2 },
                "tools": [{ "googleSearch": {} }, { "codeExecution": {} }] }),
        )
        .unwrap();
        assert_eq!((asked.max_output_tokens, asked.answers), (Some(7), 2));
    }

    #[test]
    fn what_the_hold_does_not_need_is_the_providers_to_refuse() {
        for (body, most, answers) in [
            (json!({}), None, 1),
            (json!({ "contents": [{ "role": "tool" }, { "role": "robot" }, 5] }), None, 1),
            (json!({ "contents": "x", "generationConfig": { "maxOutputTokens": 0 } }), Some(0), 1),
            (json!({ "generation_config": { "max_output_tokens": 10.0, "candidate_count": 9 } }), Some(10), 9),
            (json!({ "generationConfig": { "maxOutputTokens": "9" } }), Some(9), 1),
            (json!({ "generationConfig": { "maxOutputTokens": "nine" } }), None, 1),
            (
                json!({ "generationConfig": { "maxOutputTokens": 9 }, "generation_config": { "max_output_tokens": 90 } }),
                Some(90),
                1,
            ),
        ] {
            let asked = read("m".to_owned(), OutputForm::Whole, &body).unwrap();
            assert_eq!((asked.max_output_tokens, asked.answers), (most, answers), "{body}");
        }
    }

    #[test]
    fn embeddings_need_their_contents() {
        let content = json!({ "parts": [{ "text": "a b" }] });
        assert!(read_embedding("m".to_owned(), &json!({ "content": content })).is_ok());
        let requests = json!({ "requests": [{ "content": content }, { "content": content }] });
        assert!(read_embeddings("m".to_owned(), &requests).is_ok());
        let lacks = read_embeddings("m".to_owned(), &json!({ "requests": [{}] })).unwrap_err();
        assert_eq!(lacks.fields["errors"][0]["field"], "requests[0].content");
        assert!(read_embedding("m".to_owned(), &json!({})).is_err());
    }
}
