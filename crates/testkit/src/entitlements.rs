//! Entitlements to test with. Every field is public: `Entitlement { overage: Overage::Tokens, ..entitlement(..) }`.

use chrono::{DateTime, Utc};
use domain::entitlements::{Access, Allowance, Entitlement, Overage, Source};
use domain::plans::PlanId;
use domain::usage::{CounterTally, Period, PeriodKind};

use crate::features::feature_id;

/// A grant of the free plan for a feature in the month of `as_of`, with no use yet. `None` is unlimited.
pub fn entitlement(feature: &str, limit: Option<i64>, as_of: DateTime<Utc>) -> Entitlement {
    Entitlement {
        feature_id: feature_id(feature),
        plan_id: PlanId::free(),
        source: Source::Plan,
        access: Access::Granted,
        allowance: Allowance::try_new(limit).expect("a limit is not negative"),
        overage: Overage::Block,
        period: Period::containing(PeriodKind::Month, as_of, as_of),
        tally: CounterTally::default(),
        tokens_available: 0,
        as_of,
    }
}
