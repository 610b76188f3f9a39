//! Reading: parses a body field by field, in its order and with its raw text, with the path of each field for the
//! refusal that names it. A schema or an argument that is not inspected stays the text that it was.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use domain::ai::{Conversation, ConversationTurn, MessagePart, ProviderId, Speaker, ToolAnswer};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::request_summary::refused;
use crate::http::problem::Problem;

/// A field that is present and not null.
#[derive(Clone, Debug)]
pub struct JsonField<'a> {
    pub path: String,
    raw: &'a RawValue,
}

/// An object whose fields are read one by one.
#[derive(Clone, Debug)]
pub struct JsonObject<'a> {
    path: String,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> JsonObject<'a> {
    pub fn body(text: &'a str) -> Result<Self, Problem> {
        let fields = serde_json::from_str(text).map_err(|_| Problem::malformed("The body is not a JSON object."))?;
        Ok(Self { path: String::new(), fields })
    }

    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub fn get(&self, name: &str) -> Option<JsonField<'a>> {
        let raw = self.fields.get(name).copied().filter(|raw| raw.get() != "null")?;
        Some(JsonField { path: self.path_of(name), raw })
    }

    /// A field under either of two names.
    pub fn either(&self, name: &str, other: &str) -> Option<JsonField<'a>> {
        self.get(name).or_else(|| self.get(other))
    }

    pub fn needed(&self, name: &str) -> Result<JsonField<'a>, Problem> {
        self.get(name).ok_or_else(|| refused(self.path_of(name), "is missing"))
    }

    pub fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        self.get(name).map(|field| field.text()).transpose()
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>, Problem> {
        self.get(name).map(|field| field.parse("is a number")).transpose()
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.get(name).map(|field| field.parse("is true or false")).transpose()
    }

    pub fn list(&self, name: &str) -> Result<Vec<JsonField<'a>>, Problem> {
        self.get(name).map_or_else(|| Ok(Vec::new()), |field| field.list())
    }

    /// Refuses every field that is not among the `known`, for a model of `provider`.
    pub fn hold_to(&self, known: &[&str], provider: ProviderId) -> Result<(), Problem> {
        let strange = self.fields.iter().find(|(name, raw)| !known.contains(&name.as_str()) && raw.get() != "null");
        strange.map_or(Ok(()), |(name, _)| Err(foreign(self.path_of(name), provider)))
    }

    /// Refuses a field unless its value means the same as no field.
    pub fn hold_plain(&self, name: &str, plain: &[&str], provider: ProviderId) -> Result<(), Problem> {
        let Some(field) = self.get(name) else { return Ok(()) };
        if plain.contains(&field.raw()) { Ok(()) } else { Err(foreign(field.path, provider)) }
    }
}

/// The refusal of a field that only the dialect's own provider supports.
pub fn foreign(path: impl Into<String>, provider: ProviderId) -> Problem {
    let why = format!("cannot be translated for a model of {provider}; leave it out, or ask a model of this dialect");
    refused(path, why)
}

impl<'a> JsonField<'a> {
    /// The raw JSON.
    pub fn raw(&self) -> &'a str {
        self.raw.get()
    }

    pub fn is_text(&self) -> bool {
        self.raw().starts_with('"')
    }

    pub fn refused(&self, why: &str) -> Problem {
        refused(self.path.clone(), why)
    }

    pub fn parse<T: DeserializeOwned>(&self, why: &str) -> Result<T, Problem> {
        serde_json::from_str(self.raw()).map_err(|_| self.refused(why))
    }

    pub fn text(&self) -> Result<String, Problem> {
        self.parse("is text")
    }

    pub fn object(&self) -> Result<JsonObject<'a>, Problem> {
        let fields = serde_json::from_str(self.raw()).map_err(|_| self.refused("is an object"))?;
        Ok(JsonObject { path: self.path.clone(), fields })
    }

    pub fn list(&self) -> Result<Vec<Self>, Problem> {
        let items: Vec<&'a RawValue> = serde_json::from_str(self.raw()).map_err(|_| self.refused("is a list"))?;
        let item = |(index, raw)| Self { path: format!("{}[{index}]", self.path), raw };
        Ok(items.into_iter().enumerate().map(item).collect())
    }

    /// The raw text, which must be a JSON object.
    pub fn json_object(&self) -> Result<String, Problem> {
        self.object().map(|_| self.raw().to_owned())
    }
}

/// A conversation as it grows: neighbouring messages of one speaker are one turn, and tool calls are kept by id, since
/// a tool's answer may lack the name.
#[derive(Default)]
pub struct GrowingConversation {
    pub turns: Vec<ConversationTurn>,
    pub system: Vec<String>,
    /// Id and name of each call, and whether it is answered.
    calls: Vec<(String, String, bool)>,
}

impl GrowingConversation {
    pub fn add(&mut self, speaker: Speaker, part: MessagePart) {
        if let MessagePart::ToolCall(call) = &part {
            self.calls.push((call.id.clone(), call.name.clone(), false));
        }
        match self.turns.last_mut() {
            Some(turn) if turn.speaker == speaker => turn.parts.push(part),
            _ => self.turns.push(ConversationTurn { speaker, parts: vec![part] }),
        }
    }

    pub fn add_text(&mut self, speaker: Speaker, text: String) {
        if !text.is_empty() {
            self.add(speaker, MessagePart::Text(text));
        }
    }

    /// Adds the answer to an earlier call.
    pub fn answer(&mut self, id: &str, content: String, is_error: bool) -> Result<(), &'static str> {
        let called = self.calls.iter_mut().find(|(known, ..)| known == id);
        let Some((_, name, is_answered)) = called else { return Err("answers no call of an earlier message") };
        *is_answered = true;
        let answer = ToolAnswer { id: id.to_owned(), name: name.clone(), content, is_error };
        self.add(Speaker::User, MessagePart::ToolAnswer(answer));
        Ok(())
    }

    /// The id of the earliest call of this tool that is not answered.
    pub fn unanswered(&self, tool: &str) -> Option<String> {
        self.calls.iter().find(|(_, name, is_answered)| name == tool && !is_answered).map(|(id, ..)| id.clone())
    }

    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// The conversation so far, if it has a turn; the caller fills in the rest.
    pub fn into_conversation(self, field: &str) -> Result<Conversation, Problem> {
        if self.turns.is_empty() {
            return Err(refused(field, "has no message with something in it"));
        }
        let system = (!self.system.is_empty()).then(|| self.system.join("\n\n"));
        Ok(Conversation { system, turns: self.turns, ..Conversation::default() })
    }
}

/// The fields of an object in their order.
pub struct OrderedValue<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for OrderedValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Fields<'a> {
            type Value = OrderedValue<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedValue<'a>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(OrderedValue(fields))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_knows_its_path_and_its_text() {
        let body = JsonObject::body(r#"{"a":[{"b":{"z":1.50,"a":2}},null],"n":null}"#).unwrap();
        assert!(body.get("n").is_none() && body.get("m").is_none());
        let first = body.list("a").unwrap()[0].object().unwrap().needed("b").unwrap();
        assert_eq!((first.path.as_str(), first.raw()), ("a[0].b", r#"{"z":1.50,"a":2}"#));
        let refused = first.text().unwrap_err();
        assert_eq!(refused.fields["errors"][0]["field"], "a[0].b");
        let fields: OrderedValue<'_> = serde_json::from_str(first.raw()).unwrap();
        let names: Vec<&str> = fields.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
    }

    #[test]
    fn strange_fields_are_refused() {
        let body = JsonObject::body(r#"{"known":1,"strange":2,"empty":null,"n":1}"#).unwrap();
        let other = ProviderId::CLAUDE;
        let refused = body.hold_to(&["known", "n"], other).unwrap_err();
        assert_eq!(refused.fields["errors"][0]["field"], "strange");
        assert!(body.hold_to(&["known", "n", "strange"], other).is_ok());
        assert!(body.hold_plain("n", &["1"], other).is_ok() && body.hold_plain("n", &["0"], other).is_err());
    }

    #[test]
    fn neighbours_of_one_speaker_are_one_turn() {
        let mut growing = GrowingConversation::default();
        growing.add_text(Speaker::User, "a".to_owned());
        growing.add_text(Speaker::User, String::new());
        growing.add_text(Speaker::User, "b".to_owned());
        growing.add_text(Speaker::Assistant, "c".to_owned());
        assert_eq!(growing.answer("x", String::new(), false), Err("answers no call of an earlier message"));
        let conversation = growing.into_conversation("messages").unwrap();
        assert_eq!(conversation.turns.len(), 2);
        assert_eq!(conversation.turns[0].parts.len(), 2);
        assert!(GrowingConversation::default().into_conversation("messages").is_err());
    }
}
