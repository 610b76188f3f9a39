//! API keys to test with. Every field is public: `ApiKeyDraft { on_behalf: true, ..api_key_draft("server", [..]) }`.

use chrono::DateTime;
use domain::api_keys::{ApiKey, ApiKeyDraft, ApiKeyId, KeyLimits, KeyOrigin};
use domain::identity::Permission;
use domain::users::UserId;
use uuid::Uuid;

/// A key without an expiry, for its owner only.
pub fn api_key_draft(name: &str, permissions: impl IntoIterator<Item = Permission>) -> ApiKeyDraft {
    ApiKeyDraft {
        name: name.to_owned(),
        permissions: permissions.into_iter().collect(),
        on_behalf: false,
        limits: KeyLimits::NONE,
        expires_at: None,
        origin: KeyOrigin::default(),
    }
}

/// A usable key as it is stored.
pub fn api_key(user_id: UserId, permissions: impl IntoIterator<Item = Permission>) -> ApiKey {
    let ApiKeyDraft { name, permissions, on_behalf, limits, expires_at, origin } = api_key_draft("server", permissions);
    ApiKey {
        id: ApiKeyId(Uuid::from_u128(1)),
        user_id,
        name,
        prefix: "sk_live_0123456789ab".to_owned(),
        last_four: "wxyz".to_owned(),
        permissions,
        on_behalf,
        limits,
        is_active: true,
        last_used_at: None,
        expires_at,
        rotated_to: None,
        lineage_id: origin.lineage_id.unwrap_or(ApiKeyId(Uuid::from_u128(1))),
        makers: origin.makers,
        revoked_at: None,
        created_at: DateTime::UNIX_EPOCH,
    }
}
