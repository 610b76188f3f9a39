use chrono::TimeDelta;
use domain::entitlements::Entitlement;
use domain::idempotency::IdempotencyKey;
use domain::usage::{consume, needs_tokens};
use domain::users::UserId;
use harness::TestDatabase;
use ports::store::UnitOfWork;
use ports::usage::{Grant, KeyOfMeter, LockedBatch, Meter, MeterState, Patience};

use crate::people::{constraint, feature_id, new_id, service, sign_up};

fn meter(user_id: UserId, feature: &str) -> Meter {
    Meter { user_id, feature_id: feature_id(feature) }
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).unwrap()
}

async fn locked(work: &mut dyn UnitOfWork, meters: &[Meter], keys: &[&IdempotencyKey]) -> LockedBatch {
    let keys: Vec<_> = keys.iter().map(|key| KeyOfMeter { meter: 0, key }).collect();
    work.usage().lock_batch(meters, &keys, Patience::Skip).await.unwrap()
}

/// The facts of the first meter, its counter made if it was not there.
async fn counted(work: &mut dyn UnitOfWork, meter: &Meter) -> Entitlement {
    let meters = [meter.clone()];
    if let MeterState::Uncounted(period) = locked(work, &meters, &[]).await.meters.remove(0) {
        work.usage().open_counters(&[(meter.clone(), period)]).await.unwrap();
    }
    match locked(work, &meters, &[]).await.meters.remove(0) {
        MeterState::Locked { entitlement, .. } => entitlement.into_inner(),
        other => panic!("not locked: {other:?}"),
    }
}

fn grant(user_id: UserId, entitlement: &mut Entitlement, amount: i64, text: &str) -> Grant {
    let period = entitlement.period;
    let came = consume(entitlement, amount);
    Grant {
        event_id: new_id(),
        user_id,
        key: key(text),
        amount,
        overage: came.overage,
        api_key_id: None,
        decision: came.decision,
        period,
    }
}

/// Someone on a plan where `ai_requests` can be used 10 times, and tokens pay beyond.
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
    let nobody = UserId(new_id());
    let meters = [meter(user_id, "ai_requests"), meter(user_id, "nothing"), meter(nobody, "ai_requests")];
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
    assert!(matches!(found[0], MeterState::Held), "{found:?}");
    assert!(matches!(found[1], MeterState::Locked { .. }), "{found:?}");
    holder.commit().await.unwrap();
    let waited = other.usage().lock_batch(&meters[..1], &[], Patience::Wait).await.unwrap();
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
    let grants = [grant(user_id, &mut facts, 3, "one"), grant(user_id, &mut facts, 4, "two")];
    work.usage().record_batch(&grants).await.unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    let (one, two, three) = (key("one"), key("two"), key("three"));
    let again = locked(&mut *work, std::slice::from_ref(&ai), &[&three, &two, &one]).await;
    let mut kept: Vec<_> =
        again.kept.iter().map(|(place, kept)| (*place, kept.amount, kept.decision.current)).collect();
    kept.sort_unstable();
    assert_eq!(kept, [(1, 4, 7), (2, 3, 3)]);
    let first = &again.kept.iter().find(|(place, _)| *place == 2).unwrap().1.decision;
    let given = &grants[0].decision;
    assert_eq!((first.limit, first.remaining, first.resets_at), (given.limit, given.remaining, given.resets_at));
    assert_eq!((&first.plan_id, first.source, first.as_of), (&given.plan_id, given.source, given.as_of));
    let mut facts = counted(&mut *work, &ai).await;
    assert_eq!(facts.tally.used, 7);
    let twice = work.usage().record_batch(&[grant(user_id, &mut facts, 1, "one")]).await;
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
    let beyond = grant(user_id, &mut facts, 25, "beyond");
    assert_eq!(beyond.overage, 15);
    work.usage().record_batch(std::slice::from_ref(&beyond)).await.unwrap();
    work.usage().spend_tokens(user_id, 15, &ai.feature_id).await.unwrap();
    work.commit().await.unwrap();
    let mut work = service(&*store).await;
    assert_eq!(counted(&mut *work, &ai).await.tokens_available, 85);
    assert_eq!(work.maintenance().list_findings(10).await.unwrap(), []);
    let too_much = work.usage().spend_tokens(user_id, 86, &ai.feature_id).await;
    assert_eq!(constraint(too_much), "check_token_balance", "a balance never goes below zero");
}

#[tokio::test]
async fn outcomes_are_forgotten_by_age_a_bounded_number_at_once() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let store = database.store();
    let mut work = service(&*store).await;
    let mut facts = counted(&mut *work, &meter(user_id, "ai_requests")).await;
    let grants: Vec<_> = ["a", "b", "c"].map(|text| grant(user_id, &mut facts, 1, text)).into();
    work.usage().record_batch(&grants).await.unwrap();
    work.commit().await.unwrap();
    database.sql("UPDATE idempotency_keys SET created_at = now() - interval '3 days' WHERE key <> 'c'").await;
    let mut work = service(&*store).await;
    assert_eq!(work.usage().delete_outcomes(TimeDelta::days(4), 10).await.unwrap(), 0);
    assert_eq!(work.usage().delete_outcomes(TimeDelta::days(2), 1).await.unwrap(), 1);
    assert_eq!(work.usage().delete_outcomes(TimeDelta::days(2), 10).await.unwrap(), 1);
}

#[tokio::test]
async fn a_batch_goes_through_keys_even_if_it_was_planned_on_empty_tables() {
    let database = TestDatabase::new().await;
    let user_id = prepared(&database).await;
    let mut connection = database.owner().acquire().await.unwrap();
    // What the scope `Counting` sets, after statistics that call the tables empty.
    let planning = "ANALYZE; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
    harness::sqlx::raw_sql(planning).execute(&mut *connection).await.unwrap();
    let sql = include_str!("../../crates/adapters/src/postgres/sql/lock_usage_batch.sql")
        .replace("$1", &format!("ARRAY['{user_id}']"))
        .replace("$2", "ARRAY['ai_requests']")
        .replace("$3", "ARRAY[1]")
        .replace("$4", "ARRAY['k']");
    let statement = harness::sqlx::AssertSqlSafe(format!("EXPLAIN {sql}"));
    let plan: Vec<String> = harness::sqlx::query_scalar(statement).fetch_all(&mut *connection).await.unwrap();
    let walks = |table: &str| plan.iter().any(|line| line.contains("Seq Scan") && line.contains(table));
    assert!(!walks("usage_counters") && !walks("idempotency_keys"), "{}", plan.join("\n"));
}
