//! The names of models at their providers.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const MODEL_MAX_LENGTH: usize = 200;

/// Claude requires an output limit. A request without one gets this one, which all of its models accept.
pub const CLAUDE_OUTPUT_UNASKED: u64 = 4_096;

/// The name of a model at its provider: 1 to 200 visible ASCII characters. Names of tuned models are long and contain
/// colons and slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelId(String);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the name of a model has 1 to 200 visible ASCII characters")]
pub struct ModelRefused;

impl ModelId {
    pub fn parse(text: &str) -> Result<Self, ModelRefused> {
        let fits = (1..=MODEL_MAX_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(ModelRefused) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ModelId {
    type Error = ModelRefused;

    fn try_from(text: String) -> Result<Self, ModelRefused> {
        Self::parse(&text)
    }
}

impl From<ModelId> for String {
    fn from(id: ModelId) -> Self {
        id.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_model_is_one_visible_word() {
        assert!(ModelId::parse("ft:gpt-4o:acme/team::1").is_ok());
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(201)] {
            assert_eq!(ModelId::parse(bad), Err(ModelRefused), "{bad:?}");
        }
    }
}
