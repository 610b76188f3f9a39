//! Entitlements to test with. Every field is public: `Entitlement { overage: Overage::Tokens, ..entitlement(..) }`.

use chrono::{DateTime, Utc};
use domain::entitlements::{Access, Allowance, Entitlement, Overage, Source};
use domain::plans::PlanId;
use domain::usage::{Period, PeriodKind, Tally};

use crate::features::feature_id;

/// What the free plan grants of a feature in the month of `as_of`, none of it used. `None` is unlimited.
pub fn entitlement(feature: &str, limit: Option<i64>, as_of: DateTime<Utc>) -> Entitlement {
    Entitlement {
        feature_id: feature_id(feature),
        plan_id: PlanId::free(),
        source: Source::Plan,
        access: Access::Granted,
        allowance: Allowance::try_new(limit).expect("a limit is not negative"),
        overage: Overage::Block,
        period: Period::containing(PeriodKind::Month, as_of, as_of),
        tally: Tally::default(),
        tokens_available: 0,
        as_of,
    }
}
