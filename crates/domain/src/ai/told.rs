//! Lenient parsing of a provider's usage: a number counts whether it is an integer, a decimal or text; anything else
//! counts as not reported. A field that is not understood, or that is repeated, does not affect the others.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::usage::TOKENS_MAX;

/// A JSON value, as far as usage reports need it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Told {
    #[default]
    Nothing,
    Number(i64),
    Word(String),
    List(Vec<Told>),
    Fields(Vec<(String, Told)>),
}

impl Told {
    fn all<'a>(&'a self, names: &[&str]) -> Vec<&'a Self> {
        let fields = if let Self::Fields(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value).collect()
    }

    /// The largest number under these names.
    pub fn number(&self, names: &[&str]) -> Option<i64> {
        self.all(names).into_iter().filter_map(Self::as_number).max()
    }

    fn as_number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Word(text) => text.trim().parse().ok().or_else(|| text.trim().parse().ok().and_then(rounded)),
            _ => None,
        }
    }

    pub fn word(&self, name: &str) -> Option<String> {
        let word = |value: &Self| if let Self::Word(word) = value { Some(word.clone()) } else { None };
        self.all(&[name]).into_iter().rev().find_map(word)
    }

    /// The object under one of these names.
    pub fn part(&self, names: &[&str]) -> Option<&Self> {
        self.all(names).into_iter().rev().find(|value| matches!(value, Self::Fields(_)))
    }

    /// The list under this name.
    pub fn list(&self, name: &str) -> Option<&[Self]> {
        self.all(&[name]).into_iter().rev().find_map(|value| match value {
            Self::List(items) => Some(items.as_slice()),
            _ => None,
        })
    }
}

/// Rounded up. `None` for NaN.
fn rounded(number: f64) -> Option<i64> {
    // Beyond the bounds of a count, all numbers are read the same.
    #[expect(clippy::cast_possible_truncation, reason = "it is within the bounds")]
    let whole = |number: f64| number.ceil().clamp(-1.0, 4_000_000_000.0) as i64;
    (!number.is_nan()).then(|| whole(number))
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Told;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Told, E> {
        Ok(Told::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Told, E> {
        Ok(Told::Nothing)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Told, E> {
        Ok(Told::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Told, E> {
        Ok(Told::Number(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Told, E> {
        Ok(rounded(number).map_or(Told::Nothing, Told::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Told, E> {
        Ok(Told::Word(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Told, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Told::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Told, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Told::Fields(fields))
    }
}

/// The fields of a report that were not usable as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes(pub Vec<&'static str>);

impl Notes {
    pub fn add(&mut self, field: &'static str) {
        if !self.0.contains(&field) {
            self.0.push(field);
        }
    }

    /// A reported count. A negative one is dropped; one beyond [`TOKENS_MAX`] becomes that.
    pub fn count(&mut self, field: &'static str, told: Option<i64>) -> Option<u64> {
        let told = told?;
        match u64::try_from(told) {
            Ok(count) if count <= TOKENS_MAX => Some(count),
            Ok(_) => {
                self.add(field);
                Some(TOKENS_MAX)
            }
            Err(_) => {
                self.add(field);
                None
            }
        }
    }

    /// The same, with 0 if not reported.
    pub fn part(&mut self, field: &'static str, told: Option<i64>) -> u64 {
        self.count(field, told).unwrap_or_default()
    }

    /// What remains of a whole beside its parts. Parts that exceed the whole are taken as not included in it, so all of
    /// it remains: of two readings the larger one counts.
    pub fn rest(&mut self, field: &'static str, whole: u64, parts: &[u64]) -> u64 {
        let parts = parts.iter().copied().fold(0, u64::saturating_add);
        whole.checked_sub(parts).unwrap_or_else(|| {
            self.add(field);
            whole
        })
    }

    /// The tokens written to a cache for minutes and for hours. If only the sum is reported, or a larger sum than the
    /// parts, the rest counts as minutes, the default.
    pub fn cache_writes(&mut self, field: &'static str, sum: Option<i64>, short: u64, long: u64) -> (u64, u64) {
        let told = short.saturating_add(long);
        let sum = self.count(field, sum).unwrap_or(told);
        if sum < told {
            self.add(field);
        }
        (short.saturating_add(sum.saturating_sub(told)), long)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number(value: &serde_json::Value) -> Option<i64> {
        serde_json::from_value::<Told>(json!({ "n": value })).unwrap().number(&["n"])
    }

    #[test]
    fn a_number_is_one_however_it_is_written() {
        for (value, expected) in [
            (json!(5), Some(5)),
            (json!(5.0), Some(5)),
            (json!(4.2), Some(5)),
            (json!("5"), Some(5)),
            (json!(" 4.5 "), Some(5)),
            (json!(-3), Some(-3)),
            (json!(-3.5), Some(-1)),
            (json!(u64::MAX), Some(i64::MAX)),
            (json!(1e300), Some(4_000_000_000)),
            (json!("1e300"), Some(4_000_000_000)),
            (json!("many"), None),
            (json!(true), None),
            (json!(null), None),
            (json!({}), None),
            (json!([5]), None),
        ] {
            assert_eq!(number(&value), expected, "{value}");
        }
        let twice: Told = serde_json::from_str(r#"{"n":3,"n":7,"n":"x"}"#).unwrap();
        assert_eq!(twice.number(&["n"]), Some(7));
        assert_eq!(Told::Nothing.number(&["n"]), None);
    }

    #[test]
    fn a_count_is_neither_negative_nor_absurd() {
        let mut notes = Notes::default();
        assert_eq!(notes.count("n", None), None);
        assert_eq!(notes.count("n", Some(1_000_000_000)), Some(TOKENS_MAX));
        assert_eq!(notes.0, Vec::<&str>::new());
        assert_eq!((notes.count("a", Some(-1)), notes.count("b", Some(i64::MAX))), (None, Some(TOKENS_MAX)));
        assert_eq!((notes.rest("c", 5, &[2]), notes.rest("d", 5, &[4, 2])), (3, 5));
        assert_eq!(notes.0, ["a", "b", "d"]);
    }
}
