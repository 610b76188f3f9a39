//! Subscriptions: the plan in force while one is active, lapses or ends, and changes that wait for the paid period.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{find, time_at};

async fn change(app: &TestApp, user: &TestUser, body: Value) -> Answer {
    app.post("/api/users/me/plan").bearer(user).json(body).send().await
}

async fn own_plan(app: &TestApp, user: &TestUser) -> Answer {
    app.get("/api/users/me/plan").bearer(user).send().await.expect_status(200)
}

async fn reason(app: &TestApp, user: &TestUser) -> String {
    // Strongly consistent: these tests write in SQL, which the cache sees a moment later.
    let asked = json!({ "feature_id": "ai_requests", "consistency": "strong" });
    let check = app.post("/api/entitlements/check").bearer(user).json(asked).send().await.expect_status(200);
    let plan = own_plan(app, user).await;
    let listed = find(plan.at("/features"), "feature_id", "ai_requests");
    assert_eq!((&listed["reason"], &listed["allowed"]), (check.at("/reason"), check.at("/allowed")), "{plan}");
    check.text_at("/reason").to_owned()
}

/// A user whose profile has this plan.
async fn on_plan(app: &TestApp, plan: &str) -> TestUser {
    let user = app.signup("ada@example.com").await;
    change(app, &user, json!({ "plan_id": plan })).await.expect_status(200);
    user
}

/// A subscription as another system would insert it, ten days into its month; `more` sets further columns.
async fn subscribe(app: &TestApp, user: &TestUser, plan: &str, status: &str, more: &[(&str, &str)]) {
    let (columns, values): (Vec<_>, Vec<_>) =
        more.iter().map(|(column, value)| (format!(", {column}"), format!(", {value}"))).unzip();
    let insert = format!(
        "INSERT INTO user_subscriptions (user_id, plan_id, status, current_period_start, current_period_end{}) \
         VALUES ('{}', '{plan}', '{status}', now() - interval '10 days', now() + interval '20 days'{})",
        columns.concat(),
        user.id,
        values.concat()
    );
    app.database().sql(&insert).await;
}

#[tokio::test]
async fn a_live_subscription_puts_its_plan_in_force() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    subscribe(&app, &ada, "gold", "active", &[("cancel_at_period_end", "true")]).await;
    let plan = own_plan(&app, &ada).await;
    assert_eq!((plan.text_at("/plan_id"), plan.text_at("/status")), ("gold", "active"));
    assert_eq!(plan.at("/cancel_at_period_end"), true);
    let (start, end) = (time_at(&plan, "/current_period_start"), time_at(&plan, "/current_period_end"));
    assert_eq!((end - start).num_days(), 30);
    assert_eq!(reason(&app, &ada).await, "ok");
}

#[tokio::test]
async fn a_downgrade_waits_for_the_end_of_the_paid_period() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    subscribe(&app, &ada, "gold", "active", &[]).await;
    let preview = app.post("/api/users/me/plan?preview=true").bearer(&ada);
    let preview = preview.json(json!({ "plan_id": "free" })).send().await.expect_status(200);
    assert_eq!(preview.text_at("/change/when"), "period_end");
    assert!(own_plan(&app, &ada).await.at("/scheduled_change").is_null(), "a preview schedules nothing");
    let answer = change(&app, &ada, json!({ "plan_id": "free" })).await.expect_status(200);
    assert_eq!((answer.text_at("/change/when"), answer.text_at("/plan_id")), ("period_end", "gold"));
    let plan = own_plan(&app, &ada).await;
    assert_eq!(plan.text_at("/scheduled_change/plan_id"), "free");
    assert_eq!(plan.at("/scheduled_change/effective_at"), plan.at("/current_period_end"));
    assert_eq!(answer.at("/change/effective_at"), plan.at("/current_period_end"));
    assert_eq!(reason(&app, &ada).await, "ok", "what was paid for stays");
}

#[tokio::test]
async fn a_waiting_change_can_be_taken_back_or_replaced() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "platinum").await;
    subscribe(&app, &ada, "platinum", "active", &[]).await;
    let keep = async || app.delete("/api/users/me/plan/scheduled").bearer(&ada).send().await;
    keep().await.expect_problem(404, "not_found");
    change(&app, &ada, json!({ "plan_id": "free" })).await.expect_status(200);
    change(&app, &ada, json!({ "plan_id": "gold" })).await.expect_status(200);
    assert_eq!(own_plan(&app, &ada).await.text_at("/scheduled_change/plan_id"), "gold", "one waits, the last");
    keep().await.expect_status(204);
    assert!(own_plan(&app, &ada).await.at("/scheduled_change").is_null());
    keep().await.expect_problem(404, "not_found");
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "platinum");
}

#[tokio::test]
async fn now_means_now_also_for_a_downgrade() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "platinum").await;
    subscribe(&app, &ada, "platinum", "active", &[]).await;
    change(&app, &ada, json!({ "plan_id": "free" })).await.expect_status(200);
    let answer = change(&app, &ada, json!({ "plan_id": "gold", "when": "now" })).await.expect_status(200);
    assert_eq!((answer.text_at("/change/when"), answer.text_at("/plan_id")), ("now", "gold"));
    assert!(answer.at("/scheduled_change").is_null(), "what waited is forgotten: {answer}");
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "gold");
}

#[tokio::test]
async fn an_upgrade_holds_at_once_unless_it_is_to_wait() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    subscribe(&app, &ada, "gold", "active", &[]).await;
    let waits = change(&app, &ada, json!({ "plan_id": "platinum", "when": "period_end" })).await.expect_status(200);
    assert_eq!((waits.text_at("/plan_id"), waits.text_at("/scheduled_change/plan_id")), ("gold", "platinum"));
    let answer = change(&app, &ada, json!({ "plan_id": "platinum" })).await.expect_status(200);
    assert_eq!((answer.text_at("/change/direction"), answer.text_at("/change/when")), ("upgrade", "now"));
    let plan = own_plan(&app, &ada).await;
    assert_eq!(plan.text_at("/plan_id"), "platinum");
    assert!(plan.at("/scheduled_change").is_null(), "{plan}");
}

#[tokio::test]
async fn a_change_whose_time_has_come_is_in_force_before_any_job_ran() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    subscribe(&app, &ada, "gold", "active", &[]).await;
    change(&app, &ada, json!({ "plan_id": "free" })).await.expect_status(200);
    app.database().sql("UPDATE scheduled_plan_changes SET effective_at = now() - interval '1 second'").await;
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "free");
    let check = app.get("/api/users/me/features/ai_requests").bearer(&ada).send().await.expect_status(200);
    assert_eq!((check.at("/allowed"), check.text_at("/plan_id")), (&json!(false), "free"));
    // From there the user changes plans as usual.
    let answer = change(&app, &ada, json!({ "plan_id": "gold" })).await.expect_status(200);
    assert_eq!((answer.text_at("/change/from"), answer.text_at("/plan_id")), ("free", "gold"));
}

#[tokio::test]
async fn what_stripe_bills_is_changed_there() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, on_plan(&app, "gold").await);
    subscribe(&app, &ada, "gold", "active", &[("stripe_subscription_id", "'sub_1'")]).await;
    change(&app, &ada, json!({ "plan_id": "platinum" })).await.expect_problem(409, "billed_by_stripe");
    let grant = app.post(&format!("/api/admin/users/{}/plan", ada.id)).bearer(&admin);
    grant.json(json!({ "plan_id": "platinum" })).send().await.expect_problem(409, "billed_by_stripe");
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "gold");
}

#[tokio::test]
async fn a_past_due_subscription_keeps_its_plan_for_the_grace() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    subscribe(&app, &ada, "gold", "past_due", &[("past_due_since", "now() - interval '6 days 23 hours'")]).await;
    let plan = own_plan(&app, &ada).await;
    assert_eq!((plan.text_at("/plan_id"), plan.text_at("/status")), ("gold", "past_due"));
    assert_eq!(reason(&app, &ada).await, "ok");
    app.database().sql("UPDATE user_subscriptions SET past_due_since = now() - interval '7 days 1 minute'").await;
    let plan = own_plan(&app, &ada).await;
    assert_eq!((plan.text_at("/plan_id"), plan.text_at("/status")), ("free", "past_due"));
    assert_eq!(reason(&app, &ada).await, "subscription_inactive");
}

#[tokio::test]
async fn the_grace_is_a_setting() {
    let app = TestApp::with(|settings| settings.billing.past_due_grace_days = 1).await;
    let ada = on_plan(&app, "gold").await;
    subscribe(&app, &ada, "gold", "past_due", &[("past_due_since", "now() - interval '23 hours'")]).await;
    assert_eq!(reason(&app, &ada).await, "ok");
    app.database().sql("UPDATE user_subscriptions SET past_due_since = now() - interval '25 hours'").await;
    assert_eq!(reason(&app, &ada).await, "subscription_inactive");
}

#[tokio::test]
async fn a_trial_is_worth_its_plan_until_it_ends() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    subscribe(&app, &ada, "platinum", "trialing", &[("trial_end", "now() + interval '3 days'")]).await;
    let plan = own_plan(&app, &ada).await;
    assert_eq!((plan.text_at("/plan_id"), plan.text_at("/status")), ("platinum", "trialing"));
    assert!(time_at(&plan, "/trial_end") > crate::now());
    assert_eq!(reason(&app, &ada).await, "ok");
    app.database().sql("UPDATE user_subscriptions SET trial_end = now() - interval '1 second'").await;
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "free");
    assert_eq!(reason(&app, &ada).await, "subscription_inactive");
}

#[tokio::test]
async fn a_subscription_that_ended_leaves_the_free_plan() {
    for status in ["canceled", "unpaid", "incomplete_expired"] {
        let app = TestApp::start().await;
        let ada = on_plan(&app, "gold").await;
        subscribe(&app, &ada, "gold", "active", &[]).await;
        app.database().sql(&format!("UPDATE user_subscriptions SET status = '{status}'")).await;
        let plan = own_plan(&app, &ada).await;
        assert_eq!((plan.text_at("/plan_id"), plan.text_at("/status")), ("free", "active"), "{status}");
        assert_eq!(reason(&app, &ada).await, "subscription_inactive", "{status}");
        // With open billing, the same plan can be chosen again.
        change(&app, &ada, json!({ "plan_id": "gold" })).await.expect_status(200);
        assert_eq!(reason(&app, &ada).await, "ok", "{status}");
    }
}

#[tokio::test]
async fn an_incomplete_subscription_grants_nothing() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    subscribe(&app, &ada, "platinum", "incomplete", &[]).await;
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "free");
    assert_eq!(reason(&app, &ada).await, "feature_not_in_plan");
}

#[tokio::test]
async fn what_a_change_answers_is_in_force_also_after_a_lapse() {
    let app = TestApp::start().await;
    let lapsed = [
        ("trialing", ("trial_end", "now() - interval '1 day'")),
        ("past_due", ("past_due_since", "now() - interval '30 days'")),
    ];
    for (number, (status, more)) in lapsed.into_iter().enumerate() {
        let ada = app.signup(&format!("ada{number}@example.com")).await;
        subscribe(&app, &ada, "gold", status, &[more]).await;
        assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "free", "{status}");
        let answer = change(&app, &ada, json!({ "plan_id": "platinum", "when": "now" })).await;
        if answer.status == 200 {
            assert_eq!(
                answer.text_at("/plan_id"),
                "platinum",
                "{status}: 200 says that the plan was changed: {answer}"
            );
            assert_eq!(reason(&app, &ada).await, "ok", "{status}");
        } else {
            assert!((400..500).contains(&answer.status), "{status}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_billing_period_counts_from_the_subscriptions_start() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, on_plan(&app, "gold").await);
    let body = json!({ "enabled": true, "limit_value": 10, "limit_period": "billing_period" });
    app.put("/api/plans/gold/features/ai_requests").bearer(&admin).json(body).send().await.expect_status(200);
    subscribe(&app, &ada, "gold", "active", &[]).await;
    let check = app.get("/api/users/me/features/ai_requests").bearer(&ada).send().await.expect_status(200);
    let plan = own_plan(&app, &ada).await;
    assert_eq!(check.at("/period_start"), plan.at("/current_period_start"));
    let length = time_at(&check, "/resets_at") - time_at(&check, "/period_start");
    assert!((28..=31).contains(&length.num_days()), "{check}");
}
