use std::time::Duration;

use chrono::TimeDelta;
use domain::plans::PlanId;
use domain::subscriptions::{ScheduledChange, SubscriptionStatus};
use domain::users::UserId;
use harness::TestDatabase;
use ports::store::{Scope, StoreError};
use uuid::Uuid;

use crate::people::{constraint, new_id, plan_id, service, sign_up};
use crate::plans::draft;

/// A user with a subscription of the plan `team`, and its id.
async fn subscribed(database: &TestDatabase, status: &str) -> (UserId, Uuid) {
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    work.plans().insert(&draft("team")).await.unwrap();
    work.plans().insert(&draft("club")).await.unwrap();
    work.commit().await.unwrap();
    let subscription_id = new_id();
    database
        .sql(&format!(
            "INSERT INTO user_subscriptions (id, user_id, plan_id, status, trial_end, current_period_start, current_period_end)
             VALUES ('{subscription_id}', '{user_id}', 'team', '{status}', now() - interval '1 day', now() - interval '3 days', now() + interval '1 day')"
        ))
        .await;
    (user_id, subscription_id)
}

#[tokio::test]
async fn the_plan_in_force_comes_with_its_subscription() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (user_id, subscription_id) = subscribed(&database, "active").await;
    for scope in [Scope::User(user_id), Scope::SERVICE] {
        let mut work = store.begin(scope).await.unwrap();
        let in_force = work.subscriptions().find(user_id).await.unwrap().unwrap();
        assert_eq!((in_force.plan_id.as_str(), in_force.status.as_str()), ("team", "active"));
        let subscription = in_force.subscription.unwrap();
        assert_eq!((subscription.id, subscription.status), (subscription_id, SubscriptionStatus::Active));
        assert!(subscription.current_period_end.unwrap() > in_force.as_of);
        assert_eq!(in_force.scheduled, None);
    }
    let other = sign_up(&*store, "bob").await;
    let mut work = store.begin(Scope::User(other)).await.unwrap();
    assert_eq!(work.subscriptions().find(user_id).await.unwrap(), None);
    let own = work.subscriptions().find(other).await.unwrap().unwrap();
    assert_eq!((own.plan_id, own.status.as_str(), own.subscription), (PlanId::free(), "active", None));
    drop(work);
    assert_eq!(service(&*store).await.subscriptions().lock(UserId(new_id())).await.unwrap(), None);
}

#[tokio::test]
async fn a_plan_is_saved_on_the_profile_and_on_the_subscription() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (user_id, subscription_id) = subscribed(&database, "active").await;
    let mut work = service(&*store).await;
    let later = work.subscriptions().find(user_id).await.unwrap().unwrap().as_of + TimeDelta::hours(1);
    let change = |to: &str| ScheduledChange { plan_id: plan_id(to), effective_at: later };
    work.subscriptions().schedule(user_id, &change("free"), Some(user_id)).await.unwrap();
    work.subscriptions().schedule(user_id, &change("club"), None).await.unwrap();
    let waiting = work.subscriptions().lock(user_id).await.unwrap().unwrap();
    assert_eq!((waiting.plan_id.as_str(), waiting.scheduled), ("team", Some(change("club"))));
    work.subscriptions().save_plan(user_id, &plan_id("club"), Some(subscription_id)).await.unwrap();
    let changed = work.subscriptions().find(user_id).await.unwrap().unwrap();
    assert_eq!((changed.plan_id.as_str(), changed.scheduled), ("club", None));
    assert_eq!(changed.subscription.unwrap().plan_id, plan_id("club"));
    assert_eq!(work.users().find(user_id).await.unwrap().unwrap().plan_id, plan_id("club"));
    assert!(!work.subscriptions().unschedule(user_id).await.unwrap());
    let unknown = work.subscriptions().save_plan(user_id, &plan_id("nothing"), None).await;
    assert_eq!(constraint(unknown), "fk_users_plan");
}

#[tokio::test]
async fn a_plan_whose_subscription_ended_can_be_granted_again() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (user_id, _) = subscribed(&database, "active").await;
    database
        .sql(&format!(
            "UPDATE users SET plan_id = 'team' WHERE id = '{user_id}';
             UPDATE user_subscriptions SET status = 'canceled' WHERE user_id = '{user_id}'"
        ))
        .await;
    let mut work = service(&*store).await;
    assert!(work.subscriptions().find(user_id).await.unwrap().unwrap().plan_id.is_free());
    work.subscriptions().save_plan(user_id, &plan_id("team"), None).await.unwrap();
    assert_eq!(work.subscriptions().find(user_id).await.unwrap().unwrap().plan_id, plan_id("team"));
}

#[tokio::test]
async fn changes_that_are_due_are_listed_oldest_first() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (late, early, future) =
        (sign_up(&*store, "late").await, sign_up(&*store, "early").await, sign_up(&*store, "future").await);
    let mut work = service(&*store).await;
    let now = work.subscriptions().find(late).await.unwrap().unwrap().as_of;
    for (user_id, hours) in [(late, -1), (early, -2), (future, 1)] {
        let change = ScheduledChange { plan_id: PlanId::free(), effective_at: now + TimeDelta::hours(hours) };
        work.subscriptions().schedule(user_id, &change, None).await.unwrap();
    }
    assert_eq!(work.subscriptions().list_due(&[], 10).await.unwrap(), [early, late]);
    assert_eq!(work.subscriptions().list_due(&[], 1).await.unwrap(), [early]);
    assert!(work.subscriptions().unschedule(early).await.unwrap());
    assert_eq!(work.subscriptions().list_due(&[], 10).await.unwrap(), [late]);
}

#[tokio::test]
async fn the_grace_is_kept_where_the_plan_in_force_reads_it() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (user_id, _) = subscribed(&database, "past_due").await;
    database.sql("UPDATE user_subscriptions SET past_due_since = now() - interval '5 days'").await;
    for (days, plan) in [(6, "team"), (6, "team"), (2, "free")] {
        let mut work = service(&*store).await;
        work.subscriptions().save_grace_days(days).await.unwrap();
        work.commit().await.unwrap();
        let in_force = service(&*store).await.subscriptions().find(user_id).await.unwrap().unwrap();
        assert_eq!(in_force.plan_id.as_str(), plan);
        assert_eq!(in_force.status, "past_due");
    }
}

#[tokio::test]
async fn two_changes_of_one_user_wait_for_each_other_and_not_for_ever() {
    let database = TestDatabase::new().await;
    let (user_id, _) = subscribed(&database, "active").await;
    let mut settings = database.pool_settings();
    settings.lock_timeout_ms = 300;
    let store = adapters::postgres::PgStore::connect(settings).unwrap();
    let mut first = service(&store).await;
    first.subscriptions().lock(user_id).await.unwrap().unwrap();
    let refused = service(&store).await.subscriptions().lock(user_id).await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    let mut second = service(&store).await;
    let (locked, ()) = futures_util::join!(second.subscriptions().lock(user_id), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.subscriptions().save_plan(user_id, &plan_id("club"), None).await.unwrap();
        first.commit().await.unwrap();
    });
    assert!(locked.unwrap().is_some());
    assert_eq!(second.users().find(user_id).await.unwrap().unwrap().plan_id, plan_id("club"));
}
