//! Repair: JSON that a strict parser refuses for its text alone, made readable.
//!
//! Promises: bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD, and nothing else is changed. What is
//! repaired is for reading only; what goes on to a provider or to a caller stays as it came. Costs one pass.

/// What stands for a character that is none.
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

/// What stands for the escape with which this text begins, and how long the escape is.
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

/// The code unit of `\uXXXX`, with which the text begins.
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
            let text: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let json = format!("\"{text}\"");
            let read: Value = serde_json::from_str(&repaired(json.as_bytes())).unwrap();
            let expected = String::from_utf16_lossy(&units);
            prop_assert_eq!(read.as_str(), Some(expected.as_str()));
        }
    }
}
