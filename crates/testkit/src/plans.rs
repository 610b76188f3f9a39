//! Plans to test with. Every field is public: `Plan { is_active: false, ..plan("gold") }`.

use chrono::DateTime;
use domain::entitlements::{Allowance, Overage};
use domain::plans::{Currency, Plan, PlanDraft, PlanFeature, PlanId, Price};
use domain::usage::PeriodKind;

use crate::features::feature_id;

pub fn plan_id(id: &str) -> PlanId {
    PlanId::parse(id).expect("an id of a plan is lower case")
}

pub fn yen() -> Currency {
    Currency::parse("JPY").expect("JPY is a currency")
}

/// An active plan that costs nothing and grants nothing.
pub fn plan(id: &str) -> Plan {
    let PlanDraft { id, name, display_name, description, price_monthly, price_yearly, currency, is_active } =
        plan_draft(id);
    Plan {
        id,
        name,
        display_name,
        description,
        price_monthly,
        price_yearly,
        currency,
        is_active,
        features: Vec::new(),
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

/// An administrator's request to create an active plan that costs nothing.
pub fn plan_draft(id: &str) -> PlanDraft {
    PlanDraft {
        id: plan_id(id),
        name: id.to_owned(),
        display_name: format!("The plan {id}"),
        description: None,
        price_monthly: Some(Price::ZERO),
        price_yearly: None,
        currency: yen(),
        is_active: true,
    }
}

/// Grants this much of a feature per month; use stops at the limit. `None` is unlimited.
pub fn plan_feature(feature: &str, limit: Option<i64>) -> PlanFeature {
    PlanFeature {
        feature_id: feature_id(feature),
        enabled: true,
        allowance: Allowance::try_new(limit).expect("a limit is not negative"),
        period: PeriodKind::Month,
        overage: Overage::Block,
    }
}
