//! Features to test with. Every field is public: `Feature { is_active: false, ..feature("exports") }`.

use chrono::DateTime;
use domain::features::{Feature, FeatureDraft, FeatureId, FeatureKind};

pub fn feature_id(id: &str) -> FeatureId {
    FeatureId::parse(id).expect("an id of a feature is lower case")
}

/// An active feature that is counted in requests.
pub fn feature(id: &str) -> Feature {
    let FeatureDraft { id, name, display_name, description, kind, unit, is_active } = feature_draft(id);
    Feature {
        id,
        name,
        display_name,
        description,
        kind,
        unit,
        is_active,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

/// An administrator's request to create an active feature that is counted in requests.
pub fn feature_draft(id: &str) -> FeatureDraft {
    FeatureDraft {
        id: feature_id(id),
        name: id.to_owned(),
        display_name: format!("The feature {id}"),
        description: None,
        kind: FeatureKind::Metered,
        unit: Some("request".to_owned()),
        is_active: true,
    }
}
