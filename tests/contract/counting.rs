//! The promises of the pinned connections for counting, beyond those of every unit of work.

use adapters::postgres::{PgStore, PoolSettings};
use domain::idempotency::IdempotencyKey;
use domain::usage::{HoldId, consume};
use domain::users::UserId;
use harness::TestDatabase;
use ports::entitlements::Meter;
use ports::store::{LockPatience, LockResult, Scope, Store, StoreError, UnitOfWork};
use ports::usage::{CounterChange, CounterKey, KeyOfUser, MeterState, StoredOutcome, UsageEntry};

use crate::people::{constraint, feature_id, new_id, sign_up};
use crate::units_of_work::{give_up_after, left_open};
use crate::usage::{BatchRecord, record_batch};

/// A store with enough connections that some are pinned for counting.
pub fn with_sessions(database: &TestDatabase) -> PgStore {
    PgStore::connect(PoolSettings { max_connections: 6, ..database.pool_settings() }).unwrap()
}

async fn counting(store: &dyn Store) -> Box<dyn UnitOfWork> {
    store.begin(Scope::Counting).await.unwrap()
}

/// Locks the counter, which it creates if necessary, and returns the writes for one more use under each key.
pub async fn used(work: &mut dyn UnitOfWork, meter: &Meter, keys: &[IdempotencyKey]) -> BatchRecord {
    let meters = [meter.clone()];
    let locked = async |work: &mut dyn UnitOfWork| {
        work.counters().lock_batch(&meters, &[], LockPatience::Wait).await.unwrap().meters.remove(0)
    };
    let mut state = locked(work).await;
    if let MeterState::Uncounted(period) = state {
        work.counters().open(&[(meter.clone(), period)]).await.unwrap();
        state = locked(work).await;
    }
    let MeterState::Locked { entitlement, .. } = state else { panic!("not locked: {state:?}") };
    let mut entitlement = entitlement.into_inner();
    let period = entitlement.period;
    let counter = CounterKey { meter: meter.clone(), period_kind: period.kind, period_start: period.start };
    let grant = |key: &IdempotencyKey| UsageEntry {
        counter: counter.clone(),
        amount: 1,
        overage: 0,
        api_key_id: None,
        reservation_id: None,
        event_id: Some(new_id()),
        stored: Some((
            key.clone(),
            StoredOutcome { amount: 1, decision: consume(&mut entitlement, 1).decision, reservation: None },
        )),
    };
    let entries = keys.iter().map(grant).collect();
    let counters = vec![CounterChange { key: counter, tally: entitlement.tally }];
    BatchRecord { counters, entries, ..BatchRecord::default() }
}

pub async fn prepared(database: &TestDatabase) -> Meter {
    let user_id = sign_up(&*database.store(), "ann").await;
    database.sql(&format!("UPDATE users SET plan_id = 'gold' WHERE id = '{user_id}'")).await;
    Meter { user_id, feature_id: feature_id("ai_requests") }
}

async fn total(database: &TestDatabase) -> i64 {
    database.query_scalar("SELECT coalesce(sum(used), 0)::bigint FROM usage_counters").await
}

/// The keys are written into the message's text, so each must be quoted correctly.
#[tokio::test]
async fn a_key_may_be_any_text() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let store = with_sessions(&database);
    let texts = ["it's", r"\", r#"",""#, r"\'; DROP TABLE users; --", "{}", "NULL", "$1", "E'\\\\'", r#"\" \\ '' ""#];
    let keys = texts.map(|text| IdempotencyKey::parse(text).unwrap());
    let mut work = counting(&store).await;
    let record = used(&mut *work, &meter, &keys).await;
    record_batch(&mut *work, &record).await.unwrap();
    work.commit().await.unwrap();

    let mut work = counting(&store).await;
    let asked: Vec<_> = keys.iter().map(|key| KeyOfUser { user_id: meter.user_id, key }).collect();
    let found = work.counters().lock_batch(std::slice::from_ref(&meter), &asked, LockPatience::Skip).await.unwrap();
    let mut places: Vec<_> = found.granted.iter().map(|(place, kept)| (*place, kept.decision.current)).collect();
    places.sort_unstable();
    assert_eq!(places, (0..keys.len()).zip(1_i64..).collect::<Vec<_>>());
    let stored: i64 = database.query_scalar("SELECT count(DISTINCT key) FROM idempotency_keys").await;
    assert_eq!(usize::try_from(stored).unwrap(), keys.len());
}

#[tokio::test]
async fn a_commit_that_is_refused_keeps_nothing_and_lets_go_of_the_locks() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let store = with_sessions(&database);
    let key = [IdempotencyKey::parse("once").unwrap()];
    for round in 0..4 {
        let mut work = counting(&store).await;
        let record = used(&mut *work, &meter, &key).await;
        let recorded = record_batch(&mut *work, &record).await;
        let outcome = if recorded.is_ok() { work.commit().await } else { recorded };
        if round == 0 {
            outcome.unwrap();
        } else {
            assert!(constraint(outcome).starts_with("idempotency_keys"));
        }
        // On another connection, which would not wait.
        let mut other = store.begin(Scope::SERVICE).await.unwrap();
        let state = other.counters().lock_batch(std::slice::from_ref(&meter), &[], LockPatience::Skip).await.unwrap();
        assert!(matches!(state.meters[0], MeterState::Locked { .. }), "{state:?}");
    }
    assert_eq!(total(&database).await, 1);
}

#[tokio::test]
async fn what_is_given_up_at_any_moment_is_not_kept() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let store = with_sessions(&database);
    let mut kept = 0;
    for polls in 0..60 {
        give_up_after(polls, async {
            let mut work = counting(&store).await;
            let record = used(&mut *work, &meter, &[IdempotencyKey::of_id(new_id())]).await;
            record_batch(&mut *work, &record).await.unwrap();
            // Never committed: dropped here at the latest.
        })
        .await;
        if polls % 10 == 0 {
            assert_eq!(left_open(&database).await, 0, "after {polls} polls");
            let mut work = counting(&store).await;
            let record = used(&mut *work, &meter, &[IdempotencyKey::of_id(new_id())]).await;
            record_batch(&mut *work, &record).await.unwrap();
            work.commit().await.unwrap();
            kept += 1;
        }
    }
    assert_eq!(total(&database).await, kept);
}

/// In one message; each gets its own result.
#[tokio::test]
async fn holds_and_counters_are_locked_together() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let store = with_sessions(&database);
    let hold = HoldId(new_id());
    let columns = "id, user_id, feature_id, period, period_start, amount, expires_at";
    let values =
        format!("'{}', '{}', 'ai_requests', 'month', '2026-11-01Z', 3, now() + '1 hour'", hold.0, meter.user_id);
    database.sql(&format!("INSERT INTO usage_reservations ({columns}) VALUES ({values})")).await;
    let stranger = Meter { user_id: UserId(new_id()), ..meter.clone() };
    // In the first round the statements are not prepared, and the counter does not exist.
    for round in 0..3 {
        let mut work = counting(&store).await;
        let asked = [meter.clone(), stranger.clone()];
        let locked = work.reservations().lock(&[hold, HoldId(new_id())], &asked, LockPatience::Skip).await.unwrap();
        let ([LockResult::Locked(found), LockResult::Missing], [known, MeterState::UnknownUser]) =
            (&*locked.0, &*locked.1)
        else {
            panic!("{locked:?}")
        };
        assert_eq!((found.reservation.id, found.reservation.amount), (hold, 3));
        assert_eq!(matches!(known, MeterState::Locked { .. }), round > 0, "{known:?}");
        let record = used(&mut *work, &meter, &[IdempotencyKey::of_id(new_id())]).await;
        record_batch(&mut *work, &record).await.unwrap();
        work.commit().await.unwrap();
    }
    assert_eq!(total(&database).await, 3);
}

/// As after a restart of the database: the connections were idle, so the caller gets no error.
#[tokio::test]
async fn a_connection_that_died_at_rest_is_replaced() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let store = with_sessions(&database);
    for scope in [Scope::Counting, Scope::Counting, Scope::Reading] {
        let mut work = store.begin(scope).await.unwrap();
        let found = work.entitlements().find_many(std::slice::from_ref(&meter)).await.unwrap();
        assert!(found[0].is_ok());
        work.commit().await.unwrap();
        let end = "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity \
            WHERE usename = 'app_user' AND datname = current_database()";
        assert!(database.query_scalar::<i64>(end).await > 0);
    }
}

/// A connection that breaks inside a transaction is reported to the caller: its locks may belong to another by now.
#[tokio::test]
async fn a_connection_that_died_at_work_is_an_error() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let store = with_sessions(&database);
    let mut work = counting(&store).await;
    let record = used(&mut *work, &meter, &[IdempotencyKey::of_id(new_id())]).await;
    let end = "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity \
        WHERE usename = 'app_user' AND datname = current_database()";
    assert!(database.query_scalar::<i64>(end).await > 0);
    record_batch(&mut *work, &record).await.unwrap();
    let outcome = work.commit().await;
    assert!(matches!(outcome, Err(StoreError::InDoubt(_))), "{outcome:?}");
    assert_eq!(total(&database).await, 0);
}
