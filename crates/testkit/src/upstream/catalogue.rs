//! Models named after their behavior, for clients that cannot write a script: the stub run alone, SDKs, benchmarks.

use std::time::Duration;

use super::refusals::{Refusal, Why};
use super::script::{AnswerPace, Fault, FinishTold, PieceSplit, Script, UsageTold};
use super::usage::UsageParts;

const TOKENS_A_SECOND: u32 = 50;

pub fn models() -> Vec<(&'static str, Script)> {
    let split = |split| Script::words(16).split(split);
    let refuses = |why| Script::refuses(Refusal::of(why));
    let cached = UsageParts { cache_read: 30, cache_write_short: 20, cache_write_long: 10, ..UsageParts::default() };
    let paced = AnswerPace {
        first_token: Duration::from_millis(200),
        between: Duration::from_secs(1) / TOKENS_A_SECOND,
        ..AnswerPace::default()
    };
    vec![
        ("stub", Script::default()),
        ("stub-long", Script::words(500)),
        ("stub-joined", split(PieceSplit::Joined)),
        ("stub-paced", Script::words(100).paced(paced)),
        ("stub-trickle", split(PieceSplit::Every(1))),
        ("stub-inside-characters", split(PieceSplit::InsideCharacters)),
        ("stub-inside-lines", split(PieceSplit::InsideLines)),
        ("stub-thinking", Script::default().thinking("First I think, zuerst, then I speak.").using(cached)),
        (
            "stub-tools",
            Script::says("I look it up.")
                .calling("get_weather", r#"{"city": "Zürich", "days": 2}"#)
                .calling("get_time", r#"{"zone": "Europe/Zurich"}"#),
        ),
        ("stub-filtered", Script::words(3).finishing(FinishTold::Filtered)),
        ("stub-no-usage", Script::default().telling(UsageTold::Absent)),
        ("stub-400", refuses(Why::Invalid("the stub was told to refuse".to_owned()))),
        ("stub-402", refuses(Why::Unpaid)),
        ("stub-429", Script::refuses(Refusal::too_fast(Some(1)))),
        ("stub-429-spend-limit", refuses(Why::SpendLimit)),
        ("stub-500", refuses(Why::Broken)),
        ("stub-503", refuses(Why::Unavailable)),
        ("stub-529", refuses(Why::Overloaded)),
        ("stub-error-in-stream", Script::fails(Fault::ErrorAfter { events: 5, refusal: Refusal::of(Why::Overloaded) })),
        ("stub-reset", Script::fails(Fault::ResetAfter { bytes: 900 })),
        ("stub-hang", Script::fails(Fault::HangAfter { bytes: 900 })),
        ("stub-garbage", Script::fails(Fault::Garbage { after_events: 3 })),
        ("stub-wrong-content-type", Script::fails(Fault::WrongContentType("text/html".to_owned()))),
        ("stub-200-error", Script::fails(Fault::ErrorWith200(Refusal::of(Why::Broken)))),
    ]
}
