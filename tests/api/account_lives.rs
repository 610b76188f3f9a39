//! Account lifetimes: an id is assigned once, and the credentials of a deleted account have no effect on another
//! account. An address gets one starting balance and one quota, however often its account is deleted.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

const ADDRESS: &str = "ada@example.com";
const LIMITED: &str =
    "UPDATE plan_features SET enabled = true, limit_value = 10, limit_period = 'month', overage = 'block'
    WHERE plan_id = 'free' AND feature_id = 'ai_requests'";

async fn delete(app: &TestApp, user: &TestUser) {
    app.delete("/api/users/me").bearer(user).send().await.expect_status(204);
}

async fn consume(app: &TestApp, user: &TestUser, amount: i64) -> Answer {
    app.post("/api/usage").bearer(user).json(json!({ "feature_id": "ai_requests", "amount": amount })).send().await
}

async fn balance(app: &TestApp, user: &TestUser) -> Value {
    app.get("/api/users/me").bearer(user).send().await.expect_status(200).at("/token_balance").clone()
}

/// Every request by which an attacker could use the remains of an account is refused.
async fn expect_powerless(app: &TestApp, old: &TestUser, victim: &TestUser) {
    for request in [
        app.get("/api/users/me"),
        app.delete("/api/users/me"),
        app.get("/api/keys"),
        app.post("/api/keys").json(json!({ "name": "back door" })),
        app.post("/api/keys").json(json!({ "name": "back door" })).idempotency_key("of the attacker"),
        app.post("/api/users").json(json!({ "user_id": victim.id, "name": "mine" })),
        app.post("/api/users").json(json!({ "user_id": old.id, "name": "mine" })),
        app.post("/api/usage").json(json!({ "feature_id": "ai_requests" })),
        app.get("/api/plans"),
    ] {
        request.bearer(old).send().await.expect_problem(401, "unauthorized");
    }
    let body = json!({ "refresh_token": old.refresh_token });
    app.post("/api/auth/refresh").json(body).send().await.expect_problem(401, "refresh_refused");
}

#[tokio::test]
async fn whoever_had_the_address_before_has_no_power_over_who_signs_up_now() {
    let app = TestApp::start().await;
    let mut attackers = Vec::new();
    for _ in 0..4 {
        let attacker = app.signup(ADDRESS).await;
        let key =
            app.post("/api/keys").bearer(&attacker).json(json!({ "name": "k" })).idempotency_key("of the attacker");
        key.send().await.expect_status(201);
        delete(&app, &attacker).await;
        attackers.push(attacker);
    }
    let victim = app.signup(ADDRESS).await;
    for attacker in &attackers {
        assert_ne!(attacker.id, victim.id);
        expect_powerless(&app, attacker, &victim).await;
    }
    let keys = format!("SELECT count(*) FROM api_keys WHERE user_id = '{}'", victim.id);
    assert_eq!(app.database().query_scalar::<i64>(&keys).await, 0);
    app.get("/api/users/me").bearer(&victim).send().await.expect_status(200);
}

#[tokio::test]
async fn an_address_brings_one_bonus_and_one_quota() {
    let app = TestApp::start().await;
    app.database().sql(LIMITED).await;
    let mut user = app.signup(ADDRESS).await;
    assert_eq!(balance(&app, &user).await, json!(100));
    // Three accounts use 3 of 10 each; the fourth has one left.
    for amount in [3, 3, 3] {
        consume(&app, &user, amount).await.expect_status(200);
        delete(&app, &user).await;
        user = app.signup("Ada@Example.com").await;
        assert_eq!(balance(&app, &user).await, json!(0));
    }
    consume(&app, &user, 2).await.expect_problem(429, "limit_reached");
    consume(&app, &user, 1).await.expect_status(200);
    let findings: i64 = app.database().query_scalar("SELECT count(*) FROM integrity_findings").await;
    assert_eq!(findings, 0);
    let bonuses = "SELECT count(*) FROM token_transactions WHERE type = 'bonus' AND user_id <> (SELECT id FROM users WHERE role = 'admin')";
    assert_eq!(app.database().query_scalar::<i64>(bonuses).await, 0);
    let other = app.signup("other@example.com").await;
    assert_eq!(balance(&app, &other).await, json!(100));
    consume(&app, &other, 10).await.expect_status(200);
}

#[tokio::test]
async fn what_is_held_when_an_account_goes_counts_for_the_next() {
    let app = TestApp::start().await;
    app.database().sql(LIMITED).await;
    let user = app.signup(ADDRESS).await;
    let hold = json!({ "feature_id": "ai_requests", "amount": 7 });
    app.post("/api/usage/reservations").bearer(&user).json(hold).send().await.expect_status(201);
    delete(&app, &user).await;
    let user = app.signup(ADDRESS).await;
    consume(&app, &user, 4).await.expect_problem(429, "limit_reached");
    consume(&app, &user, 3).await.expect_status(200);
}

/// A plan change in between changes the kind of the period; the use is carried over.
#[tokio::test]
async fn another_period_brings_no_second_quota_either() {
    let app = TestApp::start().await;
    app.database().sql(LIMITED).await;
    let user = app.signup(ADDRESS).await;
    consume(&app, &user, 8).await.expect_status(200);
    delete(&app, &user).await;
    app.database()
        .sql("UPDATE plan_features SET limit_period = 'billing_period' WHERE plan_id = 'free' AND feature_id = 'ai_requests'")
        .await;
    let user = app.signup(ADDRESS).await;
    consume(&app, &user, 3).await.expect_problem(429, "limit_reached");
    consume(&app, &user, 2).await.expect_status(200);
}

/// An account of an earlier release that got the id of a deleted one keeps it; tokens issued before it was created are
/// refused.
#[tokio::test]
async fn a_token_that_is_older_than_the_account_does_not_act_for_it() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    let began = |seconds: i64| {
        format!("UPDATE auth.users SET created_at = now() + interval '{seconds} s' WHERE id = '{}'", ada.id)
    };
    app.database().sql(&began(600)).await;
    let other_process = TestApp::over(app.database().clone(), |_| {}).await;
    other_process.get("/api/users/me").bearer(&ada).send().await.expect_problem(401, "unauthorized");
    // Clock differences of up to half a minute are tolerated.
    app.database().sql(&began(20)).await;
    let third_process = TestApp::over(app.database().clone(), |_| {}).await;
    third_process.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
}

#[tokio::test]
async fn no_process_of_an_earlier_release_can_give_an_id_again() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    delete(&app, &ada).await;
    let again = format!("SELECT identity_register('{}', 'other@example.com', 'hash')", ada.id);
    let refused = harness::sqlx::raw_sql(harness::sqlx::AssertSqlSafe(again)).execute(app.database().owner()).await;
    assert!(refused.unwrap_err().to_string().contains("belonged to a deleted account"));
    let left: i64 =
        app.database().query_scalar("SELECT count(*) FROM deleted_profiles WHERE email_digest IS NOT NULL").await;
    assert_eq!(left, 0, "an earlier release finds no id by a digest");
}

#[tokio::test]
async fn stored_answers_go_with_the_account() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let make = app.post("/api/keys").bearer(&ada).json(json!({ "name": "k" })).idempotency_key("one");
    make.send().await.expect_status(201);
    let kept = format!("SELECT count(*) FROM idempotent_answers WHERE user_id = '{}'", ada.id);
    assert_eq!(app.database().query_scalar::<i64>(&kept).await, 1);
    delete(&app, &ada).await;
    assert_eq!(app.database().query_scalar::<i64>(&kept).await, 0);
}
