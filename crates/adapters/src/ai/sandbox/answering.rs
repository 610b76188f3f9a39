//! The sandbox's answers to a conversation. Pure: equal input gets an equal answer.

use domain::ai::{Conversation, ConversationTurn, MessagePart, Speaker, ToolChoice, ToolDefinition};
use serde_json::{Map, Value};

/// How many characters of the input the answer repeats.
const ECHO_CHARACTERS: usize = 400;

/// The prefix of a text that a coding agent adds to its user's input.
const REMINDER: &str = "<system-reminder>";

/// The most tool calls in one answer.
const CALLS_MAX: usize = 8;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Saying {
    Text(String),
    Call { id: String, name: String, arguments: String },
}

pub(super) fn answer(conversation: &Conversation, model: &str) -> Vec<Saying> {
    let last = conversation.turns.last();
    let asked =
        conversation.turns.iter().rev().find(|turn| turn.speaker == Speaker::User).map_or_else(String::new, text);
    let answered = last.and_then(|turn| turn.parts.iter().find_map(answer_of));
    if let Some((name, content)) = answered {
        return vec![Saying::Text(format!(
            "The tool {name} answered \"{}\". {}",
            shortened(content),
            signature(model)
        ))];
    }
    let called = called(conversation, &last_said(conversation));
    if !called.is_empty() {
        let turn = conversation.turns.len();
        let call = |(number, tool): (usize, &ToolDefinition)| Saying::Call {
            id: format!("call_sandbox_{turn}_{number}"),
            name: tool.name.clone(),
            arguments: arguments(tool, &asked),
        };
        return called.into_iter().enumerate().map(call).collect();
    }
    let echo = if asked.trim().is_empty() {
        "Hello! You said nothing yet.".to_owned()
    } else {
        format!("Hello! You said \"{}\".", shortened(&asked))
    };
    vec![Saying::Text(format!("{echo} {}", signature(model)))]
}

fn signature(model: &str) -> String {
    format!("This is the sandbox in the place of {model}: no key is set for its provider, so no model was asked.")
}

/// The texts of a turn, without those that an agent adds to its user's input.
fn said_texts(turn: &ConversationTurn) -> impl Iterator<Item = &str> {
    let texts = turn
        .parts
        .iter()
        .filter_map(|part| if let MessagePart::Text(text) = part { Some(text.as_str()) } else { None });
    texts.filter(|text| !text.trim_start().starts_with(REMINDER))
}

fn text(turn: &ConversationTurn) -> String {
    said_texts(turn).collect::<Vec<_>>().join(" ")
}

/// The last text of the last user turn: agents put their own texts before the user's.
fn last_said(conversation: &Conversation) -> String {
    let turn = conversation.turns.iter().rev().find(|turn| turn.speaker == Speaker::User);
    let texts = turn.into_iter().flat_map(said_texts);
    texts.last().unwrap_or_default().to_owned()
}

fn answer_of(part: &MessagePart) -> Option<(&str, &str)> {
    if let MessagePart::ToolAnswer(answer) = part { Some((&answer.name, &answer.content)) } else { None }
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    let mut short: String = text.chars().take(ECHO_CHARACTERS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The tools that the input names, or those that the caller requires.
fn called<'a>(conversation: &'a Conversation, asked: &str) -> Vec<&'a ToolDefinition> {
    let at_most = if conversation.parallel_tools == Some(false) { 1 } else { CALLS_MAX };
    let tools = &conversation.tools;
    let named: Vec<&ToolDefinition> = tools.iter().filter(|tool| names(asked, &tool.name)).take(at_most).collect();
    match &conversation.tool_choice {
        ToolChoice::Never => Vec::new(),
        ToolChoice::Named(name) => tools.iter().filter(|tool| tool.name == *name).take(1).collect(),
        ToolChoice::Required if named.is_empty() => tools.iter().take(1).collect(),
        ToolChoice::Required | ToolChoice::Auto => named,
    }
}

/// Whether the text contains this name as a whole word.
fn names(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
    !name.is_empty()
        && text.match_indices(name).any(|(place, _)| {
            let (before, after) = (text.get(..place), text.get(place + name.len()..));
            let touches = before.is_some_and(|before| before.ends_with(is_part));
            !touches && !after.is_some_and(|after| after.starts_with(is_part))
        })
}

/// A value of the right kind for each argument that the schema requires.
fn arguments(tool: &ToolDefinition, asked: &str) -> String {
    let schema =
        tool.parameters.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default();
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let argument = |name: Value| {
        let name = name.as_str()?.to_owned();
        let property = schema.get("properties").and_then(|properties| properties.get(&name));
        Some((name, fitting(property.unwrap_or(&Value::Null), asked)))
    };
    Value::Object(required.into_iter().filter_map(argument).collect::<Map<_, _>>()).to_string()
}

fn fitting(property: &Value, asked: &str) -> Value {
    let first = property.get("enum").and_then(Value::as_array).and_then(|words| words.first());
    match (first, property.get("type").and_then(Value::as_str)) {
        (Some(first), _) => first.clone(),
        (None, Some("integer" | "number")) => Value::from(1),
        (None, Some("boolean")) => Value::from(true),
        (None, Some("array")) => Value::Array(Vec::new()),
        (None, Some("object")) => Value::Object(Map::new()),
        _ => Value::from(shortened(asked)),
    }
}

#[cfg(test)]
mod tests {
    use domain::ai::ToolAnswer;

    use super::*;

    fn asking(text: &str) -> Conversation {
        let schema = r#"{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},"unit":{"enum":["C"]}},"required":["city","days","unit"]}"#;
        let tool =
            |name: &str| ToolDefinition { name: name.into(), description: None, parameters: Some(schema.into()) };
        Conversation {
            turns: vec![ConversationTurn::text(Speaker::User, text)],
            tools: vec![tool("get_weather"), tool("get_time")],
            ..Conversation::default()
        }
    }

    fn called_by(conversation: &Conversation) -> Vec<String> {
        let called = answer(conversation, "m").into_iter();
        called.filter_map(|said| if let Saying::Call { name, .. } = said { Some(name) } else { None }).collect()
    }

    fn text_of(conversation: &Conversation, model: &str) -> String {
        let mut said = answer(conversation, model);
        let Some(Saying::Text(text)) = said.pop() else { panic!("{said:?}") };
        text
    }

    #[test]
    fn a_tool_is_called_when_it_is_named_or_demanded() {
        assert_eq!(called_by(&asking("hello")), [""; 0]);
        assert_eq!(called_by(&asking("get_time please, then get_weather")), ["get_weather", "get_time"]);
        let one = Conversation { parallel_tools: Some(false), ..asking("get_time get_weather") };
        assert_eq!(called_by(&one), ["get_weather"]);
        let chosen = |choice, text| called_by(&Conversation { tool_choice: choice, ..asking(text) });
        assert_eq!(chosen(ToolChoice::Never, "get_time"), [""; 0]);
        assert_eq!(chosen(ToolChoice::Required, "hello"), ["get_weather"]);
        assert_eq!(chosen(ToolChoice::Named("get_time".into()), "hello"), ["get_time"]);
        let said = answer(&asking("get_time at Ü"), "m");
        let [Saying::Call { id, arguments, .. }] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(
            (id.as_str(), arguments.as_str()),
            ("call_sandbox_1_0", r#"{"city":"get_time at Ü","days":1,"unit":"C"}"#,)
        );
    }

    #[test]
    fn what_an_agent_adds_names_no_tool() {
        let mut conversation = asking("<system-reminder>Use get_time and get_weather.</system-reminder>");
        conversation.turns[0].parts.push(MessagePart::Text("get_weather is a word of the context".into()));
        conversation.turns[0].parts.push(MessagePart::Text("say hello, and no get_times".into()));
        assert_eq!(called_by(&conversation), [""; 0]);
        let text = text_of(&conversation, "m");
        assert!(text.contains("say hello") && !text.contains("reminder"), "{text}");
        conversation.turns[0].parts.push(MessagePart::Text("(get_time)".into()));
        assert_eq!(called_by(&conversation), ["get_time"]);
    }

    #[test]
    fn what_a_tool_answered_is_told_and_not_asked_again() {
        let mut conversation = asking("get_time");
        let answered = ToolAnswer { id: "1".into(), name: "get_time".into(), content: "noon".into(), is_error: false };
        conversation
            .turns
            .push(ConversationTurn { speaker: Speaker::User, parts: vec![MessagePart::ToolAnswer(answered)] });
        let text = text_of(&conversation, "m");
        assert!(text.starts_with("The tool get_time answered \"noon\". "), "{text}");
    }

    #[test]
    fn what_was_said_is_said_back_shortened() {
        let text = text_of(&asking(&"é".repeat(10_000)), "gpt");
        assert!(text.contains("éé…\".") && text.contains("in the place of gpt") && text.chars().count() < 600);
        let text = text_of(&Conversation::default(), "gpt");
        assert!(text.starts_with("Hello! You said nothing yet."));
    }
}
