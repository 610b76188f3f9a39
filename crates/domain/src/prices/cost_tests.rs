//! Costs, computed by hand from the list prices.
//!
//! One dollar per million tokens is 1,000 nano-dollars per token: 2.5 is 2,500 per token, 0.0375 is 37.5.

use rust_decimal::{Decimal, dec};

use super::cost::{CostError, UsageEstimate};
use super::kinds::PriceKind;
use super::list::{ModelPrice, PriceKey, PriceList};
use super::testing::{at, key, model, row, with_part};
use crate::ai::{CallUsage, Geo, ProviderId, Tier, TokenUsage, ToolCalls};

/// Kind, tier, region, threshold, dollars per million.
pub(super) type Row = (PriceKind, Tier, &'static str, u64, Decimal);

pub(super) const ANY: &str = "";

pub(super) fn list(provider: ProviderId, name: &str, rows: &[Row]) -> PriceList {
    let price = |(kind, tier, geo, threshold_tokens, per_million): &Row| {
        let (geo, threshold_tokens) = (Geo::parse(geo).unwrap(), *threshold_tokens);
        let key = PriceKey { provider, kind: *kind, tier: *tier, geo, threshold_tokens, ..key(name) };
        ModelPrice { key, ..row(name, *per_million) }
    };
    PriceList::new(rows.iter().map(price), [])
}

fn sol() -> PriceList {
    use PriceKind::{CacheRead, CacheWriteLong, CacheWriteShort, Input, Output};
    let rows = [
        (Input, Tier::Standard, ANY, 0, dec!(2)),
        (Output, Tier::Standard, ANY, 0, dec!(10)),
        (CacheRead, Tier::Standard, ANY, 0, dec!(0.1)),
        (CacheWriteShort, Tier::Standard, ANY, 0, dec!(2.5)),
        (CacheWriteLong, Tier::Standard, ANY, 0, dec!(5)),
        (Input, Tier::Standard, ANY, 272_000, dec!(4)),
        (Output, Tier::Standard, ANY, 272_000, dec!(15)),
        (CacheRead, Tier::Standard, ANY, 272_000, dec!(0.2)),
        (Input, Tier::Priority, ANY, 0, dec!(4)),
        (Output, Tier::Priority, ANY, 0, dec!(20)),
    ];
    list(ProviderId::OPENAI, "m", &rows)
}

fn mini() -> PriceList {
    let rows = [
        (PriceKind::Input, Tier::Standard, ANY, 0, dec!(0.75)),
        (PriceKind::CacheRead, Tier::Batch, ANY, 0, dec!(0.0375)),
    ];
    list(ProviderId::OPENAI, "m", &rows)
}

fn opus() -> PriceList {
    use PriceKind::{CacheRead, CacheWriteLong, CacheWriteShort, Input, Output, SearchCall};
    let rows = [
        (Input, Tier::Standard, ANY, 0, dec!(4)),
        (Output, Tier::Standard, ANY, 0, dec!(20)),
        (CacheRead, Tier::Standard, ANY, 0, dec!(0.2)),
        (CacheWriteShort, Tier::Standard, ANY, 0, dec!(5)),
        (CacheWriteLong, Tier::Standard, ANY, 0, dec!(8)),
        (Input, Tier::Standard, "us", 0, dec!(4.4)),
        (Output, Tier::Standard, "us", 0, dec!(22)),
        (Input, Tier::Fast, ANY, 0, dec!(8)),
        (Output, Tier::Fast, ANY, 0, dec!(40)),
        (Input, Tier::Fast, "us", 0, dec!(8.8)),
        (Output, Tier::Fast, "us", 0, dec!(44)),
        (SearchCall, Tier::Standard, ANY, 0, dec!(10000)),
    ];
    list(ProviderId::CLAUDE, "m", &rows)
}

fn haiku() -> PriceList {
    use PriceKind::{CacheRead, Input, Output};
    let rows = [
        (Input, Tier::Standard, ANY, 0, dec!(0.1)),
        (Output, Tier::Standard, ANY, 0, dec!(0.5)),
        (CacheRead, Tier::Standard, ANY, 0, dec!(0.01)),
        (Input, Tier::Standard, ANY, 100_000, dec!(0.5)),
        (Output, Tier::Standard, ANY, 100_000, dec!(2.5)),
        (CacheRead, Tier::Standard, ANY, 100_000, dec!(0.05)),
    ];
    list(ProviderId::CLAUDE, "m", &rows)
}

fn pro() -> PriceList {
    use PriceKind::{CacheRead, Input, Output};
    let rows = [
        (Input, Tier::Standard, ANY, 0, dec!(2)),
        (Output, Tier::Standard, ANY, 0, dec!(12)),
        (CacheRead, Tier::Standard, ANY, 0, dec!(0.2)),
        (Input, Tier::Standard, ANY, 200_000, dec!(4)),
        (Output, Tier::Standard, ANY, 200_000, dec!(18)),
    ];
    list(ProviderId::GEMINI, "m", &rows)
}

fn flash() -> PriceList {
    use PriceKind::{CacheRead, Input, Output};
    let rows = [
        (Input, Tier::Standard, ANY, 0, dec!(0.3)),
        (Output, Tier::Standard, ANY, 0, dec!(2.5)),
        (Input, Tier::Batch, ANY, 0, dec!(0.15)),
        (Output, Tier::Batch, ANY, 0, dec!(1.25)),
        (CacheRead, Tier::Batch, ANY, 0, dec!(0.015)),
        (CacheRead, Tier::Flex, ANY, 0, dec!(0.0375)),
    ];
    list(ProviderId::GEMINI, "m", &rows)
}

fn nano(list: &PriceList, usage: &CallUsage) -> Result<i64, CostError> {
    let provider = list.priced_models(at(0))[0].0;
    list.cost(provider, &model("m"), usage, at(0)).map(|cost| cost.amount.0)
}

pub(super) fn standard(list: &PriceList, tokens: TokenUsage) -> i64 {
    nano(list, &CallUsage::standard(tokens)).unwrap()
}

fn placed(list: &PriceList, tokens: TokenUsage, tier: Tier, geo: &str) -> i64 {
    nano(list, &CallUsage { tier, geo: Geo::parse(geo).unwrap(), ..CallUsage::standard(tokens) }).unwrap()
}

fn text(uncached_input: u64, visible_output: u64) -> TokenUsage {
    TokenUsage { uncached_input, visible_output, ..TokenUsage::default() }
}

#[test]
fn golden_costs_of_openai() {
    // 1,000 x 2,000 + 300 x 10,000
    assert_eq!(standard(&sol(), text(1_000, 300)), 5_000_000);
    // 250 x 2,000 + 600 x 100 + 100 x 2,500 + 50 x 5,000 + (90 + 200) x 10,000: reasoning is output
    let cached = TokenUsage {
        cache_read: 600,
        cache_write_short: 100,
        cache_write_long: 50,
        reasoning_output: 200,
        ..text(250, 90)
    };
    assert_eq!(standard(&sol(), cached), 3_960_000);
    // 272,000 x 2,000 + 10 x 10,000: not above the threshold yet
    assert_eq!(standard(&sol(), text(272_000, 10)), 544_100_000);
    // 272,001 x 4,000 + 10 x 15,000: one token more, and the long price applies to the whole request
    assert_eq!(standard(&sol(), text(272_001, 10)), 1_088_154_000);
    // 100,000 x 4,000 + 200,000 x 200 + 1,000 x 4,000: cached tokens count for the size; a write has no long price, and
    // its own is lower than the long price of a plain token
    let long = TokenUsage { cache_read: 200_000, cache_write_short: 1_000, ..text(100_000, 0) };
    assert_eq!(standard(&sol(), long), 444_000_000);
    // 7 x 4,000 + 3 x 20,000
    assert_eq!(placed(&sol(), text(7, 3), Tier::Priority, ANY), 88_000);
    // 7 x 2,000 + 3 x 10,000: no row for flex, so the standard ones apply
    assert_eq!(placed(&sol(), text(7, 3), Tier::Flex, ANY), 44_000);
    // 37.5, 75, 112.5 and 187.5; halves are rounded to even
    for (tokens, expected) in [(1, 38), (2, 75), (3, 112), (5, 188)] {
        let read = TokenUsage { cache_read: tokens, ..TokenUsage::default() };
        assert_eq!(placed(&mini(), read, Tier::Batch, ANY), expected);
    }
}

#[test]
fn golden_costs_of_claude() {
    // 10 x 4,000 + 90 x 20,000
    assert_eq!(standard(&opus(), text(10, 90)), 1_840_000);
    // 10 x 4,000 + 2,000 x 200 + 300 x 5,000 + 400 x 8,000 + 90 x 20,000
    let cached = TokenUsage { cache_read: 2_000, cache_write_short: 300, cache_write_long: 400, ..text(10, 90) };
    assert_eq!(standard(&opus(), cached), 6_940_000);
    // 10 x 4,400 + 90 x 22,000
    assert_eq!(placed(&opus(), text(10, 90), Tier::Standard, "us"), 2_024_000);
    // 10 x 8,000 + 90 x 40,000
    assert_eq!(placed(&opus(), text(10, 90), Tier::Fast, ANY), 3_680_000);
    // 10 x 8,800 + 90 x 44,000
    assert_eq!(placed(&opus(), text(10, 90), Tier::Fast, "us"), 4_048_000);
    // 10 x 8,000 + 90 x 40,000: no row for that region at this tier, so the price for any region applies
    assert_eq!(placed(&opus(), text(10, 90), Tier::Fast, "eu"), 3_680_000);
    // 60,000 x 100 + 40,000 x 10 + 100 x 500
    let short = TokenUsage { cache_read: 40_000, ..text(60_000, 100) };
    assert_eq!(standard(&haiku(), short), 6_450_000);
    // 60,000 x 500 + 40,001 x 50 + 100 x 2,500
    assert_eq!(standard(&haiku(), TokenUsage { cache_read: 40_001, ..short }), 32_250_050);
    // 10 dollars for 1,000 searches are 10,000,000 nano-dollars for one: 2 of them + 1 x 4,000
    let searched = TokenUsage { tool_calls: ToolCalls { web_search: 2, ..ToolCalls::default() }, ..text(1, 0) };
    assert_eq!(standard(&opus(), searched), 20_004_000);
}

#[test]
fn golden_costs_of_gemini() {
    // 650 x 2,000 + 400 x 200 + (70 + 30) x 12,000
    let thought = TokenUsage { cache_read: 400, reasoning_output: 30, ..text(650, 70) };
    assert_eq!(standard(&pro(), thought), 2_580_000);
    // 200,000 x 2,000 + 1 x 12,000
    assert_eq!(standard(&pro(), text(200_000, 1)), 400_012_000);
    // 200,001 x 4,000 + 1 x 18,000
    assert_eq!(standard(&pro(), text(200_001, 1)), 800_022_000);
    // (42 + 258) x 300 + 7 x 2,500: an image in the prompt is input
    assert_eq!(standard(&flash(), TokenUsage { image_input: 258, ..text(42, 7) }), 107_500);
    // 1 x 150 + 3 x 15 + 1 x 1,250
    assert_eq!(placed(&flash(), TokenUsage { cache_read: 3, ..text(1, 1) }, Tier::Batch, ANY), 1_445);
    // 4 x 300: without a price for cache reads they are priced as input
    assert_eq!(standard(&flash(), TokenUsage { cache_read: 4, ..TokenUsage::default() }), 1_200);
    // 5 x 37.5 = 187.5, and 188 is even
    assert_eq!(placed(&flash(), TokenUsage { cache_read: 5, ..TokenUsage::default() }, Tier::Flex, ANY), 188);
}

fn assumed(list: &PriceList, tokens: TokenUsage) -> (i64, Vec<PriceKind>) {
    let provider = list.priced_models(at(0))[0].0;
    let cost = list.cost(provider, &model("m"), &CallUsage::standard(tokens), at(0)).unwrap();
    (cost.amount.0, cost.assumed)
}

#[test]
fn what_has_no_price_costs_what_a_plain_token_costs_and_is_named() {
    let plain = text(5, 5);
    let base = standard(&flash(), plain);
    let searched = ToolCalls { web_search: 1, web_fetch: 1, code_execution: 1 };
    for (usage, more, kinds) in [
        (TokenUsage { audio_input: 2, ..plain }, 600, vec![PriceKind::AudioInput]),
        (TokenUsage { audio_output: 2, ..plain }, 5_000, vec![PriceKind::AudioOutput]),
        (TokenUsage { image_output: 2, ..plain }, 5_000, vec![PriceKind::ImageOutput]),
        (TokenUsage { reasoning_output: 2, ..plain }, 5_000, vec![PriceKind::Reasoning]),
        (TokenUsage { cache_write_short: 2, ..plain }, 600, vec![PriceKind::CacheWriteShort]),
        (TokenUsage { cache_write_long: 2, ..plain }, 600, vec![PriceKind::CacheWriteLong]),
        (
            TokenUsage { tool_calls: searched, ..plain },
            95_000_000,
            vec![PriceKind::SearchCall, PriceKind::FetchCall, PriceKind::CodeCall],
        ),
        (plain, 0, vec![]),
    ] {
        assert_eq!(assumed(&flash(), usage), (base + more, kinds));
    }
    // A long write costs no less than a short one, and output no less than input if only input has a price.
    let long = TokenUsage { cache_write_long: 1, ..text(0, 0) };
    let rows = [
        (PriceKind::Input, Tier::Standard, ANY, 0, dec!(2)),
        (PriceKind::CacheWriteShort, Tier::Standard, ANY, 0, dec!(2.5)),
    ];
    assert_eq!(assumed(&list(ProviderId::CLAUDE, "m", &rows), long), (2_500, vec![PriceKind::CacheWriteLong]));
    assert_eq!(assumed(&list(ProviderId::CLAUDE, "m", &rows), text(0, 3)), (6_000, vec![PriceKind::Output]));
    for kind in [PriceKind::Input, PriceKind::Output] {
        let alone = list(ProviderId::CLAUDE, "m", &[(kind, Tier::Standard, ANY, 0, dec!(2))]);
        for of in PriceKind::ALL.into_iter().filter(|of| of.assumed_usd().is_none()) {
            let (cost, _) = assumed(&alone, with_part(TokenUsage::default(), of, 3));
            assert_eq!(cost, 6_000, "{of} where {kind} alone has a price");
        }
    }
    let other = flash().cost(ProviderId::GEMINI, &model("n"), &CallUsage::standard(text(0, 0)), at(0));
    assert_eq!(other, Err(CostError::UnpricedModel { provider: ProviderId::GEMINI, model: model("n") }));
    let elsewhere = flash().cost(ProviderId::CLAUDE, &model("m"), &CallUsage::standard(text(1, 0)), at(0));
    assert_eq!(elsewhere, Err(CostError::UnpricedModel { provider: ProviderId::CLAUDE, model: model("m") }));
    assert_eq!(standard(&flash(), text(0, 0)), 0, "a priced model that used nothing costs nothing");
}

#[test]
fn what_is_held_needs_a_price_for_text_alone() {
    let audio = UsageEstimate { audio_input: true, audio_output: true, ..UsageEstimate::text(2, 3) };
    let most = |list: &PriceList, call: &UsageEstimate| {
        list.most(ProviderId::GEMINI, &model("m"), call, at(0)).map(|cost| cost.amount.0)
    };
    assert_eq!(most(&flash(), &audio), Ok(600 + 7_500));
    let searching = UsageEstimate { tool_calls: ToolCalls { web_search: 2, ..ToolCalls::default() }, ..audio.clone() };
    assert_eq!(most(&flash(), &searching), Ok(600 + 7_500 + 70_000_000));
    let input = list(ProviderId::GEMINI, "m", &[(PriceKind::Input, Tier::Standard, ANY, 0, dec!(2))]);
    let lacks = CostError::UnpricedKind { provider: ProviderId::GEMINI, model: model("m"), kind: PriceKind::Output };
    assert_eq!(most(&input, &UsageEstimate::text(2, 3)), Err(lacks));
    assert_eq!(most(&input, &UsageEstimate::text(2, 0)), Ok(4_000));
}

#[test]
fn a_tier_or_a_size_without_a_price_for_a_kind_costs_no_less_than_its_plain_tokens() {
    // Priority has no price for writes: its input price of 4,000 is higher than a standard write's 2,500.
    let write = TokenUsage { cache_write_short: 1, ..TokenUsage::default() };
    assert_eq!(placed(&sol(), write, Tier::Priority, ANY), 4_000);
    // A long write costs 5,000 at the standard tier, which is higher.
    let long = TokenUsage { cache_write_long: 1, ..TokenUsage::default() };
    assert_eq!(placed(&sol(), long, Tier::Priority, ANY), 5_000);
}

#[test]
fn a_price_of_its_own_goes_before_the_aliases_and_time_decides() {
    let planned = ModelPrice { valid_from: at(10), version: "v2".into(), ..row("old", dec!(7)) };
    let before = ModelPrice { valid_to: Some(at(10)), ..row("old", dec!(5)) };
    let own = ModelPrice { valid_from: at(20), version: "own".into(), ..row("name", dec!(1)) };
    let output = PriceKey { kind: PriceKind::Output, ..key("old") };
    let output = ModelPrice { key: output, ..row("old", dec!(50)) };
    let aliases = [(ProviderId::CLAUDE, model("name"), model("old"))];
    let list = PriceList::new([planned, before, own, output], aliases);
    let cost = |name: &str, second| {
        let cost = list.cost(ProviderId::CLAUDE, &model(name), &CallUsage::standard(text(1, 1)), at(second)).unwrap();
        (cost.amount.0, cost.version)
    };
    assert_eq!(cost("old", 9), (55_000, "v1".into()));
    assert_eq!(cost("old", 10), (57_000, "v2".into()));
    assert_eq!(cost("name", 10), (57_000, "v2".into()));
    assert_eq!(cost("name", 20), (51_000, "own".into()), "the input is its own, the output the alias's");
}

#[test]
fn the_most_takes_the_dearest_of_what_may_come() {
    let most = |list: &PriceList, call: &UsageEstimate| {
        let provider = list.priced_models(at(0))[0].0;
        list.most(provider, &model("m"), call, at(0)).map(|cost| cost.amount.0)
    };
    // 100 x 5,000 (all written to the long cache) + 10 x 10,000
    assert_eq!(most(&sol(), &UsageEstimate::text(100, 10)), Ok(600_000));
    // 300,000 x 5,000 (dearer than a long request's 4,000) + 10 x 15,000
    assert_eq!(most(&sol(), &UsageEstimate::text(300_000, 10)), Ok(1_500_150_000));
    // 10 x 8,800: no cache price at this tier and region, and the standard tier's is lower, 8,000; + 1 x 44,000
    let fast = UsageEstimate { tier: Tier::Fast, geo: Geo::parse("us").unwrap(), ..UsageEstimate::text(10, 1) };
    assert_eq!(most(&opus(), &fast), Ok(132_000));
    // 3 searches, each 10,000,000, and nothing else
    let searching =
        UsageEstimate { tool_calls: ToolCalls { web_search: 3, ..ToolCalls::default() }, ..UsageEstimate::text(0, 0) };
    assert_eq!(most(&opus(), &searching), Ok(30_000_000));
    assert_eq!(most(&flash(), &UsageEstimate::text(u64::MAX, u64::MAX)), Err(CostError::TooLarge));
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let rows = PriceKind::ALL.map(|kind| (kind, Tier::Standard, ANY, 0, dec!(999999999999.999999)));
    let dear = list(ProviderId::CLAUDE, "m", &rows);
    let all = TokenUsage {
        uncached_input: u64::MAX,
        cache_read: u64::MAX,
        visible_output: u64::MAX,
        tool_calls: ToolCalls { web_search: u64::MAX, web_fetch: u64::MAX, code_execution: u64::MAX },
        ..TokenUsage::default()
    };
    assert_eq!(nano(&dear, &CallUsage::standard(all)), Err(CostError::TooLarge));
    // 9,223 tokens at just below 10^15 nano-dollars each still fit; one more does not.
    assert!(nano(&dear, &CallUsage::standard(text(9_223, 0))).is_ok());
    assert_eq!(nano(&dear, &CallUsage::standard(text(9_224, 0))), Err(CostError::TooLarge));
}
