//! What a verb of Gemini's asks for. The model and the form of the answer stand in the address.

use domain::ai::{Tier, ToolCalls};
use serde_json::Value;
use services::ai::calls::InputSize;

use crate::http::dialects::asked::{Asked, Form, answers, bound, filled_list, present, refused};
use crate::http::dialects::sizing::Scale;
use crate::http::problem::Problem;

/// How many texts one call may embed.
const INPUTS_MAX: usize = 100;
/// How often a tool of the provider's may be called, which a call cannot say here.
const TOOL_CALLS: u64 = 5;

/// A field under the name that the SDKs send, or the one of the protocol's files.
fn either<'a>(body: &'a Value, name: &str, other: &str) -> Option<&'a Value> {
    present(body, name).or_else(|| present(body, other))
}

pub fn read(model: String, form: Form, body: &Value, count: &dyn Fn(&str) -> u64) -> Result<Asked, Problem> {
    Ok(Asked {
        model,
        form,
        include_usage: true,
        input: input(body, count)?,
        max_output_tokens: most(body),
        answers: configured(body, ["candidateCount", "candidate_count"])
            .map(|value| answers(Some(value)))
            .max()
            .unwrap_or(1),
        tier: Tier::Standard,
    })
}

/// The field under each of its names that is there: Google reads all of them.
fn configured<'a>(body: &'a Value, names: [&'static str; 2]) -> impl Iterator<Item = &'a Value> {
    let configs = ["generationConfig", "generation_config"].into_iter().filter_map(|name| present(body, name));
    configs.flat_map(move |config| names.into_iter().filter_map(|name| present(config, name)))
}

/// The largest bound of the output; none where one of them is not understood.
fn most(body: &Value) -> Option<u64> {
    let bounds = configured(body, ["maxOutputTokens", "max_output_tokens"]).map(|value| bound(Some(value)));
    bounds.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

/// What goes in, which is all that the counting of tokens asks for.
pub fn input(body: &Value, count: &dyn Fn(&str) -> u64) -> Result<InputSize, Problem> {
    let contents = present(body, "contents").and_then(Value::as_array).map_or(1, Vec::len);
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
    let messages = u64::try_from(contents).unwrap_or(u64::MAX);
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
    fn what_the_hold_does_not_need_is_the_providers_to_refuse() {
        for (body, most, answers) in [
            (json!({}), None, 1),
            (json!({ "contents": [{ "role": "tool" }, { "role": "robot" }, 5] }), None, 1),
            (json!({ "contents": "x", "generationConfig": { "maxOutputTokens": 0 } }), Some(0), 1),
            (json!({ "generation_config": { "max_output_tokens": 10.0, "candidate_count": 9 } }), Some(10), 9),
            (json!({ "generationConfig": { "maxOutputTokens": "9" } }), None, 1),
            (
                json!({ "generationConfig": { "maxOutputTokens": 9 }, "generation_config": { "max_output_tokens": 90 } }),
                Some(90),
                1,
            ),
        ] {
            let asked = read("m".to_owned(), Form::Whole, &body, &words).unwrap();
            assert_eq!((asked.max_output_tokens, asked.answers), (most, answers), "{body}");
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
