//! What a verb of Gemini's asks for. The model and the form of the answer stand in the address.

use domain::ai::{Tier, ToolCalls};
use serde_json::Value;
use services::ai::calls::InputSize;

use crate::http::dialects::asked::{Asked, Form, check_roles, filled_list, number, present, refused, tokens};
use crate::http::dialects::sizing::Scale;
use crate::http::problem::Problem;

const ROLES: [&str; 3] = ["user", "model", "function"];
/// How many answers one call may ask for.
const ANSWERS_MAX: u64 = 8;
/// How many texts one call may embed.
const INPUTS_MAX: usize = 100;
/// How often a tool of the provider's may be called, which a call cannot say here.
const TOOL_CALLS: u64 = 5;

/// A field under the name that the SDKs send, or the one of the protocol's files.
fn either<'a>(body: &'a Value, name: &str, other: &str) -> Option<&'a Value> {
    present(body, name).or_else(|| present(body, other))
}

pub fn read(model: String, form: Form, body: &Value, count: &dyn Fn(&str) -> u64) -> Result<Asked, Problem> {
    let config = either(body, "generationConfig", "generation_config").unwrap_or(&Value::Null);
    let most = either(config, "maxOutputTokens", "max_output_tokens");
    let answers = either(config, "candidateCount", "candidate_count");
    Ok(Asked {
        model,
        form,
        include_usage: true,
        input: input(body, count)?,
        max_output_tokens: tokens(most, "generationConfig.maxOutputTokens")?,
        answers: number(answers, "generationConfig.candidateCount", ANSWERS_MAX)?.unwrap_or(1),
        tier: Tier::Standard,
    })
}

/// What goes in, which is all that the counting of tokens asks for.
pub fn input(body: &Value, count: &dyn Fn(&str) -> u64) -> Result<InputSize, Problem> {
    let contents = filled_list(body, "contents")?;
    check_roles(contents, "contents", &ROLES, true)?;
    let mut scale = Scale::new(count);
    for name in ["systemInstruction", "system_instruction", "contents"] {
        scale.weigh(body, name)?;
    }
    scale.weigh_json(body, "tools");
    if let Some(config) = either(body, "generationConfig", "generation_config") {
        for name in ["responseSchema", "response_schema", "responseJsonSchema"] {
            scale.weigh_json(config, name);
        }
    }
    let messages = u64::try_from(contents.len()).unwrap_or(u64::MAX);
    Ok(InputSize { messages, tool_calls: tool_calls(body), ..scale.size })
}

fn tool_calls(body: &Value) -> ToolCalls {
    let tools = present(body, "tools").and_then(Value::as_array);
    let offers = |name: &str, other: &str| {
        let offered = tools.into_iter().flatten().any(|tool| either(tool, name, other).is_some());
        if offered { TOOL_CALLS } else { 0 }
    };
    ToolCalls {
        web_search: offers("googleSearch", "google_search")
            .max(offers("googleSearchRetrieval", "google_search_retrieval")),
        web_fetch: offers("urlContext", "url_context"),
        code_execution: offers("codeExecution", "code_execution"),
    }
}

/// One text to embed: `content`.
pub fn read_embedding(model: String, body: &Value, count: &dyn Fn(&str) -> u64) -> Result<Asked, Problem> {
    if !body.get("content").is_some_and(Value::is_object) {
        return Err(refused("content", "is missing"));
    }
    embedding(model, &[body], "", count)
}

/// Several of them: `requests`, each with a `content`.
pub fn read_embeddings(model: String, body: &Value, count: &dyn Fn(&str) -> u64) -> Result<Asked, Problem> {
    let requests = filled_list(body, "requests")?;
    if requests.len() > INPUTS_MAX {
        return Err(refused("requests", format!("has at most {INPUTS_MAX} of them")));
    }
    for (index, request) in requests.iter().enumerate() {
        if !request.get("content").is_some_and(Value::is_object) {
            return Err(refused(format!("requests[{index}].content"), "is missing"));
        }
    }
    embedding(model, &requests.iter().collect::<Vec<_>>(), "requests", count)
}

fn embedding(model: String, requests: &[&Value], field: &str, count: &dyn Fn(&str) -> u64) -> Result<Asked, Problem> {
    let mut scale = Scale::new(count);
    for request in requests {
        scale
            .weigh(request, "content")
            .map_err(|problem| if field.is_empty() { problem } else { under(field, &problem) })?;
    }
    let messages = u64::try_from(requests.len()).unwrap_or(u64::MAX);
    Ok(Asked {
        model,
        form: Form::Whole,
        include_usage: true,
        input: InputSize { messages, ..scale.size },
        max_output_tokens: Some(0),
        answers: 1,
        tier: Tier::Standard,
    })
}

fn under(field: &str, problem: &Problem) -> Problem {
    refused(field, format!("is refused: {}", problem.detail))
}

#[cfg(test)]
mod tests {
    use ports::ai::Framing;
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> u64 {
        u64::try_from(text.split_whitespace().count()).unwrap()
    }

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
            &words,
        )
        .unwrap();
        assert_eq!((asked.max_output_tokens, asked.answers), (Some(7), 2));
        assert_eq!((asked.input.messages, asked.input.images, asked.input.text_tokens), (2, 1, 6));
        assert_eq!(asked.input.tool_calls, ToolCalls { web_search: 5, web_fetch: 0, code_execution: 5 });
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
            let refused = read("m".to_owned(), Form::Whole, &body, &words).unwrap_err();
            assert_eq!(refused.fields["errors"][0]["field"], name, "{body}");
        }
    }

    #[test]
    fn embeddings_count_their_texts() {
        let content = json!({ "parts": [{ "text": "a b" }] });
        let one = read_embedding("m".to_owned(), &json!({ "content": content }), &words).unwrap();
        assert_eq!((one.input.text_tokens, one.input.messages), (2, 1));
        let requests = json!({ "requests": [{ "content": content }, { "content": content }] });
        let two = read_embeddings("m".to_owned(), &requests, &words).unwrap();
        assert_eq!((two.input.text_tokens, two.input.messages), (4, 2));
        let lacks = read_embeddings("m".to_owned(), &json!({ "requests": [{}] }), &words).unwrap_err();
        assert_eq!(lacks.fields["errors"][0]["field"], "requests[0].content");
        assert!(read_embedding("m".to_owned(), &json!({}), &words).is_err());
    }
}
