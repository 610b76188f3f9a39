//! Entitlements: checks whether a feature may be used now, for the caller and for others.

use chrono::{DateTime, Utc};
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field, find, time_at, without_request_id};

/// A strongly consistent check: these tests change counters directly in the database.
async fn check(app: &TestApp, user: &TestUser, feature: &str) -> Answer {
    app.get(&format!("/api/users/me/features/{feature}?consistency=strong")).bearer(user).send().await
}

/// Checks an amount of AI requests.
async fn check_amount(app: &TestApp, user: &TestUser, amount: i64) -> Answer {
    let body = json!({ "feature_id": "ai_requests", "amount": amount, "consistency": "strong" });
    app.post("/api/entitlements/check").bearer(user).json(body).send().await.expect_status(200)
}

async fn on_plan(app: &TestApp, plan: &str) -> TestUser {
    let user = app.signup("ada@example.com").await;
    let body = json!({ "plan_id": plan });
    app.post("/api/users/me/plan").bearer(&user).json(body).send().await.expect_status(200);
    user
}

/// Sets the terms of AI requests in the plan `gold`.
async fn grant_gold(app: &TestApp, body: Value) {
    let admin = app.admin().await;
    let put = app.put("/api/plans/gold/features/ai_requests").bearer(&admin).json(body);
    put.send().await.expect_status(200);
}

/// Sets this month's counter of AI requests.
async fn count(app: &TestApp, whose: &TestUser, used: i64, reserved: i64, overage: i64) {
    let upsert = format!(
        "INSERT INTO usage_counters VALUES ('{}', 'ai_requests', 'month', \
         date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', {used}, {reserved}, {overage}) \
         ON CONFLICT (user_id, feature_id, period, period_start) \
         DO UPDATE SET used = excluded.used, reserved = excluded.reserved, overage = excluded.overage",
        whose.id
    );
    app.database().sql(&upsert).await;
}

async fn make_key(app: &TestApp, owner: &TestUser, body: Value) -> String {
    let key = app.post("/api/keys").bearer(owner).json(body).send().await.expect_status(201);
    key.text_at("/key").to_owned()
}

#[tokio::test]
async fn a_check_answers_with_every_number_that_it_rests_on() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    let answer = check(&app, &ada, "ai_requests").await.expect_status(200);
    let (month_start, month_end): (DateTime<Utc>, DateTime<Utc>) = app
        .database()
        .query_one(
            "SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', \
             (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'",
        )
        .await;
    assert_eq!((time_at(&answer, "/period_start"), time_at(&answer, "/resets_at")), (month_start, month_end));
    time_at(&answer, "/as_of");
    let mut body = answer.body.clone();
    for time in ["period_start", "resets_at", "as_of"] {
        body.as_object_mut().unwrap().remove(time);
    }
    let expected = json!({ "allowed": true, "current": 0, "limit": 1000, "remaining": 1000, "reserved": 0,
        "reason": "ok", "feature_id": "ai_requests", "plan_id": "gold", "source": "plan" });
    assert_eq!(body, expected);
    assert!(
        answer.text.starts_with(r#"{"allowed":true,"current":0,"limit":1000,"#),
        "the seeds' fields first: {answer}"
    );
    let posted = check_amount(&app, &ada, 1).await;
    assert_eq!(posted.at("/remaining"), answer.at("/remaining"));
}

#[tokio::test]
async fn a_feature_outside_the_plan_is_a_no_and_an_unknown_one_a_404() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for feature in ["ai_requests", "export_csv", "custom_theme", "priority_support", "api_access"] {
        let answer = check(&app, &ada, feature).await.expect_status(200);
        assert_eq!((answer.at("/allowed"), answer.text_at("/reason")), (&json!(false), "feature_not_in_plan"));
    }
    for unknown in ["telepathy", "AI_REQUESTS", "%00", "a%20b"] {
        check(&app, &ada, unknown).await.expect_problem(404, "not_found");
    }
    let body = json!({ "feature_id": "telepathy" });
    let posted = app.post("/api/entitlements/check").bearer(&ada).json(body).send().await;
    posted.expect_problem(404, "not_found");
}

#[tokio::test]
async fn an_unfit_check_names_its_field() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for (field, value) in [
        ("amount", json!(0)),
        ("amount", json!(-1)),
        ("amount", json!(1.5)),
        ("amount", json!("1")),
        ("amount", json!(9_223_372_036_854_775_808_u64)),
        ("feature_id", json!("")),
        ("feature_id", json!("f".repeat(51))),
        ("feature_id", json!("ai\u{0}requests")),
        ("feature_id", Value::Null),
        ("user_id", json!("ada")),
        ("limit", json!(5)),
        ("consistency", json!("eventual")),
    ] {
        let mut body = json!({ "feature_id": "ai_requests" });
        body[field] = value;
        expect_field(app.post("/api/entitlements/check").bearer(&ada).json(body).send().await, field);
    }
}

#[tokio::test]
async fn use_and_holds_stand_against_the_limit() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    count(&app, &ada, 990, 9, 0).await;
    let answer = check(&app, &ada, "ai_requests").await.expect_status(200);
    assert_eq!(
        (answer.at("/current"), answer.at("/reserved"), answer.at("/remaining")),
        (&json!(990), &json!(9), &json!(1))
    );
    assert_eq!(answer.text_at("/reason"), "ok");
    let two = check_amount(&app, &ada, 2).await;
    assert_eq!((two.at("/allowed"), two.text_at("/reason")), (&json!(false), "limit_reached"));
    count(&app, &ada, 1000, 0, 0).await;
    let full = check(&app, &ada, "ai_requests").await.expect_status(200);
    assert_eq!((full.at("/allowed"), full.at("/remaining")), (&json!(false), &json!(0)));
    assert_eq!(full.text_at("/reason"), "limit_reached");
    let plan = app.get("/api/users/me/plan").bearer(&ada).send().await.expect_status(200);
    let listed = find(plan.at("/features"), "feature_id", "ai_requests");
    for field in ["current", "remaining", "limit", "reserved", "reason", "resets_at", "allowed", "source"] {
        assert_eq!(listed[field], full.body[field], "{field}");
    }
    // Last month's use does not count now.
    app.database().sql("UPDATE usage_counters SET period_start = period_start - interval '1 month'").await;
    assert_eq!(check(&app, &ada, "ai_requests").await.at("/remaining"), 1000);
}

#[tokio::test]
async fn asking_uses_nothing_up() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    for _ in 0..5 {
        assert_eq!(check_amount(&app, &ada, 1000).await.at("/allowed"), true);
    }
    let rows: i64 = app.database().query_scalar("SELECT count(*) FROM usage_counters").await;
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_limit_of_zero_is_a_limit_and_null_is_none() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    grant_gold(&app, json!({ "enabled": true, "limit_value": 0 })).await;
    let none = check(&app, &ada, "ai_requests").await.expect_status(200);
    assert_eq!(
        (none.at("/limit"), none.at("/remaining"), none.text_at("/reason")),
        (&json!(0), &json!(0), "limit_reached")
    );
    grant_gold(&app, json!({ "enabled": true, "limit_value": null })).await;
    count(&app, &ada, i64::MAX - 10, 0, 0).await;
    let unlimited = check_amount(&app, &ada, i64::MAX).await;
    assert_eq!(unlimited.at("/allowed"), true);
    assert!(unlimited.at("/limit").is_null() && unlimited.at("/remaining").is_null(), "{unlimited}");
    assert_eq!(unlimited.at("/current"), i64::MAX - 10);
}

#[tokio::test]
async fn beyond_the_limit_tokens_pay_where_the_plan_says_so() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    grant_gold(&app, json!({ "enabled": true, "limit_value": 10, "overage": "tokens" })).await;
    count(&app, &ada, 8, 0, 0).await;
    let affordable = check_amount(&app, &ada, 102).await;
    assert_eq!((affordable.at("/allowed"), affordable.at("/remaining")), (&json!(true), &json!(2)), "2 + 100 tokens");
    let too_much = check_amount(&app, &ada, 103).await;
    assert_eq!((too_much.at("/allowed"), too_much.text_at("/reason")), (&json!(false), "insufficient_tokens"));
    // Reserved tokens are not available, and paid use does not count against the limit.
    app.database().sql(&format!("UPDATE users SET token_reserved = 95 WHERE id = '{}'", ada.id)).await;
    count(&app, &ada, 12, 0, 3).await;
    assert_eq!(check_amount(&app, &ada, 6).await.at("/allowed"), true, "1 + 5 tokens");
    assert_eq!(check_amount(&app, &ada, 7).await.text_at("/reason"), "insufficient_tokens");
}

#[tokio::test]
async fn asking_for_another_is_refused_alike_whether_they_exist_or_not() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let ask = async |user_id: &str| {
        let body = json!({ "user_id": user_id, "feature_id": "ai_requests" });
        app.post("/api/entitlements/check").bearer(&eve).json(body).send().await
    };
    let there = ask(&ada.id.to_string()).await.expect_problem(403, "forbidden");
    let not_there = ask(NOBODY).await.expect_problem(403, "forbidden");
    assert_eq!(without_request_id(&there), without_request_id(&not_there));
    assert_eq!(ask(&eve.id.to_string()).await.expect_status(200).text_at("/reason"), "feature_not_in_plan");
}

#[tokio::test]
async fn an_administrator_asks_for_anybody_who_exists() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, on_plan(&app, "gold").await);
    let ask = async |body: Value| app.post("/api/entitlements/check").bearer(&admin).json(body).send().await;
    let answer = ask(json!({ "user_id": ada.id, "feature_id": "ai_requests" })).await.expect_status(200);
    assert_eq!((answer.text_at("/plan_id"), answer.at("/limit")), ("gold", &json!(1000)));
    ask(json!({ "user_id": NOBODY, "feature_id": "ai_requests" })).await.expect_problem(404, "not_found");
    ask(json!({ "user_id": ada.id, "feature_id": "telepathy" })).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_key_asks_for_others_only_with_on_behalf() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, on_plan(&app, "gold").await);
    let server = json!({ "name": "server", "permissions": ["usage:check"], "on_behalf": true });
    let server = make_key(&app, &admin, server).await;
    let plain = make_key(&app, &admin, json!({ "name": "plain", "permissions": ["*"] })).await;
    let writer = json!({ "name": "writer", "permissions": ["usage:write"], "on_behalf": true });
    let writer = make_key(&app, &admin, writer).await;
    let ask = async |key: &str, user_id: &str| {
        let body = json!({ "user_id": user_id, "feature_id": "ai_requests" });
        app.post("/api/entitlements/check").header("X-API-Key", key).json(body).send().await
    };
    let id = ada.id.to_string();
    assert_eq!(ask(&server, &id).await.expect_status(200).text_at("/plan_id"), "gold");
    ask(&server, NOBODY).await.expect_problem(404, "not_found");
    for (key, what) in [(&plain, "without on_behalf, even an administrator's"), (&writer, "without usage:check")] {
        for who in [id.as_str(), NOBODY] {
            let answer = ask(key, who).await;
            assert_eq!(answer.status, 403, "{what}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_key_checks_for_its_owner_with_the_permission_for_it() {
    let app = TestApp::start().await;
    let ada = on_plan(&app, "gold").await;
    let checker = make_key(&app, &ada, json!({ "name": "checker", "permissions": ["usage:check"] })).await;
    let reader = make_key(&app, &ada, json!({ "name": "reader", "permissions": ["plans:read"] })).await;
    let path = "/api/users/me/features/ai_requests";
    assert_eq!(app.get(path).bearer(&checker).send().await.expect_status(200).text_at("/plan_id"), "gold");
    app.get(path).bearer(&reader).send().await.expect_problem(403, "forbidden");
    let body = json!({ "feature_id": "ai_requests" });
    let posted = app.post("/api/entitlements/check").bearer(&reader).json(body).send().await;
    posted.expect_problem(403, "forbidden");
}
