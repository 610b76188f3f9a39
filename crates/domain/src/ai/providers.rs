//! Providers of models: their configured names, the dialects that they speak, and what their servers cannot do.
//!
//! A provider is a row of the settings. OpenAI, Claude and Gemini are built in; their names are older than the settings
//! and are used in the tables, the metrics and the answers.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The length that the tables have room for.
const NAME_MAX: usize = 20;

/// The name of a provider: 1 to 20 characters of `a-z`, `0-9`, `-` and `_`, the first a letter. `__` separates the parts
/// of environment variables, so it is not in a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProviderId {
    /// Filled up with zeros.
    bytes: [u8; NAME_MAX],
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the name of a provider has 1 to 20 characters of a-z, 0-9, - and _, the first a letter, and no two _ in a row"
)]
pub struct ProviderRefused;

impl ProviderId {
    pub const OPENAI: Self = Self::built_in("openai");
    pub const CLAUDE: Self = Self::built_in("claude");
    pub const GEMINI: Self = Self::built_in("gemini");

    /// The providers without a row of their own in the settings, in the order of every list.
    pub const BUILT_IN: [Self; 3] = [Self::OPENAI, Self::CLAUDE, Self::GEMINI];

    const fn built_in(name: &str) -> Self {
        let mut bytes = [0; NAME_MAX];
        let (room, _) = bytes.split_at_mut(name.len());
        room.copy_from_slice(name.as_bytes());
        Self { bytes }
    }

    pub fn as_str(&self) -> &str {
        let length = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_MAX);
        // Only ASCII is ever stored.
        self.bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn place(&self) -> usize {
        Self::BUILT_IN.iter().position(|built_in| built_in == self).unwrap_or(Self::BUILT_IN.len())
    }
}

/// The built-in ones first, in their order; then by name.
impl Ord for ProviderId {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.place(), self.bytes).cmp(&(other.place(), other.bytes))
    }
}

impl PartialOrd for ProviderId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for ProviderId {
    type Err = ProviderRefused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !begins || text.len() > NAME_MAX || !text.bytes().all(is_of_name) || text.contains("__") {
            return Err(ProviderRefused);
        }
        Ok(Self::built_in(text))
    }
}

impl TryFrom<String> for ProviderId {
    type Error = ProviderRefused;

    fn try_from(text: String) -> Result<Self, ProviderRefused> {
        text.parse()
    }
}

impl From<ProviderId> for String {
    fn from(id: ProviderId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The request and response format of an API. Each provider speaks one; several may speak the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    #[serde(rename = "openai_chat")]
    OpenAiChat,
    Anthropic,
    Gemini,
}

impl fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a dialect is openai_chat, anthropic or gemini")]
pub struct UnknownDialect;

impl Dialect {
    pub const ALL: [Self; 3] = [Self::OpenAiChat, Self::Anthropic, Self::Gemini];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai_chat",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == text).ok_or(UnknownDialect)
    }
}

/// What a server that speaks a dialect may lack of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not")]
pub struct MissingFeatures {
    /// It refuses `stream_options`, so a stream is not asked for its usage.
    pub stream_options: bool,
    /// It knows the output bound as `max_tokens` only.
    pub max_completion_tokens: bool,
    /// It refuses `parallel_tool_calls`; a translated request is sent without it.
    pub parallel_tool_calls: bool,
    /// Its tokens are not those of our counter, so more is reserved for the same text.
    pub known_tokens: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a missing feature is {}", MissingFeatures::NAMES.join(", "))]
pub struct UnknownFeature;

impl MissingFeatures {
    /// What the settings can name. Whether the tokens are known has a setting of its own.
    pub const NAMES: [&str; 3] = ["stream_options", "max_completion_tokens", "parallel_tool_calls"];

    pub fn add(&mut self, name: &str) -> Result<(), UnknownFeature> {
        match name {
            "stream_options" => self.stream_options = true,
            "max_completion_tokens" => self.max_completion_tokens = true,
            "parallel_tool_calls" => self.parallel_tool_calls = true,
            _ => return Err(UnknownFeature),
        }
        Ok(())
    }
}

/// A provider, as far as the writing and the sizing of a call depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderProfile {
    pub id: ProviderId,
    pub dialect: Dialect,
    pub missing: MissingFeatures,
}

impl ProviderProfile {
    pub const OPENAI: Self = Self::built_in(ProviderId::OPENAI, Dialect::OpenAiChat);
    pub const CLAUDE: Self = Self::built_in(ProviderId::CLAUDE, Dialect::Anthropic);
    pub const GEMINI: Self = Self::built_in(ProviderId::GEMINI, Dialect::Gemini);

    pub const BUILT_IN: [Self; 3] = [Self::OPENAI, Self::CLAUDE, Self::GEMINI];

    const fn built_in(id: ProviderId, dialect: Dialect) -> Self {
        let missing = MissingFeatures {
            stream_options: false,
            max_completion_tokens: false,
            parallel_tool_calls: false,
            known_tokens: !matches!(dialect, Dialect::OpenAiChat),
        };
        Self { id, dialect, missing }
    }

    /// Whether a request without an output bound is refused, so that one is set.
    pub const fn demands_output_bound(&self) -> bool {
        matches!(self.dialect, Dialect::Anthropic)
    }
}

/// The configured providers, in the order of every list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderProfiles(Arc<[ProviderProfile]>);

impl Default for ProviderProfiles {
    fn default() -> Self {
        Self(Arc::new(ProviderProfile::BUILT_IN))
    }
}

impl FromIterator<ProviderProfile> for ProviderProfiles {
    fn from_iter<T: IntoIterator<Item = ProviderProfile>>(profiles: T) -> Self {
        let mut profiles: Vec<ProviderProfile> = profiles.into_iter().collect();
        profiles.sort_by_key(|profile| profile.id);
        Self(profiles.into())
    }
}

impl ProviderProfiles {
    pub fn get(&self, id: ProviderId) -> Option<ProviderProfile> {
        self.0.iter().find(|profile| profile.id == id).copied()
    }

    pub fn ids(&self) -> impl Iterator<Item = ProviderId> + '_ {
        self.0.iter().map(|profile| profile.id)
    }

    pub fn iter(&self) -> impl Iterator<Item = ProviderProfile> + '_ {
        self.0.iter().copied()
    }

    /// The providers that speak a dialect.
    pub fn speaking(&self, dialect: Dialect) -> impl Iterator<Item = ProviderId> + '_ {
        self.0.iter().filter(move |profile| profile.dialect == dialect).map(|profile| profile.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_read_as_it_is_written() {
        let azure: ProviderId = "azure-eu_1".parse().unwrap();
        for provider in ProviderId::BUILT_IN.into_iter().chain([azure]) {
            assert_eq!(provider.as_str().parse(), Ok(provider));
            assert_eq!(serde_json::to_string(&provider).unwrap(), format!("\"{provider}\""));
            assert_eq!(serde_json::from_str::<ProviderId>(&format!("\"{provider}\"")).unwrap(), provider);
        }
        assert_eq!("a".repeat(NAME_MAX).parse::<ProviderId>().unwrap().as_str().len(), NAME_MAX);
        for bad in ["", "Azure", "1a", "-a", "a b", "a/b", "a__b", "ä", "a.b", &"a".repeat(NAME_MAX + 1)] {
            assert_eq!(bad.parse::<ProviderId>(), Err(ProviderRefused), "{bad}");
        }
    }

    #[test]
    fn the_built_in_ones_are_first_in_every_list() {
        let other = |name: &str| ProviderProfile { id: name.parse().unwrap(), ..ProviderProfile::OPENAI };
        let all: ProviderProfiles =
            [other("mistral"), other("azure")].into_iter().chain(ProviderProfile::BUILT_IN).collect();
        let ids: Vec<String> = all.ids().map(Into::into).collect();
        assert_eq!(ids, ["openai", "claude", "gemini", "azure", "mistral"]);
        assert_eq!(all.speaking(Dialect::Gemini).collect::<Vec<_>>(), [ProviderId::GEMINI]);
        assert_eq!(all.speaking(Dialect::OpenAiChat).count(), 3);
        assert_eq!(ProviderProfiles::default().ids().collect::<Vec<_>>(), ProviderId::BUILT_IN);
    }

    #[test]
    fn dialects_and_missing_features_are_known_by_name() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.as_str().parse(), Ok(dialect));
            assert_eq!(serde_json::to_string(&dialect).unwrap(), format!("\"{}\"", dialect.as_str()));
        }
        let mut missing = MissingFeatures::default();
        for name in MissingFeatures::NAMES {
            missing.add(name).unwrap();
        }
        assert!(missing.stream_options && missing.max_completion_tokens && missing.parallel_tool_calls);
        assert_eq!(missing.add("sense"), Err(UnknownFeature));
    }
}
