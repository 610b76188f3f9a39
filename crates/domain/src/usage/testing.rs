//! Fixtures for the tests of the usage rules.

use chrono::DateTime;

use uuid::Uuid;

use super::{CounterTally, Hold, HoldId, HoldOutcome, HoldStatus, Period, PeriodKind};
use crate::entitlements::{Access, Allowance, Entitlement, Overage, Source};
use crate::features::FeatureId;
use crate::plans::PlanId;
use crate::users::UserId;

/// An entitlement with this limit, this many tokens available and nothing used yet.
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
        tally: CounterTally::default(),
        tokens_available: tokens,
        as_of,
    }
}

/// A reservation as it was granted.
pub fn pending(entitlement: &Entitlement, amount: i64, holding: &HoldOutcome) -> Hold {
    Hold {
        id: HoldId(Uuid::nil()),
        user_id: UserId(Uuid::nil()),
        feature_id: entitlement.feature_id.clone(),
        period_kind: entitlement.period.kind,
        period_start: entitlement.period.start,
        amount,
        beyond: holding.beyond,
        tokens: holding.tokens,
        status: HoldStatus::Pending,
        settled: None,
        overage: 0,
        expires_at: DateTime::UNIX_EPOCH,
        api_key_id: None,
        call: None,
    }
}
