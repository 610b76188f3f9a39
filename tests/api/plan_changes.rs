//! Plan changes by the user: their effect, their price, and their refusals.

use domain::subscriptions::BillingMode;
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{expect_field, find, time_at};

async fn change(app: &TestApp, user: &TestUser, body: Value) -> Answer {
    app.post("/api/users/me/plan").bearer(user).json(body).send().await
}

async fn own_plan(app: &TestApp, user: &TestUser) -> Answer {
    app.get("/api/users/me/plan").bearer(user).send().await.expect_status(200)
}

async fn stripe_app() -> TestApp {
    TestApp::with(|settings| settings.billing.mode = BillingMode::Stripe).await
}

#[tokio::test]
async fn the_own_plan_says_all_that_it_allows() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let mut plan = own_plan(&app, &ada).await;
    let as_of = time_at(&plan, "/as_of");
    assert!((crate::now() - as_of).num_seconds().abs() < 60, "{plan}");
    let mut body = plan.body.take();
    let features = body.as_object_mut().unwrap().remove("features").unwrap();
    body.as_object_mut().unwrap().remove("as_of");
    let expected = json!({ "user_id": ada.id, "plan_id": "free", "plan_display_name": "無料プラン",
        "price_monthly": "0.00", "price_yearly": "0.00", "currency": "JPY", "status": "active",
        "current_period_start": null, "current_period_end": null, "trial_end": null, "cancel_at_period_end": false,
        "scheduled_change": null });
    assert_eq!(body, expected);
    assert_eq!(features.as_array().unwrap().len(), 5);
    let mut feature = find(&features, "feature_id", "ai_requests").clone();
    assert!(feature["resets_at"].is_string(), "{feature:#}");
    feature.as_object_mut().unwrap().remove("resets_at");
    let expected = json!({ "feature_id": "ai_requests", "display_name": "AI機能", "kind": "metered", "unit": "request",
        "enabled": false, "allowed": false, "reason": "feature_not_in_plan", "limit": 0, "current": 0, "remaining": 0,
        "reserved": 0, "limit_period": "month", "source": "plan" });
    assert_eq!(feature, expected);
}

#[tokio::test]
async fn anyone_changes_plan_freely_where_billing_is_open() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let steps = [("free", "gold", "upgrade"), ("gold", "platinum", "upgrade"), ("platinum", "free", "downgrade")];
    for (from, to, direction) in steps {
        let answer = change(&app, &ada, json!({ "plan_id": to })).await.expect_status(200);
        assert_eq!(answer.at("/preview"), false);
        assert_eq!((answer.text_at("/change/from"), answer.text_at("/change/to")), (from, to));
        assert_eq!((answer.text_at("/change/direction"), answer.text_at("/change/when")), (direction, "now"));
        assert_eq!(answer.text_at("/plan_id"), to);
        let shown = own_plan(&app, &ada).await;
        assert_eq!(shown.text_at("/plan_id"), to);
        assert_eq!(shown.at("/features/0"), answer.at("/features/0"));
    }
    let me = app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    assert_eq!(me.text_at("/plan_id"), "free");
}

#[tokio::test]
async fn interval_and_when_are_understood_and_nothing_else() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    change(&app, &ada, json!({ "plan_id": "gold", "interval": "year", "when": "now" })).await.expect_status(200);
    for (field, value) in [
        ("interval", json!("week")),
        ("when", json!("later")),
        ("plan_id", json!(7)),
        ("plan_id", json!("")),
        ("plan_id", json!("p".repeat(51))),
        ("price", json!(0)),
        ("user_id", json!(ada.id)),
    ] {
        let mut body = json!({ "plan_id": "platinum" });
        body[field] = value;
        expect_field(change(&app, &ada, body).await, field);
    }
    expect_field(change(&app, &ada, json!({})).await, "plan_id");
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "gold");
}

#[tokio::test]
async fn a_change_that_is_none_or_leads_nowhere_is_refused() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    change(&app, &ada, json!({ "plan_id": "free" })).await.expect_problem(422, "same_plan");
    change(&app, &ada, json!({ "plan_id": "diamond" })).await.expect_problem(404, "not_found");
    change(&app, &ada, json!({ "plan_id": "GOLD" })).await.expect_problem(404, "not_found");
    let no_end = json!({ "plan_id": "gold", "when": "period_end" });
    change(&app, &ada, no_end).await.expect_problem(422, "no_paid_period");
    let withdraw = json!({ "is_active": false });
    app.patch("/api/plans/gold").bearer(&admin).json(withdraw).send().await.expect_status(200);
    change(&app, &ada, json!({ "plan_id": "gold" })).await.expect_problem(422, "plan_inactive");
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "free");
}

#[tokio::test]
async fn a_withdrawn_plan_stays_in_force_for_who_has_it() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    change(&app, &ada, json!({ "plan_id": "gold" })).await.expect_status(200);
    let withdraw = json!({ "is_active": false });
    app.patch("/api/plans/gold").bearer(&admin).json(withdraw).send().await.expect_status(200);
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "gold");
    let check = app.get("/api/users/me/features/ai_requests").bearer(&ada).send().await.expect_status(200);
    assert_eq!(check.at("/allowed"), true);
}

#[tokio::test]
async fn a_preview_changes_nothing() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let preview = app.post("/api/users/me/plan?preview=true").bearer(&ada);
    let preview = preview.json(json!({ "plan_id": "gold" })).send().await.expect_status(200);
    assert_eq!(preview.at("/preview"), true);
    assert_eq!((preview.text_at("/change/to"), preview.text_at("/change/when")), ("gold", "now"));
    assert_eq!(preview.text_at("/plan_id"), "free", "how the user stands now");
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "free");
    let changes: i64 =
        app.database().query_scalar("SELECT count(*) FROM audit_logs WHERE action = 'plan_change'").await;
    assert_eq!(changes, 0);
    let refused = app.post("/api/users/me/plan?preview=true").bearer(&ada);
    refused.json(json!({ "plan_id": "free" })).send().await.expect_problem(422, "same_plan");
    for query in ["preview=1", "preview=", "preveiw=true"] {
        let unclear = app.post(&format!("/api/users/me/plan?{query}")).bearer(&ada);
        unclear.json(json!({ "plan_id": "gold" })).send().await.expect_problem(422, "invalid");
    }
}

#[tokio::test]
async fn what_was_used_stays_counted_under_the_new_limit() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    change(&app, &ada, json!({ "plan_id": "platinum" })).await.expect_status(200);
    let used = format!(
        "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used) VALUES ('{}', 'ai_requests', \
         'month', date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', 1500)",
        ada.id
    );
    app.database().sql(&used).await;
    let gold = change(&app, &ada, json!({ "plan_id": "gold" })).await.expect_status(200);
    let feature = find(gold.at("/features"), "feature_id", "ai_requests");
    assert_eq!(
        (&feature["current"], &feature["remaining"], &feature["limit"]),
        (&json!(1500), &json!(0), &json!(1000))
    );
    assert_eq!((&feature["allowed"], &feature["enabled"]), (&json!(false), &json!(true)));
    assert_eq!(feature["reason"], "limit_reached");
}

#[tokio::test]
async fn where_stripe_bills_a_paid_plan_needs_a_subscription() {
    let app = stripe_app().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let refused = change(&app, &ada, json!({ "plan_id": "gold" })).await.expect_problem(402, "payment_required");
    assert_eq!(refused.text_at("/plan_id"), "gold");
    let preview = app.post("/api/users/me/plan?preview=true").bearer(&ada);
    preview.json(json!({ "plan_id": "gold" })).send().await.expect_problem(402, "payment_required");
    // An administrator may still grant it, and a downgrade to the free plan costs nothing.
    let grant = app.post(&format!("/api/admin/users/{}/plan", ada.id)).bearer(&admin);
    grant.json(json!({ "plan_id": "gold" })).send().await.expect_status(200);
    assert_eq!(own_plan(&app, &ada).await.text_at("/plan_id"), "gold");
    change(&app, &ada, json!({ "plan_id": "platinum" })).await.expect_problem(402, "payment_required");
    change(&app, &ada, json!({ "plan_id": "free" })).await.expect_status(200);
}

#[tokio::test]
async fn a_key_changes_the_plan_only_with_the_permission_for_money() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let make = async |permission: &str| {
        let body = json!({ "name": "server", "permissions": [permission] });
        let key = app.post("/api/keys").bearer(&ada).json(body).send().await.expect_status(201);
        key.text_at("/key").to_owned()
    };
    let (reader, payer) = (make("plans:read").await, make("billing:manage").await);
    let with = async |key: &str| {
        let body = json!({ "plan_id": "gold" });
        app.post("/api/users/me/plan").header("X-API-Key", key).json(body).send().await
    };
    app.get("/api/users/me/plan").bearer(&reader).send().await.expect_status(200);
    with(&reader).await.expect_problem(403, "forbidden");
    app.delete("/api/users/me/plan/scheduled").bearer(&reader).send().await.expect_problem(403, "forbidden");
    with(&payer).await.expect_status(200);
    app.get("/api/users/me/plan").bearer(&payer).send().await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn of_changes_at_once_each_is_whole() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let wishes = ["gold", "platinum", "gold", "platinum", "gold", "platinum"];
    let answers =
        futures_util::future::join_all(wishes.map(|plan| change(&app, &ada, json!({ "plan_id": plan })))).await;
    let mut changed = 0;
    for answer in answers {
        match answer.status {
            200 => changed += 1,
            _ => drop(answer.expect_problem(422, "same_plan")),
        }
    }
    let last = own_plan(&app, &ada).await.text_at("/plan_id").to_owned();
    let trail =
        "SELECT old_values ->> 'plan_type', new_values ->> 'plan_type' FROM audit_logs WHERE action = 'plan_change'";
    let steps: Vec<(String, String)> = app.database().query_all(trail).await;
    assert_eq!(steps.len(), changed);
    // Each change begins where another ended: from `free` to the last plan.
    for plan in ["free", "gold", "platinum"] {
        let left = steps.iter().filter(|(from, _)| from == plan).count() + usize::from(plan == last);
        let reached = steps.iter().filter(|(_, to)| to == plan).count() + usize::from(plan == "free");
        assert_eq!(left, reached, "{plan} in {steps:?}, at last {last}");
    }
}
