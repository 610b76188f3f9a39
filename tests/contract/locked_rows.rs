//! A batch skips the busy rows that its commands ask for, and waits briefly for the other rows.

use std::time::{Duration, Instant};

use domain::idempotency::IdempotencyKey;
use harness::TestDatabase;
use ports::store::{LockPatience, LockResult, Scope, Store, StoreError};

use crate::counting::{prepared, used, with_sessions};
use crate::people::{new_id, service};
use crate::usage::record_batch;

#[tokio::test]
async fn conversations_are_locked_in_order_and_those_of_others_are_busy() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let (one, missing) = (new_id(), new_id());
    let insert = format!("INSERT INTO chat_sessions (id, user_id) VALUES ('{one}', '{}')", meter.user_id.0);
    database.sql(&insert).await;
    let store = database.store();
    let mut first = service(&*store).await;
    let states = first.call_log().lock_sessions(&[one, missing], LockPatience::Skip).await.unwrap();
    assert_eq!(states, [LockResult::Locked(()), LockResult::Missing]);
    let mut second = service(&*store).await;
    assert_eq!(second.call_log().lock_sessions(&[one], LockPatience::Skip).await.unwrap(), [LockResult::Busy]);
    first.commit().await.unwrap();
    assert_eq!(second.call_log().lock_sessions(&[one], LockPatience::Wait).await.unwrap(), [LockResult::Locked(())]);
}

/// On the pinned connections for counting and on those of the pool.
#[tokio::test]
async fn a_batch_waits_a_fifth_of_a_second_unless_it_is_told_to_wait() {
    let database = TestDatabase::new().await;
    let meter = prepared(&database).await;
    let key = IdempotencyKey::parse("taken").unwrap();
    let mut holder = database.owner().begin().await.unwrap();
    let taken = format!("SELECT consume_usage('{}', 'documents', 1, 'taken')", meter.user_id.0);
    let feature = "INSERT INTO features (id, name, display_name, kind) VALUES ('documents', 'documents', 'D', 'metered'); \
        INSERT INTO plan_features (plan_id, feature_id, enabled, limit_period) VALUES ('gold', 'documents', true, 'month')";
    database.sql(feature).await;
    harness::sqlx::raw_sql(harness::sqlx::AssertSqlSafe(taken)).execute(&mut *holder).await.unwrap();
    let (kept, pooled) = (with_sessions(&database), database.store());
    for (store, waits) in [(&kept as &dyn Store, false), (&kept, true), (&*pooled, false), (&*pooled, true)] {
        let mut work = store.begin(Scope::Counting).await.unwrap();
        if waits {
            work.wait_for_locks().await.unwrap();
        }
        let record = used(&mut *work, &meter, std::slice::from_ref(&key)).await;
        let since = Instant::now();
        let written = match record_batch(&mut *work, &record).await {
            Ok(()) => work.commit().await,
            refused => refused,
        };
        assert!(matches!(written, Err(StoreError::Busy)), "{written:?}");
        let waited = since.elapsed() > Duration::from_millis(600);
        assert_eq!(waited, waits, "{:?}", since.elapsed());
    }
}
