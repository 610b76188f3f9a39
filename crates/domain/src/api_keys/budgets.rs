//! Budgets: which limits apply to the use of a key, and in whose windows it is counted.
//!
//! A lineage is a key with all its successors by rotation, identified by its first key. Limits and windows belong to
//! the lineage. A key made by another key is its child: its use counts in its own windows and in those of all its
//! makers, so children never multiply a budget.

use std::sync::Arc;

use super::{ApiKeyId, KeyLimits};

/// The limits of one lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBudget {
    /// The first key of the lineage; its windows are counted under this id.
    pub lineage_id: ApiKeyId,
    pub limits: KeyLimits,
}

/// All budgets that the use of a key counts against: its own first, then those of its makers. Empty if no key is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyBudgets(Arc<[KeyBudget]>);

impl KeyBudgets {
    pub fn new(own: KeyBudget, makers: impl IntoIterator<Item = KeyBudget>) -> Self {
        Self(std::iter::once(own).chain(makers).collect())
    }

    /// A key without makers.
    pub fn alone(lineage_id: ApiKeyId, limits: KeyLimits) -> Self {
        Self::new(KeyBudget { lineage_id, limits }, [])
    }

    pub fn iter(&self) -> impl Iterator<Item = &KeyBudget> {
        self.0.iter()
    }

    /// Whether none of the budgets has a limit.
    pub fn are_unlimited(&self) -> bool {
        self.iter().all(|budget| budget.limits.is_none())
    }

    /// Whether a monthly cost limit is among them. If so, a call needs a price.
    pub fn limit_costs(&self) -> bool {
        self.iter().any(|budget| budget.limits.monthly_cost.is_some())
    }

    /// Whether a call that reserves more tokens must check the limits again.
    pub fn limit_growth(&self) -> bool {
        self.limit_costs() || self.iter().any(|budget| budget.limits.tokens_per_minute.is_some())
    }

    pub fn count_on(&self, lineage_id: ApiKeyId) -> bool {
        self.iter().any(|budget| budget.lineage_id == lineage_id)
    }

    /// Whether the use of `other` counts against all limits that these budgets have.
    pub fn bind(&self, other: &Self) -> bool {
        self.iter().filter(|budget| !budget.limits.is_none()).all(|budget| other.count_on(budget.lineage_id))
    }

    /// Whether `limits` are no wider than any of these.
    pub fn allow(&self, limits: &KeyLimits) -> bool {
        self.iter().all(|budget| limits.are_within(&budget.limits))
    }
}
