//! What a verb of Gemini's asks for. The model and the form of the answer stand in the address.

use domain::ai::Tier;
use serde_json::Value;

use crate::http::dialects::asked::{Asked, Form, check_roles, filled_list, number, present, refused, tokens};
use crate::http::problem::Problem;

const ROLES: [&str; 3] = ["user", "model", "function"];
/// How many answers one call may ask for.
const ANSWERS_MAX: u64 = 8;
/// How many texts one call may embed.
const INPUTS_MAX: usize = 100;

/// A field under the name that the SDKs send, or the one of the protocol's files.
fn either<'a>(body: &'a Value, name: &str, other: &str) -> Option<&'a Value> {
    present(body, name).or_else(|| present(body, other))
}

pub fn read(model: String, form: Form, body: &Value) -> Result<Asked, Problem> {
    let config = either(body, "generationConfig", "generation_config").unwrap_or(&Value::Null);
    check_contents(body)?;
    let most = either(config, "maxOutputTokens", "max_output_tokens");
    let answers = either(config, "candidateCount", "candidate_count");
    Ok(Asked {
        model,
        form,
        include_usage: true,
        max_output_tokens: tokens(most, "generationConfig.maxOutputTokens")?,
        answers: number(answers, "generationConfig.candidateCount", ANSWERS_MAX)?.unwrap_or(1),
        tier: Tier::Standard,
    })
}

/// Holds the contents to what a conversation is, which is all that the counting of tokens asks for.
pub fn check_contents(body: &Value) -> Result<(), Problem> {
    check_roles(filled_list(body, "contents")?, "contents", &ROLES, true)
}

/// One text to embed: `content`.
pub fn read_embedding(model: String, body: &Value) -> Result<Asked, Problem> {
    if !body.get("content").is_some_and(Value::is_object) {
        return Err(refused("content", "is missing"));
    }
    Ok(embedding(model))
}

/// Several of them: `requests`, each with a `content`.
pub fn read_embeddings(model: String, body: &Value) -> Result<Asked, Problem> {
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

fn embedding(model: String) -> Asked {
    Asked {
        model,
        form: Form::Whole,
        include_usage: true,
        max_output_tokens: Some(0),
        answers: 1,
        tier: Tier::Standard,
    }
}

#[cfg(test)]
mod tests {
    use ports::ai::Framing;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_read_as_far_as_it_is_held() {
        let asked = read(
            "m".to_owned(),
            Form::Stream(Framing::JsonArray),
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
    fn what_is_wrong_is_named() {
        let contents = json!([{ "parts": [{ "text": "x" }] }]);
        for (body, name) in [
            (json!({}), "contents"),
            (json!({ "contents": [] }), "contents"),
            (json!({ "contents": [{ "role": "assistant" }] }), "contents[0].role"),
            (
                json!({ "contents": contents, "generationConfig": { "maxOutputTokens": "9" } }),
                "generationConfig.maxOutputTokens",
            ),
            (
                json!({ "contents": contents, "generation_config": { "candidate_count": 9 } }),
                "generationConfig.candidateCount",
            ),
        ] {
            let refused = read("m".to_owned(), Form::Whole, &body).unwrap_err();
            assert_eq!(refused.fields["errors"][0]["field"], name, "{body}");
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
