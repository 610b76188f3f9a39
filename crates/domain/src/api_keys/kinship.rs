//! Kinship: what a key may do to other keys of its owner.
//!
//! Promise: nobody gets more by a key than the key has left itself. A key makes only children with no more permissions,
//! limits and life than its own; it rotates only what is bound by its own limits; it loosens neither itself, nor its
//! makers, nor a stranger's limits while it has limits itself.

use chrono::{DateTime, Utc};

use super::{ApiKey, ApiKeyDraft, ApiKeyId, KeyBudgets, KeyLimits, KeyRefused};
use crate::identity::{PermissionSet, Role};

/// How many keys may stand above a key: a child, its maker, the maker of that, and so on.
pub const MAKERS_MAX: usize = 4;

/// Where a key comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyOrigin {
    /// The first key of the rotations that led to it; `None` where it is the first itself.
    pub lineage_id: Option<ApiKeyId>,
    /// The key that made it, the one that made that key, and so on. Empty where its owner made it in person.
    pub makers: Vec<ApiKeyId>,
}

/// A key as the database knows it now, with the budgets that its use counts on and its owner's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    pub key: ApiKey,
    pub role: Role,
    pub budgets: KeyBudgets,
}

impl KeyHolder {
    /// What it may give to another key: its own permissions, as far as its owner still has them.
    fn grantable(&self) -> PermissionSet {
        self.key.permissions.within(&self.role.permissions())
    }

    fn outlives(&self, expires_at: Option<DateTime<Utc>>) -> bool {
        self.key.expires_at.is_none_or(|own| expires_at.is_some_and(|other| other <= own))
    }

    /// Its permissions and life are no less than these.
    fn has(&self, permissions: &PermissionSet, on_behalf: bool, now: DateTime<Utc>) -> Result<(), KeyRefused> {
        if !self.key.is_usable(now) {
            return Err(KeyRefused::CallerEnded);
        }
        if let Some(beyond) = self.grantable().lacks(permissions) {
            return Err(KeyRefused::BeyondCaller(beyond));
        }
        if on_behalf && !(self.key.on_behalf && self.role == Role::Admin) {
            return Err(KeyRefused::OnBehalfNeedsAdmin);
        }
        Ok(())
    }

    /// The key that this one may make of the draft: one without an expiry gets this key's.
    pub fn child(&self, draft: &ApiKeyDraft, now: DateTime<Utc>) -> Result<ApiKeyDraft, KeyRefused> {
        self.has(&draft.permissions, draft.on_behalf, now)?;
        if !self.budgets.allow(&draft.limits) {
            return Err(KeyRefused::BeyondCallersLimits);
        }
        let expires_at = draft.expires_at.or(self.key.expires_at);
        if !self.outlives(expires_at) {
            return Err(KeyRefused::BeyondCallersLife);
        }
        let makers: Vec<ApiKeyId> = std::iter::once(self.key.id).chain(self.key.makers.iter().copied()).collect();
        if makers.len() > MAKERS_MAX {
            return Err(KeyRefused::TooManyMakers);
        }
        Ok(ApiKeyDraft { expires_at, origin: KeyOrigin { lineage_id: None, makers }, ..draft.clone() })
    }

    /// Whether this key may get the secret of the successor of `target`.
    pub fn may_rotate(&self, target: &Self, now: DateTime<Utc>) -> Result<(), KeyRefused> {
        self.has(&target.key.permissions, target.key.on_behalf, now)?;
        if self.is_made_by(&target.key) || !self.budgets.bind(&target.budgets) {
            return Err(KeyRefused::BeyondCallersLimits);
        }
        if self.outlives(target.key.expires_at) { Ok(()) } else { Err(KeyRefused::BeyondCallersLife) }
    }

    /// Whether this key may give `limits` to `target`.
    pub fn may_limit(&self, target: &Self, limits: &KeyLimits, now: DateTime<Utc>) -> Result<(), KeyRefused> {
        if !self.key.is_usable(now) {
            return Err(KeyRefused::CallerEnded);
        }
        let is_tighter = limits.are_within(&target.key.limits);
        let is_kin = self.key.lineage_id == target.key.lineage_id || self.is_made_by(&target.key);
        let is_child = !is_kin && target.budgets.count_on(self.key.lineage_id) && self.budgets.allow(limits);
        if is_tighter || is_child || (!is_kin && self.budgets.are_unlimited()) {
            return Ok(());
        }
        Err(KeyRefused::BeyondCallersLimits)
    }

    /// Whether `other`, or a key of the same lineage, stands above this one.
    fn is_made_by(&self, other: &ApiKey) -> bool {
        self.key.lineage_id != other.lineage_id && self.budgets.count_on(other.lineage_id)
    }
}

#[cfg(test)]
mod tests;
