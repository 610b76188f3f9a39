use harness::TestDatabase;

use crate::people::{service, sign_up};

#[tokio::test]
async fn a_sound_database_has_no_findings_and_a_forged_balance_is_one() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    assert_eq!(work.maintenance().list_findings(10).await.unwrap(), []);
    work.commit().await.unwrap();
    database.sql(&format!("UPDATE users SET token_balance = 1000000 WHERE id = '{user_id}'")).await;
    let found = service(&*store).await.maintenance().list_findings(10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].finding.as_str(), found[0].subject.clone()), ("BALANCE_MISMATCH", user_id.to_string()));
}

#[tokio::test]
async fn the_state_names_steps_rights_and_sizes() {
    let database = TestDatabase::new().await;
    let state = service(&*database.store()).await.maintenance().state().await.unwrap();
    assert!(!state.applied_steps.is_empty() && state.applied_steps.is_sorted());
    assert_eq!(state.excess_rights, Vec::<String>::new());
    assert!(state.size_bytes > 0 && state.connections > 0 && state.connections < state.connections_max);

    let mut settings = database.pool_settings();
    settings.url = database.owner_url();
    let as_owner = adapters::postgres::PgStore::connect(settings).unwrap();
    let state = service(&as_owner).await.maintenance().state().await.unwrap();
    assert_eq!(state.excess_rights.len(), 2, "a superuser bypasses row-level security too");
}

#[tokio::test]
async fn partitions_are_kept_ahead_of_time() {
    let database = TestDatabase::new().await;
    let store = database.store();
    for _ in 0..2 {
        let mut work = service(&*store).await;
        work.maintenance().maintain_partitions().await.unwrap();
        work.commit().await.unwrap();
    }
    let count: i64 =
        database.query_scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_events'::regclass").await;
    assert!(count >= 5, "this month, the next three and the default: {count}");
}
