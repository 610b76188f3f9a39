//! A JSON value in which a member may come more than once: two objects are merged, of two numbers the larger one
//! counts, an absent value gives way to one that is present, and of all others the last one counts.
//!
//! A provider that reports its usage twice is never read as if it had reported less. Other readers take the last value.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

pub(super) struct Merged(pub Value);

impl<'de> Deserialize<'de> for Merged {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(MergedVisitor).map(Self)
    }
}

struct MergedVisitor;

impl<'de> Visitor<'de> for MergedVisitor {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Merged(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Merged(later))) = entries.next_entry::<String, Merged>()? {
            let value = match members.remove(&name) {
                Some(earlier) => merge(earlier, later),
                None => later,
            };
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

fn merge(earlier: Value, later: Value) -> Value {
    match (earlier, later) {
        (earlier, Value::Null) => earlier,
        (Value::Number(earlier), Value::Number(later)) => {
            Value::Number(if is_larger(&earlier, &later) { earlier } else { later })
        }
        (Value::Object(mut members), Value::Object(later)) => {
            for (name, value) in later {
                let merged = match members.remove(&name) {
                    Some(earlier) => merge(earlier, value),
                    None => value,
                };
                members.insert(name, merged);
            }
            members.into()
        }
        (_, later) => later,
    }
}

fn is_larger(one: &Number, other: &Number) -> bool {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => one > other,
        _ => one.as_f64() > other.as_f64(),
    }
}
