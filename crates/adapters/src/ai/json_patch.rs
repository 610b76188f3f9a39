//! Changes members of a JSON object in place: every other byte stays as it was, including order and spaces.
//!
//! Each change costs one pass over the text. An object may name a member twice, and providers disagree on which one
//! counts, so all of them are changed.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The most members of one name that `without` removes, since each costs a pass.
const NAMESAKES_MAX: usize = 8;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAnObject;

/// A member: its name, its value and where the value is in the text.
struct Member<'a> {
    name: Cow<'a, str>,
    value: &'a str,
    at: Range<usize>,
}

/// The value of the last member with this name, as written. `null` counts as absent.
pub(super) fn value<'a>(object: &'a str, name: &str) -> Result<Option<&'a str>, NotAnObject> {
    let members = members(object)?;
    let value = members.into_iter().rev().find(|member| member.name == name).map(|member| member.value);
    Ok(value.filter(|value| *value != "null"))
}

/// Sets the member: replaces each value of this name, or appends it as the last member.
pub(super) fn with(object: &str, name: &str, value: &str) -> Result<String, NotAnObject> {
    let members = members(object)?;
    let places: Vec<&Range<usize>> =
        members.iter().filter(|member| member.name == name).map(|member| &member.at).collect();
    if places.is_empty() {
        let end = object.trim_end().len() - 1;
        let (before, after) = object.split_at_checked(end).ok_or(NotAnObject)?;
        let comma = if members.is_empty() { "" } else { "," };
        return Ok(format!("{before}{comma}\"{name}\":{value}{after}"));
    }
    Ok(replaced(object, &places, value))
}

/// Removes all members of this name. `None` if there are none.
pub(super) fn without(object: &str, name: &str) -> Result<Option<String>, NotAnObject> {
    let mut rest: Option<String> = None;
    for _ in 0..=NAMESAKES_MAX {
        match without_first(rest.as_deref().unwrap_or(object), name)? {
            Some(shorter) => rest = Some(shorter),
            None => return Ok(rest),
        }
    }
    Err(NotAnObject)
}

fn without_first(object: &str, name: &str) -> Result<Option<String>, NotAnObject> {
    let members = members(object)?;
    let Some(place) = members.iter().position(|member| member.name == name) else { return Ok(None) };
    let end = members.get(place).map(|member| member.at.end).ok_or(NotAnObject)?;
    let opening = object.find('{').ok_or(NotAnObject)? + 1;
    // Cut with the comma before it, or for the first member with the comma after it.
    let cut = match (place.checked_sub(1).and_then(|before| members.get(before)), members.get(place + 1)) {
        (Some(before), _) => before.at.end..end,
        (None, None) => opening..end,
        (None, Some(next)) => {
            let between = object.get(end..next.at.start).ok_or(NotAnObject)?;
            opening..end + between.find('"').ok_or(NotAnObject)?
        }
    };
    Ok(Some(replaced(object, &[&cut], "")))
}

fn replaced(text: &str, places: &[&Range<usize>], value: &str) -> String {
    let mut changed = String::with_capacity(text.len() + value.len());
    let mut from = 0;
    for place in places {
        changed.push_str(text.get(from..place.start).unwrap_or_default());
        changed.push_str(value);
        from = place.end;
    }
    changed.push_str(text.get(from..).unwrap_or_default());
    changed
}

fn members(object: &str) -> Result<Vec<Member<'_>>, NotAnObject> {
    let mut reading = serde_json::Deserializer::from_str(object);
    let members = reading.deserialize_map(Members { object }).map_err(|_| NotAnObject)?;
    reading.end().map_err(|_| NotAnObject)?;
    Ok(members)
}

struct Members<'a> {
    object: &'a str,
}

impl<'a> Visitor<'a> for Members<'a> {
    type Value = Vec<Member<'a>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            let value: &'a RawValue = map.next_value()?;
            let value = value.get();
            // The value is borrowed from the object's text, so the difference of the addresses is its place.
            let start = value.as_ptr().addr().wrapping_sub(self.object.as_ptr().addr());
            let at = start..start.saturating_add(value.len());
            if self.object.get(at.clone()) != Some(value) {
                return Err(A::Error::custom("a value that does not stand in the text"));
            }
            members.push(Member { name, value, at });
        }
        Ok(members)
    }
}

/// Names are borrowed where they have no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "{ \"a\" : 1.50 ,\n\t\"\\u0062\":[ 1,2 ], \"c\":null,\"a\":\"é}\" }\n";

    #[test]
    fn only_the_value_is_changed() {
        assert_eq!(with(ODD, "b", "7").unwrap(), ODD.replace("[ 1,2 ]", "7"));
        assert_eq!(with(ODD, "c", "{}").unwrap(), ODD.replace("null", "{}"));
        assert_eq!(with(ODD, "a", "0").unwrap(), ODD.replace("1.50", "0").replace("\"é}\"", "0"), "each of them");
        assert_eq!(with(ODD, "d", "true").unwrap(), ODD.replace(" }\n", " ,\"d\":true}\n"));
        assert_eq!(with(" {} ", "d", "1").unwrap(), " {\"d\":1} ");
    }

    #[test]
    fn a_value_is_read_as_it_is_written() {
        assert_eq!(value(ODD, "b"), Ok(Some("[ 1,2 ]")));
        assert_eq!((value(ODD, "a"), value(ODD, "c"), value(ODD, "x")), (Ok(Some("\"é}\"")), Ok(None), Ok(None)));
    }

    #[test]
    fn a_member_goes_with_its_comma() {
        assert_eq!(without(r#"{"a":1,"b":2,"c":3}"#, "b"), Ok(Some(r#"{"a":1,"c":3}"#.into())));
        assert_eq!(without(r#"{"a":1,"b":2,"c":3}"#, "c"), Ok(Some(r#"{"a":1,"b":2}"#.into())));
        assert_eq!(without(r#"{ "a":1 , "b":2}"#, "a"), Ok(Some(r#"{"b":2}"#.into())));
        assert_eq!(without(r#"{"a":1,"b":2,"a":3}"#, "a"), Ok(Some(r#"{"b":2}"#.into())));
        assert_eq!(without(r#"{"a":null}"#, "a"), Ok(Some("{}".into())));
        assert_eq!(without(r#"{"a":{"b":1}}"#, "b"), Ok(None));
    }

    #[test]
    fn what_is_no_object_is_not_changed() {
        for text in ["", "[]", "1", "{\"a\":}", "{} {}", "{\"a\":1"] {
            assert_eq!(with(text, "a", "1"), Err(NotAnObject), "{text}");
            assert_eq!(value(text, "a"), Err(NotAnObject), "{text}");
        }
    }
}
