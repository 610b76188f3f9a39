//! Subscriptions: which plan is in force, and the result of a plan change.
//!
//! One SQL function, `effective_plan`, decides which plan is in force, since views and policies need it too; this room
//! has the rules that follow from it.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::plans::{Plan, PlanId};

/// Stripe's statuses of a subscription; its `paused` is stored as `unpaid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    Incomplete,
    IncompleteExpired,
    Trialing,
    Active,
    PastDue,
    Canceled,
    Unpaid,
}

impl SubscriptionStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::IncompleteExpired => "incomplete_expired",
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Canceled => "canceled",
            Self::Unpaid => "unpaid",
        }
    }

    /// Whether it can put a plan in force.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Trialing | Self::Active | Self::PastDue)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a subscription status")]
pub struct UnknownStatus(pub String);

impl FromStr for SubscriptionStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        [
            Self::Incomplete,
            Self::IncompleteExpired,
            Self::Trialing,
            Self::Active,
            Self::PastDue,
            Self::Canceled,
            Self::Unpaid,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// The live subscription of a user; there is at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub id: Uuid,
    pub plan_id: PlanId,
    pub status: SubscriptionStatus,
    pub stripe_subscription_id: Option<String>,
    pub trial_end: Option<DateTime<Utc>>,
    pub current_period_start: Option<DateTime<Utc>>,
    pub current_period_end: Option<DateTime<Utc>>,
    pub cancel_at_period_end: bool,
}

impl Subscription {
    /// Whether it no longer puts its plan in force although it is still live: the trial or the grace period is over.
    pub fn has_lapsed(&self, in_force: &PlanId) -> bool {
        self.status != SubscriptionStatus::Active && self.plan_id != *in_force
    }
}

/// A change that waits for the end of the paid period. A user has at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledChange {
    pub plan_id: PlanId,
    pub effective_at: DateTime<Utc>,
}

/// Whether a plan can be changed without payment (setting `billing.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BillingMode {
    /// Any user may change to any active plan: for local work, and for products that bill elsewhere.
    Open,
    /// A paid plan needs a subscription at Stripe.
    Stripe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeWhen {
    Now,
    PeriodEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeDirection {
    Upgrade,
    Downgrade,
    /// Between plans of the same monthly worth.
    Lateral,
}

/// Who orders the plan change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillingAuthority {
    /// The user; the billing mode decides whether payment is required.
    User,
    /// An administrator; no payment is required.
    Admin,
}

/// The state before the change: the plan in force and the subscription behind it.
#[derive(Clone, Debug)]
pub struct SubscriptionState<'a> {
    pub plan: &'a Plan,
    pub subscription: Option<&'a Subscription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanChange {
    pub from: PlanId,
    pub to: PlanId,
    pub direction: ChangeDirection,
    /// `Now`, or at the end of the paid period.
    pub when: ChangeWhen,
    pub effective_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanChangeRefused {
    #[error("the plan is `{0}` already")]
    SamePlan(PlanId),
    #[error("the plan `{0}` is not on offer")]
    Inactive(PlanId),
    #[error("the plan `{0}` is paid for by subscription; there is none yet")]
    PaymentRequired(PlanId),
    #[error("the subscription is billed by Stripe, so its plan is changed there")]
    BilledByStripe,
    #[error("there is no paid period whose end could be waited for; ask for `now`")]
    NoPaidPeriod,
}

/// The result of a change to `target`: immediate for an upgrade, at the end of the paid period for a downgrade, unless
/// `when` says otherwise. Use already counted in the period stays counted either way.
pub fn change_plan(
    standing: &SubscriptionState<'_>,
    target: &Plan,
    when: Option<ChangeWhen>,
    authority: BillingAuthority,
    mode: BillingMode,
    now: DateTime<Utc>,
) -> Result<PlanChange, PlanChangeRefused> {
    if standing.plan.id == target.id {
        return Err(PlanChangeRefused::SamePlan(target.id.clone()));
    }
    if !target.is_active {
        return Err(PlanChangeRefused::Inactive(target.id.clone()));
    }
    let by_stripe = standing.subscription.is_some_and(|subscription| subscription.stripe_subscription_id.is_some());
    if by_stripe {
        return Err(PlanChangeRefused::BilledByStripe);
    }
    if authority == BillingAuthority::User
        && mode == BillingMode::Stripe
        && target.is_paid()
        && standing.subscription.is_none()
    {
        return Err(PlanChangeRefused::PaymentRequired(target.id.clone()));
    }
    let direction = direction(standing.plan, target);
    let paid_until =
        standing.subscription.and_then(|subscription| subscription.current_period_end).filter(|end| *end > now);
    let (when, effective_at) = match (when, paid_until) {
        (Some(ChangeWhen::PeriodEnd), None) => return Err(PlanChangeRefused::NoPaidPeriod),
        (Some(ChangeWhen::PeriodEnd), Some(end)) => (ChangeWhen::PeriodEnd, end),
        (None, Some(end)) if direction == ChangeDirection::Downgrade => (ChangeWhen::PeriodEnd, end),
        (Some(ChangeWhen::Now) | None, _) => (ChangeWhen::Now, now),
    };
    Ok(PlanChange { from: standing.plan.id.clone(), to: target.id.clone(), direction, when, effective_at })
}

fn direction(from: &Plan, to: &Plan) -> ChangeDirection {
    match to.monthly_worth().cmp(&from.monthly_worth()) {
        std::cmp::Ordering::Greater => ChangeDirection::Upgrade,
        std::cmp::Ordering::Less => ChangeDirection::Downgrade,
        std::cmp::Ordering::Equal => ChangeDirection::Lateral,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    use super::*;
    use crate::plans::{Currency, Price};

    fn plan(id: &str, monthly: i64) -> Plan {
        Plan {
            id: PlanId::parse(id).unwrap_or_else(|error| panic!("{error}")),
            name: id.into(),
            display_name: id.into(),
            description: None,
            price_monthly: Price::try_new(Decimal::from(monthly)).ok(),
            price_yearly: None,
            currency: Currency::parse("JPY").unwrap_or_else(|error| panic!("{error}")),
            is_active: true,
            features: Vec::new(),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    fn subscription(plan_id: &str, period_end: DateTime<Utc>) -> Subscription {
        Subscription {
            id: Uuid::nil(),
            plan_id: PlanId::parse(plan_id).unwrap_or_else(|error| panic!("{error}")),
            status: SubscriptionStatus::Active,
            stripe_subscription_id: None,
            trial_end: None,
            current_period_start: None,
            current_period_end: Some(period_end),
            cancel_at_period_end: false,
        }
    }

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn change(
        from: &Plan,
        live: Option<&Subscription>,
        to: &Plan,
        when: Option<ChangeWhen>,
        mode: BillingMode,
    ) -> Result<PlanChange, PlanChangeRefused> {
        change_plan(&SubscriptionState { plan: from, subscription: live }, to, when, BillingAuthority::User, mode, NOW)
    }

    #[test]
    fn an_upgrade_is_at_once_and_a_downgrade_waits_for_the_paid_period() {
        let (free, gold, platinum) = (plan("free", 0), plan("gold", 980), plan("platinum", 2980));
        let end = NOW + TimeDelta::days(10);
        let live = subscription("gold", end);
        let up = change(&gold, Some(&live), &platinum, None, BillingMode::Open)
            .map(|change| (change.direction, change.when, change.effective_at));
        assert_eq!(up, Ok((ChangeDirection::Upgrade, ChangeWhen::Now, NOW)));
        let down = change(&gold, Some(&live), &free, None, BillingMode::Open)
            .map(|change| (change.direction, change.when, change.effective_at));
        assert_eq!(down, Ok((ChangeDirection::Downgrade, ChangeWhen::PeriodEnd, end)));
        let at_once =
            change(&gold, Some(&live), &free, Some(ChangeWhen::Now), BillingMode::Open).map(|change| change.when);
        assert_eq!(at_once, Ok(ChangeWhen::Now));
        assert_eq!(
            change(&gold, None, &free, Some(ChangeWhen::PeriodEnd), BillingMode::Open),
            Err(PlanChangeRefused::NoPaidPeriod)
        );
    }

    #[test]
    fn a_paid_plan_is_owed_for_where_stripe_bills() {
        let (free, gold) = (plan("free", 0), plan("gold", 980));
        let owed = Err(PlanChangeRefused::PaymentRequired(gold.id.clone()));
        assert_eq!(change(&free, None, &gold, None, BillingMode::Stripe), owed);
        let standing = SubscriptionState { plan: &free, subscription: None };
        let granted = change_plan(&standing, &gold, None, BillingAuthority::Admin, BillingMode::Stripe, NOW);
        assert_eq!(granted.map(|change| change.when), Ok(ChangeWhen::Now));
        let by_stripe = Subscription { stripe_subscription_id: Some("sub_1".into()), ..subscription("gold", NOW) };
        assert_eq!(
            change(&gold, Some(&by_stripe), &free, None, BillingMode::Open),
            Err(PlanChangeRefused::BilledByStripe)
        );
    }

    #[test]
    fn a_trial_that_is_over_has_lapsed_and_an_active_subscription_has_not() {
        let trial = Subscription { status: SubscriptionStatus::Trialing, ..subscription("gold", NOW) };
        assert!(trial.has_lapsed(&PlanId::free()) && !trial.has_lapsed(&trial.plan_id));
        assert!(!subscription("gold", NOW).has_lapsed(&PlanId::free()));
    }

    #[test]
    fn the_same_plan_and_a_withdrawn_one_are_refused() {
        let gold = plan("gold", 980);
        assert_eq!(
            change(&gold, None, &gold, None, BillingMode::Open),
            Err(PlanChangeRefused::SamePlan(gold.id.clone()))
        );
        let old = Plan { is_active: false, ..plan("old", 1) };
        assert_eq!(
            change(&gold, None, &old, None, BillingMode::Open),
            Err(PlanChangeRefused::Inactive(old.id.clone()))
        );
    }

    proptest! {
        #[test]
        fn a_change_is_never_in_the_past_and_never_back_to_itself(from in 0_i64..9, to in 0_i64..9, days in -5_i64..5, ask in 0_u8..3, live in any::<bool>()) {
            let (from, to) = (plan(&format!("p{from}"), from), plan(&format!("p{to}"), to));
            let live = live.then(|| subscription(from.id.as_str(), NOW + TimeDelta::days(days)));
            let when = [None, Some(ChangeWhen::Now), Some(ChangeWhen::PeriodEnd)].into_iter().nth(ask.into()).flatten();
            match change(&from, live.as_ref(), &to, when, BillingMode::Open) {
                Ok(change) => {
                    prop_assert!(change.effective_at >= NOW && change.from != change.to);
                    prop_assert!(change.when == ChangeWhen::PeriodEnd || change.effective_at == NOW);
                    prop_assert!(when.is_none_or(|asked| asked == change.when));
                }
                Err(PlanChangeRefused::SamePlan(_)) => prop_assert_eq!(&from.id, &to.id),
                Err(PlanChangeRefused::NoPaidPeriod) => prop_assert!(when == Some(ChangeWhen::PeriodEnd) && (days <= 0 || live.is_none())),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
