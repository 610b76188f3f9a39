//! API keys: owner, expiry, limits, and rotation without an outage. `budgets` defines which limits the use of a key
//! counts against, `kinship` what a key may do to other keys.

mod budgets;
mod kinship;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

pub use self::budgets::{KeyBudget, KeyBudgets};
pub use self::kinship::{KeyHolder, KeyOrigin, MAKERS_MAX};
use crate::identity::{Permission, PermissionSet, Role};
use crate::prices::NanoUsd;
use crate::users::UserId;

/// How many usable keys one user may have.
pub const KEYS_PER_USER: i64 = 100;

/// The longest time for which a rotated key keeps working beside its successor.
pub const ROTATION_OVERLAP_MAX: TimeDelta = TimeDelta::days(7);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiKeyId(pub Uuid);

/// A key's own limits, within those of its owner. `None` is no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Model calls per UTC minute.
    pub requests_per_minute: Option<i64>,
    /// Tokens of prompts and answers per UTC minute.
    pub tokens_per_minute: Option<i64>,
    /// Cost of model calls per UTC month.
    pub monthly_cost: Option<NanoUsd>,
}

impl KeyLimits {
    pub const NONE: Self = Self { requests_per_minute: None, tokens_per_minute: None, monthly_cost: None };

    /// Whether the key has no limit of its own.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Whether none of these limits is wider than the same one of `other`.
    pub fn are_within(&self, other: &Self) -> bool {
        fn within<T: Ord>(limit: Option<T>, outer: Option<T>) -> bool {
            outer.is_none_or(|outer| limit.is_some_and(|limit| limit <= outer))
        }
        within(self.requests_per_minute, other.requests_per_minute)
            && within(self.tokens_per_minute, other.tokens_per_minute)
            && within(self.monthly_cost, other.monthly_cost)
    }

    /// These limits with the changes applied.
    #[must_use]
    pub fn changed(self, changes: &LimitChanges) -> Self {
        Self {
            requests_per_minute: changes.requests_per_minute.unwrap_or(self.requests_per_minute),
            tokens_per_minute: changes.tokens_per_minute.unwrap_or(self.tokens_per_minute),
            monthly_cost: changes.monthly_cost.unwrap_or(self.monthly_cost),
        }
    }
}

/// The change of each limit: `None` keeps it, `Some(None)` removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges {
    pub requests_per_minute: Option<Option<i64>>,
    pub tokens_per_minute: Option<Option<i64>>,
    pub monthly_cost: Option<Option<NanoUsd>>,
}

impl LimitChanges {
    /// Removes every limit.
    pub const CLEAR: Self =
        Self { requests_per_minute: Some(None), tokens_per_minute: Some(None), monthly_cost: Some(None) };
}

/// The changes to a key that a caller requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyChanges {
    pub name: Option<String>,
    pub limits: LimitChanges,
}

/// A key as it is stored. The secret is not stored: only its hash, and the parts by which its owner recognises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub user_id: UserId,
    pub name: String,
    /// The public prefix, such as `sk_live_8fK2xQ1mZp0a`.
    pub prefix: String,
    pub last_four: String,
    pub permissions: PermissionSet,
    /// Whether the key may act for users other than its owner.
    pub on_behalf: bool,
    pub limits: KeyLimits,
    pub is_active: bool,
    pub last_used_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub rotated_to: Option<ApiKeyId>,
    /// The first key of the rotations that led to this one; its own id if it is the first.
    pub lineage_id: ApiKeyId,
    /// The key that made it, the key that made that one, and so on.
    pub makers: Vec<ApiKeyId>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

impl ApiKey {
    pub fn is_usable(&self, now: DateTime<Utc>) -> bool {
        self.is_active && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// The properties that a caller requests for a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyDraft {
    pub name: String,
    pub permissions: PermissionSet,
    pub on_behalf: bool,
    pub limits: KeyLimits,
    pub expires_at: Option<DateTime<Utc>>,
    pub origin: KeyOrigin,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyRefused {
    #[error("the permission `{0}` is more than you hold yourself")]
    BeyondCaller(Permission),
    #[error("`on_behalf` can be granted by an administrator only")]
    OnBehalfNeedsAdmin,
    #[error("the limits are wider than those of the key that you use")]
    BeyondCallersLimits,
    #[error("the key would live longer than the key that you use")]
    BeyondCallersLife,
    #[error("the key that you use is revoked or expired")]
    CallerEnded,
    #[error("at most {MAKERS_MAX} keys stand above a key that was made by a key")]
    TooManyMakers,
    #[error("a key needs at least one permission")]
    NoPermission,
    #[error("the expiry lies in the past")]
    AlreadyExpired,
    #[error("a user has at most {KEYS_PER_USER} usable keys; revoke one first")]
    TooMany,
    #[error("the key is revoked, expired or already rotated, so it cannot be rotated")]
    NotRotatable,
    #[error("the overlap of a rotation is between 0 seconds and 7 days")]
    OverlapTooLong,
}

/// Whether this key can be made by a caller who may grant `grantable` and owns `existing` usable keys.
pub fn may_create(
    draft: &ApiKeyDraft,
    role: Role,
    grantable: &PermissionSet,
    existing: i64,
    now: DateTime<Utc>,
) -> Result<(), KeyRefused> {
    if draft.permissions.is_empty() {
        return Err(KeyRefused::NoPermission);
    }
    if let Some(beyond) = grantable.lacks(&draft.permissions) {
        return Err(KeyRefused::BeyondCaller(beyond));
    }
    if draft.on_behalf && role != Role::Admin {
        return Err(KeyRefused::OnBehalfNeedsAdmin);
    }
    if draft.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(KeyRefused::AlreadyExpired);
    }
    if existing >= KEYS_PER_USER { Err(KeyRefused::TooMany) } else { Ok(()) }
}

/// The result of a rotation for the old key and its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    pub successor: ApiKeyDraft,
    /// When the old key stops working: after the overlap, or at its own expiry if that comes first.
    pub old_expires_at: DateTime<Utc>,
}

/// Replaces a key, one of the `existing` usable ones, by one of the same lineage with the same name, permissions,
/// limits and expiry. During the overlap both keys work, and both count as usable.
pub fn rotate(key: &ApiKey, overlap: TimeDelta, existing: i64, now: DateTime<Utc>) -> Result<KeyRotation, KeyRefused> {
    if !key.is_usable(now) || key.rotated_to.is_some() {
        return Err(KeyRefused::NotRotatable);
    }
    if overlap < TimeDelta::zero() || overlap > ROTATION_OVERLAP_MAX {
        return Err(KeyRefused::OverlapTooLong);
    }
    if overlap > TimeDelta::zero() && existing >= KEYS_PER_USER {
        return Err(KeyRefused::TooMany);
    }
    let overlap_ends = now + overlap;
    Ok(KeyRotation {
        successor: ApiKeyDraft {
            name: key.name.clone(),
            permissions: key.permissions.clone(),
            on_behalf: key.on_behalf,
            limits: key.limits,
            expires_at: key.expires_at,
            origin: KeyOrigin { lineage_id: Some(key.lineage_id), makers: key.makers.clone() },
        },
        old_expires_at: key.expires_at.map_or(overlap_ends, |expires_at| expires_at.min(overlap_ends)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    fn draft(permissions: &[Permission]) -> ApiKeyDraft {
        ApiKeyDraft {
            name: "server".into(),
            permissions: permissions.iter().copied().collect(),
            on_behalf: false,
            limits: KeyLimits::NONE,
            expires_at: None,
            origin: KeyOrigin::default(),
        }
    }

    fn key(expires_at: Option<DateTime<Utc>>) -> ApiKey {
        ApiKey {
            id: ApiKeyId(Uuid::nil()),
            user_id: UserId(Uuid::nil()),
            name: "server".into(),
            prefix: "sk_live_x".into(),
            last_four: "abcd".into(),
            permissions: PermissionSet::all(),
            on_behalf: false,
            limits: KeyLimits { tokens_per_minute: Some(5), ..KeyLimits::NONE },
            is_active: true,
            last_used_at: None,
            expires_at,
            rotated_to: None,
            lineage_id: ApiKeyId(Uuid::nil()),
            makers: vec![ApiKeyId(Uuid::from_u128(7))],
            revoked_at: None,
            created_at: now(),
        }
    }

    #[test]
    fn a_key_holds_no_more_than_its_maker() {
        let grantable = Role::User.permissions();
        let create = |draft: &ApiKeyDraft, role| may_create(draft, role, &grantable, 0, now());
        assert_eq!(create(&draft(&[Permission::UsageWrite]), Role::User), Ok(()));
        assert_eq!(
            create(&draft(&[Permission::PlansWrite]), Role::User),
            Err(KeyRefused::BeyondCaller(Permission::PlansWrite))
        );
        assert_eq!(create(&draft(&[]), Role::User), Err(KeyRefused::NoPermission));
        let on_behalf = ApiKeyDraft { on_behalf: true, ..draft(&[Permission::UsageCheck]) };
        assert_eq!(create(&on_behalf, Role::User), Err(KeyRefused::OnBehalfNeedsAdmin));
        assert_eq!(create(&on_behalf, Role::Admin), Ok(()));
        let late = ApiKeyDraft { expires_at: Some(now()), ..draft(&[Permission::UsageCheck]) };
        assert_eq!(create(&late, Role::User), Err(KeyRefused::AlreadyExpired));
        assert_eq!(
            may_create(&draft(&[Permission::UsageCheck]), Role::User, &grantable, KEYS_PER_USER, now()),
            Err(KeyRefused::TooMany)
        );
    }

    #[test]
    fn limits_change_one_by_one_and_are_taken_away_by_none() {
        let all =
            KeyLimits { requests_per_minute: Some(1), tokens_per_minute: Some(2), monthly_cost: Some(NanoUsd(3)) };
        assert_eq!(all.changed(&LimitChanges::default()), all);
        let changes =
            LimitChanges { requests_per_minute: Some(None), tokens_per_minute: Some(Some(9)), ..Default::default() };
        let expected = KeyLimits { requests_per_minute: None, tokens_per_minute: Some(9), ..all };
        assert_eq!(all.changed(&changes), expected);
        assert!(all.changed(&LimitChanges::CLEAR).is_none() && !expected.is_none());
    }

    #[test]
    fn a_rotation_keeps_the_limits_the_lineage_and_the_makers() {
        let old = key(None);
        let successor = rotate(&old, TimeDelta::zero(), 1, now()).unwrap().successor;
        assert_eq!(successor.limits, old.limits);
        assert_eq!((successor.origin.lineage_id, successor.origin.makers), (Some(old.lineage_id), old.makers));
    }

    #[test]
    fn a_rotation_with_an_overlap_makes_one_usable_key_more() {
        let at = |overlap, existing| rotate(&key(None), overlap, existing, now()).map(drop);
        assert_eq!(at(TimeDelta::hours(1), KEYS_PER_USER - 1), Ok(()));
        assert_eq!(at(TimeDelta::hours(1), KEYS_PER_USER), Err(KeyRefused::TooMany));
        assert_eq!(at(TimeDelta::zero(), KEYS_PER_USER), Ok(()), "the old one ends at once");
    }

    #[test]
    fn a_rotation_never_makes_the_old_key_live_longer() {
        let soon = now() + TimeDelta::minutes(5);
        let ends = |key: &ApiKey, overlap| rotate(key, overlap, 1, now()).map(|rotation| rotation.old_expires_at);
        assert_eq!(ends(&key(Some(soon)), TimeDelta::hours(1)), Ok(soon));
        assert_eq!(ends(&key(None), TimeDelta::hours(1)), Ok(now() + TimeDelta::hours(1)));
        assert_eq!(ends(&key(None), TimeDelta::days(8)), Err(KeyRefused::OverlapTooLong));
        assert_eq!(ends(&key(Some(now())), TimeDelta::zero()), Err(KeyRefused::NotRotatable));
        assert_eq!(
            ends(&ApiKey { rotated_to: Some(ApiKeyId(Uuid::max())), ..key(None) }, TimeDelta::zero()),
            Err(KeyRefused::NotRotatable)
        );
    }
}
