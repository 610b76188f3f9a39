use domain::features::{FeatureChanges, FeatureDraft, FeatureKind};
use harness::TestDatabase;
use ports::store::Scope;

use crate::people::{constraint, feature_id, service};

pub fn draft(id: &str) -> FeatureDraft {
    FeatureDraft {
        id: feature_id(id),
        name: id.into(),
        display_name: id.to_uppercase(),
        description: Some("what it does".into()),
        kind: FeatureKind::Metered,
        unit: Some("page".into()),
        is_active: true,
    }
}

#[tokio::test]
async fn a_feature_is_made_found_changed_and_deleted() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let id = feature_id("scans");
    let mut work = service(&*store).await;
    let made = work.features().insert(&draft("scans")).await.unwrap();
    assert_eq!(work.features().find(&id).await.unwrap(), Some(made.clone()));
    assert_eq!((made.kind, made.unit.as_deref(), made.is_active), (FeatureKind::Metered, Some("page"), true));
    assert!(work.features().list(true).await.unwrap().contains(&made));
    let changes = FeatureChanges { unit: Some(None), is_active: Some(false), ..FeatureChanges::default() };
    assert!(work.features().save(&id, &changes).await.unwrap());
    let saved = work.features().find(&id).await.unwrap().unwrap();
    assert_eq!((saved.unit, saved.is_active, saved.description), (None, false, made.description));
    assert!(!work.features().list(true).await.unwrap().iter().any(|feature| feature.id == id));
    assert!(work.features().list(false).await.unwrap().iter().any(|feature| feature.id == id));
    assert!(work.features().save(&id, &FeatureChanges::default()).await.unwrap());
    assert!(!work.features().save(&feature_id("none"), &FeatureChanges::default()).await.unwrap());
    assert!(!work.features().save(&feature_id("none"), &changes).await.unwrap());
    assert_eq!(work.features().count_references(&id).await.unwrap(), 0);
    assert!(work.features().delete(&id).await.unwrap());
    assert!(!work.features().delete(&id).await.unwrap());
    assert_eq!(work.features().find(&id).await.unwrap(), None);
}

#[tokio::test]
async fn what_names_a_feature_is_counted_and_its_id_is_taken_once() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    work.features().insert(&draft("scans")).await.unwrap();
    work.commit().await.unwrap();
    database
        .sql(
            "INSERT INTO plan_features (plan_id, feature_id, enabled) VALUES ('free', 'scans', true);
             INSERT INTO usage_counters (user_id, feature_id, period, period_start)
                VALUES (gen_random_uuid(), 'scans', 'month', '2026-01-01'), (gen_random_uuid(), 'scans', 'month', '2026-01-01')",
        )
        .await;
    let mut work = service(&*store).await;
    assert_eq!(work.features().count_references(&feature_id("scans")).await.unwrap(), 3);
    assert_eq!(constraint(work.features().insert(&draft("scans")).await), "features_pkey");
    drop(work);
    let mut anyone = store.begin(Scope::Anonymous).await.unwrap();
    assert!(anyone.features().find(&feature_id("scans")).await.unwrap().is_some());
    assert!(anyone.features().insert(&draft("more")).await.is_err());
}
