use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use domain::ai::{Conversation, ModelId, ProviderProfiles};
use domain::usage::HoldId;
use futures_util::stream::iter;
use ports::ai::{CallContent, CallUnanswered, ProviderRefusal, ProviderWait, ReplyPiece};
use uuid::Uuid;

use super::*;

/// The result of an attempt.
#[derive(Clone)]
enum Comes {
    Answer,
    BreaksOff,
    Fault(ProviderFault),
}

/// Gives the scripted results in order, and then answers.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<Comes>>,
    asked_at: Mutex<Vec<Instant>>,
    lasts: Duration,
}

impl Scripted {
    fn with(script: &[Comes]) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(script.iter().cloned().collect()), ..Self::default() })
    }

    fn asked(&self) -> usize {
        self.asked_at.lock().unwrap().len()
    }

    fn pauses(&self) -> Vec<u64> {
        let asked = self.asked_at.lock().unwrap();
        asked.windows(2).map(|pair| u64::try_from((pair[1] - pair[0]).as_millis()).unwrap()).collect()
    }
}

#[async_trait]
impl AiProvider for Scripted {
    async fn send(&self, hold: CallReservation, _: &ProviderCall) -> Result<ProviderReply, CallUnanswered> {
        self.asked_at.lock().unwrap().push(Instant::now());
        sleep(self.lasts).await;
        let comes = self.script.lock().unwrap().pop_front().unwrap_or(Comes::Answer);
        let pieces = match comes {
            Comes::Fault(fault) => return Err((hold, fault)),
            Comes::Answer => vec![Ok(ReplyPiece { is_last: true, ..ReplyPiece::default() })],
            Comes::BreaksOff => vec![Ok(ReplyPiece::default()), Err(ProviderFault::Broken("off".to_owned()))],
        };
        let pieces: ReplyPieces = Box::pin(iter(pieces));
        Ok(ProviderReply {
            hold,
            request_id: None,
            model: None,
            content_type: String::new(),
            headers: Vec::new(),
            pieces,
        })
    }

    fn is_sandbox(&self) -> bool {
        false
    }
}

/// Returns the highest number, or 0.
struct Loaded(bool);

impl Randomness for Loaded {
    fn new_id(&self) -> Uuid {
        Uuid::nil()
    }

    fn below(&self, bound: u64) -> u64 {
        if self.0 { bound.saturating_sub(1) } else { 0 }
    }
}

const RULES: AttemptRules = AttemptRules {
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(2),
    time_budget: Duration::from_secs(30),
    resend_after_timeout: false,
    breaker: BreakerRules { failures: 5, callers: 1, open_for: Duration::from_secs(20) },
};

fn attempts_by(rules: AttemptRules, openai: &Arc<Scripted>, claude: &Arc<Scripted>, highest: bool) -> CallAttempts {
    let tried = |provider: &Arc<Scripted>| {
        let provider: Arc<dyn AiProvider> = Arc::<Scripted>::clone(provider);
        TriedProvider { provider, max_attempts: 3 }
    };
    let providers = HashMap::from([(ProviderId::OPENAI, tried(openai)), (ProviderId::CLAUDE, tried(claude))]);
    CallAttempts::new(providers, rules, Arc::new(Loaded(highest)))
}

fn attempts(openai: &Arc<Scripted>, claude: &Arc<Scripted>) -> CallAttempts {
    attempts_by(RULES, openai, claude, true)
}

fn hold() -> CallReservation {
    CallReservation::granted(HoldId(Uuid::from_u128(1)))
}

fn calls(providers: &[ProviderId]) -> Vec<ProviderCall> {
    let call = |provider: &ProviderId| ProviderCall {
        provider: ProviderProfiles::default().get(*provider).unwrap(),
        model: ModelId::parse("m").unwrap(),
        content: CallContent::Conversation(Conversation::default()),
        streamed: true,
        max_output_tokens: None,
    };
    providers.iter().map(call).collect()
}

async fn call(attempts: &CallAttempts, providers: &[ProviderId]) -> Result<usize, CallFailure> {
    call_by(attempts, providers, &ada()).await
}

async fn call_by(
    attempts: &CallAttempts,
    providers: &[ProviderId],
    terms: &AttemptTerms,
) -> Result<usize, CallFailure> {
    match attempts.call(hold(), &calls(providers), terms).await {
        Ok(SentCall { reply, place, .. }) => {
            assert_eq!(reply.hold, hold(), "one hold goes through all attempts");
            Ok(place)
        }
        Err(UnsentCall { hold: back, failure, .. }) => {
            assert_eq!(back, hold(), "and comes back");
            Err(failure)
        }
    }
}

/// Drops the comments.
struct Unheard;

impl CommentSink for Unheard {
    fn comment(&self, _: Vec<u8>) {}
}

fn ada() -> AttemptTerms {
    AttemptTerms { user_id: UserId(Uuid::from_u128(1)), retried_by_caller: false, comments: Arc::new(Unheard) }
}

fn refusal(status: u16) -> ProviderRefusal {
    ProviderRefusal { status, ..ProviderRefusal::default() }
}

fn failed() -> ProviderFault {
    ProviderFault::Failed { refusal: refusal(500), retry_after: None }
}

fn too_fast(milliseconds: u64) -> ProviderFault {
    ProviderFault::TooFast { refusal: refusal(429), retry_after: Some(Duration::from_millis(milliseconds)) }
}

fn of(provider: ProviderId, fault: ProviderFault) -> CallFailure {
    CallFailure::Provider { provider, fault }
}

const BOTH: [ProviderId; 2] = [ProviderId::OPENAI, ProviderId::CLAUDE];

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_after_growing_pauses() {
    for fault in [
        failed(),
        ProviderFault::TooFast { refusal: refusal(429), retry_after: None },
        ProviderFault::Unreachable(String::new()),
        ProviderFault::TimedOut(ProviderWait::Connection),
        ProviderFault::Broken(String::new()),
        ProviderFault::NotUnderstood(String::new()),
    ] {
        let faults = vec![Comes::Fault(fault.clone()); 3];
        let (openai, claude) = (Scripted::with(&faults[..2]), Scripted::with(&[]));
        assert_eq!(call(&attempts(&openai, &claude), &BOTH).await, Ok(0));
        assert_eq!(openai.pauses(), [100, 200], "full jitter, thrown high");
        let (openai, claude) = (Scripted::with(&faults), Scripted::with(&[]));
        let attempts = attempts_by(RULES, &openai, &claude, false);
        assert_eq!(call(&attempts, &BOTH[..1]).await, Err(of(ProviderId::OPENAI, fault)));
        assert_eq!(openai.pauses(), [0, 0], "full jitter, thrown low; and the third attempt is the last");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_where_the_first_one_fails() {
    for (fault, asked) in [
        (failed(), 3),
        (ProviderFault::KeyRefused(refusal(401)), 1),
        (ProviderFault::SpendLimit(refusal(429)), 1),
        (too_fast(60_000), 1),
    ] {
        let (openai, claude) = (Scripted::with(&vec![Comes::Fault(fault.clone()); 3]), Scripted::with(&[]));
        let attempts = attempts(&openai, &claude);
        assert_eq!(call(&attempts, &BOTH).await, Ok(1));
        assert_eq!((openai.asked(), claude.asked()), (asked, 1), "{fault:?}");
        assert_eq!(attempts.statistics().fallbacks, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_told_at_once() {
    for fault in [ProviderFault::Refused(refusal(400)), ProviderFault::NoKey { setting: "S".to_owned() }] {
        let (openai, claude) = (Scripted::with(&[Comes::Fault(fault.clone())]), Scripted::with(&[]));
        assert_eq!(call(&attempts(&openai, &claude), &BOTH).await, Err(of(ProviderId::OPENAI, fault)));
        assert_eq!((openai.asked(), claude.asked()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_without_a_key_says_nothing_new() {
    let openai = Scripted::with(&vec![Comes::Fault(failed()); 3]);
    let claude = Scripted::with(&[Comes::Fault(ProviderFault::NoKey { setting: "S".to_owned() })]);
    assert_eq!(call(&attempts(&openai, &claude), &BOTH).await, Err(of(ProviderId::OPENAI, failed())));
    assert_eq!(claude.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_left_alone_for_as_long_as_it_asks() {
    let (openai, claude) = (Scripted::with(&[Comes::Fault(too_fast(1_500))]), Scripted::with(&[]));
    assert_eq!(call(&attempts(&openai, &claude), &BOTH).await, Ok(0));
    assert_eq!(openai.pauses(), [1_600]);
    let (openai, claude) = (Scripted::with(&[Comes::Fault(too_fast(2_500))]), Scripted::with(&[]));
    assert_eq!(call(&attempts(&openai, &claude), &BOTH[..1]).await, Err(of(ProviderId::OPENAI, too_fast(2_500))));
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_once_the_budget_is_over() {
    let slow = |lasts| {
        let script = Mutex::new(VecDeque::from(vec![Comes::Fault(failed()); 9]));
        Arc::new(Scripted { script, lasts, ..Scripted::default() })
    };
    let (openai, claude) = (slow(Duration::from_secs(16)), slow(Duration::ZERO));
    let began = Instant::now();
    assert_eq!(call(&attempts(&openai, &claude), &BOTH).await, Err(of(ProviderId::OPENAI, failed())));
    assert_eq!((openai.asked(), claude.asked(), began.elapsed().as_secs()), (2, 0, 32));
    let (openai, claude) = (slow(Duration::from_secs(29)), slow(Duration::ZERO));
    let rules = AttemptRules { first_pause: Duration::from_secs(2), ..RULES };
    let failure = call(&attempts_by(rules, &openai, &claude, true), &BOTH).await;
    assert_eq!(failure, Err(of(ProviderId::CLAUDE, failed())), "no time for the pause is time for a fallback");
    assert_eq!((openai.asked(), claude.asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_fails_too_often_is_not_called_and_then_tried_once() {
    let (openai, claude) = (Scripted::with(&vec![Comes::Fault(failed()); 6]), Scripted::with(&[]));
    let attempts = attempts(&openai, &claude);
    assert_eq!(call(&attempts, &BOTH[..1]).await, Err(of(ProviderId::OPENAI, failed())));
    assert_eq!(call(&attempts, &BOTH).await, Ok(1), "it opens with the fifth failure in a row");
    assert_eq!(openai.asked(), 5);
    let Err(CallFailure::CircuitOpen { provider: ProviderId::OPENAI, retry_after }) = call(&attempts, &BOTH[..1]).await
    else {
        panic!()
    };
    assert!(retry_after <= Duration::from_secs(20) && retry_after > Duration::from_secs(19), "{retry_after:?}");
    assert_eq!(call(&attempts, &BOTH).await, Ok(1));
    assert_eq!(openai.asked(), 5, "nobody called");
    let of_openai = attempts.statistics().providers[0];
    assert_eq!((of_openai.failures, of_openai.resting_models), (5, 1));
    assert_eq!((of_openai.attempts, of_openai.retries, of_openai.held_back), (5, 3, 2));
    sleep(retry_after).await;
    assert_eq!(call(&attempts, &BOTH[..1]).await, Err(of(ProviderId::OPENAI, failed())), "the trial fails");
    assert_eq!(openai.asked(), 6);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(call(&attempts, &BOTH[..1]).await, Ok(0));
    assert_eq!(attempts.statistics().providers[0].resting_models, 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_says_no_is_never_left_alone() {
    let faults = [
        ProviderFault::Refused(refusal(400)),
        too_fast(0),
        ProviderFault::KeyRefused(refusal(401)),
        ProviderFault::SpendLimit(refusal(429)),
        ProviderFault::NotUnderstood(String::new()),
        ProviderFault::Failed { refusal: refusal(408), retry_after: None },
        ProviderFault::Failed { refusal: refusal(409), retry_after: None },
        ProviderFault::Failed { refusal: refusal(422), retry_after: None },
    ];
    let script: Vec<Comes> = faults.iter().cycle().take(60).cloned().map(Comes::Fault).collect();
    let (openai, claude) = (Scripted::with(&script), Scripted::with(&[]));
    let attempts = attempts(&openai, &claude);
    while openai.asked() < 60 {
        assert!(matches!(call(&attempts, &BOTH[..1]).await, Err(CallFailure::Provider { .. })));
    }
    assert_eq!(attempts.statistics().providers[0].failures, 0);
    assert_eq!(call(&attempts, &BOTH[..1]).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_counts_and_is_not_tried_again() {
    let (openai, claude) = (Scripted::with(&vec![Comes::BreaksOff; 20]), Scripted::with(&[]));
    let attempts = attempts(&openai, &claude);
    for number in 1..=10_u64 {
        let Ok(SentCall { reply, place: 0, .. }) = attempts.call(hold(), &calls(&BOTH), &ada()).await else {
            panic!("{number}")
        };
        let pieces: Vec<bool> = reply.pieces.map(|piece| piece.is_ok()).collect().await;
        assert_eq!(pieces, [true, false]);
        assert_eq!(attempts.statistics().providers[0].failures, number);
    }
    assert_eq!((openai.asked(), claude.asked()), (10, 0));
    // Half of the attempts of this minute failed, and twenty are enough for the breaker to open.
    assert_eq!(attempts.statistics().providers[0].resting_models, 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_are_left_alone_the_shorter_wait_is_told() {
    let (openai, claude) =
        (Scripted::with(&vec![Comes::Fault(failed()); 6]), Scripted::with(&vec![Comes::Fault(failed()); 6]));
    let rules = AttemptRules { breaker: BreakerRules { failures: 3, ..RULES.breaker }, ..RULES };
    let attempts = attempts_by(rules, &openai, &claude, false);
    call(&attempts, &BOTH[..1]).await.unwrap_err();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        call(&attempts, &BOTH).await,
        Err(of(ProviderId::CLAUDE, failed())),
        "what was said goes before silence"
    );
    let wait = Duration::from_secs(15);
    let Err(CallFailure::CircuitOpen { provider, retry_after }) = call(&attempts, &[BOTH[1], BOTH[0]]).await else {
        panic!()
    };
    assert_eq!((provider, retry_after), (ProviderId::OPENAI, wait));
    assert!(attempts.call(hold(), &[], &ada()).await.is_err());
    assert!(call(&attempts, &[ProviderId::GEMINI]).await.is_err(), "nothing answers for it");
}

#[tokio::test(start_paused = true)]
async fn whoever_tries_again_by_itself_is_sent_once_to_each_provider() {
    let failing = vec![Comes::Fault(failed()); 9];
    let (openai, claude) = (Scripted::with(&failing), Scripted::with(&[]));
    let by_itself = AttemptTerms { retried_by_caller: true, ..ada() };
    assert_eq!(call_by(&attempts(&openai, &claude), &BOTH, &by_itself).await, Ok(1), "a fallback answers all the same");
    assert_eq!((openai.asked(), claude.asked()), (1, 1));
    let attempts = attempts(&openai, &claude);
    for _ in 0..3 {
        assert_eq!(call_by(&attempts, &BOTH[..1], &by_itself).await, Err(of(ProviderId::OPENAI, failed())));
    }
    assert_eq!(openai.asked(), 4, "two retries of an SDK are three requests");
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_may_bill_is_not_sent_again_unless_the_rules_say_so() {
    for wait in [ProviderWait::FirstByte, ProviderWait::Rest] {
        let late = ProviderFault::TimedOut(wait);
        let script = [Comes::Fault(failed()), Comes::Fault(late.clone()), Comes::Fault(late.clone())];
        let (openai, claude) = (Scripted::with(&script), Scripted::with(&[]));
        let Err(unsent) = attempts(&openai, &claude).call(hold(), &calls(&BOTH), &ada()).await else { panic!() };
        assert_eq!((unsent.failure, unsent.unanswered.attempts), (of(ProviderId::OPENAI, late.clone()), 1));
        assert_eq!((openai.asked(), claude.asked()), (2, 0), "neither here nor at the fallback");
        let (openai, claude) = (Scripted::with(&script), Scripted::with(&[]));
        let resending = attempts_by(AttemptRules { resend_after_timeout: true, ..RULES }, &openai, &claude, true);
        let Ok(sent) = resending.call(hold(), &calls(&BOTH), &ada()).await else { panic!() };
        assert_eq!((sent.place, sent.unanswered.attempts), (1, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_while_the_provider_works_may_be_billed_and_is_not_sent_again() {
    let broken = || Comes::Fault(ProviderFault::Broken("reset".to_owned()));
    for (lasts, attempts_made, unanswered) in [(0, 3, 0), (900, 3, 0), (3_000, 1, 1)] {
        let openai = Arc::new(Scripted {
            script: Mutex::new(VecDeque::from([broken(), broken(), broken()])),
            lasts: Duration::from_millis(lasts),
            ..Scripted::default()
        });
        let claude = Scripted::with(&[]);
        let Err(unsent) = attempts(&openai, &claude).call(hold(), &calls(&BOTH[..1]), &ada()).await else { panic!() };
        assert_eq!((openai.asked(), unsent.unanswered.attempts), (attempts_made, unanswered), "{lasts} ms");
        assert_eq!(unsent.unanswered.seconds, lasts / 1_000 * unanswered);
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_rests_alone_and_never_by_one_caller() {
    let (openai, claude) = (Scripted::with(&vec![Comes::Fault(failed()); 500]), Scripted::with(&[]));
    let rules = AttemptRules { breaker: BreakerRules { callers: 2, ..RULES.breaker }, ..RULES };
    let attempts = attempts_by(rules, &openai, &claude, false);
    for _ in 0..100 {
        assert_eq!(call(&attempts, &BOTH[..1]).await, Err(of(ProviderId::OPENAI, failed())));
    }
    let bob = AttemptTerms { user_id: UserId(Uuid::from_u128(2)), ..ada() };
    assert_eq!(call_by(&attempts, &BOTH[..1], &bob).await, Err(of(ProviderId::OPENAI, failed())));
    let resting = call_by(&attempts, &BOTH[..1], &bob).await;
    assert!(matches!(resting, Err(CallFailure::CircuitOpen { .. })), "{resting:?}");
    let mut other = calls(&BOTH[..1]);
    other[0].model = ModelId::parse("another").unwrap();
    let asked = openai.asked();
    attempts.call(hold(), &other, &bob).await.err().unwrap();
    assert_eq!(openai.asked(), asked + 3, "another model of the same provider is asked");
}
