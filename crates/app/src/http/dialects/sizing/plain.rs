//! The text of a body as a model may see it: everything in it, including duplicate fields, with the strings unescaped,
//! without white space between them, and without the strings that are left out.
//!
//! Costs one walk over the body. The body was parsed as JSON before; if it is not JSON, nothing is lost.

use super::media::{MediaClass, TakenMedia};

/// A body without its media and its opaque bytes.
#[derive(Debug, Default)]
pub struct PlainMedia {
    pub text: String,
    pub digits: u64,
    pub opaque_bytes: u64,
    /// The bytes of the raw body that are in media.
    pub media_bytes: u64,
}

impl PlainMedia {
    pub fn of(body: &str, mut taken: TakenMedia<'_>) -> Self {
        let mut plain = Self { text: String::with_capacity(body.len().min(1 << 20)), ..Self::default() };
        let mut rest = body;
        while let Some((before, string)) = rest.split_once('"') {
            plain.push_between(before);
            let (content, after) = split_string(string);
            plain.push_string(content, &mut taken);
            rest = after;
        }
        plain.push_between(rest);
        let digits = plain.text.bytes().filter(u8::is_ascii_digit).count();
        plain.digits = u64::try_from(digits).unwrap_or(u64::MAX);
        plain
    }

    fn push_between(&mut self, text: &str) {
        for part in text.split_ascii_whitespace() {
            self.text.push_str(part);
        }
    }

    fn push_string(&mut self, content: &str, taken: &mut TakenMedia<'_>) {
        let unescaped = content.contains('\\').then(|| unescape(content));
        let said = unescaped.as_deref().unwrap_or(content);
        self.text.push('"');
        match taken.take(said) {
            None => self.text.push_str(said),
            Some(MediaClass::Opaque) => self.opaque_bytes = self.opaque_bytes.saturating_add(length(said)),
            // An escaped one is longer in the body: the rest of its bytes are counted as text.
            Some(MediaClass::Medium) => self.media_bytes = self.media_bytes.saturating_add(length(said)),
        }
        self.text.push('"');
    }
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// The text before the end of a string, and the text after it.
fn split_string(text: &str) -> (&str, &str) {
    let mut from = 0;
    while let Some(found) =
        text.get(from..).and_then(|rest| rest.bytes().position(|byte| byte == b'"' || byte == b'\\'))
    {
        let at = from + found;
        if text.as_bytes().get(at) == Some(&b'"') {
            return (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        }
        // The character after a backslash belongs to the string, whatever it is; one of several bytes is skipped whole.
        let escaped = text.get(at + 1..).and_then(|rest| rest.chars().next());
        from = at + 1 + escaped.map_or(1, char::len_utf8);
    }
    (text, "")
}

/// The string without its escapes. Half of a surrogate pair becomes the replacement character.
fn unescape(text: &str) -> String {
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        said.push_str(before);
        let mut characters = after.chars();
        let escape = characters.next();
        rest = characters.as_str();
        match escape {
            Some('n') => said.push('\n'),
            Some('t') => said.push('\t'),
            Some('r') => said.push('\r'),
            Some('b') => said.push('\u{8}'),
            Some('f') => said.push('\u{c}'),
            Some('u') => {
                let (character, after) = code_point(rest);
                said.push(character);
                rest = after;
            }
            Some(other) => said.push(other),
            None => {}
        }
    }
    said.push_str(rest);
    said
}

/// The character of the four digits after `\u`, with the second half of a pair if there is one.
fn code_point(text: &str) -> (char, &str) {
    let Some((first, rest)) = unit(text) else { return (char::REPLACEMENT_CHARACTER, text) };
    let second = rest.strip_prefix("\\u").and_then(unit);
    if let (0xd800..0xdc00, Some((second @ 0xdc00..0xe000, after))) = (first, second) {
        let point = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), after);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), rest)
}

fn unit(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn plain(body: &str) -> String {
        PlainMedia::of(body, TakenMedia::default()).text
    }

    #[test]
    fn everything_stays_but_white_space_and_escapes() {
        for (body, expected) in [
            (r#"{ "a" : [ 1, 2.50 ,true] }"#, r#"{"a":[1,2.50,true]}"#),
            (r#"{"a":"x y\n\"q\" \\"}"#, "{\"a\":\"x y\n\"q\" \\\"}"),
            (r#"{"a":"x","a":"y"}"#, r#"{"a":"x","a":"y"}"#),
            (r#""\u6771\u4eac \ud83e\udd80""#, "\"東京 🦀\""),
            (r#""\ud83e!""#, "\"\u{fffd}!\""),
            (r#""\é""#, "\"é\""),
            (r#"["open"#, r#"["open""#),
            (r#""\""#, "\"\"\""),
            ("", ""),
        ] {
            assert_eq!(plain(body), expected, "{body}");
        }
        assert_eq!(PlainMedia::of(r#"{"a1":[22,"3"]}"#, TakenMedia::default()).digits, 4);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,80}") {
            plain(&text);
        }

        #[test]
        fn a_string_is_what_a_parser_reads(text: String) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(plain(&written), format!("\"{text}\""));
            let ascii: String = text.encode_utf16().fold(String::new(), |text, unit| text + &format!("\\u{unit:04x}"));
            let read: Value = serde_json::from_str(&format!("\"{ascii}\"")).unwrap();
            prop_assert_eq!(plain(&format!("\"{ascii}\"")), format!("\"{}\"", read.as_str().unwrap()));
        }
    }
}
