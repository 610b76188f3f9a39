use domain::entitlements::{Allowance, Overage};
use domain::plans::{Currency, PlanChanges, PlanDraft, PlanFeature, Price};
use domain::usage::PeriodKind;
use harness::TestDatabase;
use ports::store::{Scope, StoreError};
use rust_decimal::Decimal;

use crate::features::draft as feature_draft;
use crate::people::{constraint, feature_id, plan_id, service, sign_up};

fn price(cents: i64) -> Price {
    Price::try_new(Decimal::new(cents, 2)).unwrap()
}

pub fn draft(id: &str) -> PlanDraft {
    PlanDraft {
        id: plan_id(id),
        name: id.into(),
        display_name: id.to_uppercase(),
        description: None,
        price_monthly: Some(price(1_050)),
        price_yearly: None,
        currency: Currency::parse("EUR").unwrap(),
        is_active: true,
    }
}

pub fn grant(feature: &str, limit: Option<i64>) -> PlanFeature {
    PlanFeature {
        feature_id: feature_id(feature),
        enabled: true,
        allowance: Allowance::try_new(limit).unwrap(),
        period: PeriodKind::Day,
        overage: Overage::Tokens,
    }
}

#[tokio::test]
async fn a_plan_is_made_found_changed_and_deleted() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let id = plan_id("team");
    let mut work = service(&*store).await;
    let made = work.plans().insert(&draft("team")).await.unwrap();
    assert_eq!(made.price_monthly.unwrap().to_string(), "10.50");
    assert_eq!(work.plans().find(&id).await.unwrap(), Some(made.clone()));
    let changes = PlanChanges {
        price_yearly: Some(Some(price(10_000))),
        price_monthly: Some(None),
        description: Some(Some("for teams".into())),
        currency: Some(Currency::parse("USD").unwrap()),
        is_active: Some(false),
        ..PlanChanges::default()
    };
    assert!(work.plans().save(&id, &changes).await.unwrap());
    let saved = work.plans().find(&id).await.unwrap().unwrap();
    assert_eq!((saved.price_monthly, saved.price_yearly, saved.is_active), (None, Some(price(10_000)), false));
    assert_eq!((saved.currency.as_str(), saved.name), ("USD", made.name));
    assert!(work.plans().save(&id, &PlanChanges::default()).await.unwrap());
    assert!(!work.plans().save(&plan_id("none"), &changes).await.unwrap());
    assert!(work.plans().delete(&id).await.unwrap());
    assert!(!work.plans().delete(&id).await.unwrap());
    assert_eq!(work.plans().find(&id).await.unwrap(), None);
}

#[tokio::test]
async fn a_plan_carries_its_features() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let id = plan_id("team");
    let mut work = service(&*store).await;
    work.plans().insert(&draft("team")).await.unwrap();
    for feature in ["scans", "exports"] {
        work.features().insert(&feature_draft(feature)).await.unwrap();
        work.plans().save_feature(&id, &grant(feature, Some(5))).await.unwrap();
    }
    work.plans().save_feature(&id, &grant("scans", None)).await.unwrap();
    let plan = work.plans().find(&id).await.unwrap().unwrap();
    assert_eq!(plan.features, [grant("exports", Some(5)), grant("scans", None)]);
    let listed = work.plans().list(true).await.unwrap();
    assert!(listed.contains(&plan));
    assert!(listed.windows(2).all(|pair| pair[0].monthly_worth() <= pair[1].monthly_worth()));
    assert!(work.plans().delete_feature(&id, &feature_id("scans")).await.unwrap());
    assert!(!work.plans().delete_feature(&id, &feature_id("scans")).await.unwrap());
    assert_eq!(work.plans().find(&id).await.unwrap().unwrap().features, [grant("exports", Some(5))]);
    let missing = work.plans().save_feature(&id, &grant("nothing", None)).await;
    assert_eq!(constraint(missing), "fk_plan_features_feature");
}

#[tokio::test]
async fn a_plan_that_someone_has_is_counted_and_stays() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    work.plans().insert(&draft("team")).await.unwrap();
    work.commit().await.unwrap();
    database
        .sql(&format!(
            "UPDATE users SET plan_id = 'team' WHERE id = '{user_id}';
             INSERT INTO user_subscriptions (user_id, plan_id, status) VALUES ('{user_id}', 'team', 'active');
             INSERT INTO scheduled_plan_changes (user_id, plan_id, effective_at) VALUES ('{user_id}', 'team', now() + interval '1 day')"
        ))
        .await;
    let mut work = service(&*store).await;
    assert_eq!(work.plans().count_references(&plan_id("team")).await.unwrap(), 3);
    assert!(constraint(work.plans().delete(&plan_id("team")).await).starts_with("fk_"));
    assert_eq!(constraint(service(&*store).await.plans().insert(&draft("team")).await), "plans_pkey");
}

#[tokio::test]
async fn the_catalogue_is_public_as_far_as_it_is_active() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    work.plans().insert(&draft("team")).await.unwrap();
    work.plans().insert(&PlanDraft { is_active: false, ..draft("old") }).await.unwrap();
    work.commit().await.unwrap();
    for scope in [Scope::Anonymous, Scope::User(user_id)] {
        let mut work = store.begin(scope.clone()).await.unwrap();
        let ids: Vec<String> = work.plans().list(false).await.unwrap().iter().map(|plan| plan.id.to_string()).collect();
        assert!(ids.contains(&"team".into()) && !ids.contains(&"old".into()), "{scope:?}");
        assert!(work.plans().insert(&draft("mine")).await.is_err());
    }
}

#[tokio::test]
async fn a_plan_that_no_plan_may_be_is_named() {
    let database = TestDatabase::new().await;
    let store = database.store();
    database.sql("INSERT INTO plans (id, name, display_name) VALUES ('Not an id', 'x', 'x')").await;
    let outcome = service(&*store).await.plans().list(false).await;
    assert!(
        matches!(&outcome, Err(StoreError::Inconsistent { table: "plans", key }) if key == "Not an id"),
        "{outcome:?}"
    );
}
