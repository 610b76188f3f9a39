//! Budgets: which limits a key is held to, and in whose windows its use is counted.
//!
//! A lineage is a key with all its successors by rotation; it is named by its first key. Limits and windows belong to
//! the lineage. A key made by a key is a child: what it uses counts in its own windows and in those of all its makers,
//! so children never multiply a budget.

use std::sync::Arc;

use super::{ApiKeyId, KeyLimits};

/// The limits of one lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBudget {
    /// The first key of the lineage: its windows are counted under this id.
    pub lineage_id: ApiKeyId,
    pub limits: KeyLimits,
}

/// All budgets that the use of a key counts on: first its own, then those of its makers. Empty where no key is used.
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

    /// Whether no limit is asked of whoever uses the key.
    pub fn are_unlimited(&self) -> bool {
        self.iter().all(|budget| budget.limits.is_none())
    }

    /// Whether a limit on the cost of a month is among them: then a call needs a price.
    pub fn limit_costs(&self) -> bool {
        self.iter().any(|budget| budget.limits.monthly_cost.is_some())
    }

    /// Whether a call that grows has to ask them again.
    pub fn limit_growth(&self) -> bool {
        self.limit_costs() || self.iter().any(|budget| budget.limits.tokens_per_minute.is_some())
    }

    pub fn count_on(&self, lineage_id: ApiKeyId) -> bool {
        self.iter().any(|budget| budget.lineage_id == lineage_id)
    }

    /// Whether whatever `other` uses is held to all the limits that these have.
    pub fn bind(&self, other: &Self) -> bool {
        self.iter().filter(|budget| !budget.limits.is_none()).all(|budget| other.count_on(budget.lineage_id))
    }

    /// Whether `limits` are no wider than any of these.
    pub fn allow(&self, limits: &KeyLimits) -> bool {
        self.iter().all(|budget| limits.are_within(&budget.limits))
    }
}
