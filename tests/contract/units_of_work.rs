//! The promises of every unit of work.

use std::time::Duration;

use adapters::postgres::PgStore;
use domain::users::UserChanges;
use harness::TestDatabase;
use ports::store::{Scope, Store, StoreError};

use crate::features::draft;
use crate::people::{constraint, feature_id, service, sign_up};

#[tokio::test]
async fn what_is_not_committed_did_not_happen() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    work.features().insert(&draft("scans")).await.unwrap();
    drop(work);
    assert_eq!(service(&*store).await.features().find(&feature_id("scans")).await.unwrap(), None);
}

#[tokio::test]
async fn a_unit_of_work_in_which_a_statement_failed_is_not_committed() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    work.features().insert(&draft("scans")).await.unwrap();
    assert_eq!(constraint(work.features().insert(&draft("scans")).await), "features_pkey");
    assert!(work.commit().await.is_err(), "Postgres would have answered COMMIT with a silent rollback");
    assert_eq!(service(&*store).await.features().find(&feature_id("scans")).await.unwrap(), None);
}

#[tokio::test]
async fn no_identity_is_carried_over_from_one_to_the_next() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    for _ in 0..5 {
        let mut own = store.begin(Scope::User(user_id)).await.unwrap();
        assert!(own.users().find(user_id).await.unwrap().is_some());
        drop(own);
        let mut absent = store.begin(Scope::Anonymous).await.unwrap();
        assert_eq!(absent.users().find(user_id).await.unwrap(), None);
        drop(absent);
        assert!(service(&*store).await.users().find(user_id).await.unwrap().is_some());
    }
}

/// Polls a future this many times, then drops it, as if the client had reset its connection.
pub async fn give_up_after<T>(polls: u32, future: impl Future<Output = T>) {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        if futures_util::poll!(&mut future).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The number of service connections in a transaction, shortly after all were returned.
pub async fn left_open(database: &TestDatabase) -> i64 {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_user' AND datname = current_database() \
        AND state LIKE 'idle in transaction%'";
    database.query_scalar(open).await
}

/// A `begin` that is dropped at any possible moment leaves no transaction open that the driver does not know of (sqlx
/// issue 4385), and later writes on the same connections are kept.
#[tokio::test]
async fn a_begin_that_is_given_up_poisons_no_connection() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    for polls in 0..60 {
        give_up_after(polls, store.begin(Scope::User(user_id))).await;
        give_up_after(polls, store.begin(Scope::User(user_id))).await;
        if polls % 6 == 0 {
            assert_eq!(left_open(&database).await, 0, "after {polls} polls");
        }
        let name = format!("given up after {polls}");
        let mut work = store.begin(Scope::User(user_id)).await.unwrap();
        let changes = UserChanges { name: Some(name.clone()), wallet_address: None };
        work.users().save(user_id, &changes).await.unwrap();
        work.commit().await.unwrap();
        let kept: String = database.query_scalar(&format!("SELECT name FROM users WHERE id = '{user_id}'")).await;
        assert_eq!(kept, name);
    }
}

/// A setting that Postgres refuses fails after BEGIN itself, in the same message.
#[tokio::test]
async fn a_begin_that_is_refused_leaves_no_transaction_open() {
    let database = TestDatabase::new().await;
    let mut settings = database.pool_settings();
    settings.lock_timeout_ms = u64::MAX;
    let store = PgStore::connect(settings).unwrap();
    for _ in 0..4 {
        assert!(store.begin(Scope::SERVICE).await.is_err());
    }
    assert_eq!(left_open(&database).await, 0);
    assert_eq!(store.pool_state().idle, store.pool_state().size);
}

#[tokio::test]
async fn a_statement_that_is_given_up_poisons_no_connection() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    for polls in 0..40 {
        let mut work = service(&*store).await;
        let changes = UserChanges { name: Some("given up".into()), wallet_address: None };
        give_up_after(polls, work.users().save(user_id, &changes)).await;
        drop(work);
        if polls % 6 == 0 {
            assert_eq!(left_open(&database).await, 0, "after {polls} polls");
        }
        let mut work = service(&*store).await;
        assert_eq!(work.users().find(user_id).await.unwrap().unwrap().name, "ann");
    }
}

#[tokio::test]
async fn the_time_limits_are_those_of_the_settings() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let mut settings = database.pool_settings();
    (settings.statement_timeout_ms, settings.lock_timeout_ms) = (200, 60_000);
    let hasty = PgStore::connect(settings).unwrap();
    let mut holder = service(&*store).await;
    holder.users().lock(user_id).await.unwrap();
    let outcome = service(&hasty).await.users().lock(user_id).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_full_pool_says_so_in_time() {
    let database = TestDatabase::new().await;
    let mut settings = database.pool_settings();
    settings.acquire_timeout = Duration::from_millis(200);
    let store = PgStore::connect(settings).unwrap();
    let _held = (service(&store).await, service(&store).await);
    let outcome = store.begin(Scope::SERVICE).await.map(drop);
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert_eq!((store.pool_state().size, store.pool_state().max), (2, 2));
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_its_address_is_told_to_nobody() {
    let database = TestDatabase::new().await;
    let mut settings = database.pool_settings();
    settings.url = "postgres://app_user:hunter2@127.0.0.1:1/nothing".into();
    settings.acquire_timeout = Duration::from_millis(300);
    let store = PgStore::connect(settings).unwrap();
    for outcome in [store.begin(Scope::SERVICE).await.map(drop), store.probe().await, store.self_test().await] {
        let Err(StoreError::Unavailable(text)) = outcome else { panic!("{outcome:?}") };
        assert!(!text.contains("hunter2") && !text.contains("127.0.0.1"), "{text}");
    }
    assert!(!format!("{store:?}").contains("hunter2"));
}

#[tokio::test]
async fn connections_that_the_database_cut_are_replaced() {
    let database = TestDatabase::new().await;
    let store = database.pg_store();
    store.self_test().await.unwrap();
    store.probe().await.unwrap();
    database
        .sql("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'app_user' AND datname = current_database()")
        .await;
    for _ in 0..3 {
        service(&*store).await.features().list(true).await.unwrap();
    }
}
