//! Model calls in the counting port: their reservations, their API keys' windows, and the call log.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ai::{CallUsage, ModelId, ProviderId, Speaker, TokenUsage};
use domain::api_keys::ApiKeyId;
use domain::prices::{Cost, NanoUsd};
use domain::usage::{
    ApiKeyUsage, ApiKeyWindows, CallPhase, CallTerms, Hold, HoldId, HoldStatus, ReservedCallState, WindowKind,
    hold_call, settle_call,
};
use domain::users::UserId;
use harness::TestDatabase;
use ports::store::{LockPatience, LockResult, Scope, Store};
use ports::usage::{
    ApiKeyUsageAddition, ApiKeyUsageChange, ApiKeyWindow, BeyondHold, CallOutcome, CallRecord, CallResult,
    CounterChange, ReservationChange, SaidMessage,
};
use uuid::Uuid;

use crate::counting::with_sessions;
use crate::people::{new_id, service, sign_up};
use crate::usage::{BatchRecord, counted, counter, meter, record_batch};

fn terms(began_at: DateTime<Utc>) -> CallTerms {
    CallTerms {
        provider: ProviderId::CLAUDE,
        model: ModelId::parse("claude-haiku-5-5").unwrap(),
        is_sandbox: false,
        input_tokens: 12,
        max_output_tokens: 100,
        delivered_tokens: 0,
        max_cost_nano_usd: Some(51_200),
        began_at,
        session_id: None,
        on_key: None,
        key_lineages: Vec::new(),
    }
}

fn result(session_id: Option<Uuid>) -> CallResult {
    let tokens = TokenUsage { uncached_input: 10, cache_read: 3, visible_output: 20, ..TokenUsage::default() };
    let said = |speaker, content: &str, tokens, cost| SaidMessage {
        speaker,
        content: content.to_owned(),
        tokens,
        cost: NanoUsd(cost),
    };
    CallResult {
        provider: ProviderId::CLAUDE,
        model: "claude-haiku-5-5".to_owned(),
        usage: CallUsage::standard(tokens),
        reported: None,
        cost: Some(Cost { amount: NanoUsd(11_050), version: "2026-11-12".to_owned(), assumed: Vec::new() }),
        outcome: CallOutcome::Ok,
        latency_ms: Some(42),
        session_id,
        messages: vec![said(Speaker::User, "Hello", 13, 1_050), said(Speaker::Assistant, "Hi\0 there", 20, 10_000)],
        beyond: BeyondHold::default(),
    }
}

async fn api_key(database: &TestDatabase, user_id: UserId) -> Uuid {
    let id = new_id();
    database
        .sql(&format!(
            "INSERT INTO api_keys (id, user_id, key_hash, key_prefix, last_four, name) \
             VALUES ('{id}', '{}', '{id}', 'sk_live_x', 'abcd', 'server')",
            user_id.0
        ))
        .await;
    id
}

#[tokio::test]
async fn a_call_is_found_by_its_phase_and_recorded_once_it_is_settled() {
    let database = TestDatabase::new().await;
    let user_id = sign_up(&*database.store(), "asker").await;
    database.sql("UPDATE plan_features SET enabled = true, limit_value = 5 WHERE plan_id = 'free' AND feature_id = 'ai_requests'").await;
    let (session, store, ai) = (new_id(), database.store(), meter(user_id, "ai_requests"));
    database.sql(&format!("INSERT INTO chat_sessions (id, user_id) VALUES ('{session}', '{}')", user_id.0)).await;
    let mut work = service(&*store).await;
    let mut facts = counted(&mut *work, &ai).await;
    let holding = hold_call(&mut facts, 112);
    let id = HoldId(new_id());
    let mut held = Hold {
        id,
        user_id,
        feature_id: ai.feature_id.clone(),
        period_kind: facts.period.kind,
        period_start: facts.period.start,
        amount: 1,
        beyond: holding.beyond,
        tokens: holding.tokens,
        status: HoldStatus::Pending,
        settled: None,
        overage: 0,
        expires_at: facts.as_of,
        api_key_id: None,
        call: Some(Box::new(ReservedCallState { phase: CallPhase::Reserved, terms: terms(facts.as_of) })),
    };
    let change = |hold: &Hold| ReservationChange { reservation: hold.clone(), idempotency_key: None, outcome: None };
    let counters = vec![CounterChange { key: counter(&ai, &facts), tally: facts.tally }];
    let made = BatchRecord { counters, reservations: vec![change(&held)], ..BatchRecord::default() };
    record_batch(&mut *work, &made).await.unwrap();
    assert_eq!(work.reservations().list_due(&[], 10).await.unwrap(), [(id, user_id)], "nothing was sent for it");
    assert_eq!(work.call_log().list_due(&[], 10).await.unwrap(), []);

    let call = held.call.as_mut().unwrap();
    call.phase = CallPhase::FirstByte;
    call.terms.delivered_tokens = 7;
    let dispatched = BatchRecord { reservations: vec![change(&held)], ..BatchRecord::default() };
    record_batch(&mut *work, &dispatched).await.unwrap();
    assert_eq!(work.reservations().list_due(&[], 10).await.unwrap(), []);
    let due = work.call_log().list_due(&[], 10).await.unwrap().remove(0);
    assert_eq!((due.reservation_id, due.user_id, due.call.map(Box::new)), (id, user_id, held.call.clone()));

    settle_call(&mut held, &mut facts, 33).unwrap();
    let counters = vec![CounterChange { key: counter(&ai, &facts), tally: facts.tally }];
    let call =
        CallRecord { reservation_id: id, user_id, api_key_id: None, result: result(Some(session)), unpaid_tokens: 4 };
    let ended =
        BatchRecord { counters, reservations: vec![change(&held)], calls: vec![call], ..BatchRecord::default() };
    record_batch(&mut *work, &ended).await.unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    let found = work.reservations().lock(&[id], &[], LockPatience::Skip).await.unwrap().0;
    let LockResult::Locked(stored) = &found[0] else { panic!("{found:?}") };
    let found = &stored.reservation;
    assert_eq!((found.status, found.call.as_ref().unwrap().phase), (HoldStatus::Settled, CallPhase::Settled));
    let log = "SELECT concat_ws(' ', provider, model, tokens_used, cost, input_tokens, output_tokens, cached_tokens, latency_ms, outcome, \
        cost_nano_usd, price_version, source, unpaid_tokens, usage ->> 'cache_read', session_id = reservation_id) FROM ai_usage_logs";
    let logged: String = database.query_scalar(log).await;
    assert_eq!(logged, "claude claude-haiku-5-5 33 0.0000 13 20 3 42 ok 11050 2026-11-12 provider 4 3 f");
    let said: String = database
        .query_scalar("SELECT string_agg(concat_ws(' ', role, content, tokens, cost_nano_usd, model), '; ' ORDER BY seq) FROM chat_messages")
        .await;
    assert_eq!(said, "user Hello 13 1050; assistant Hi\u{fffd} there 20 10000 claude-haiku-5-5");
    let session: String =
        database.query_scalar("SELECT concat_ws(' ', tokens_used, cost_nano_usd, model) FROM chat_sessions").await;
    assert_eq!(session, "33 11050 claude-haiku-5-5");
}

/// Postgres logs the text of a failed statement, and shows that of a running one.
#[tokio::test]
async fn what_people_said_never_stands_in_the_text_of_a_statement() {
    let database = TestDatabase::new().await;
    let user_id = sign_up(&*database.store(), "asker").await;
    let session = new_id();
    database.sql(&format!("INSERT INTO chat_sessions (id, user_id) VALUES ('{session}', '{}')", user_id.0)).await;
    let store = with_sessions(&database);
    let mut work = store.begin(Scope::Counting).await.unwrap();
    let call = CallRecord {
        reservation_id: HoldId(new_id()),
        user_id,
        api_key_id: None,
        result: result(Some(session)),
        unpaid_tokens: 0,
    };
    record_batch(&mut *work, &BatchRecord { calls: vec![call], ..BatchRecord::default() }).await.unwrap();
    let texts: Vec<(String,)> = database
        .query_all("SELECT query FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app_user'")
        .await;
    assert!(texts.iter().any(|(text,)| text.contains("INSERT INTO chat_messages")), "{texts:?}");
    assert!(texts.iter().all(|(text,)| !text.contains("Hello")), "{texts:?}");
    work.commit().await.unwrap();
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM chat_messages").await, 2);
}

#[tokio::test]
async fn a_deleted_session_takes_no_message_and_the_cost_stays() {
    let database = TestDatabase::new().await;
    let user_id = sign_up(&*database.store(), "asker").await;
    let mut work = service(&*database.store()).await;
    let call = CallRecord {
        reservation_id: HoldId(new_id()),
        user_id,
        api_key_id: None,
        result: result(Some(new_id())),
        unpaid_tokens: 0,
    };
    record_batch(&mut *work, &BatchRecord { calls: vec![call], ..BatchRecord::default() }).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM ai_usage_logs").await, 1);
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM chat_messages").await, 0);
}

#[tokio::test]
async fn a_keys_windows_are_counted_under_their_locks() {
    let database = TestDatabase::new().await;
    let user_id = sign_up(&*database.store(), "asker").await;
    let (api_key_id, store) = (api_key(&database, user_id).await, database.store());
    let now: DateTime<Utc> = database.query_scalar("SELECT now()").await;
    let mut work = service(&*store).await;
    let windows = ApiKeyWindows::at(now);
    let of = |kind, start| ApiKeyWindow { user_id, api_key_id: ApiKeyId(api_key_id), kind, start };
    let windows = [of(WindowKind::Minute, windows.minute), of(WindowKind::Month, windows.month)];
    let states = work.api_key_usage().lock(&windows, LockPatience::Skip).await.unwrap();
    assert!(matches!(states[..], [LockResult::Missing, LockResult::Missing]), "{states:?}");
    work.api_key_usage().open(&windows).await.unwrap();
    work.api_key_usage().open(&windows).await.unwrap();
    // Use without limits is added whether the month's row exists or not; that of a deleted key is left out.
    let used = |window, cost| ApiKeyUsageAddition { window, requests: 1, tokens: 9, cost };
    let gone = ApiKeyWindow { api_key_id: ApiKeyId(new_id()), ..windows[1] };
    let before = of(WindowKind::Month, windows[1].start - TimeDelta::days(1));
    for key_additions in [vec![used(windows[1], 11_000), used(gone, 7), used(before, 3)], vec![used(windows[1], 50)]] {
        record_batch(&mut *work, &BatchRecord { key_additions, ..BatchRecord::default() }).await.unwrap();
    }
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    let states = work.api_key_usage().lock(&windows, LockPatience::Skip).await.unwrap();
    let [LockResult::Locked(minute), LockResult::Locked(month)] = states[..] else { panic!("{states:?}") };
    assert_eq!(minute, ApiKeyUsage::default());
    assert_eq!((month.requests, month.tokens, month.cost), (2, 18, 11_050), "what was spent before the limit");
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM api_key_counters").await, 3);
    let mut other = service(&*store).await;
    let held = other.api_key_usage().lock(&windows, LockPatience::Skip).await.unwrap();
    assert!(matches!(held[..], [LockResult::Busy, LockResult::Busy]), "{held:?}");
    let tally = ApiKeyUsage { requests: 1, tokens: 2, tokens_held: 3, cost: 4, cost_held: 5 };
    let key_changes = vec![ApiKeyUsageChange { window: windows[0], usage: tally }];
    record_batch(&mut *work, &BatchRecord { key_changes, ..BatchRecord::default() }).await.unwrap();
    work.commit().await.unwrap();
    let states = other.api_key_usage().lock(&windows, LockPatience::Wait).await.unwrap();
    let [LockResult::Locked(minute), LockResult::Locked(_)] = states[..] else { panic!("{states:?}") };
    assert_eq!(minute, tally);
    let later = of(WindowKind::Minute, windows[0].start + TimeDelta::minutes(1));
    let states = other.api_key_usage().lock(&[later], LockPatience::Skip).await.unwrap();
    assert!(matches!(states[..], [LockResult::Missing]), "{states:?}");
}
