//! Properties that hold for the costs of every price list.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::cost::{Cost, CostError, UsageEstimate};
use super::cost_tests::{ANY, Row, list, standard};
use super::kinds::PriceKind;
use super::list::PriceList;
use super::money::NanoUsd;
use super::testing::{at, model, with_part};
use crate::ai::{CallUsage, ProviderId, Tier, TokenUsage, ToolCalls};

prop_compose! {
    fn any_tokens()(parts in prop::array::uniform10(0_u64..400_000), calls in prop::array::uniform3(0_u64..9)) -> TokenUsage {
        let [uncached_input, cache_read, cache_write_short, cache_write_long, audio_input, image_input, visible_output,
            reasoning_output, audio_output, image_output] = parts;
        let [web_search, web_fetch, code_execution] = calls;
        TokenUsage { uncached_input, cache_read, cache_write_short, cache_write_long, audio_input, image_input,
            visible_output, reasoning_output, audio_output, image_output,
            tool_calls: ToolCalls { web_search, web_fetch, code_execution } }
    }
}

/// Prices down to the last decimal for every kind, and higher ones above a threshold for some.
fn any_prices() -> impl Strategy<Value = PriceList> {
    let one = (0_i64..50_000_000, prop::option::of((1_u64..1_000_000, 0_i64..50_000_000)));
    prop::collection::vec(one, PriceKind::ALL.len()).prop_map(|prices| {
        let rows: Vec<Row> = PriceKind::ALL
            .into_iter()
            .zip(prices)
            .flat_map(|(kind, (base, long))| {
                let usd = |micro| Decimal::new(micro, 6);
                let long = long.map(|(above, more)| (kind, Tier::Standard, ANY, above, usd(base + more)));
                [(kind, Tier::Standard, ANY, 0, usd(base))].into_iter().chain(long)
            })
            .collect();
        list(ProviderId::CLAUDE, "m", &rows)
    })
}

/// Prices for some kinds, including input and output, at some tiers and above some thresholds.
fn some_prices() -> impl Strategy<Value = PriceList> {
    let tiers = prop_oneof![Just(Tier::Standard), Just(Tier::Priority), Just(Tier::Batch)];
    let one = (0_usize..PriceKind::ALL.len(), tiers, prop_oneof![Just(0_u64), 1_u64..1_000_000], 1_i64..50_000_000);
    let base = prop::array::uniform2(1_i64..50_000_000);
    (prop::collection::vec(one, 0..20), base).prop_map(|(more, [input, output])| {
        let usd = |micro| Decimal::new(micro, 6);
        let base = [(PriceKind::Input, input), (PriceKind::Output, output)];
        let mut rows: Vec<Row> =
            base.into_iter().map(|(kind, micro)| (kind, Tier::Standard, ANY, 0, usd(micro))).collect();
        for (kind, tier, threshold, micro) in more {
            let row = (PriceKind::ALL[kind], tier, ANY, threshold, usd(micro));
            let is_new = |known: &Row| (known.0, known.1, known.3) != (row.0, row.1, row.3);
            if rows.iter().all(is_new) {
                rows.push(row);
            }
        }
        list(ProviderId::CLAUDE, "m", &rows)
    })
}

proptest! {
    /// A token of a kind without a price costs at least as much as a plain token.
    #[test]
    fn no_kind_without_a_price_is_cheaper_than_plain_tokens(
        list in some_prices(), tokens in any_tokens(), tier in 0_usize..5,
    ) {
        let tier = Tier::ALL[tier];
        let rates = list.rates(ProviderId::CLAUDE, &model("m"), at(0));
        let bill = |tokens: TokenUsage| {
            let usage = CallUsage { tier, ..CallUsage::standard(tokens) };
            list.cost(ProviderId::CLAUDE, &model("m"), &usage, at(0)).unwrap()
        };
        let is_token = |kind: &PriceKind| !kind.substitutes().is_empty();
        let is_unpriced = |kind: &PriceKind| rates.rows().all(|row| row.key.kind != *kind);
        let mut plain = tokens;
        for kind in PriceKind::ALL.into_iter().filter(is_token).filter(is_unpriced) {
            let came_out = matches!(kind, PriceKind::Reasoning | PriceKind::AudioOutput | PriceKind::ImageOutput);
            let into = if came_out { PriceKind::Output } else { PriceKind::Input };
            let count = kind.count_in(&plain);
            plain = with_part(with_part(plain, kind, 0), into, into.count_in(&plain) + count);
            prop_assert!(count == 0 || bill(tokens).assumed.contains(&kind));
        }
        prop_assert!(bill(tokens).amount >= bill(plain).amount);
    }

    /// A kind without a price for the tier or size of a call never costs less there than plain tokens.
    #[test]
    fn a_price_that_is_found_late_is_no_way_around_the_plain_one(
        prices in prop::array::uniform5(1_i64..50_000_000), count in 1_u64..900_000, kind in 0_usize..10, tier in 0_usize..5,
    ) {
        let (kind, tier) = (PriceKind::ALL[kind], Tier::ALL[tier]);
        let is_output =
            matches!(kind, PriceKind::Output | PriceKind::Reasoning | PriceKind::AudioOutput | PriceKind::ImageOutput);
        let plain = if is_output { PriceKind::Output } else { PriceKind::Input };
        let [own, standard, of_tier, long, other] = prices.map(|micro| Decimal::new(micro, 6));
        let mut rows: Vec<Row> = vec![(plain, Tier::Standard, ANY, 0, standard), (plain, tier, ANY, 100_000, long)];
        rows.extend((tier != Tier::Standard).then_some((plain, tier, ANY, 0, of_tier)));
        rows.extend((kind != plain).then_some((kind, Tier::Standard, ANY, 0, own)));
        let text = if is_output { PriceKind::Input } else { PriceKind::Output };
        rows.push((text, Tier::Standard, ANY, 0, other));
        let list = list(ProviderId::CLAUDE, "m", &rows);
        let bill = |kind| {
            let tokens = with_part(TokenUsage::default(), kind, count);
            let usage = CallUsage { tier, ..CallUsage::standard(tokens) };
            list.cost(ProviderId::CLAUDE, &model("m"), &usage, at(0)).unwrap().amount
        };
        let is_cheaper_by_right = kind == PriceKind::CacheRead && tier == Tier::Standard;
        let is_as_exact = tier == Tier::Standard && (is_output || count <= 100_000);
        prop_assert!(is_cheaper_by_right || is_as_exact || bill(kind) >= bill(plain));
    }

    #[test]
    fn what_is_held_covers_every_usage_within_it(list in some_prices(), tokens in any_tokens(), spare in 0_u64..1_000_000) {
        let call = UsageEstimate {
            audio_input: true, audio_output: true, image_output: true, tool_calls: tokens.tool_calls,
            ..UsageEstimate::text(tokens.input() + spare, tokens.output())
        };
        let most = list.most(ProviderId::CLAUDE, &model("m"), &call, at(0)).unwrap();
        prop_assert!(NanoUsd(standard(&list, tokens)) <= most.amount);
    }

    #[test]
    fn more_never_costs_less(list in any_prices(), tokens in any_tokens(), part in 0_usize..13, more in 1_u64..400_000) {
        let kind = PriceKind::ALL[part];
        let grown = with_part(tokens, kind, kind.count_in(&tokens) + more);
        prop_assert!(standard(&list, tokens) <= standard(&list, grown));
    }

    #[test]
    fn the_parts_priced_alone_differ_by_their_rounding(tokens in any_tokens(), prices in prop::array::uniform13(0_i64..50_000_000)) {
        let rows: Vec<Row> = PriceKind::ALL.into_iter().zip(prices)
            .map(|(kind, micro)| (kind, Tier::Standard, ANY, 0, Decimal::new(micro, 6))).collect();
        let list = list(ProviderId::CLAUDE, "m", &rows);
        let alone: i64 = PriceKind::ALL.into_iter()
            .map(|kind| standard(&list, with_part(TokenUsage::default(), kind, kind.count_in(&tokens)))).sum();
        // Thirteen roundings plus one, each at most half a nano-dollar.
        prop_assert!((alone - standard(&list, tokens)).abs() <= 7);
    }

    #[test]
    fn no_call_within_the_estimate_costs_more_than_the_most(list in any_prices(), tokens in any_tokens(),
        spare in 0_u64..1_000_000) {
        let call = UsageEstimate {
            audio_input: true, audio_output: true, image_output: true, tool_calls: tokens.tool_calls,
            ..UsageEstimate::text(tokens.input() + spare, tokens.output())
        };
        let most = list.most(ProviderId::CLAUDE, &model("m"), &call, at(0)).unwrap();
        prop_assert!(NanoUsd(standard(&list, tokens)) <= most.amount);
    }

    #[test]
    fn no_count_and_no_price_overflows(parts in prop::array::uniform13(any::<u64>()), micro in 0_i64..i64::MAX) {
        let tokens = PriceKind::ALL.into_iter().zip(parts)
            .fold(TokenUsage::default(), |tokens, (kind, count)| with_part(tokens, kind, count));
        let rows = PriceKind::ALL.map(|kind| (kind, Tier::Standard, ANY, 0, Decimal::new(micro % 1_000_000_000_000_000_000, 6)));
        let list = list(ProviderId::CLAUDE, "m", &rows);
        match list.cost(ProviderId::CLAUDE, &model("m"), &CallUsage::standard(tokens), at(0)) {
            Ok(Cost { amount, .. }) => prop_assert!(amount >= NanoUsd(0)),
            Err(error) => prop_assert_eq!(error, CostError::TooLarge),
        }
    }
}
