//! Features: what a plan can grant. Boolean ones are granted or not; metered ones are counted.

use std::fmt;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::plans::{IdRefused, parse_id};

/// The id of a feature: 1 to 50 characters of `a-z`, `0-9`, `_` and `-`. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FeatureId(Arc<str>);

impl FeatureId {
    /// The feature that counts model calls.
    pub fn ai_requests() -> Self {
        static AI_REQUESTS: LazyLock<FeatureId> = LazyLock::new(|| FeatureId("ai_requests".into()));
        AI_REQUESTS.clone()
    }

    pub fn parse(text: &str) -> Result<Self, IdRefused> {
        parse_id(text).map(|id| Self(id.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FeatureId {
    type Error = IdRefused;

    fn try_from(text: String) -> Result<Self, IdRefused> {
        Self::parse(&text)
    }
}

impl From<FeatureId> for String {
    fn from(id: FeatureId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for FeatureId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    Boolean,
    Metered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    pub id: FeatureId,
    pub name: String,
    pub display_name: String,
    pub description: Option<String>,
    pub kind: FeatureKind,
    /// The name of one unit, for people: `request`, `token`.
    pub unit: Option<String>,
    pub is_active: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A feature as an administrator submits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureDraft {
    pub id: FeatureId,
    pub name: String,
    pub display_name: String,
    pub description: Option<String>,
    pub kind: FeatureKind,
    pub unit: Option<String>,
    pub is_active: bool,
}

/// What to change; `None` keeps a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureChanges {
    pub name: Option<String>,
    pub display_name: Option<String>,
    pub description: Option<Option<String>>,
    pub unit: Option<Option<String>>,
    pub is_active: Option<bool>,
}
