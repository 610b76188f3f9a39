use std::time::Duration;

use domain::ai::Dialect;
use domain::entitlements::Source;
use domain::features::FeatureId;
use domain::plans::PlanId;
use domain::prices::NanoUsd;
use ports::ai::ProviderWait;

use super::*;
use crate::http::dialects::problems::body;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn now() -> DateTime<Utc> {
    at("2026-11-21T15:00:00Z")
}

fn decision(reason: Reason) -> Decision {
    Decision {
        allowed: false,
        reason,
        feature_id: FeatureId::parse("ai_requests").unwrap(),
        current: 10,
        limit: Some(10),
        remaining: Some(0),
        reserved: 0,
        plan_id: PlanId::parse("free").unwrap(),
        source: Source::Plan,
        period_start: at("2026-11-01T00:00:00Z"),
        resets_at: Some(at("2026-12-01T00:00:00Z")),
        as_of: now(),
    }
}

fn their(status: u16) -> ProviderRefusal {
    ProviderRefusal {
        status,
        message: "their words".to_owned(),
        code: Some("their_code".to_owned()),
        body: b"{}".to_vec(),
        headers: vec![("x-ratelimit-limit-requests".to_owned(), "9".to_owned())],
    }
}

/// Status, code, `retry-after`, `x-should-retry`.
fn told(error: CallError) -> (u16, &'static str, Option<String>, Option<String>) {
    let problem = problem(error);
    let header = |name: &str| {
        let found = problem.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    };
    (problem.status.as_u16(), problem.code, header("retry-after"), header("x-should-retry"))
}

fn of(fault: ProviderFault) -> CallError {
    CallError::Provider { provider: ProviderId::CLAUDE, fault }
}

#[test]
fn a_retry_that_cannot_help_is_told_so() {
    let some = |text: &str| Some(text.to_owned());
    let key = |reached| CallError::KeyLimit { reached, resets_at: at("2026-11-21T15:00:37Z"), as_of: now() };
    let usd = NanoUsd(1_000_000_000);
    for (error, expected) in [
        (
            CallError::NotAllowed(Box::new(decision(Reason::LimitReached))),
            (429, "limit_reached", some("810000"), some("false")),
        ),
        (
            CallError::NotAllowed(Box::new(decision(Reason::InsufficientTokens))),
            (402, "insufficient_tokens", None, None),
        ),
        (CallError::NotAllowed(Box::new(decision(Reason::FeatureDisabled))), (403, "feature_disabled", None, None)),
        (CallError::NotAllowed(Box::new(decision(Reason::FeatureNotInPlan))), (403, "feature_not_in_plan", None, None)),
        (
            CallError::Unaffordable {
                needed: 9,
                available: 3,
                decision: Box::new(decision(Reason::InsufficientTokens)),
            },
            (402, "insufficient_tokens", None, None),
        ),
        (key(KeyLimitReached::Requests { limit: 5, used: 5 }), (429, "key_request_limit", some("37"), None)),
        (key(KeyLimitReached::Tokens { limit: 5, used: 5, needed: 2 }), (429, "key_token_limit", some("37"), None)),
        (key(KeyLimitReached::Tokens { limit: 5, used: 0, needed: 6 }), (429, "key_token_limit", None, some("false"))),
        (
            key(KeyLimitReached::Cost { limit: usd, used: usd, needed: usd }),
            (429, "key_cost_limit", some("37"), some("false")),
        ),
        (CallError::UnknownModel { model: "m".to_owned(), near: Vec::new() }, (404, "unknown_model", None, None)),
        (CallError::WrongPurpose("m".to_owned()), (400, "wrong_purpose", None, None)),
        (CallError::Unpriced("m".to_owned()), (403, "unpriced_model", None, None)),
        (CallError::InputTooLong { tokens: 9, limit: 3 }, (400, "input_too_long", None, None)),
        (
            CallError::CircuitOpen { provider: ProviderId::GEMINI, retry_after: Duration::from_millis(1_500) },
            (503, "provider_circuit_open", some("2"), None),
        ),
        (of(ProviderFault::NoKey { setting: "PB__X".to_owned() }), (503, "provider_key_missing", None, some("false"))),
        (of(ProviderFault::Refused(their(422))), (422, "provider_refused", None, None)),
        (of(ProviderFault::KeyRefused(their(401))), (502, "provider_key_refused", None, some("false"))),
        (of(ProviderFault::SpendLimit(their(429))), (502, "provider_spend_limit", None, some("false"))),
        (
            of(ProviderFault::TooFast { refusal: their(429), retry_after: Some(Duration::from_secs(7)) }),
            (429, "provider_too_fast", some("7"), None),
        ),
        (of(ProviderFault::Failed { refusal: their(500), retry_after: None }), (502, "provider_failed", None, None)),
        (
            of(ProviderFault::Failed { refusal: their(529), retry_after: None }),
            (503, "provider_overloaded", None, None),
        ),
        (of(ProviderFault::Unreachable("x".to_owned())), (502, "provider_unreachable", None, None)),
        (of(ProviderFault::TimedOut(ProviderWait::Connection)), (504, "provider_timeout", None, None)),
        (of(ProviderFault::TimedOut(ProviderWait::FirstByte)), (504, "provider_timeout", None, some("false"))),
        (of(ProviderFault::TimedOut(ProviderWait::Rest)), (504, "provider_timeout", None, some("false"))),
        (of(ProviderFault::Broken("x".to_owned())), (502, "provider_bad_response", None, None)),
        (of(ProviderFault::NotUnderstood("x".to_owned())), (502, "provider_bad_response", None, None)),
    ] {
        let name = format!("{error:?}");
        assert_eq!(told(error), expected, "{name}");
    }
}

#[test]
fn a_plan_limit_names_the_plan_the_feature_the_numbers_and_the_time() {
    let problem = problem(CallError::NotAllowed(Box::new(decision(Reason::LimitReached))));
    for word in ["`ai_requests`", "`free`", "10 of 10", "2026-12-01T00:00:00"] {
        assert!(problem.detail.contains(word), "{} lacks {word}", problem.detail);
    }
    let told = body(Dialect::OpenAiChat, &problem, "r");
    assert_eq!(told["error"]["code"], "plan_limit_exceeded");
    assert_eq!(told["error"]["details"]["limit"], 10);
    assert_eq!(told["error"]["details"]["resets_at"], "2026-12-01T00:00:00Z");
    let told = body(Dialect::Gemini, &problem, "r");
    assert_eq!(told["error"]["details"][0]["metadata"]["plan_id"], "free");
    assert_eq!(told["error"]["details"][2]["retryDelay"], "810000s");
}

#[test]
fn near_names_and_settings_are_named() {
    let near = vec!["gpt-6-sol".to_owned()];
    let unknown = problem(CallError::UnknownModel { model: "gpt-6-soul".to_owned(), near });
    assert!(unknown.detail.contains("gpt-6-soul") && unknown.detail.contains("gpt-6-sol"), "{}", unknown.detail);
    let missing = problem(of(ProviderFault::NoKey { setting: "PB__AI__CLAUDE__KEY".to_owned() }));
    assert!(missing.detail.contains("PB__AI__CLAUDE__KEY"), "{}", missing.detail);
}

#[test]
fn a_refusal_of_the_provider_passes_to_who_speaks_its_language() {
    let refused = || of(ProviderFault::Refused(their(400)));
    let passed = unanswered(refused(), &[ProviderId::CLAUDE]);
    assert!(matches!(passed, UnansweredCall::InItsWords(refusal) if refusal == their(400)));
    for native in [&[][..], &[ProviderId::OPENAI]] {
        let UnansweredCall::Problem(problem) = unanswered(refused(), native) else { panic!("it is a problem of ours") };
        assert_eq!((problem.status.as_u16(), problem.detail.contains("their words")), (400, true));
        assert_eq!(problem.fields["provider_code"], "their_code");
    }
    // Callers learn nothing of the operator's own account.
    let UnansweredCall::Problem(problem) = unanswered(of(ProviderFault::KeyRefused(their(401))), &[ProviderId::CLAUDE])
    else {
        panic!("it is a problem of ours")
    };
    assert!(!problem.detail.contains("their words"), "{}", problem.detail);
}

#[test]
fn an_answer_that_breaks_off_says_why() {
    let why = of_break_off("openai", &BreakOff::KeyRevoked);
    assert_eq!((why.status.as_u16(), why.code), (401, "unauthorized"));
    let why = of_break_off("openai", &BreakOff::Stopping);
    assert_eq!((why.status.as_u16(), why.code), (503, "stopping"));
    let why = of_break_off("openai", &BreakOff::Provider(ProviderFault::TimedOut(ProviderWait::Rest)));
    assert_eq!(why.status.as_u16(), 504);
}

#[test]
fn what_is_no_json_is_told_in_our_words_with_its_status() {
    for body in [b"<html>gone</html>".as_slice(), b"", b"\"text\"", b"{\"cut"] {
        let page = ProviderRefusal { body: body.to_vec(), ..their(404) };
        let refused = of(ProviderFault::Refused(page));
        let UnansweredCall::Problem(problem) = unanswered(refused, &[ProviderId::CLAUDE]) else { panic!("it is ours") };
        assert_eq!((problem.status.as_u16(), problem.code), (404, "provider_refused"));
        assert_eq!(problem.detail, "claude refused the call with 404.");
    }
    let listed = ProviderRefusal { body: b" [{\"error\":{}}]".to_vec(), ..their(404) };
    assert!(matches!(
        unanswered(of(ProviderFault::Refused(listed)), &[ProviderId::CLAUDE]),
        UnansweredCall::InItsWords(_)
    ));
}

#[test]
fn an_overloaded_provider_keeps_its_status_for_who_speaks_its_language() {
    let overloaded = || of(ProviderFault::Failed { refusal: their(529), retry_after: None });
    for (native, status) in [(&[ProviderId::CLAUDE][..], 529), (&[], 503), (&[ProviderId::OPENAI], 503)] {
        let UnansweredCall::Problem(problem) = unanswered(overloaded(), native) else { panic!("it is ours") };
        assert_eq!(problem.status.as_u16(), status);
        let header = problem.headers.iter().find(|(name, _)| name == "x-ratelimit-limit-requests");
        assert_eq!(header.map(|(_, value)| value.as_bytes()), Some(b"9".as_slice()));
    }
    let UnansweredCall::Problem(of_our_key) =
        unanswered(of(ProviderFault::KeyRefused(their(401))), &[ProviderId::CLAUDE])
    else {
        panic!("it is ours")
    };
    assert!(!of_our_key.headers.iter().any(|(name, _)| name == "x-ratelimit-limit-requests"));
}
