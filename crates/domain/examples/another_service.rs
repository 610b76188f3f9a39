//! Another service that uses the rules alone: a video encoder that keeps its own counters and asks, before each job,
//! whether the customer's plan still allows it. It needs neither our database nor a runtime.
//!
//! Run it: `cargo run -p product-base-domain --example another_service`

use std::error::Error;

use chrono::{DateTime, Utc};
use product_base_domain::entitlements::{Access, Allowance, Entitlement, Overage, Source, decide};
use product_base_domain::features::FeatureId;
use product_base_domain::plans::PlanId;
use product_base_domain::usage::{CounterTally, Period, PeriodKind};

fn main() -> Result<(), Box<dyn Error>> {
    let now: DateTime<Utc> = "2026-02-28T09:00:00Z".parse()?;
    // The customer subscribed on the 31st: February's period began on January 31st and ends on February 28th.
    let subscribed: DateTime<Utc> = "2026-01-31T10:00:00Z".parse()?;
    let mut entitlement = Entitlement {
        feature_id: FeatureId::parse("minutes_encoded")?,
        plan_id: PlanId::parse("gold")?,
        source: Source::Plan,
        access: Access::Granted,
        allowance: Allowance::try_new(Some(600))?,
        overage: Overage::Tokens,
        period: Period::containing(PeriodKind::BillingPeriod, subscribed, now),
        tally: CounterTally { used: 585, reserved: 0, overage: 0 },
        tokens_available: 10,
        as_of: now,
    };
    for minutes in [15, 25, 26] {
        let decision = decide(&entitlement, minutes);
        println!(
            "{minutes} minutes: {} ({:?}); {} of {:?} used, {:?} left until {:?}",
            if decision.allowed { "go on" } else { "refused" },
            decision.reason,
            decision.current,
            decision.limit,
            decision.remaining,
            decision.resets_at,
        );
    }
    // A plan that lacks the feature refuses before anything is counted.
    entitlement.access = Access::NotInPlan;
    println!("without the feature: {:?}", decide(&entitlement, 1).reason);
    Ok(())
}
