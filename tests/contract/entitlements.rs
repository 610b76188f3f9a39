use chrono::TimeDelta;
use domain::entitlements::{Access, Allowance, Entitlement, FeatureOverride, Overage, Source};
use domain::features::{FeatureChanges, FeatureKind};
use domain::plans::PlanFeature;
use domain::usage::{CounterTally, PeriodKind};
use domain::users::UserId;
use harness::TestDatabase;
use ports::entitlements::{EntitlementState, Meter, MeterMissing, NamedEntitlement};
use ports::store::Scope;

use crate::features::draft as feature_draft;
use crate::people::{constraint, feature_id, new_id, plan_id, service, sign_up};
use crate::plans::{draft, grant};

/// A user on `free`, which allows 5 `scans` a day; `team` also has `exports`, without a limit.
async fn prepared(database: &TestDatabase) -> UserId {
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    work.plans().insert(&draft("team")).await.unwrap();
    for feature in ["scans", "exports"] {
        work.features().insert(&feature_draft(feature)).await.unwrap();
        work.plans().save_feature(&plan_id("team"), &grant(feature, None)).await.unwrap();
    }
    work.plans().save_feature(&plan_id("free"), &grant("scans", Some(5))).await.unwrap();
    work.commit().await.unwrap();
    user_id
}

async fn facts(database: &TestDatabase, user_id: UserId, feature: &str) -> NamedEntitlement {
    let mut work = service(&*database.store()).await;
    let found = work.entitlements().find(user_id, &feature_id(feature)).await.unwrap().unwrap();
    let listed = work.entitlements().list(user_id).await.unwrap();
    if let Some(same) = listed.into_iter().find(|listed| listed.entitlement.feature_id == feature_id(feature)) {
        assert_eq!(same, found, "one feature alone and all of them say the same");
    }
    found
}

#[tokio::test]
async fn all_facts_of_a_feature_are_read_at_once() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = prepared(&database).await;
    database
        .sql(&format!(
            "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, reserved, overage)
             VALUES ('{user_id}', 'scans', 'day', date_trunc('day', now(), 'UTC'), 4, 2, 1);
             UPDATE users SET token_reserved = 30 WHERE id = '{user_id}'"
        ))
        .await;
    let found = facts(&database, user_id, "scans").await;
    assert_eq!((found.display_name.as_str(), found.kind), ("SCANS", FeatureKind::Metered));
    assert_eq!(found.unit.as_deref(), Some("page"));
    let entitlement = &found.entitlement;
    assert_eq!((entitlement.access, entitlement.source), (Access::Granted, Source::Plan));
    assert_eq!((entitlement.allowance, entitlement.overage), (Allowance::Limited(5), Overage::Tokens));
    assert_eq!(entitlement.tally, CounterTally { used: 4, reserved: 2, overage: 1 });
    assert_eq!((entitlement.tokens_available, entitlement.plan_id.as_str()), (70, "free"));
    assert_eq!(entitlement.period.kind, PeriodKind::Day);
    assert_eq!(entitlement.period.end, Some(entitlement.period.start + TimeDelta::days(1)));
    assert!(entitlement.period.start <= entitlement.as_of);

    let mut own = store.begin(Scope::User(user_id)).await.unwrap();
    let seen = own.entitlements().find(user_id, &feature_id("scans")).await.unwrap().unwrap();
    assert_eq!(seen.entitlement.tally, found.entitlement.tally);
    assert!(!own.entitlements().list(user_id).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = prepared(&database).await;
    let mut work = service(&*store).await;
    let absent = UserId(new_id());
    let feature = work.entitlements().find(user_id, &feature_id("nothing")).await.unwrap();
    assert_eq!(feature, Err(MeterMissing::Feature));
    assert_eq!(work.entitlements().find(absent, &feature_id("scans")).await.unwrap(), Err(MeterMissing::User));
    assert_eq!(work.entitlements().list(absent).await.unwrap(), []);
    drop(work);
    let other = sign_up(&*store, "bob").await;
    let mut work = store.begin(Scope::User(other)).await.unwrap();
    assert_eq!(work.entitlements().find(user_id, &feature_id("scans")).await.unwrap(), Err(MeterMissing::User));
}

#[tokio::test]
async fn access_follows_plan_override_switch_and_subscription() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = prepared(&database).await;
    let access = async |feature: &str| facts(&database, user_id, feature).await.entitlement.access;
    assert_eq!(access("exports").await, Access::NotInPlan);
    database
        .sql(&format!(
            "INSERT INTO user_subscriptions (user_id, plan_id, status, trial_end)
             VALUES ('{user_id}', 'team', 'trialing', now() + interval '1 day')"
        ))
        .await;
    assert_eq!(access("exports").await, Access::Granted);
    database.sql("UPDATE user_subscriptions SET trial_end = now() - interval '1 day'").await;
    assert_eq!(access("exports").await, Access::SubscriptionLapsed);
    assert_eq!(access("scans").await, Access::Granted);
    database
        .sql("UPDATE user_subscriptions SET status = 'past_due', past_due_since = now() - interval '90 days'")
        .await;
    assert_eq!(access("exports").await, Access::SubscriptionLapsed);
    for status in ["canceled", "unpaid", "incomplete_expired"] {
        database.sql(&format!("UPDATE user_subscriptions SET status = '{status}'")).await;
        assert_eq!(access("exports").await, Access::SubscriptionLapsed, "{status}");
    }
    database.sql("UPDATE user_subscriptions SET status = 'incomplete'").await;
    assert_eq!(access("exports").await, Access::NotInPlan);

    let mut work = service(&*store).await;
    let off = PlanFeature { enabled: false, ..grant("scans", Some(5)) };
    work.plans().save_feature(&plan_id("free"), &off).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(access("scans").await, Access::NotInPlan);
    let mut work = service(&*store).await;
    let inactive = FeatureChanges { is_active: Some(false), ..FeatureChanges::default() };
    work.features().save(&feature_id("exports"), &inactive).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(access("exports").await, Access::Disabled);
}

#[tokio::test]
async fn an_override_replaces_the_plan_until_it_expires() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = prepared(&database).await;
    let mut work = service(&*store).await;
    let now = work.subscriptions().find(user_id).await.unwrap().unwrap().as_of;
    let mut exception = FeatureOverride {
        user_id,
        feature_id: feature_id("exports"),
        enabled: true,
        allowance: Allowance::Limited(3),
        reason: Some("a friend's favour".into()),
        expires_at: Some(now + TimeDelta::hours(1)),
    };
    work.entitlements().save_override(&exception).await.unwrap();
    assert_eq!(work.entitlements().list_overrides(user_id).await.unwrap(), [exception.clone()]);
    work.commit().await.unwrap();
    let granted = facts(&database, user_id, "exports").await.entitlement;
    assert_eq!((granted.access, granted.source), (Access::Granted, Source::Override));
    assert_eq!(granted.allowance, Allowance::Limited(3));

    for (enabled, expires_at, access) in
        [(false, None, Access::Disabled), (true, Some(now - TimeDelta::hours(1)), Access::NotInPlan)]
    {
        (exception.enabled, exception.expires_at) = (enabled, expires_at);
        let mut work = service(&*store).await;
        work.entitlements().save_override(&exception).await.unwrap();
        work.commit().await.unwrap();
        assert_eq!(facts(&database, user_id, "exports").await.entitlement.access, access);
    }

    let mut work = service(&*store).await;
    assert!(work.entitlements().delete_override(user_id, &exception.feature_id).await.unwrap());
    assert!(!work.entitlements().delete_override(user_id, &exception.feature_id).await.unwrap());
    exception.user_id = UserId(new_id());
    assert_eq!(constraint(work.entitlements().save_override(&exception).await), "fk_feature_overrides_user");
}

fn meter(user_id: UserId, feature: &str) -> Meter {
    Meter { user_id, feature_id: feature_id(feature) }
}

/// Read in the batched form; it equals the result of `find`, and that of a count alone.
async fn standing(database: &TestDatabase, user_id: UserId, feature: &str) -> EntitlementState {
    let mut work = database.store().begin(Scope::Counting).await.unwrap();
    let asked = [meter(user_id, feature)];
    let standing = work.entitlements().find_many(&asked).await.unwrap().remove(0).unwrap();
    let [asked] = asked;
    let entitlement = &standing.entitlement;
    let counts = work.entitlements().count_many(&[(asked, entitlement.period)]).await.unwrap();
    let count = counts[0].unwrap();
    assert_eq!((count.tally, count.tokens_available), (entitlement.tally, entitlement.tokens_available));
    assert_eq!(count.as_of, entitlement.as_of, "the time is the transaction's");
    drop(work);
    let alone = facts(database, user_id, feature).await.entitlement;
    assert_eq!(Entitlement { as_of: alone.as_of, ..entitlement.clone() }, alone);
    standing
}

#[tokio::test]
async fn many_are_read_in_the_order_in_which_they_are_asked_for() {
    let database = TestDatabase::new().await;
    let (ann, bob) = (prepared(&database).await, sign_up(&*database.store(), "bob").await);
    let absent = UserId(new_id());
    let asked = [
        meter(bob, "scans"),
        meter(ann, "nothing"),
        meter(absent, "scans"),
        meter(ann, "exports"),
        meter(absent, "nothing"),
        meter(ann, "scans"),
    ];
    let mut work = database.store().begin(Scope::Counting).await.unwrap();
    let found = work.entitlements().find_many(&asked).await.unwrap();
    let feature =
        |found: &Result<EntitlementState, MeterMissing>| found.as_ref().unwrap().entitlement.feature_id.clone();
    assert_eq!(found[1..3], [Err(MeterMissing::Feature), Err(MeterMissing::User)]);
    assert_eq!(found[4], Err(MeterMissing::User));
    assert_eq!([0, 3, 5].map(|place| feature(&found[place])), ["scans", "exports", "scans"].map(feature_id));
    assert_eq!(work.entitlements().find_many(&[]).await.unwrap(), []);
    let period = found[0].as_ref().unwrap().entitlement.period;
    let counted = work.entitlements().count_many(&asked.map(|meter| (meter, period))).await.unwrap();
    assert_eq!(counted.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true, false, true]);
    assert_eq!(work.entitlements().count_many(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn a_count_alone_says_what_the_facts_say_of_it() {
    let database = TestDatabase::new().await;
    let ann = prepared(&database).await;
    let tally = async || standing(&database, ann, "scans").await.entitlement.tally;
    assert_eq!(tally().await, CounterTally::default());
    let counter = |period: &str, start: &str, numbers: &str, superseded: bool| {
        format!(
            "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, reserved, overage, superseded)
             VALUES ('{ann}', 'scans', '{period}', {start}, {numbers}, {superseded})"
        )
    };
    let today = "date_trunc('day', now(), 'UTC')";
    database.sql(&counter("month", "date_trunc('month', now(), 'UTC')", "9, 3, 2", false)).await;
    assert_eq!(
        tally().await,
        CounterTally { used: 7, reserved: 0, overage: 0 },
        "what the month's counter would hand on"
    );
    database.sql(&counter("day", today, "4, 2, 1", true)).await;
    assert_eq!(tally().await, CounterTally { used: 8, reserved: 2, overage: 1 }, "superseded, and behind the month's");
    database.sql("UPDATE usage_counters SET superseded = period = 'month'").await;
    assert_eq!(tally().await, CounterTally { used: 4, reserved: 2, overage: 1 });
    database.sql(&format!("UPDATE users SET token_balance = 90, token_reserved = 30 WHERE id = '{ann}'")).await;
    assert_eq!(standing(&database, ann, "scans").await.entitlement.tokens_available, 60);
}

#[tokio::test]
async fn the_next_moment_is_known_at_which_facts_change_by_themselves() {
    let database = TestDatabase::new().await;
    let ann = prepared(&database).await;
    let changes_in = async || {
        let standing = standing(&database, ann, "exports").await;
        (standing.changes_at, standing.entitlement.period.end)
    };
    let (changes_at, period_end) = changes_in().await;
    assert_eq!((changes_at, period_end.is_some()), (period_end, true), "the end of the period");
    // Each comes before all earlier ones; none exists without its own statement.
    let expect = async |statement: &str, moment: &str| {
        database.sql(&statement.replace("$user", &format!("'{ann}'"))).await;
        let moment: chrono::DateTime<chrono::Utc> = database.query_scalar(moment).await;
        assert_eq!(changes_in().await.0, Some(moment), "{statement}");
    };
    expect(
        "INSERT INTO user_subscriptions (user_id, plan_id, status, trial_end)
         VALUES ($user, 'team', 'trialing', now() + interval '50 seconds')",
        "SELECT trial_end FROM user_subscriptions",
    )
    .await;
    expect(
        "UPDATE runtime_settings SET value = '3' WHERE name = 'past_due_grace_days';
         INSERT INTO runtime_settings (name, value) VALUES ('past_due_grace_days', '3') ON CONFLICT DO NOTHING;
         UPDATE user_subscriptions SET status = 'past_due', past_due_since = now() - interval '3 days' + interval '40 seconds'",
        "SELECT past_due_since + interval '72 hours' FROM user_subscriptions",
    )
    .await;
    expect(
        "INSERT INTO scheduled_plan_changes (user_id, plan_id, effective_at)
         VALUES ($user, 'free', now() + interval '30 seconds')",
        "SELECT effective_at FROM scheduled_plan_changes",
    )
    .await;
    expect(
        "INSERT INTO feature_overrides (user_id, feature_id, enabled, expires_at)
         VALUES ($user, 'exports', true, now() + interval '20 seconds')",
        "SELECT expires_at FROM feature_overrides",
    )
    .await;
    // A moment in the past changes nothing any more.
    database
        .sql(
            "UPDATE feature_overrides SET expires_at = now() - interval '1 second';
             UPDATE scheduled_plan_changes SET effective_at = now() - interval '1 second';
             UPDATE user_subscriptions SET past_due_since = now() - interval '9 days'",
        )
        .await;
    let (changes_at, period_end) = changes_in().await;
    assert_eq!(changes_at, period_end);
}
