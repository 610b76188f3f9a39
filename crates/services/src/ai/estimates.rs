//! Call estimates: the most that a call can use and cost, estimated before it is sent. The reservation is based on it.
//!
//! The input is estimated by the rules of `InputSize` and is never more than the model's input window. Input that
//! cannot be seen in a request is reserved at that window.

use chrono::{DateTime, Utc};
use domain::ai::{CLAUDE_OUTPUT_UNASKED, ModelId, ProviderProfile};
use domain::prices::{CostError, NanoUsd, PriceList, UsageEstimate};

use super::calls::{Call, OutputBound};

/// The output limit that is assumed for a model whose limit is not known.
const OUTPUT_MAX_UNKNOWN: u64 = 16_384;

/// No call is lowered to less than this: its answer would be of no use.
pub const OUTPUT_LEAST: u64 = 16;

/// The most that a call can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEstimate {
    /// The likely input: it is billed where the provider reports nothing. Input that cannot be seen is taken as the
    /// whole window.
    pub likely_input: u64,
    pub input: u64,
    /// What is reserved for the output of all answers together.
    pub output: u64,
    /// The most that the output of a stream may grow to.
    pub output_most: u64,
    pub answers: u64,
    /// The least output limit per answer that is of any use.
    least: u64,
    /// Whether the call has input that cannot be seen, for a model whose input window is not known.
    pub is_unbounded: bool,
    /// Whether less than was requested is reserved.
    is_lowered: bool,
    /// Whether the caller set no bound, but the provider demands one.
    is_unasked: bool,
}

impl CallEstimate {
    /// The estimate over all `models` that may answer. `assumed` is what is reserved at first for a streamed answer
    /// without a bound from the caller, and if it `is_elastic`, also for one with a bound.
    pub fn of<'a>(
        call: &Call,
        assumed: u64,
        is_elastic: bool,
        models: impl IntoIterator<Item = (ProviderProfile, &'a ModelId)>,
    ) -> Self {
        let likely_input = call.input.likely();
        let at = |(provider, model): (ProviderProfile, &ModelId)| {
            call.input.most(model.as_str(), !provider.missing.known_tokens)
        };
        let input = models.into_iter().map(at).max().unwrap_or(likely_input);
        let OutputBound { asked, answers, .. } = call.output;
        let answers = answers.max(1);
        let is_unasked = asked.is_none() && call.target.provider.demands_output_bound();
        let demanded = if is_unasked { CLAUDE_OUTPUT_UNASKED } else { u64::MAX };
        let most = call.target.max_output_tokens.unwrap_or(OUTPUT_MAX_UNKNOWN).min(demanded);
        let each = match asked {
            Some(asked) if is_elastic => asked.min(most).min(assumed),
            Some(asked) => asked.min(most),
            None if call.streamed => assumed.min(most),
            None => most,
        };
        let output_most = asked.map_or(most, |asked| asked.min(most)).saturating_mul(answers);
        let output = each.saturating_mul(answers);
        let least = OUTPUT_LEAST.max(call.input.thinking_budget.saturating_add(1));
        Self {
            likely_input,
            input,
            output,
            output_most,
            answers,
            least,
            is_unbounded: false,
            is_lowered: false,
            is_unasked,
        }
    }

    /// Limits the input to the input window of the models, if it is known for all of them: no call takes in more than
    /// that. A call with input that cannot be seen may take in all of it.
    #[must_use]
    pub fn within(self, window: Option<u64>, is_unseen: bool) -> Self {
        let (likely_input, input) = match window {
            Some(window) if is_unseen => (window, window),
            Some(window) => (self.likely_input, self.input.min(window)),
            None => (self.likely_input, self.input),
        };
        Self { likely_input, input, is_unbounded: is_unseen && window.is_none(), ..self }
    }

    /// The output limit per answer, where less than was requested is reserved.
    pub fn lowered_to(&self) -> Option<u64> {
        self.is_lowered.then(|| self.each())
    }

    /// The output limit per answer that the provider is sent: also one that the caller did not set, so that a fallback
    /// keeps to it.
    pub fn told(&self) -> Option<u64> {
        (self.is_lowered || self.is_unasked).then(|| self.each())
    }

    fn each(&self) -> u64 {
        (self.output_most / self.answers).max(1)
    }

    /// Input and output together.
    pub fn tokens(&self) -> i64 {
        whole(self.input.saturating_add(self.output))
    }

    /// The estimate with this output in total, if that is less and of any use.
    pub fn lowered(&self, output: u64) -> Option<Self> {
        let fits = output >= self.of_use() && output < self.output;
        fits.then(|| Self { output, output_most: output, is_lowered: true, ..self.clone() })
    }

    /// The least output in total that is of any use.
    pub const fn of_use(&self) -> u64 {
        self.least.saturating_mul(self.answers)
    }

    /// The estimate with this bound up to which the output may grow in total; never below what is reserved.
    #[must_use]
    pub fn capped(self, output: u64) -> Self {
        let output_most = output.max(self.output);
        if output_most >= self.output_most {
            return self;
        }
        Self { output_most, is_lowered: true, ..self }
    }

    /// The same estimate with this output in total.
    pub fn grown_to(&self, output: u64) -> Self {
        Self { output, ..self.clone() }
    }

    fn estimate(&self, call: &Call, output: u64) -> UsageEstimate {
        UsageEstimate {
            // Input that cannot be seen may be audio.
            audio_input: call.input.has_audio || call.input.is_unseen,
            image_output: true,
            audio_output: call.input.answers_in_sound,
            tool_calls: call.input.tool_calls,
            tier: call.tier,
            geo: call.geo.clone(),
            ..UsageEstimate::text(self.input, output)
        }
    }

    /// The most that the call costs at any of these models.
    pub fn cost<'a>(
        &self,
        call: &Call,
        models: impl IntoIterator<Item = (ProviderProfile, &'a ModelId)>,
        prices: &PriceList,
        at: DateTime<Utc>,
    ) -> Result<NanoUsd, CostError> {
        let mut most = NanoUsd(0);
        for (provider, model) in models {
            most = most.max(prices.most(provider.id, model, &self.estimate(call, self.output), at)?.amount);
        }
        Ok(most)
    }

    /// The longest output that costs no more than `room` at any of these models; the cost grows with the output.
    pub fn output_for(
        &self,
        call: &Call,
        models: &[(ProviderProfile, &ModelId)],
        room: NanoUsd,
        prices: &PriceList,
        at: DateTime<Utc>,
    ) -> u64 {
        let fits = |output| {
            self.grown_to(output).cost(call, models.iter().copied(), prices, at).is_ok_and(|cost| cost <= room)
        };
        let (mut fitting, mut beyond) = (0, self.output.saturating_add(1));
        while fitting + 1 < beyond {
            let middle = fitting + (beyond - fitting) / 2;
            if fits(middle) {
                fitting = middle;
            } else {
                beyond = middle;
            }
        }
        fitting
    }
}

/// A count as the tables store it.
pub fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use domain::ai::Tier;
    use domain::api_keys::KeyBudgets;
    use domain::prices::{ModelPrice, PriceId, PriceKey, PriceKind, PriceSource, UnitPrice};
    use domain::users::UserId;
    use ports::ai::CallContent;
    use rust_decimal::Decimal;
    use uuid::Uuid;

    use super::super::calls::{CallerContext, InputSize, ResolvedModel};
    use super::*;

    fn call(provider: ProviderProfile, asked: Option<u64>, streamed: bool) -> Call {
        Call {
            asking: CallerContext {
                user_id: UserId(Uuid::nil()),
                api_key_id: None,
                budgets: KeyBudgets::default(),
                token: None,
            },
            target: ResolvedModel {
                provider,
                model: ModelId::parse("m").unwrap(),
                max_input_tokens: None,
                max_output_tokens: Some(1_000),
                is_sandbox: false,
            },
            content: CallContent::Conversation(domain::ai::Conversation::default()),
            streamed,
            input: InputSize { text_tokens: 84, messages: 1, ..InputSize::default() },
            output: OutputBound { asked, answers: 2, may_be_lowered: true, is_strict: false },
            tier: Tier::Standard,
            geo: domain::ai::Geo::ANYWHERE,
            hold_id: None,
            keeping: None,
            retried_by_caller: false,
            translation: None,
        }
    }

    fn bounds(call: &Call) -> CallEstimate {
        CallEstimate::of(call, 300, false, [(call.target.provider, &call.target.model)])
    }

    #[test]
    fn the_most_is_what_was_asked_or_what_the_model_can() {
        let asked = bounds(&call(ProviderProfile::OPENAI, Some(5_000), false));
        assert_eq!((asked.input, asked.output, asked.output_most, asked.told()), (100, 2_000, 2_000, None));
        let streamed = bounds(&call(ProviderProfile::GEMINI, None, true));
        assert_eq!((streamed.input, streamed.likely_input), (150, 100));
        assert_eq!((streamed.output, streamed.output_most, streamed.told()), (600, 2_000, None));
        assert_eq!(bounds(&call(ProviderProfile::OPENAI, None, false)).tokens(), 2_100);
    }

    #[test]
    fn the_input_is_what_the_fallback_that_counts_most_may_count() {
        let of_openai = call(ProviderProfile::OPENAI, None, false);
        let model = &of_openai.target.model;
        let with = |other| CallEstimate::of(&of_openai, 300, false, [(ProviderProfile::OPENAI, model), (other, model)]);
        assert_eq!((with(ProviderProfile::GEMINI).input, with(ProviderProfile::OPENAI).input), (150, 100));
    }

    #[test]
    fn the_input_is_held_to_the_window_and_what_is_unseen_at_it() {
        let bounds = || bounds(&call(ProviderProfile::OPENAI, None, false));
        for (window, is_unseen, input) in [
            (Some(80), false, 80),
            (Some(900), false, 100),
            (Some(900), true, 900),
            (None, false, 100),
            (None, true, 100),
        ] {
            let held = bounds().within(window, is_unseen);
            assert_eq!(held.input, input, "{window:?} {is_unseen}");
            assert_eq!(held.likely_input, if is_unseen { input } else { 100 }, "{window:?} {is_unseen}");
        }
    }

    #[test]
    fn claude_is_told_a_bound_that_nobody_asked_for_and_no_more_is_held() {
        let large = |asked, streamed| {
            let mut call = call(ProviderProfile::CLAUDE, asked, streamed);
            call.target.max_output_tokens = Some(128_000);
            call.output.answers = 1;
            bounds(&call)
        };
        let whole = large(None, false);
        assert_eq!(
            (whole.output, whole.output_most, whole.told(), whole.lowered_to()),
            (4_096, 4_096, Some(4_096), None)
        );
        let streamed = large(None, true);
        assert_eq!((streamed.output, streamed.output_most, streamed.told()), (300, 4_096, Some(4_096)));
        assert_eq!(large(Some(9_000), false).told(), None);
        assert_eq!(whole.lowered(64).map(|lowered| (lowered.told(), lowered.lowered_to())), Some((Some(64), Some(64))));
    }

    #[test]
    fn a_stream_holds_a_first_part_of_its_bound_and_is_told_no_more_than_can_be_paid() {
        let call = call(ProviderProfile::CLAUDE, Some(900), true);
        let models = || [(call.target.provider, &call.target.model)];
        let elastic = CallEstimate::of(&call, 300, true, models());
        assert_eq!((elastic.output, elastic.output_most, elastic.told()), (600, 1_800, None));
        let strict = CallEstimate::of(&call, 300, false, models());
        assert_eq!((strict.output, strict.output_most, strict.told()), (1_800, 1_800, None));
        for (room, most, told) in [(1_000, 1_000, Some(500)), (100, 600, Some(300)), (5_000, 1_800, None)] {
            let capped = elastic.clone().capped(room);
            assert_eq!((capped.output, capped.output_most, capped.told()), (600, most, told), "{room}");
        }
        let short = elastic.lowered(40).unwrap();
        assert_eq!((short.output, short.output_most, short.told()), (40, 40, Some(20)));
    }

    #[test]
    fn it_is_lowered_to_what_is_of_use() {
        let bounds = bounds(&call(ProviderProfile::OPENAI, Some(100), false));
        let lowered = bounds.lowered(64).unwrap();
        assert_eq!((lowered.output, lowered.told()), (64, Some(32)));
        assert_eq!((bounds.lowered(31), bounds.lowered(200), lowered.lowered(64)), (None, None, None));
    }

    #[test]
    fn the_output_is_found_by_its_cost() {
        let price = |kind, usd: i64| ModelPrice {
            id: PriceId(Uuid::nil()),
            key: PriceKey {
                provider: domain::ai::ProviderId::OPENAI,
                model: ModelId::parse("m").unwrap(),
                kind,
                tier: Tier::Standard,
                geo: domain::ai::Geo::ANYWHERE,
                threshold_tokens: 0,
            },
            price: UnitPrice::per_million(Decimal::from(usd)).unwrap(),
            version: "v".to_owned(),
            source: PriceSource::Catalogue,
            valid_from: DateTime::UNIX_EPOCH,
            valid_to: None,
        };
        let prices = PriceList::new([price(PriceKind::Input, 1), price(PriceKind::Output, 10)], []);
        let call = call(ProviderProfile::OPENAI, Some(1_000), false);
        let (bounds, at) = (bounds(&call), DateTime::UNIX_EPOCH);
        let models = [(ProviderProfile::OPENAI, &call.target.model)];
        // 100 in at 1,000 nano-dollars, 2,000 out at 10,000.
        assert_eq!(bounds.cost(&call, models, &prices, at), Ok(NanoUsd(20_100_000)));
        assert_eq!(bounds.output_for(&call, &models, NanoUsd(1_100_000), &prices, at), 100);
        assert_eq!(bounds.output_for(&call, &models, NanoUsd(99_999), &prices, at), 0);
        assert_eq!(bounds.output_for(&call, &models, NanoUsd(i64::MAX), &prices, at), 2_000);
    }
}
