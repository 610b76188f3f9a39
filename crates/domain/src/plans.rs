//! Plans: the catalogue of what is sold, with prices and limits.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::entitlements::{Allowance, Overage};
use crate::features::FeatureId;
use crate::usage::PeriodKind;

/// The plan of every user who has no other.
pub const FREE_PLAN: &str = "free";

const ID_MAX_LENGTH: usize = 50;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not an id: 1 to 50 characters of a-z, 0-9, _ and -")]
pub struct IdRefused(pub String);

/// The rule for the ids that people choose, of plans and of features: they are safe in URLs and in logs.
pub(crate) fn parse_id(text: &str) -> Result<&str, IdRefused> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if text.is_empty() || text.len() > ID_MAX_LENGTH || !text.bytes().all(fits) {
        let shown: String = text.chars().filter(|character| !character.is_control()).take(ID_MAX_LENGTH).collect();
        return Err(IdRefused(shown));
    }
    Ok(text)
}

/// The id of a plan: 1 to 50 characters of `a-z`, `0-9`, `_` and `-`. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanId(Arc<str>);

impl PlanId {
    pub fn parse(text: &str) -> Result<Self, IdRefused> {
        parse_id(text).map(|id| Self(id.into()))
    }

    pub fn free() -> Self {
        Self(FREE_PLAN.into())
    }

    pub fn is_free(&self) -> bool {
        self.as_str() == FREE_PLAN
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PlanId {
    type Error = IdRefused;

    fn try_from(text: String) -> Result<Self, IdRefused> {
        Self::parse(&text)
    }
}

impl From<PlanId> for String {
    fn from(id: PlanId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A price as stored in `decimal(10,2)`: not negative, at most two decimals, below a hundred million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(Decimal);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanPriceRefused {
    #[error("a price must not be negative")]
    Negative,
    #[error("a price has at most two decimals")]
    TooFine,
    #[error("a price must be below 100000000")]
    TooLarge,
}

impl Price {
    pub const ZERO: Self = Self(Decimal::ZERO);

    pub fn try_new(amount: Decimal) -> Result<Self, PlanPriceRefused> {
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err(PlanPriceRefused::Negative);
        }
        if amount.normalize().scale() > 2 {
            return Err(PlanPriceRefused::TooFine);
        }
        if amount >= Decimal::from(100_000_000) {
            return Err(PlanPriceRefused::TooLarge);
        }
        let mut amount = amount.abs();
        amount.rescale(2);
        Ok(Self(amount))
    }

    pub const fn amount(self) -> Decimal {
        self.0
    }

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

// Always two decimals on the wire: 980.00, not 980.
impl fmt::Display for Price {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.2}", self.0)
    }
}

/// An ISO 4217 code: three capital letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency(String);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a currency is three capital letters, such as JPY")]
pub struct CurrencyRefused;

impl Currency {
    pub fn parse(text: &str) -> Result<Self, CurrencyRefused> {
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(CurrencyRefused)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a plan grants of one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFeature {
    pub feature_id: FeatureId,
    pub enabled: bool,
    pub allowance: Allowance,
    pub period: PeriodKind,
    pub overage: Overage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub id: PlanId,
    pub name: String,
    pub display_name: String,
    pub description: Option<String>,
    pub price_monthly: Option<Price>,
    pub price_yearly: Option<Price>,
    pub currency: Currency,
    pub is_active: bool,
    pub features: Vec<PlanFeature>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Plan {
    /// Whether it has a price, per month or per year.
    pub fn is_paid(&self) -> bool {
        [self.price_monthly, self.price_yearly].into_iter().flatten().any(|price| !price.is_zero())
    }

    /// The price of a month, for comparing plans: the monthly price, else a twelfth of the yearly one, else zero.
    pub fn monthly_worth(&self) -> Decimal {
        let a_twelfth = |price: Price| price.amount() / Decimal::from(12);
        self.price_monthly.map(Price::amount).or(self.price_yearly.map(a_twelfth)).unwrap_or_default()
    }
}

/// A plan as an administrator submits it, before it has features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanDraft {
    pub id: PlanId,
    pub name: String,
    pub display_name: String,
    pub description: Option<String>,
    pub price_monthly: Option<Price>,
    pub price_yearly: Option<Price>,
    pub currency: Currency,
    pub is_active: bool,
}

/// What to change; `None` keeps a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanChanges {
    pub name: Option<String>,
    pub display_name: Option<String>,
    pub description: Option<Option<String>>,
    pub price_monthly: Option<Option<Price>>,
    pub price_yearly: Option<Option<Price>>,
    pub currency: Option<Currency>,
    pub is_active: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanKept {
    #[error("the plan `free` is what everybody falls back to, so it can be neither deleted nor deactivated")]
    Fallback,
    #[error("the plan has {users} users or subscriptions; move them to another plan first")]
    InUse { users: i64 },
}

/// Whether a plan can be deleted, given how many users, subscriptions and scheduled changes refer to it.
pub fn may_delete(id: &PlanId, users: i64) -> Result<(), PlanKept> {
    if id.is_free() {
        return Err(PlanKept::Fallback);
    }
    if users > 0 { Err(PlanKept::InUse { users }) } else { Ok(()) }
}

/// Whether a plan can be changed this way. All users fall back to `free`, so that plan stays active.
pub fn may_change(id: &PlanId, changes: &PlanChanges) -> Result<(), PlanKept> {
    if id.is_free() && changes.is_active == Some(false) { Err(PlanKept::Fallback) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    #[test]
    fn an_id_is_safe_in_an_address() {
        assert!(PlanId::parse("gold-2026_q1").is_ok());
        for bad in ["", "Gold", "a b", "ä", "a/b", "a\u{0}", &"x".repeat(51)] {
            assert!(PlanId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_price_is_refused_rather_than_rounded() {
        assert_eq!(Price::try_new(dec!(980)).map(|price| price.to_string()), Ok("980.00".to_owned()));
        assert_eq!(Price::try_new(dec!(0.10)).map(|price| price.to_string()), Ok("0.10".to_owned()));
        assert_eq!(Price::try_new(dec!(0.001)), Err(PlanPriceRefused::TooFine));
        assert_eq!(Price::try_new(dec!(-0.01)), Err(PlanPriceRefused::Negative));
        assert_eq!(Price::try_new(dec!(100000000)), Err(PlanPriceRefused::TooLarge));
    }

    #[test]
    fn the_free_plan_stays() {
        assert_eq!(may_delete(&PlanId::free(), 0), Err(PlanKept::Fallback));
        let off = PlanChanges { is_active: Some(false), ..PlanChanges::default() };
        assert_eq!(may_change(&PlanId::free(), &off), Err(PlanKept::Fallback));
    }
}
