use domain::features::FeatureChanges;
use harness::TestDatabase;
use ports::audit::AuditFilter;
use ports::store::{Page, Scope};

use crate::features::draft;
use crate::people::{feature_id, plan_id, service, sign_up};

#[tokio::test]
async fn the_trail_tells_who_did_what_and_why() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let actor = sign_up(&*store, "ann").await;
    let reason = Some(r"it's a \ test'); DROP TABLE users; --".to_owned());
    let mut work = store.begin(Scope::Service { actor: Some(actor), reason: reason.clone() }).await.unwrap();
    work.features().insert(&draft("scans")).await.unwrap();
    work.commit().await.unwrap();
    let mut work = service(&*store).await;
    let rename = FeatureChanges { name: Some("pages".into()), ..FeatureChanges::default() };
    work.features().save(&feature_id("scans"), &rename).await.unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    let filter =
        AuditFilter { table_name: Some("features".into()), record_id: Some("scans".into()), ..AuditFilter::default() };
    let first = work.audit().list(&filter, &Page { after: None, limit: 1 }).await.unwrap();
    assert_eq!((first.len(), first[0].action.as_str(), first[0].actor_id), (1, "update", None));
    assert!(first[0].new_values.as_deref().unwrap().contains("pages"));
    assert_eq!(first[0].reason, None);
    let after = Some((first[0].created_at, first[0].id));
    let second = work.audit().list(&filter, &Page { after, limit: 10 }).await.unwrap();
    assert_eq!((second.len(), second[0].action.as_str()), (1, "insert"));
    assert_eq!((second[0].actor_id, &second[0].reason, &second[0].old_values), (Some(actor), &reason, &None));
    let after = Some((second[0].created_at, second[0].id));
    assert_eq!(work.audit().list(&filter, &Page { after, limit: 10 }).await.unwrap(), []);
    let by_actor = AuditFilter { actor_id: Some(actor), ..AuditFilter::default() };
    assert_eq!(work.audit().list(&by_actor, &Page { after: None, limit: 10 }).await.unwrap(), second);
}

#[tokio::test]
async fn a_change_of_plan_leaves_one_row_and_users_read_none() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let mut work = store.begin(Scope::on_order_of(user_id)).await.unwrap();
    work.subscriptions().save_plan(user_id, &plan_id("gold"), None).await.unwrap();
    work.commit().await.unwrap();
    let filter = AuditFilter { record_id: Some(user_id.to_string()), ..AuditFilter::default() };
    let mut work = service(&*store).await;
    let rows = work.audit().list(&filter, &Page { after: None, limit: 10 }).await.unwrap();
    assert_eq!((rows.len(), rows[0].actor_id), (1, Some(user_id)));
    drop(work);
    let mut own = store.begin(Scope::User(user_id)).await.unwrap();
    assert!(own.audit().list(&filter, &Page { after: None, limit: 10 }).await.is_err());
}
