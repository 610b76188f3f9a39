//! Money: prices per token in whole pico-dollars, costs in whole nano-dollars. Neither is ever a float.

use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};
use thiserror::Error;

/// The decimals of a price per million; `decimal(18,6)` has no more.
const DECIMALS: u32 = 6;

/// The decimals of an amount: a billionth of a dollar is the smallest.
const AMOUNT_DECIMALS: u32 = 9;

/// A price per million tokens is below this many dollars.
const BELOW_USD: u64 = 1_000_000_000_000;

const PICO_PER_NANO: u128 = 1_000;

/// The price of one token in pico-dollars: one dollar per million tokens is a million of them. For tools, of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitPrice(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnitPriceRefused {
    #[error("a price must not be negative")]
    Negative,
    #[error("a price has at most six decimals")]
    TooFine,
    #[error("a price for a million must be below 1000000000000")]
    TooLarge,
}

impl UnitPrice {
    /// From the price per million, in dollars. A value that would need rounding is an error.
    pub fn per_million(usd: Decimal) -> Result<Self, UnitPriceRefused> {
        if usd.is_sign_negative() && !usd.is_zero() {
            return Err(UnitPriceRefused::Negative);
        }
        let mut usd = usd.normalize();
        if usd.scale() > DECIMALS {
            return Err(UnitPriceRefused::TooFine);
        }
        if usd >= Decimal::from(BELOW_USD) {
            return Err(UnitPriceRefused::TooLarge);
        }
        usd.rescale(DECIMALS);
        u64::try_from(usd.mantissa()).map(Self).map_err(|_| UnitPriceRefused::TooLarge)
    }

    /// The price per million, in dollars.
    pub fn usd_per_million(self) -> Decimal {
        Decimal::from_i128_with_scale(self.0.into(), DECIMALS).normalize()
    }

    /// This price times a factor, such as 0.5 for a batch. A product that would need rounding is an error.
    pub fn times(self, factor: Decimal) -> Result<Self, UnitPriceRefused> {
        let product = self.usd_per_million().checked_mul(factor).ok_or(UnitPriceRefused::TooLarge)?;
        Self::per_million(product)
    }

    /// The cost of `count` units in pico-dollars. Both factors have 64 bits, so the product cannot overflow.
    pub(super) fn pico_usd(self, count: u64) -> u128 {
        u128::from(self.0) * u128::from(count)
    }
}

// The form on the wire: 2.5, not 2.500000.
impl fmt::Display for UnitPrice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.usd_per_million().fmt(formatter)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmountRefused {
    #[error("an amount must not be negative")]
    Negative,
    #[error("an amount has at most nine decimals")]
    TooFine,
    #[error("an amount is at most {}", NanoUsd(i64::MAX))]
    TooLarge,
}

/// An amount of money in billionths of a dollar, as in counters and logs: at most about nine billion dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// From dollars. A value that would need rounding is an error.
    pub fn from_usd(usd: Decimal) -> Result<Self, AmountRefused> {
        if usd.is_sign_negative() && !usd.is_zero() {
            return Err(AmountRefused::Negative);
        }
        let mut usd = usd.normalize();
        if usd.scale() > AMOUNT_DECIMALS {
            return Err(AmountRefused::TooFine);
        }
        if usd > Self(i64::MAX).usd() {
            return Err(AmountRefused::TooLarge);
        }
        usd.rescale(AMOUNT_DECIMALS);
        i64::try_from(usd.mantissa()).map(Self).map_err(|_| AmountRefused::TooLarge)
    }

    /// Rounded half to even; `None` above `i64::MAX` nano-dollars.
    pub(super) fn from_pico(pico: u128) -> Option<Self> {
        let (whole, rest) = (pico / PICO_PER_NANO, pico % PICO_PER_NANO);
        let half = PICO_PER_NANO / 2;
        let up = rest > half || (rest == half && whole % 2 == 1);
        i64::try_from(whole + u128::from(up)).ok().map(Self)
    }

    /// In dollars, with all nine decimals.
    pub fn usd(self) -> Decimal {
        Decimal::new(self.0, AMOUNT_DECIMALS)
    }

    /// In dollars with four decimals, for display only; never summed.
    pub fn rounded_usd(self) -> Decimal {
        let mut usd = self.usd().round_dp_with_strategy(4, RoundingStrategy::MidpointNearestEven);
        usd.rescale(4);
        usd
    }
}

// The form on the wire: exact, without trailing zeros.
impl fmt::Display for NanoUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.usd().normalize().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    #[test]
    fn a_price_is_refused_rather_than_rounded() {
        for (usd, text) in [(dec!(2.5), "2.5"), (dec!(10.000000), "10"), (dec!(0.000001), "0.000001"), (dec!(0), "0")] {
            let price = UnitPrice::per_million(usd).unwrap();
            assert_eq!((price.to_string().as_str(), price.usd_per_million()), (text, usd));
        }
        assert_eq!(UnitPrice::per_million(dec!(0.0000001)), Err(UnitPriceRefused::TooFine));
        assert_eq!(UnitPrice::per_million(dec!(-0.5)), Err(UnitPriceRefused::Negative));
        assert_eq!(UnitPrice::per_million(dec!(1000000000000)), Err(UnitPriceRefused::TooLarge));
        assert!(UnitPrice::per_million(dec!(999999999999.999999)).is_ok());
    }

    #[test]
    fn a_factor_gives_an_exact_price_or_none() {
        let price = UnitPrice::per_million(dec!(0.01)).unwrap();
        assert_eq!(price.times(dec!(1.1)).unwrap().to_string(), "0.011");
        assert_eq!(price.times(dec!(0.00001)), Err(UnitPriceRefused::TooFine));
        assert_eq!(price.times(dec!(-1)), Err(UnitPriceRefused::Negative));
        assert_eq!(price.times(Decimal::MAX), Err(UnitPriceRefused::TooLarge));
    }

    #[test]
    fn a_half_goes_to_the_even_one() {
        for (pico, nano) in [(0, 0), (499, 0), (500, 0), (501, 1), (1_500, 2), (2_500, 2), (2_501, 3), (3_500, 4)] {
            assert_eq!(NanoUsd::from_pico(pico), Some(NanoUsd(nano)), "{pico}");
        }
        let most = u128::from(i64::MAX.unsigned_abs()) * PICO_PER_NANO;
        assert_eq!(NanoUsd::from_pico(most + 499), Some(NanoUsd(i64::MAX)));
        assert_eq!((NanoUsd::from_pico(most + 500), NanoUsd::from_pico(u128::MAX)), (None, None));
    }

    #[test]
    fn an_amount_is_read_back_from_what_is_shown_and_never_rounded() {
        for (nano, text) in [(0, "0"), (1, "0.000000001"), (2_500_000_000, "2.5"), (i64::MAX, "9223372036.854775807")] {
            assert_eq!(NanoUsd(nano).to_string(), text);
            assert_eq!(NanoUsd::from_usd(text.parse().unwrap()), Ok(NanoUsd(nano)));
        }
        assert_eq!(NanoUsd::from_usd(dec!(10.0000000000)), Ok(NanoUsd(10_000_000_000)));
        assert_eq!(NanoUsd::from_usd(dec!(-0.1)), Err(AmountRefused::Negative));
        assert_eq!(NanoUsd::from_usd(dec!(0.0000000001)), Err(AmountRefused::TooFine));
        assert_eq!(NanoUsd::from_usd(dec!(9223372036.854775808)), Err(AmountRefused::TooLarge));
        assert_eq!(NanoUsd::from_usd(Decimal::MAX), Err(AmountRefused::TooLarge));
    }

    #[test]
    fn dollars_have_nine_decimals_or_four() {
        assert_eq!(NanoUsd(1_234_567_891).usd(), dec!(1.234567891));
        assert_eq!(NanoUsd(1_234_567_891).rounded_usd().to_string(), "1.2346");
        assert_eq!(NanoUsd(50_000).rounded_usd().to_string(), "0.0000", "half to even");
        assert_eq!(NanoUsd(150_000).rounded_usd().to_string(), "0.0002");
        assert_eq!(NanoUsd(i64::MAX).usd().to_string(), "9223372036.854775807");
    }
}
