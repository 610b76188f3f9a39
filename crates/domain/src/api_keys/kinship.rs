//! Kinship: what a key may do to other keys of its owner.
//!
//! Promise: no caller gets more by a key than that key has left. A key makes only children with no more permissions,
//! limits and lifetime than its own. It rotates only keys that are bound by its own limits. While it has limits itself,
//! it loosens neither its own limits, nor those of its makers, nor those of unrelated keys.

use chrono::{DateTime, Utc};

use super::{ApiKey, ApiKeyDraft, ApiKeyId, KeyBudgets, KeyLimits, KeyRefused};
use crate::identity::{PermissionSet, Role};

/// How many makers a key may have: its maker, the maker of that key, and so on.
pub const MAKERS_MAX: usize = 4;

/// Where a key comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyOrigin {
    /// The first key of the rotations that led to it; `None` if it is the first itself.
    pub lineage_id: Option<ApiKeyId>,
    /// The key that made it, the key that made that one, and so on. Empty if its owner made it without a key.
    pub makers: Vec<ApiKeyId>,
}

/// A key as stored now, with the budgets that its use counts against and its owner's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    pub key: ApiKey,
    pub role: Role,
    pub budgets: KeyBudgets,
}

impl KeyHolder {
    /// What it may grant to another key: its own permissions, limited to those of its owner's role.
    fn grantable(&self) -> PermissionSet {
        self.key.permissions.within(&self.role.permissions())
    }

    fn outlives(&self, expires_at: Option<DateTime<Utc>>) -> bool {
        self.key.expires_at.is_none_or(|own| expires_at.is_some_and(|other| other <= own))
    }

    /// Whether it is usable and has these rights.
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

    /// The child that this key may make from the draft. A draft without an expiry gets this key's.
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

    /// Whether this key may receive the secret of the successor of `target`.
    pub fn may_rotate(&self, target: &Self, now: DateTime<Utc>) -> Result<(), KeyRefused> {
        self.has(&target.key.permissions, target.key.on_behalf, now)?;
        if self.is_made_by(&target.key) || !self.budgets.bind(&target.budgets) {
            return Err(KeyRefused::BeyondCallersLimits);
        }
        if self.outlives(target.key.expires_at) { Ok(()) } else { Err(KeyRefused::BeyondCallersLife) }
    }

    /// Whether this key may set `limits` on `target`.
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

    /// Whether `other`, or a key of its lineage, is a maker of this key.
    fn is_made_by(&self, other: &ApiKey) -> bool {
        self.key.lineage_id != other.lineage_id && self.budgets.count_on(other.lineage_id)
    }
}

#[cfg(test)]
mod tests;
