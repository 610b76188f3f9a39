//! The usage of a call, part by part, and its cost. The sum is calculated here independently of the product, so that a
//! test can check the product's ledger against it.

use std::ops::{Add, Sub};

use super::ask::UpstreamDialect;

/// The numbers of a usage. The parts do not overlap: the tokens of a call are their sum, without searches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageParts {
    pub uncached_in: u64,
    pub cache_read: u64,
    /// Anthropic's five minutes, OpenAI's default.
    pub cache_write_short: u64,
    /// Anthropic's hour.
    pub cache_write_long: u64,
    pub audio_in: u64,
    pub image_in: u64,
    /// Tokens that Gemini's own tools added to the prompt.
    pub tool_prompt: u64,
    /// Text and tool calls.
    pub out_visible: u64,
    pub out_reasoning: u64,
    /// Predicted output that OpenAI rejected and charges nevertheless.
    pub out_rejected: u64,
    pub audio_out: u64,
    pub image_out: u64,
    /// Calls, not tokens.
    pub web_searches: u64,
}

impl UsageParts {
    pub fn input(&self) -> u64 {
        self.uncached_in
            + self.cache_read
            + self.cache_write_short
            + self.cache_write_long
            + self.audio_in
            + self.image_in
            + self.tool_prompt
    }

    pub fn output(&self) -> u64 {
        self.out_visible + self.out_reasoning + self.out_rejected + self.audio_out + self.image_out
    }

    /// The parts that a dialect can report. The others are neither reported nor charged there.
    #[must_use]
    pub fn within(self, dialect: UpstreamDialect) -> Self {
        match dialect {
            UpstreamDialect::OpenAi => Self { cache_write_long: 0, tool_prompt: 0, web_searches: 0, ..self },
            UpstreamDialect::Anthropic => {
                Self { audio_in: 0, image_in: 0, tool_prompt: 0, out_rejected: 0, audio_out: 0, image_out: 0, ..self }
            }
            UpstreamDialect::Gemini => {
                Self { cache_write_short: 0, cache_write_long: 0, out_rejected: 0, web_searches: 0, ..self }
            }
        }
    }

    /// Input once, and output for each choice.
    #[must_use]
    pub fn with_choices(self, choices: u64) -> Self {
        Self {
            out_visible: self.out_visible * choices,
            out_reasoning: self.out_reasoning * choices,
            out_rejected: self.out_rejected * choices,
            audio_out: self.audio_out * choices,
            image_out: self.image_out * choices,
            ..self
        }
    }

    fn pairs(self, other: Self) -> [(u64, u64); 13] {
        [
            (self.uncached_in, other.uncached_in),
            (self.cache_read, other.cache_read),
            (self.cache_write_short, other.cache_write_short),
            (self.cache_write_long, other.cache_write_long),
            (self.audio_in, other.audio_in),
            (self.image_in, other.image_in),
            (self.tool_prompt, other.tool_prompt),
            (self.out_visible, other.out_visible),
            (self.out_reasoning, other.out_reasoning),
            (self.out_rejected, other.out_rejected),
            (self.audio_out, other.audio_out),
            (self.image_out, other.image_out),
            (self.web_searches, other.web_searches),
        ]
    }

    fn combined(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let combined = self.pairs(other).map(|(left, right)| combine(left, right));
        let [
            uncached_in,
            cache_read,
            cache_write_short,
            cache_write_long,
            audio_in,
            image_in,
            tool_prompt,
            out_visible,
            out_reasoning,
            out_rejected,
            audio_out,
            image_out,
            web_searches,
        ] = combined;
        Self {
            uncached_in,
            cache_read,
            cache_write_short,
            cache_write_long,
            audio_in,
            image_in,
            tool_prompt,
            out_visible,
            out_reasoning,
            out_rejected,
            audio_out,
            image_out,
            web_searches,
        }
    }
}

impl Add for UsageParts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.combined(other, |left, right| left + right)
    }
}

impl Sub for UsageParts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.combined(other, |left, right| left - right)
    }
}

/// Nano-dollars for a million of each part: three dollars a million are 3,000,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamPrices(pub UsageParts);

impl UpstreamPrices {
    /// The exact sum, rounded once, half to even, like the product's ledger.
    pub fn nano_dollars(&self, usage: UsageParts) -> u64 {
        const MILLION: u128 = 1_000_000;
        let exact: u128 =
            self.0.pairs(usage).iter().map(|(price, number)| u128::from(*price) * u128::from(*number)).sum();
        let (whole, rest) = (exact / MILLION, exact % MILLION);
        let up = rest > MILLION / 2 || (rest == MILLION / 2 && whole % 2 == 1);
        u64::try_from(whole + u128::from(up)).expect("no test spends eighteen thousand million dollars")
    }
}

impl Default for UpstreamPrices {
    /// Each part has its own price, none a divisor of another, so that mixed-up parts change the sum.
    fn default() -> Self {
        Self(UsageParts {
            uncached_in: 2_000_000_001,
            cache_read: 200_000_003,
            cache_write_short: 2_500_000_007,
            cache_write_long: 5_000_000_011,
            audio_in: 32_000_000_017,
            image_in: 4_000_000_019,
            tool_prompt: 2_100_000_023,
            out_visible: 10_000_000_029,
            out_reasoning: 11_000_000_031,
            out_rejected: 12_000_000_037,
            audio_out: 64_000_000_041,
            image_out: 40_000_000_043,
            web_searches: 10_000_000_000_000,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_rounded_once_and_half_to_even() {
        let prices =
            UpstreamPrices(UsageParts { uncached_in: 500_000, out_visible: 1_500_000, ..UsageParts::default() });
        let cost = |uncached_in, out_visible| {
            prices.nano_dollars(UsageParts { uncached_in, out_visible, ..UsageParts::default() })
        };
        // Half a nano-dollar rounds to 0, one and a half to 2, two and a half to 2, and halves are added before
        // rounding.
        assert_eq!([cost(1, 0), cost(0, 1), cost(2, 1), cost(1, 1), cost(1, 3)], [0, 2, 2, 2, 5]);
    }

    #[test]
    fn the_price_list_is_in_dollars_a_million() {
        // gpt-5.4-mini: 1000 tokens in at 0.75 and 100 out at 4.50 dollars per million: 750,000 + 450,000 nano-dollars.
        let prices = UpstreamPrices(UsageParts {
            uncached_in: 750_000_000,
            out_visible: 4_500_000_000,
            ..UsageParts::default()
        });
        let usage = UsageParts { uncached_in: 1000, out_visible: 100, ..UsageParts::default() };
        assert_eq!(prices.nano_dollars(usage), 1_200_000);
    }

    #[test]
    fn a_dialect_charges_what_it_can_tell() {
        let all = UsageParts::default().combined(UsageParts::default(), |_, _| 1);
        assert_eq!((all.input(), all.output()), (7, 5));
        let told = |dialect| {
            let parts = all.within(dialect);
            (parts.input(), parts.output(), parts.web_searches)
        };
        assert_eq!(told(UpstreamDialect::OpenAi), (5, 5, 0));
        assert_eq!(told(UpstreamDialect::Anthropic), (4, 2, 1));
        assert_eq!(told(UpstreamDialect::Gemini), (5, 4, 0));
        assert_eq!(all.with_choices(3).output(), 15);
        assert_eq!(all.with_choices(3).input(), 7);
    }
}
