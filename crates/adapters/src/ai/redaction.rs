//! Redaction: no text from a provider shows a caller our API key for it.
//!
//! Promises: in an error's message, code, body and headers, every run of ten or more characters of the key is replaced,
//! whether the key is plain, escaped for a URL or for JSON, in base64 (alone or within a longer text) or in hex, in
//! either letter case. Costs a look-up per byte, for refusals only.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ports::ai::{ProviderFault, ProviderRefusal};
use serde_json::Value;

/// Replaces the key.
const REDACTED: &str = "[redacted]";
/// This many consecutive characters of the key count as a part of it.
const RUN: usize = 10;
/// Shorter keys are not secret and are not redacted.
const SECRET_MIN: usize = 5;

pub(super) struct Redactor {
    /// Each run of `RUN` bytes of the key in every encoding, in lower case.
    runs: HashSet<[u8; RUN]>,
    /// A key shorter than a run, in lower case.
    short: Option<Vec<u8>>,
}

impl Redactor {
    pub(super) fn new(key: &str) -> Self {
        if key.len() < SECRET_MIN {
            return Self { runs: HashSet::new(), short: None };
        }
        let spellings = spellings(key.as_bytes());
        let runs = spellings.iter().flat_map(|spelling| spelling.windows(RUN)).filter_map(|run| run.try_into().ok());
        let short = (key.len() < RUN).then(|| key.as_bytes().to_ascii_lowercase());
        Self { runs: runs.collect(), short }
    }

    pub(super) fn fault(&self, mut fault: ProviderFault) -> ProviderFault {
        if let Some(refusal) = fault.refusal_mut() {
            self.refusal(refusal);
        } else if let ProviderFault::Broken(why)
        | ProviderFault::LostAnswer(why)
        | ProviderFault::NotUnderstood(why)
        | ProviderFault::Unreachable(why) = &mut fault
        {
            self.text(why);
        }
        fault
    }

    fn refusal(&self, refusal: &mut ProviderRefusal) {
        self.text(&mut refusal.message);
        if let Some(code) = &mut refusal.code {
            self.text(code);
        }
        self.headers(&mut refusal.headers);
        if let Some(clean) = self.clean(&refusal.body) {
            refusal.body = clean;
        }
        // The key may contain JSON escapes. A body that changes here is serialized anew.
        if let Ok(mut body) = serde_json::from_slice::<Value>(&refusal.body)
            && self.value(&mut body)
        {
            refusal.body = body.to_string().into_bytes();
        }
    }

    /// Returns whether anything was replaced.
    fn text(&self, text: &mut String) -> bool {
        let clean = self.clean(text.as_bytes());
        let changed = clean.is_some();
        if let Some(clean) = clean {
            *text = String::from_utf8_lossy(&clean).into_owned();
        }
        changed
    }

    /// Redacts the headers of a successful reply.
    pub(super) fn headers(&self, headers: &mut [(String, String)]) {
        for (_, value) in headers {
            self.text(value);
        }
    }

    /// Returns whether anything was replaced.
    fn value(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().fold(false, |changed, item| self.value(item) | changed),
            Value::Object(members) => {
                let mut changed = false;
                let names: Vec<String> =
                    members.keys().filter(|name| self.clean(name.as_bytes()).is_some()).cloned().collect();
                for name in names {
                    let member = members.remove(&name).unwrap_or_default();
                    members.insert(REDACTED.to_owned(), member);
                    changed = true;
                }
                members.values_mut().fold(changed, |changed, member| self.value(member) | changed)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// The bytes without the key; `None` if they do not contain it.
    fn clean(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let lower = bytes.to_ascii_lowercase();
        let mut marked = vec![false; bytes.len()];
        let mut mark = |from: usize, length: usize| marked.iter_mut().skip(from).take(length).for_each(|is| *is = true);
        let runs = lower.windows(RUN).enumerate();
        for (place, _) in runs.filter(|(_, run)| self.runs.contains(*run)) {
            mark(place, RUN);
        }
        if let Some(short) = &self.short {
            let found = lower.windows(short.len()).enumerate().filter(|(_, window)| window == short);
            found.for_each(|(place, window)| mark(place, window.len()));
        }
        if !marked.contains(&true) {
            return None;
        }
        let mut clean = Vec::with_capacity(bytes.len());
        let mut was_marked = false;
        for (byte, is_marked) in bytes.iter().zip(marked) {
            match (was_marked, is_marked) {
                (_, false) => clean.push(*byte),
                (false, true) => clean.extend_from_slice(REDACTED.as_bytes()),
                (true, true) => {}
            }
            was_marked = is_marked;
        }
        Some(clean)
    }
}

/// The key in every encoding, in lower case.
fn spellings(key: &[u8]) -> Vec<Vec<u8>> {
    let escaped = |keeps: fn(u8) -> bool| -> Vec<u8> {
        key.iter()
            .flat_map(|byte| if keeps(*byte) { vec![*byte] } else { format!("%{byte:02x}").into_bytes() })
            .collect()
    };
    let mut spellings = vec![key.to_vec(), hex::encode(key).into_bytes()];
    spellings.push(escaped(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)));
    spellings.push(escaped(|byte| byte.is_ascii_alphanumeric()));
    // Base64 groups three bytes, so the offset of the key gives three encodings. The ends of each, which depend on the
    // neighbouring bytes, are left out.
    for before in 0..3_usize {
        let padded = [vec![0; before], key.to_vec()].concat();
        let encoded = STANDARD_NO_PAD.encode(&padded).into_bytes();
        let from = if before == 0 { 0 } else { before + 1 };
        let to = padded.len() * 8 / 6;
        let inner = encoded.get(from..to).unwrap_or_default().to_vec();
        let for_addresses = inner.iter().map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        });
        spellings.push(for_addresses.collect());
        spellings.push(inner);
    }
    for spelling in &mut spellings {
        spelling.make_ascii_lowercase();
    }
    spellings
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-proj-Zk8/qP+3xW==_v7Lm";

    fn refused(body: &str) -> ProviderFault {
        ProviderFault::Refused(ProviderRefusal {
            status: 400,
            message: format!("you sent {KEY}"),
            code: Some(KEY.to_owned()),
            body: body.as_bytes().to_vec(),
            headers: vec![("x-ratelimit-key".to_owned(), format!("Bearer {KEY}"))],
        })
    }

    #[test]
    fn no_spelling_of_the_key_is_left() {
        let redactor = Redactor::new(KEY);
        let (percent, code) = ("sk-proj-Zk8%2FqP%2B3xW%3D%3D_v7Lm", hex::encode(KEY));
        let escaped: String =
            KEY.chars().map(|character| format!("\\u{:04x}", u32::from(character))).collect::<Vec<_>>().concat();
        let slashes = KEY.replace('/', "\\/");
        for spelling in [KEY, &KEY.to_uppercase(), percent, &percent.to_lowercase(), &code, &escaped, &slashes] {
            let body = format!(r#"{{"error":{{"message":"Authorization: Bearer {spelling} is wrong","n":1.50}}}}"#);
            let Some(refusal) = redactor.fault(refused(&body)).refusal_mut().cloned() else { panic!() };
            let body = String::from_utf8(refusal.body).unwrap();
            assert!(body.contains("[redacted]") && body.contains("is wrong"), "{spelling}: {body}");
            assert!(!body.contains("v7Lm") && !body.to_lowercase().contains("zk8"), "{body}");
            for text in [refusal.message, refusal.code.unwrap(), refusal.headers[0].1.clone()] {
                assert!(!text.contains("Zk8"), "{text}");
            }
        }
        for header in [KEY.to_owned(), format!("user:{KEY}"), format!("{KEY}:"), format!("x{KEY}"), format!("xy{KEY}z")]
        {
            for encoded in [STANDARD.encode(&header), URL_SAFE.encode(&header)] {
                let mut text = format!("Basic {encoded}.");
                redactor.text(&mut text);
                assert!(text.contains("[redacted]"), "{text}");
                assert!(text.len() < encoded.len(), "little is left of it: {text}");
            }
        }
    }

    #[test]
    fn parts_of_the_key_are_redacted_and_other_text_is_not() {
        let redactor = Redactor::new(KEY);
        let mut text = "sk-proj-Zk8/... is no key".to_owned();
        redactor.text(&mut text);
        assert_eq!(text, "[redacted]... is no key");
        let body = r#"{ "error": { "message" : "Your key sk-proj- is wrong \ud83d" } }"#;
        let Some(refusal) = redactor.fault(refused(body)).refusal_mut().cloned() else { panic!() };
        assert_eq!(refusal.body, body.as_bytes(), "what does not hold it stays as it came");
        let mut text = "my the-key is short".to_owned();
        Redactor::new("the-key").text(&mut text);
        assert_eq!(text, "my [redacted] is short");
        Redactor::new("is").text(&mut text);
        assert_eq!(text, "my [redacted] is short");
    }

    proptest! {
        #[test]
        fn no_run_of_a_key_survives(key in "[A-Za-z0-9_/+=-]{10,60}", before in "\\PC{0,20}", after in "\\PC{0,20}") {
            let redactor = Redactor::new(&key);
            let mut text = format!("{before}{key}{after}");
            redactor.text(&mut text);
            prop_assert!(!text.contains(&key));
        }
    }
}
