//! Every fault of the stub, before the first piece and after it.

use std::time::Duration;

use domain::ai::{AnswerDelta, Dialect, FinishReason};
use ports::ai::{ProviderCall, ProviderFault};
use testkit::upstream::{Fault, FinishTold, Refusal, RetryAfter, Script, Upstream, Why};

use crate::asking::{Got, ask, body_of, conversing, in_array, native, provider, saying};

const BOTH: [bool; 2] = [false, true];

fn kind(fault: &ProviderFault) -> &'static str {
    match fault {
        ProviderFault::NoKey { .. } => "no key",
        ProviderFault::Refused(_) => "refused",
        ProviderFault::KeyRefused(_) => "key refused",
        ProviderFault::SpendLimit(_) => "spend limit",
        ProviderFault::TooFast { .. } => "too fast",
        ProviderFault::Failed { .. } => "failed",
        ProviderFault::Unreachable(_) => "unreachable",
        ProviderFault::TimedOut(_) => "timed out",
        ProviderFault::Broken(_) | ProviderFault::LostAnswer(_) | ProviderFault::NotUnderstood(_) => "broken",
    }
}

fn refusal_of(fault: &ProviderFault) -> &ports::ai::ProviderRefusal {
    match fault {
        ProviderFault::Refused(refusal)
        | ProviderFault::KeyRefused(refusal)
        | ProviderFault::SpendLimit(refusal)
        | ProviderFault::TooFast { refusal, .. }
        | ProviderFault::Failed { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    }
}

async fn faulty(stub: &Upstream, of: Dialect, streamed: bool, script: Script) -> Got {
    stub.script("m", script);
    ask(&provider(stub, of), &native(of, body_of(of), streamed)).await
}

fn streams() -> Vec<(Dialect, ProviderCall)> {
    let mut streams: Vec<(Dialect, ProviderCall)> =
        Dialect::ALL.into_iter().map(|of| (of, native(of, body_of(of), true))).collect();
    streams.push((Dialect::Gemini, in_array(body_of(Dialect::Gemini))));
    streams
}

#[tokio::test]
async fn a_refusal_says_what_can_be_done() {
    let stub = Upstream::start();
    for of in Dialect::ALL {
        for (why, expected, status) in [
            (Why::Invalid("this is wrong".to_owned()), "refused", 400),
            (Why::Unauthenticated, "key refused", if of == Dialect::Gemini { 403 } else { 401 }),
            (Why::Unpaid, "spend limit", 402),
            (Why::Forbidden, "key refused", 403),
            (Why::NotFound("no such model".to_owned()), "refused", 404),
            (Why::TooLarge, "refused", 413),
            (Why::TooFast, "too fast", 429),
            (Why::SpendLimit, "spend limit", 429),
            (Why::Broken, "failed", 500),
            (Why::Unavailable, "failed", 503),
            (Why::TimedOut, "failed", 504),
            (Why::Overloaded, "failed", 529),
            (Why::Proxy(502), "failed", 502),
            (Why::Proxy(404), "refused", 404),
            (Why::Proxy(408), "failed", 408),
            (Why::Proxy(409), "refused", 409),
            (Why::Proxy(302), "broken", 302),
        ] {
            for streamed in BOTH {
                let refusal = Refusal::of(why.clone()).in_array();
                let got = faulty(&stub, of, streamed, Script::refuses(refusal)).await;
                let fault = got.fault.unwrap();
                assert_eq!(kind(&fault), expected, "{of} {why:?}: {fault:?}");
                if expected != "broken" {
                    let refusal = refusal_of(&fault);
                    assert_eq!(refusal.status, status);
                    assert!(!refusal.body.is_empty() && !refusal.message.is_empty());
                    let is_page = matches!(why, Why::Proxy(_));
                    assert_eq!(refusal.message == format!("status {status} without a message"), is_page);
                    assert_eq!(refusal.code.is_none(), is_page, "{refusal:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_pause_is_heard() {
    let stub = Upstream::start();
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (of, after, expected) in [
        (Dialect::OpenAiChat, RetryAfter::Seconds(7), seconds(7)),
        (Dialect::OpenAiChat, RetryAfter::Milliseconds(1_500), Some(Duration::from_millis(1_500))),
        (Dialect::OpenAiChat, RetryAfter::Date("Wed, 21 Oct 2015 07:28:00 GMT".to_owned()), seconds(0)),
        (Dialect::Anthropic, RetryAfter::Seconds(7), seconds(7)),
        (Dialect::Anthropic, RetryAfter::Milliseconds(1_500), seconds(2)),
        (Dialect::Gemini, RetryAfter::Seconds(7), seconds(7)),
    ] {
        for why in [Why::TooFast, Why::Unavailable] {
            let refusal = Refusal { retry_after: Some(after.clone()), ..Refusal::of(why) };
            let got = faulty(&stub, of, false, Script::refuses(refusal)).await;
            let (ProviderFault::TooFast { retry_after, .. } | ProviderFault::Failed { retry_after, .. }) =
                got.fault.unwrap()
            else {
                panic!("{of} {after:?}")
            };
            assert_eq!(retry_after, expected, "{of} {after:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_before_the_first_piece() {
    let stub = Upstream::start();
    let error = || Refusal::of(Why::Overloaded);
    for of in Dialect::ALL {
        for streamed in BOTH {
            for (fault, expected) in [
                (Fault::ErrorWith200(error()), "failed"),
                (Fault::ErrorWith200(error().in_array()), "failed"),
                (Fault::ErrorWith200(Refusal::of(Why::Proxy(200))), "broken"),
                (Fault::ErrorAfter { events: 0, refusal: error() }, "failed"),
                (Fault::WrongContentType("text/html".to_owned()), "broken"),
                (Fault::ResetBeforeHead, "broken"),
                (Fault::CloseBeforeHead, "broken"),
                (Fault::ResetAfter { bytes: 0 }, "broken"),
                (Fault::CloseAfter { bytes: 0 }, "broken"),
                (Fault::CloseAfter { bytes: 20 }, "broken"),
            ] {
                let got = faulty(&stub, of, streamed, Script::fails(fault.clone())).await;
                let told = got.fault.unwrap();
                assert!(got.pieces.is_empty());
                assert_eq!(kind(&told), expected, "{of} {streamed} {fault:?}: {told:?}");
            }
        }
        let got = faulty(&stub, of, true, Script::fails(Fault::EndAfter { events: 0 })).await;
        assert_eq!(got.fault.as_ref().map(kind), Some("broken"), "{of}");
    }
    let call = in_array(body_of(Dialect::Gemini));
    for (fault, expected) in [
        (Fault::ErrorAfter { events: 0, refusal: error() }, "failed"),
        (Fault::ErrorWith200(error().in_array()), "failed"),
        (Fault::ErrorWith200(error()), "failed"),
        (Fault::Garbage { after_events: 0 }, "broken"),
        (Fault::EndAfter { events: 0 }, "broken"),
    ] {
        stub.script("m", Script::fails(fault.clone()));
        let got = ask(&provider(&stub, Dialect::Gemini), &call).await;
        assert_eq!(got.fault.as_ref().map(kind), Some(expected), "{fault:?}");
    }
}

#[tokio::test]
async fn what_goes_wrong_in_mid_stream_comes_after_what_was_said() {
    let stub = Upstream::start();
    let error = Refusal::of(Why::Overloaded);
    for (of, call) in streams() {
        // Anthropic sends a message start, a block start and a ping before the first word.
        let before = match of {
            Dialect::OpenAiChat => 1,
            Dialect::Anthropic => 3,
            Dialect::Gemini => 0,
        };
        let events = before + 3;
        for (fault, expected) in [(Fault::ErrorAfter { events, refusal: error.clone() }, "failed")] {
            stub.script("m", Script::says("one two three four five").with_fault(fault.clone()));
            let got = ask(&provider(&stub, of), &call).await;
            assert_eq!(got.deltas(), [AnswerDelta::Text("one two three".to_owned())], "{of} {fault:?}");
            let told = got.fault.unwrap();
            assert_eq!(kind(&told), expected, "{of} {fault:?}: {told:?}");
            if expected == "failed" {
                let refusal = refusal_of(&told);
                let status = if of == Dialect::OpenAiChat { 500 } else { 529 };
                assert_eq!((refusal.status, refusal.message.as_str()), (status, "Overloaded"));
                assert!(!got.pieces.iter().any(|piece| piece.is_last));
            }
        }
        for fault in [Fault::ResetAfter { bytes: 1_400 }, Fault::CloseAfter { bytes: 1_400 }] {
            stub.script("m", Script::words(200).with_fault(fault.clone()));
            let got = ask(&provider(&stub, of), &call).await;
            assert_eq!(got.fault.as_ref().map(kind), Some("broken"), "{of} {fault:?}");
            assert!(!got.pieces.is_empty());
        }
    }
}

/// A stream that only the transport ends is complete for a native caller, who sees what the provider's own client would
/// see. A translated reply needs the provider's own end.
#[tokio::test]
async fn a_stream_without_its_own_end_is_whole_to_a_native_caller_alone() {
    let stub = Upstream::start();
    for of in Dialect::ALL {
        let script = || Script::says("one two three four").with_fault(Fault::EndAfter { events: 4 });
        let got = faulty(&stub, of, true, script()).await;
        assert_eq!(got.fault, None, "{of}");
        assert!(!got.frames().is_empty() && got.usage().is_none_or(|_| of != Dialect::OpenAiChat), "{of}");
        stub.script("m", script());
        let got = ask(&provider(&stub, of), &conversing(of, saying("x"), true)).await;
        assert_eq!(got.fault.as_ref().map(kind), Some("broken"), "{of}");
    }
    // After the finish reason nothing is missing for either kind of caller.
    for (of, events) in [(Dialect::OpenAiChat, 4), (Dialect::Anthropic, 7)] {
        let script = || Script::says("one two").with_fault(Fault::EndAfter { events });
        stub.script("m", script());
        let got = ask(&provider(&stub, of), &conversing(of, saying("x"), true)).await;
        assert_eq!(
            (got.fault.clone(), got.deltas().pop()),
            (None, Some(AnswerDelta::Finished(FinishReason::Stop))),
            "{of}"
        );
    }
}

#[tokio::test]
async fn what_means_nothing_goes_on_to_a_native_caller_alone() {
    let stub = Upstream::start();
    for of in Dialect::ALL {
        for streamed in BOTH {
            for after_events in [0, 3] {
                let script = || Script::says("one two three four").with_fault(Fault::Garbage { after_events });
                let got = faulty(&stub, of, streamed, script()).await;
                assert_eq!(got.fault, None, "{of} {streamed} {after_events}");
                let unread: u64 = got.pieces.iter().map(|piece| piece.unread).sum();
                assert!(unread > 0 && got.pieces.iter().any(|piece| piece.frame.contains(&0xff)), "{of} {streamed}");
                stub.script("m", script());
                let got = ask(&provider(&stub, of), &conversing(of, saying("x"), streamed)).await;
                assert_eq!(got.fault.as_ref().map(kind), Some("broken"), "{of} {streamed} {after_events}");
            }
        }
    }
}

#[tokio::test]
async fn the_ways_to_finish_are_told_apart() {
    let stub = Upstream::start();
    for of in Dialect::ALL {
        for streamed in BOTH {
            for (finish, expected) in [
                (FinishTold::Stop, FinishReason::Stop),
                (FinishTold::Length, FinishReason::Length),
                (FinishTold::Filtered, FinishReason::Filtered),
                (FinishTold::PromptBlocked, FinishReason::Filtered),
            ] {
                let got = faulty(&stub, of, streamed, Script::words(2).finishing(finish)).await;
                got.is_whole();
                assert_eq!(got.deltas().pop(), Some(AnswerDelta::Finished(expected)), "{of} {streamed} {finish:?}");
            }
            let got = faulty(&stub, of, streamed, Script::says("").calling("f", "{}")).await;
            assert_eq!(got.deltas().pop(), Some(AnswerDelta::Finished(FinishReason::ToolCalls)), "{of} {streamed}");
        }
    }
}

#[tokio::test]
async fn what_the_caller_sends_wrong_never_leaves() {
    let stub = Upstream::start();
    for of in Dialect::ALL {
        for body in ["", "[]", "{\"model\":", "null"] {
            let got = ask(&provider(&stub, of), &native(of, body, false)).await;
            assert_eq!(got.fault.as_ref().map(kind), Some("refused"), "{of} {body}");
        }
    }
    assert_eq!(stub.totals().requests, 0);
}
