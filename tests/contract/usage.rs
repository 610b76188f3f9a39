use chrono::TimeDelta;
use domain::entitlements::Entitlement;
use domain::idempotency::IdempotencyKey;
use domain::usage::{Hold, HoldId, HoldStatus, consume, hold, needs_tokens, settle};
use domain::users::UserId;
use harness::TestDatabase;
use ports::entitlements::Meter;
use ports::store::{LockPatience, LockResult, StoreError, UnitOfWork};
use ports::tokens::TokenChange;
use ports::usage::{
    ApiKeyUsageAddition, ApiKeyUsageChange, CallRecord, CounterChange, CounterKey, GrantedReservation, KeyOfUser,
    LockedBatch, MeterState, ReservationChange, StoredOutcome, UsageEntry,
};

use crate::people::{constraint, feature_id, new_id, service, sign_up};

/// What a batch writes.
#[derive(Default)]
pub struct BatchRecord {
    pub counters: Vec<CounterChange>,
    pub entries: Vec<UsageEntry>,
    pub reservations: Vec<ReservationChange>,
    pub key_changes: Vec<ApiKeyUsageChange>,
    pub key_additions: Vec<ApiKeyUsageAddition>,
    pub calls: Vec<CallRecord>,
}

/// Writes in the order of the group commit.
pub async fn record_batch(work: &mut dyn UnitOfWork, record: &BatchRecord) -> Result<(), StoreError> {
    if !record.counters.is_empty() || !record.entries.is_empty() {
        work.counters().record(&record.counters, &record.entries).await?;
    }
    if !record.reservations.is_empty() {
        work.reservations().save(&record.reservations).await?;
    }
    if !record.key_changes.is_empty() {
        work.api_key_usage().save(&record.key_changes).await?;
    }
    if !record.key_additions.is_empty() {
        work.api_key_usage().add(&record.key_additions).await?;
    }
    if record.calls.is_empty() { Ok(()) } else { work.call_log().record(&record.calls).await }
}

pub fn meter(user_id: UserId, feature: &str) -> Meter {
    Meter { user_id, feature_id: feature_id(feature) }
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).unwrap()
}

async fn locked(work: &mut dyn UnitOfWork, meters: &[Meter], keys: &[&IdempotencyKey]) -> LockedBatch {
    let keys: Vec<_> = keys.iter().map(|key| KeyOfUser { user_id: meters[0].user_id, key }).collect();
    work.counters().lock_batch(meters, &keys, LockPatience::Skip).await.unwrap()
}

/// The facts of the first meter; creates its counter if necessary.
pub async fn counted(work: &mut dyn UnitOfWork, meter: &Meter) -> Entitlement {
    let meters = [meter.clone()];
    if let MeterState::Uncounted(period) = locked(work, &meters, &[]).await.meters.remove(0) {
        work.counters().open(&[(meter.clone(), period)]).await.unwrap();
    }
    match locked(work, &meters, &[]).await.meters.remove(0) {
        MeterState::Locked { entitlement, .. } => entitlement.into_inner(),
        other => panic!("not locked: {other:?}"),
    }
}

pub fn counter(meter: &Meter, entitlement: &Entitlement) -> CounterKey {
    let period = entitlement.period;
    CounterKey { meter: meter.clone(), period_kind: period.kind, period_start: period.start }
}

/// Consumes, and returns the entry to write.
fn grant(meter: &Meter, entitlement: &mut Entitlement, amount: i64, text: &str) -> UsageEntry {
    let came = consume(entitlement, amount);
    UsageEntry {
        counter: counter(meter, entitlement),
        amount,
        overage: came.overage,
        api_key_id: None,
        reservation_id: None,
        event_id: Some(new_id()),
        stored: Some((key(text), StoredOutcome { amount, decision: came.decision, reservation: None })),
    }
}

/// The entries, with the state of their single counter after them.
fn record(meter: &Meter, entitlement: &Entitlement, entries: &[UsageEntry]) -> BatchRecord {
    let change = CounterChange { key: counter(meter, entitlement), tally: entitlement.tally };
    BatchRecord { counters: vec![change], entries: entries.to_vec(), ..BatchRecord::default() }
}

/// A user on a plan that allows 10 `ai_requests`, with tokens paying for the rest.
async fn prepared(database: &TestDatabase) -> UserId {
    let user_id = sign_up(&*database.store(), "ann").await;
    database
        .sql(&format!(
            "UPDATE users SET plan_id = 'gold' WHERE id = '{user_id}';
             UPDATE plan_features SET limit_value = 10, overage = 'tokens' WHERE plan_id = 'gold' AND feature_id = 'ai_requests'"
        ))
        .await;
    user_id
}

#[tokio::test]
async fn a_batch_tells_how_each_meter_was_found() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    let mut work = service(&*store).await;
    let absent = UserId(new_id());
    let meters = [meter(user_id, "ai_requests"), meter(user_id, "nothing"), meter(absent, "ai_requests")];
    let found = locked(&mut *work, &meters, &[]).await.meters;
    assert!(matches!(found[0], MeterState::Uncounted(_)), "{found:?}");
    assert!(matches!(found[1], MeterState::UnknownFeature), "{found:?}");
    assert!(matches!(found[2], MeterState::UnknownUser), "{found:?}");
    let facts = counted(&mut *work, &meters[0]).await;
    assert_eq!((facts.allowance.limit(), facts.tally.used, facts.tokens_available), (Some(10), 0, 100));
    work.commit().await.unwrap();
}

#[tokio::test]
async fn a_counter_that_another_holds_is_skipped_and_the_rest_is_not() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    let mut first = service(&*store).await;
    for feature in ["ai_requests", "export_csv"] {
        counted(&mut *first, &meter(user_id, feature)).await;
    }
    first.commit().await.unwrap();
    let mut holder = service(&*store).await;
    counted(&mut *holder, &meter(user_id, "ai_requests")).await;
    let mut other = service(&*store).await;
    let meters = [meter(user_id, "ai_requests"), meter(user_id, "export_csv")];
    let found = locked(&mut *other, &meters, &[]).await.meters;
    assert!(matches!(found[0], MeterState::Busy), "{found:?}");
    assert!(matches!(found[1], MeterState::Locked { .. }), "{found:?}");
    holder.commit().await.unwrap();
    let waited = other.counters().lock_batch(&meters[..1], &[], LockPatience::Wait).await.unwrap();
    assert!(matches!(waited.meters[0], MeterState::Locked { .. }), "{waited:?}");
}

#[tokio::test]
async fn what_is_recorded_is_found_again_under_its_key_and_counted() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    let ai = meter(user_id, "ai_requests");
    let mut work = service(&*store).await;
    let mut facts = counted(&mut *work, &ai).await;
    let grants = [grant(&ai, &mut facts, 3, "one"), grant(&ai, &mut facts, 4, "two")];
    record_batch(&mut *work, &record(&ai, &facts, &grants)).await.unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    let (one, two, three) = (key("one"), key("two"), key("three"));
    let again = locked(&mut *work, std::slice::from_ref(&ai), &[&three, &two, &one]).await;
    let mut kept: Vec<_> =
        again.granted.iter().map(|(place, kept)| (*place, kept.amount, kept.decision.current)).collect();
    kept.sort_unstable();
    assert_eq!(kept, [(1, 4, 7), (2, 3, 3)]);
    let first = &again.granted.iter().find(|(place, _)| *place == 2).unwrap().1.decision;
    let given = &grants[0].stored.as_ref().unwrap().1.decision;
    assert_eq!((first.limit, first.remaining, first.resets_at), (given.limit, given.remaining, given.resets_at));
    assert_eq!((&first.plan_id, first.source, first.as_of), (&given.plan_id, given.source, given.as_of));
    let mut facts = counted(&mut *work, &ai).await;
    assert_eq!(facts.tally.used, 7);
    let again = grant(&ai, &mut facts, 1, "one");
    let twice = record_batch(&mut *work, &record(&ai, &facts, &[again])).await;
    assert!(constraint(twice).starts_with("idempotency_keys"), "the key tells that it was used");
}

#[tokio::test]
async fn tokens_are_spent_with_their_ledger_row() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    let ai = meter(user_id, "ai_requests");
    let mut work = service(&*store).await;
    work.users().lock(user_id).await.unwrap();
    let mut facts = counted(&mut *work, &ai).await;
    assert!(needs_tokens(&facts, 25));
    let beyond = grant(&ai, &mut facts, 25, "beyond");
    assert_eq!(beyond.overage, 15);
    record_batch(&mut *work, &record(&ai, &facts, &[beyond])).await.unwrap();
    let spend = |reserved, spent| TokenChange {
        user_id,
        feature_id: ai.feature_id.clone(),
        reserved,
        spent,
        reservation_id: None,
    };
    work.tokens().move_tokens(&spend(0, 15)).await.unwrap();
    work.commit().await.unwrap();
    let mut work = service(&*store).await;
    assert_eq!(counted(&mut *work, &ai).await.tokens_available, 85);
    assert_eq!(work.maintenance().list_findings(10).await.unwrap(), []);
    work.tokens().move_tokens(&spend(85, 0)).await.unwrap();
    assert_eq!(counted(&mut *work, &ai).await.tokens_available, 0, "what is held cannot be spent twice");
    work.tokens().move_tokens(&spend(-85, 5)).await.unwrap();
    assert_eq!(counted(&mut *work, &ai).await.tokens_available, 80);
    let too_much = work.tokens().move_tokens(&spend(0, 86)).await;
    assert_eq!(constraint(too_much), "check_token_balance", "a balance never goes below zero");
}

#[tokio::test]
async fn outcomes_are_forgotten_by_age_a_bounded_number_at_once() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    let mut work = service(&*store).await;
    let ai = meter(user_id, "ai_requests");
    let mut facts = counted(&mut *work, &ai).await;
    let grants = ["a", "b", "c"].map(|text| grant(&ai, &mut facts, 1, text));
    record_batch(&mut *work, &record(&ai, &facts, &grants)).await.unwrap();
    work.commit().await.unwrap();
    database.sql("UPDATE idempotency_keys SET created_at = now() - interval '3 days' WHERE key <> 'c'").await;
    let mut work = service(&*store).await;
    assert_eq!(work.counters().delete_outcomes(TimeDelta::days(4), 10).await.unwrap(), 0);
    assert_eq!(work.counters().delete_outcomes(TimeDelta::days(2), 1).await.unwrap(), 1);
    assert_eq!(work.counters().delete_outcomes(TimeDelta::days(2), 10).await.unwrap(), 1);
}

#[tokio::test]
async fn reservations_that_ended_long_ago_go_a_bounded_number_at_once_and_pending_ones_stay() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    database
        .sql(&format!(
            "INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, expires_at, status, updated_at)
             SELECT '{user_id}', 'ai_requests', 'month', now(), 1, now(), status, now() - interval '40 days'
             FROM unnest(ARRAY['settled', 'released', 'expired', 'pending']) AS s (status);
             INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, expires_at, status)
             VALUES ('{user_id}', 'ai_requests', 'month', now(), 1, now(), 'settled')"
        ))
        .await;
    let mut work = service(&*store).await;
    assert_eq!(work.reservations().delete_ended(TimeDelta::days(41), 10).await.unwrap(), 0);
    assert_eq!(work.reservations().delete_ended(TimeDelta::days(35), 2).await.unwrap(), 2);
    assert_eq!(work.reservations().delete_ended(TimeDelta::days(35), 2).await.unwrap(), 1);
    work.commit().await.unwrap();
    let left: String =
        database.query_scalar("SELECT string_agg(status, ' ' ORDER BY status) FROM usage_reservations").await;
    assert_eq!(left, "pending settled");
}

#[tokio::test]
async fn a_hold_is_found_under_its_lock_as_it_was_left() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    let ai = meter(user_id, "ai_requests");
    let mut work = service(&*store).await;
    let mut facts = counted(&mut *work, &ai).await;
    let holding = hold(&mut facts, 6);
    let kept = GrantedReservation { id: HoldId(new_id()), expires_at: facts.as_of };
    let mut held = Hold {
        id: kept.id,
        user_id,
        feature_id: ai.feature_id.clone(),
        period_kind: facts.period.kind,
        period_start: facts.period.start,
        amount: 6,
        beyond: holding.beyond,
        tokens: holding.tokens,
        status: HoldStatus::Pending,
        settled: None,
        overage: 0,
        expires_at: kept.expires_at,
        api_key_id: None,
        call: None,
    };
    let outcome = StoredOutcome { amount: 6, decision: holding.decision, reservation: Some(kept) };
    let entry = UsageEntry {
        counter: counter(&ai, &facts),
        amount: 6,
        overage: 0,
        api_key_id: None,
        reservation_id: Some(kept.id),
        event_id: None,
        stored: Some((key("held"), outcome.clone())),
    };
    let made = ReservationChange { reservation: held.clone(), idempotency_key: Some(key("held")), outcome: None };
    let record = BatchRecord { reservations: vec![made], ..record(&ai, &facts, &[entry]) };
    record_batch(&mut *work, &record).await.unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    assert_eq!(work.reservations().list_due(&[], 10).await.unwrap(), [(kept.id, user_id)]);
    let again = locked(&mut *work, std::slice::from_ref(&ai), &[&key("held")]).await;
    assert_eq!(again.granted[0].1, outcome);
    let found = work.reservations().lock(&[kept.id, HoldId(new_id())], &[], LockPatience::Skip).await.unwrap().0;
    let LockResult::Locked(stored) = &found[0] else { panic!("{found:?}") };
    assert_eq!((&stored.reservation, stored.is_due, &stored.outcome), (&held, true, &None));
    assert!(matches!(found[1], LockResult::Missing), "{found:?}");
    let mut other = service(&*store).await;
    let skipped = other.reservations().lock(&[kept.id], &[], LockPatience::Skip).await.unwrap().0;
    assert!(matches!(skipped[0], LockResult::Busy), "{skipped:?}");
    let skipped = other.counters().lock(&[counter(&ai, &facts)], LockPatience::Skip).await.unwrap();
    assert!(matches!(skipped[0], LockResult::Busy), "{skipped:?}");
    drop(other);
    let ending = settle(&mut held, &mut facts, 4).unwrap();
    let change =
        ReservationChange { reservation: held.clone(), idempotency_key: None, outcome: Some(ending.decision.clone()) };
    let counters = vec![CounterChange { key: counter(&ai, &facts), tally: facts.tally }];
    record_batch(&mut *work, &BatchRecord { counters, reservations: vec![change], ..BatchRecord::default() })
        .await
        .unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    let found = work.reservations().lock(&[kept.id], &[], LockPatience::Wait).await.unwrap().0;
    let LockResult::Locked(stored) = &found[0] else { panic!("{found:?}") };
    assert_eq!((&stored.reservation, stored.outcome.as_ref()), (&held, Some(&ending.decision)));
    assert_eq!(work.reservations().list_due(&[], 10).await.unwrap(), []);
    let counters = work.counters().lock(&[counter(&ai, &facts)], LockPatience::Skip).await.unwrap();
    let LockResult::Locked(tally) = &counters[0] else { panic!("{counters:?}") };
    assert_eq!((tally.used, tally.reserved, tally.overage), (4, 0, 0));
}

/// The generic plan of one of the batch's statements, as in the scope `Counting`: made once for all arrays, here with
/// statistics of empty tables, which is the worst case.
async fn generic_plan(database: &TestDatabase, sql: &str, types: &str, empty: &str) -> String {
    let mut connection = database.owner().acquire().await.unwrap();
    let planning = format!(
        "ANALYZE; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
         SET plan_cache_mode = force_generic_plan; DEALLOCATE ALL; PREPARE batch({types}) AS {sql}"
    );
    harness::sqlx::raw_sql(harness::sqlx::AssertSqlSafe(planning)).execute(&mut *connection).await.unwrap();
    let statement = harness::sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE batch({empty})"));
    let plan: Vec<String> = harness::sqlx::raw_sql(statement)
        .fetch_all(&mut *connection)
        .await
        .unwrap()
        .iter()
        .map(|row| harness::sqlx::Row::get(row, 0))
        .collect();
    plan.join("\n")
}

/// The condition of each index scan over the table.
fn conditions<'a>(plan: &'a str, table: &str) -> Vec<&'a str> {
    let lines: Vec<&str> = plan.lines().collect();
    let scans = lines.windows(2).filter(|pair| pair[0].contains("Index") && pair[0].contains(&format!(" on {table}")));
    scans.map(|pair| pair[1].trim()).collect()
}

#[tokio::test]
async fn a_batch_goes_through_keys_even_if_it_was_planned_on_empty_tables() {
    let database = TestDatabase::new().await;
    prepared(&database).await;
    let lock = include_str!("../../crates/adapters/src/postgres/sql/lock_usage_batch.sql");
    let plan = generic_plan(&database, lock, "uuid[], text[]", "'{}', '{}'").await;
    assert!(!plan.contains("Seq Scan") && !plan.contains("Hash Join") && !plan.contains("Merge Join"), "{plan}");

    let counters = conditions(&plan, "usage_counters n");
    assert!(counters.iter().any(|condition| condition.contains("period_start")), "the whole key: {plan}");
    let outcomes = include_str!("../../crates/adapters/src/postgres/sql/find_outcomes.sql");
    let plan = generic_plan(&database, outcomes, "uuid[], text[]", "'{}', '{}'").await;
    assert!(!plan.contains("Seq Scan"), "{plan}");
    let keys = conditions(&plan, "idempotency_keys_");
    assert!(!keys.is_empty() && keys.iter().all(|condition| condition.contains("(key =")), "the whole key: {plan}");
    let holds = include_str!("../../crates/adapters/src/postgres/sql/lock_holds.sql");
    let plan = generic_plan(&database, holds, "uuid[]", "'{}'").await;
    assert!(!plan.contains("Seq Scan") && conditions(&plan, "usage_reservations").len() == 2, "{plan}");
}
