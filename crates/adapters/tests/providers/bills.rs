//! Compares our usage with the stub's own bill, part by part.

use domain::ai::{Dialect, Tier};
use testkit::upstream::{Script, Upstream, UsageParts, UsageTold};

use crate::asking::{Got, ask, body_of, conversing, in_array, native, provider, saying};

/// Some usage of every part; each provider reports the parts that its format has.
fn script() -> Script {
    Script::words(11).thinking("a b c").calling("look", r#"{"at": "é"}"#).using(UsageParts {
        cache_read: 50,
        cache_write_short: 40,
        cache_write_long: 30,
        audio_in: 20,
        image_in: 10,
        tool_prompt: 5,
        out_rejected: 4,
        audio_out: 3,
        image_out: 2,
        web_searches: 1,
        ..UsageParts::default()
    })
}

#[track_caller]
fn equals_the_bill(got: &Got, billed: UsageParts, of: Dialect) {
    let usage = got.usage().expect("the provider told its usage").read().usage;
    let tokens = usage.tokens;
    // Claude does not report thinking separately, and OpenAI counts rejected predictions as output.
    let thoughts_apart = if of == Dialect::Anthropic { 0 } else { billed.out_reasoning };
    let expected = [
        billed.uncached_in + billed.tool_prompt,
        billed.cache_read,
        billed.cache_write_short,
        billed.cache_write_long,
        billed.audio_in,
        billed.image_in,
        billed.out_visible + billed.out_rejected + billed.out_reasoning - thoughts_apart,
        thoughts_apart,
        billed.audio_out,
        billed.image_out,
        billed.web_searches,
    ];
    let heard = [
        tokens.uncached_input,
        tokens.cache_read,
        tokens.cache_write_short,
        tokens.cache_write_long,
        tokens.audio_input,
        tokens.image_input,
        tokens.visible_output,
        tokens.reasoning_output,
        tokens.audio_output,
        tokens.image_output,
        tokens.tool_calls.web_search,
    ];
    if of == Dialect::OpenAiChat {
        // Rejected predictions are in the completion count but not in its visible part, so the sum is compared.
        assert_eq!(tokens.output(), billed.output());
    }
    assert_eq!(heard, expected, "{of}");
}

#[tokio::test]
async fn what_we_hear_is_what_the_provider_bills() {
    let stub = Upstream::start();
    stub.script("m", script());
    let mut asked = 0;
    for of in Dialect::ALL {
        let provider = provider(&stub, of);
        let mut calls = vec![
            native(of, body_of(of), false),
            native(of, body_of(of), true),
            conversing(of, saying("one two three four"), false),
            conversing(of, saying("one two three four"), true),
        ];
        if of == Dialect::Gemini {
            calls.push(in_array(body_of(of)));
        }
        for call in calls {
            let got = ask(&provider, &call).await;
            got.is_whole();
            asked += 1;
            let billed = stub.settled(asked).await.pop().unwrap();
            equals_the_bill(&got, billed.usage, of);
        }
    }
}

#[tokio::test]
async fn the_tier_is_heard() {
    let stub = Upstream::start();
    for (of, said, tier) in [
        (Dialect::OpenAiChat, "flex", Tier::Flex),
        (Dialect::Anthropic, "fast", Tier::Fast),
        (Dialect::Gemini, "ON_DEMAND_PRIORITY", Tier::Priority),
    ] {
        stub.script("m", Script::default().tier(said));
        for streamed in [false, true] {
            let got = ask(&provider(&stub, of), &native(of, body_of(of), streamed)).await;
            assert_eq!(got.usage().unwrap().read().usage.tier, tier, "{of} {streamed}");
        }
    }
}

#[tokio::test]
async fn a_usage_that_is_absent_is_none_and_a_late_one_is_heard() {
    let stub = Upstream::start();
    for of in Dialect::ALL {
        for streamed in [false, true] {
            stub.script("m", Script::default().telling(UsageTold::Absent));
            let got = ask(&provider(&stub, of), &native(of, body_of(of), streamed)).await;
            got.is_whole();
            assert_eq!(got.usage(), None, "{of} {streamed}");
            stub.script("m", Script::default().telling(UsageTold::Late(std::time::Duration::from_millis(20))));
            let got = ask(&provider(&stub, of), &native(of, body_of(of), streamed)).await;
            got.is_whole();
            assert_eq!(got.usage().unwrap().read().usage.tokens.output(), 8, "{of} {streamed}");
        }
    }
}
