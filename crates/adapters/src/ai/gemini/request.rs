//! Writes a conversation as Gemini contents.

use domain::ai::{Conversation, ConversationTurn, MessagePart as Spoken, Speaker, ToolChoice, ToolDefinition};
use ports::ai::{ProviderCall, ProviderFault};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ai::dialect::{self, json};

/// Models from this generation on refuse a call in the history without their signature. A conversation has no field for
/// signatures; Google documents this value for histories from elsewhere.
const SIGNING_GENERATION: u32 = 3;
const UNSIGNED: &str = "skip_thought_signature_validator";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tools<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_config: Option<GenerationConfig<'a>>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<MessagePart<'a>>,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum MessagePart<'a> {
    Text {
        text: &'a str,
    },
    Call {
        function_call: FunctionCall<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'static str>,
    },
    Response {
        function_response: FunctionResponse<'a>,
    },
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    name: &'a str,
    args: &'a RawValue,
}

#[derive(Serialize)]
struct FunctionResponse<'a> {
    name: &'a str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Response<'a> {
    Output(&'a str),
    Error(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tools<'a> {
    function_declarations: Vec<Declaration<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: &'a str,
    /// Gemini requires a description.
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    function_calling_config: CallingConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallingConfig<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_function_names: Option<[&'a str; 1]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
}

/// Gemini has no setting for parallel tool calls; the model decides.
pub(super) fn written(conversation: &Conversation, call: &ProviderCall) -> Result<String, ProviderFault> {
    let signs = signs_calls(call.model.as_str());
    let mut contents = Vec::new();
    for turn in &conversation.turns {
        let parts = parts(turn, signs)?;
        if !parts.is_empty() {
            let role = if turn.speaker == Speaker::User { "user" } else { "model" };
            contents.push(Content { role: Some(role), parts });
        }
    }
    let system = conversation.system.as_deref().filter(|text| !text.is_empty());
    dialect::written(&Request {
        system_instruction: system.map(|text| Content { role: None, parts: vec![MessagePart::Text { text }] }),
        contents,
        tools: tools(&conversation.tools)?,
        tool_config: tool_config(conversation),
        generation_config: generation_config(conversation, call),
    })
}

/// `gemini-3.1-pro` is of the third generation. A name without a number has no known generation.
fn signs_calls(model: &str) -> bool {
    let generation = model.trim_start_matches("models/").strip_prefix("gemini-").and_then(|rest| {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..digits)?.parse::<u32>().ok()
    });
    generation.is_some_and(|generation| generation >= SIGNING_GENERATION)
}

fn parts(turn: &ConversationTurn, signs: bool) -> Result<Vec<MessagePart<'_>>, ProviderFault> {
    let mut parts = Vec::new();
    for part in &turn.parts {
        parts.push(match part {
            Spoken::Text(text) if text.is_empty() => continue,
            Spoken::Text(text) => MessagePart::Text { text },
            Spoken::ToolCall(call) => MessagePart::Call {
                function_call: FunctionCall {
                    name: &call.name,
                    args: json(&call.arguments, "the arguments of a tool call")?,
                },
                thought_signature: signs.then_some(UNSIGNED),
            },
            Spoken::ToolAnswer(answer) => {
                let content = answer.content.as_str();
                let response = if answer.is_error { Response::Error(content) } else { Response::Output(content) };
                MessagePart::Response { function_response: FunctionResponse { name: &answer.name, response } }
            }
        });
    }
    Ok(parts)
}

fn tools(tools: &[ToolDefinition]) -> Result<Vec<Tools<'_>>, ProviderFault> {
    let function_declarations: Vec<_> = tools.iter().map(declaration).collect::<Result<_, _>>()?;
    Ok(if function_declarations.is_empty() { Vec::new() } else { vec![Tools { function_declarations }] })
}

fn declaration(tool: &ToolDefinition) -> Result<Declaration<'_>, ProviderFault> {
    let schema = tool.parameters.as_deref().map(|text| json(text, "the schema of a tool")).transpose()?;
    let description = tool.description.as_deref().unwrap_or(&tool.name);
    Ok(Declaration { name: &tool.name, description, parameters_json_schema: schema })
}

fn tool_config(conversation: &Conversation) -> Option<ToolConfig<'_>> {
    if conversation.tools.is_empty() {
        return None;
    }
    let (mode, allowed_function_names) = match &conversation.tool_choice {
        ToolChoice::Auto => return None,
        ToolChoice::Never => ("NONE", None),
        ToolChoice::Required => ("ANY", None),
        ToolChoice::Named(name) => ("ANY", Some([name.as_str()])),
    };
    Some(ToolConfig { function_calling_config: CallingConfig { mode, allowed_function_names } })
}

fn generation_config<'a>(conversation: &'a Conversation, call: &ProviderCall) -> Option<GenerationConfig<'a>> {
    let max_output_tokens = call.max_output_tokens.or(conversation.max_output_tokens);
    let Conversation { temperature, top_p, stop, .. } = conversation;
    let says_something = max_output_tokens.is_some() || temperature.is_some() || top_p.is_some() || !stop.is_empty();
    says_something.then_some(GenerationConfig {
        max_output_tokens,
        temperature: *temperature,
        top_p: *top_p,
        stop_sequences: stop,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_stands_in_the_name() {
        for model in ["gemini-3.1-pro-preview", "gemini-4-argon", "models/gemini-3.5-flash", "gemini-12"] {
            assert!(signs_calls(model), "{model}");
        }
        for model in ["gemini-2.5-pro", "gemini-embedding-001", "gemma-3", "stub"] {
            assert!(!signs_calls(model), "{model}");
        }
    }
}
