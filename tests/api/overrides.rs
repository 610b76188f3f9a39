//! Overrides: exceptions from the plan for one user.

use harness::{Answer, TestApp, TestUser, eventually};
use serde_json::{Value, json};

use crate::{HEARD_WITHIN, NOBODY, expect_field, in_seconds};

async fn check(app: &TestApp, user: &TestUser) -> Answer {
    app.get("/api/users/me/features/ai_requests").bearer(user).send().await.expect_status(200)
}

async fn grant(app: &TestApp, admin: &TestUser, user: &TestUser, body: Value) -> Answer {
    let path = format!("/api/admin/users/{}/overrides/ai_requests", user.id);
    app.put(&path).bearer(admin).json(body).send().await
}

#[tokio::test]
async fn an_override_wins_over_the_plan_until_it_is_taken_back() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let eve = app.signup("eve@example.com").await;
    let body = json!({ "enabled": true, "limit_value": 5, "reason": "a good customer" });
    let granted = grant(&app, &admin, &ada, body).await.expect_status(200);
    let expected = json!({ "feature_id": "ai_requests", "enabled": true, "limit_value": 5, "reason": "a good customer",
        "expires_at": null });
    assert_eq!(granted.body, expected);
    let answer = check(&app, &ada).await;
    assert_eq!((answer.at("/allowed"), answer.at("/limit")), (&json!(true), &json!(5)));
    assert_eq!((answer.text_at("/source"), answer.text_at("/plan_id")), ("override", "free"));
    assert_eq!(check(&app, &eve).await.text_at("/reason"), "feature_not_in_plan", "one customer's, nobody else's");
    let path = format!("/api/admin/users/{}/overrides", ada.id);
    let listed = app.get(&path).bearer(&admin).send().await.expect_status(200);
    assert_eq!(listed.at("/data"), &json!([expected]));
    let one = format!("{path}/ai_requests");
    app.delete(&one).bearer(&admin).send().await.expect_status(204);
    assert_eq!(check(&app, &ada).await.text_at("/source"), "plan");
    app.delete(&one).bearer(&admin).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn an_override_replaces_switch_and_limit_whole() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let body = json!({ "plan_id": "gold" });
    app.post("/api/users/me/plan").bearer(&ada).json(body).send().await.expect_status(200);
    grant(&app, &admin, &ada, json!({ "enabled": true })).await.expect_status(200);
    let unlimited = check(&app, &ada).await;
    assert!(unlimited.at("/limit").is_null(), "no limit is said, so there is none: {unlimited}");
    grant(&app, &admin, &ada, json!({ "enabled": true, "limit_value": 0 })).await.expect_status(200);
    assert_eq!(check(&app, &ada).await.text_at("/reason"), "limit_reached");
    grant(&app, &admin, &ada, json!({ "enabled": false, "limit_value": 100 })).await.expect_status(200);
    let off = check(&app, &ada).await;
    assert_eq!((off.at("/allowed"), off.text_at("/reason")), (&json!(false), "feature_disabled"));
}

#[tokio::test]
async fn an_override_ends_by_itself() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let body = json!({ "enabled": true, "limit_value": 5, "expires_at": in_seconds(3_600) });
    grant(&app, &admin, &ada, body).await.expect_status(200);
    assert_eq!(check(&app, &ada).await.text_at("/source"), "override");
    app.database().sql("UPDATE feature_overrides SET expires_at = now() - interval '1 second'").await;
    let by_plan = |answer: &Answer| answer.text_at("/source") == "plan";
    let ended = eventually(HEARD_WITHIN, || check(&app, &ada), by_plan).await;
    assert_eq!(ended.text_at("/reason"), "feature_not_in_plan");
    let listed = app.get(&format!("/api/admin/users/{}/overrides", ada.id)).bearer(&admin).send().await;
    assert_eq!(listed.expect_status(200).at("/data").as_array().unwrap().len(), 1, "it is still shown");
}

#[tokio::test]
async fn overrides_are_the_administrators_to_give() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let own = format!("/api/admin/users/{}/overrides", ada.id);
    let feature = format!("{own}/ai_requests");
    let requests = || [app.get(&own), app.put(&feature).json(json!({ "enabled": true })), app.delete(&feature)];
    for request in requests() {
        request.send().await.expect_problem(401, "unauthorized");
    }
    for request in requests() {
        request.bearer(&ada).send().await.expect_problem(403, "forbidden");
    }
    let body = json!({ "enabled": true });
    let put = async |path: String| app.put(&path).bearer(&admin).json(&body).send().await;
    put(format!("/api/admin/users/{NOBODY}/overrides/ai_requests")).await.expect_problem(404, "not_found");
    put(format!("/api/admin/users/{}/overrides/telepathy", ada.id)).await.expect_problem(404, "not_found");
    put("/api/admin/users/ada/overrides/ai_requests".to_owned()).await.expect_problem(404, "not_found");
    let listed = app.get(&format!("/api/admin/users/{NOBODY}/overrides")).bearer(&admin).send().await;
    listed.expect_problem(404, "not_found");
}

#[tokio::test]
async fn an_unfit_override_names_its_field() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    for (field, value) in [
        ("enabled", json!("yes")),
        ("limit_value", json!(-1)),
        ("limit_value", json!(0.5)),
        ("reason", json!("")),
        ("reason", json!("r".repeat(501))),
        ("reason", json!("a\u{0}b")),
        ("expires_at", json!("tomorrow")),
        ("expires_at", json!(1_800_000_000)),
        // Before the first date that Postgres can store.
        ("expires_at", json!("-200000-01-01T00:00:00Z")),
        ("user_id", json!(ada.id)),
    ] {
        let mut body = json!({ "enabled": true });
        body[field] = value;
        expect_field(grant(&app, &admin, &ada, body).await, field);
    }
    expect_field(grant(&app, &admin, &ada, json!({})).await, "enabled");
}
