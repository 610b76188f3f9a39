//! What the tests of the rules begin with.

use chrono::DateTime;

use super::{Period, PeriodKind, Tally};
use crate::entitlements::{Access, Allowance, Entitlement, Overage, Source};
use crate::features::FeatureId;
use crate::plans::PlanId;

/// Nothing used yet of a limit, with so many tokens to spend.
pub fn entitlement(limit: Option<i64>, tokens: i64, overage: Overage) -> Entitlement {
    let as_of = DateTime::UNIX_EPOCH;
    Entitlement {
        feature_id: FeatureId::parse("ai_requests").unwrap(),
        plan_id: PlanId::free(),
        source: Source::Plan,
        access: Access::Granted,
        allowance: Allowance::try_new(limit).unwrap(),
        overage,
        period: Period::containing(PeriodKind::Month, as_of, as_of),
        tally: Tally::default(),
        tokens_available: tokens,
        as_of,
    }
}
