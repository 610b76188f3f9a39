//! Embeddings of the sandbox: a unit vector that depends on the text alone. Similar texts do not get similar vectors.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ports::ai::TokenCounter;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DIMENSIONS_MAX: usize = 4_096;
const OPENAI_DIMENSIONS: usize = 1_536;
const GEMINI_DIMENSIONS: usize = 3_072;
/// The limit that `OpenAI` has.
const INPUTS_MAX: usize = 2_048;

/// The body of the response and the number of input tokens. `None` if the body is no embeddings request.
pub(super) fn openai(body: &Value, model: &str, counter: &dyn TokenCounter) -> Option<(String, u64)> {
    let inputs = match body.get("input")? {
        // An array of numbers is one text that the caller has tokenized.
        Value::Array(items) if !items.iter().all(Value::is_number) => items.clone(),
        one => vec![one.clone()],
    };
    let size = size(body.get("dimensions"), OPENAI_DIMENSIONS)?;
    if inputs.len() > INPUTS_MAX {
        return None;
    }
    let is_text = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let embedding = |(index, input): (usize, &Value)| {
        let vector = direction(&input.to_string(), size);
        let vector = if is_text { Value::from(packed(&vector)) } else { json!(vector) };
        json!({ "object": "embedding", "index": index, "embedding": vector })
    };
    let data: Vec<Value> = inputs.iter().enumerate().map(embedding).collect();
    let tokens = inputs.iter().map(|input| tokens_of(input, counter)).sum();
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    Some((json!({ "object": "list", "data": data, "model": model, "usage": usage }).to_string(), tokens))
}

/// Gemini's response to one request or to a batch.
pub(super) fn gemini(body: &Value, counter: &dyn TokenCounter) -> Option<(String, u64)> {
    let embedding = |request: &Value| {
        let content = request.get("content")?;
        let config = request.get("embedContentConfig");
        let asked = request.get("outputDimensionality").or_else(|| config?.get("outputDimensionality"));
        let vector = direction(&content.to_string(), size(asked, GEMINI_DIMENSIONS)?);
        Some((json!({ "values": vector }), tokens_of(content, counter)))
    };
    let Some(requests) = body.get("requests").and_then(Value::as_array) else {
        let (embedding, tokens) = embedding(body)?;
        let usage = json!({ "promptTokenCount": tokens, "totalTokenCount": tokens });
        return Some((json!({ "embedding": embedding, "usageMetadata": usage }).to_string(), tokens));
    };
    if requests.len() > INPUTS_MAX {
        return None;
    }
    let answered: Vec<(Value, u64)> = requests.iter().map(embedding).collect::<Option<_>>()?;
    let tokens: u64 = answered.iter().map(|(_, tokens)| tokens).sum();
    let embeddings: Vec<Value> = answered.into_iter().map(|(embedding, _)| embedding).collect();
    let usage = json!({ "promptTokenCount": tokens, "totalTokenCount": tokens });
    Some((json!({ "embeddings": embeddings, "usageMetadata": usage }).to_string(), tokens))
}

/// The tokens of all text in a value; a number is one token of text that the caller has tokenized.
pub(super) fn tokens_of(value: &Value, counter: &dyn TokenCounter) -> u64 {
    match value {
        Value::String(text) => counter.count(text),
        Value::Number(_) => 1,
        Value::Array(items) => items.iter().map(|item| tokens_of(item, counter)).sum(),
        Value::Object(members) => members.values().map(|member| tokens_of(member, counter)).sum(),
        Value::Null | Value::Bool(_) => 0,
    }
}

fn size(asked: Option<&Value>, otherwise: usize) -> Option<usize> {
    match asked {
        None | Some(Value::Null) => Some(otherwise),
        Some(asked) => asked
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| (1..=DIMENSIONS_MAX).contains(size)),
    }
}

fn direction(text: &str, size: usize) -> Vec<f32> {
    let digest = Sha256::digest(text.as_bytes());
    let seed = digest.iter().take(8).fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
    let numbers: Vec<f64> = (1..).take(size).map(|place| number(seed, place)).collect();
    let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
    let length = if length > 0.0 { length } else { 1.0 };
    #[expect(clippy::cast_possible_truncation, reason = "embeddings are of single precision")]
    numbers.into_iter().map(|number| (number / length) as f32).collect()
}

/// Evenly distributed between -1 and 1, with the mixing function of `SplitMix64`.
fn number(seed: u64, place: u64) -> f64 {
    let mut mixed = seed.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let high = u32::try_from((mixed ^ mixed >> 31) >> 32).unwrap_or_default();
    f64::from(high) / f64::from(u32::MAX) * 2.0 - 1.0
}

fn packed(vector: &[f32]) -> String {
    STANDARD.encode(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words;

    impl TokenCounter for Words {
        fn count(&self, text: &str) -> u64 {
            text.split_whitespace().map(|_| 1).sum()
        }
    }

    #[test]
    fn a_direction_has_length_one_and_follows_from_the_text() {
        let one = direction("one", 1_536);
        let length: f64 = one.iter().map(|number| f64::from(*number).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        assert_eq!(one, direction("one", 1_536));
        assert_ne!(one, direction("two", 1_536));
    }

    #[test]
    fn openai_is_answered_in_numbers_and_in_base64() {
        let asked = json!({ "input": ["one two", "three"], "dimensions": 4 });
        let (body, tokens) = openai(&asked, "m", &Words).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((tokens, body["data"][1]["embedding"].as_array().unwrap().len()), (3, 4));
        let mut packed = asked;
        packed["encoding_format"] = json!("base64");
        let (packed, _) = openai(&packed, "m", &Words).unwrap();
        let packed: Value = serde_json::from_str(&packed).unwrap();
        let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let first = f32::from_le_bytes(bytes[..4].try_into().unwrap());
        assert!((f64::from(first) - body["data"][0]["embedding"][0].as_f64().unwrap()).abs() < 1e-6);
        assert_eq!(openai(&json!({ "input": [1, 2, 3] }), "m", &Words).unwrap().1, 3);
        for wrong in [json!({}), json!({ "input": "x", "dimensions": 0 }), json!({ "input": "x", "dimensions": 9_999 })]
        {
            assert_eq!(openai(&wrong, "m", &Words), None, "{wrong}");
        }
    }

    #[test]
    fn gemini_is_answered_alone_and_in_a_batch() {
        let content = json!({ "parts": [{ "text": "one two" }] });
        let (body, tokens) = gemini(&json!({ "content": content, "outputDimensionality": 8 }), &Words).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((tokens, body["embedding"]["values"].as_array().unwrap().len()), (2, 8));
        let batch = json!({ "requests": [{ "content": content, "outputDimensionality": 8 }, { "content": "x" }] });
        let (batch, tokens) = gemini(&batch, &Words).unwrap();
        let batch: Value = serde_json::from_str(&batch).unwrap();
        assert_eq!((tokens, &batch["embeddings"][0]), (3, &body["embedding"]));
        assert_eq!(gemini(&json!({}), &Words), None);
    }
}
