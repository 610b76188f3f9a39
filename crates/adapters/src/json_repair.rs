//! Repairs JSON that a strict parser refuses for its text alone.
//!
//! Promises: bytes that are not UTF-8 and halves of surrogate pairs become U+FFFD; nothing else changes. Repaired text
//! is for reading only; what is sent to a provider or a caller stays as it came. Costs one pass.

/// Replaces an invalid character.
const REPLACEMENT: &str = "\\ufffd";

/// The text of these bytes, as far as it is readable.
pub fn repaired(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.as_ref();
    let mut whole = String::with_capacity(rest.len());
    while let Some((before, escape)) = rest.find('\\').and_then(|place| rest.split_at_checked(place)) {
        whole.push_str(before);
        let (kept, length) = escaped(escape);
        whole.push_str(kept);
        rest = escape.get(length..).unwrap_or_default();
    }
    whole.push_str(rest);
    whole
}

/// The replacement of the escape at the start of this text, and the length of the escape.
fn escaped(text: &str) -> (&str, usize) {
    match unit(text) {
        Some(0xd800..=0xdbff) => {
            let second = text.get(6..).and_then(unit);
            match (second, text.get(..12)) {
                (Some(0xdc00..=0xdfff), Some(pair)) => (pair, 12),
                _ => (REPLACEMENT, 6),
            }
        }
        Some(0xdc00..=0xdfff) => (REPLACEMENT, 6),
        Some(_) => (text.get(..6).unwrap_or(text), 6),
        None => {
            let length = text.chars().take(2).map(char::len_utf8).sum();
            (text.get(..length).unwrap_or(text), length)
        }
    }
}

/// The code unit of the `\uXXXX` at the start of the text.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn halves_of_pairs_and_broken_bytes_are_replaced() {
        for (before, after) in [
            (br#"{"a":"\ud83d"}"#.as_slice(), r#"{"a":"\ufffd"}"#),
            (br#"{"a":"\ude00x\uD83D\uDE00"}"#, r#"{"a":"\ufffdx\uD83D\uDE00"}"#),
            (br#"{"a":"\ud83d\ud83d\ude00"}"#, r#"{"a":"\ufffd\ud83d\ude00"}"#),
            (br#"{"a":"\\ud83d \" \u00e9"}"#, r#"{"a":"\\ud83d \" \u00e9"}"#),
            (b"{\"a\":\"\xff\"}", "{\"a\":\"\u{fffd}\"}"),
            (b"\\", "\\"),
            (b"\\u12", "\\u12"),
        ] {
            assert_eq!(repaired(before), after);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_readable_stays_and_every_text_becomes_readable(
            units in prop::collection::vec(any::<u16>(), 0..40), raw in "\\PC*",
        ) {
            let whole = serde_json::to_string(&raw).unwrap();
            prop_assert_eq!(repaired(whole.as_bytes()), whole);
            let text: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat();
            let json = format!("\"{text}\"");
            let read: Value = serde_json::from_str(&repaired(json.as_bytes())).unwrap();
            let expected = String::from_utf16_lossy(&units);
            prop_assert_eq!(read.as_str(), Some(expected.as_str()));
        }
    }
}
