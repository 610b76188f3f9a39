//! Usage: limits hold under retries, concurrency and several processes.

use std::sync::Arc;

use futures_util::future::join_all;
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field};

/// A user who may use `ai_requests` up to a limit.
pub async fn limited(app: &TestApp, limit: i64) -> TestUser {
    let user = app.signup("ada@example.com").await;
    allow(app, &user, &format!("limit_value = {limit}, overage = 'block'")).await;
    user
}

pub async fn allow(app: &TestApp, user: &TestUser, terms: &str) {
    let sql = format!(
        "UPDATE plan_features SET {terms} WHERE plan_id = 'gold' AND feature_id = 'ai_requests';
         UPDATE users SET plan_id = 'gold' WHERE id = '{}'",
        user.id
    );
    app.database().sql(&sql).await;
}

async fn consume(app: &TestApp, user: &TestUser, body: Value) -> Answer {
    app.post("/api/usage").bearer(user).json(body).send().await
}

pub async fn count(app: &TestApp, sql: &str) -> i64 {
    app.database().query_scalar(sql).await
}

#[tokio::test]
async fn a_consumption_is_counted_and_says_what_is_left() {
    let app = TestApp::start().await;
    let ada = limited(&app, 3).await;
    let first = consume(&app, &ada, json!({ "feature_id": "ai_requests", "amount": 2 })).await.expect_status(200);
    let numbers = (first.at("/current"), first.at("/limit"), first.at("/remaining"), first.text_at("/reason"));
    assert_eq!(numbers, (&json!(2), &json!(3), &json!(1), "ok"));
    assert!(!first.text_at("/idempotency_key").is_empty());
    let refused = consume(&app, &ada, json!({ "feature_id": "ai_requests", "amount": 2 })).await;
    let refused = refused.expect_problem(429, "limit_reached");
    assert_eq!((refused.at("/current"), refused.at("/remaining")), (&json!(2), &json!(1)));
    assert!(refused.header("retry-after").is_some() && refused.text_at("/resets_at").ends_with('Z'));
    consume(&app, &ada, json!({ "feature_id": "ai_requests" })).await.expect_status(200);
    let check = app.get("/api/users/me/features/ai_requests").bearer(&ada).send().await;
    assert_eq!((check.at("/current"), check.at("/allowed")), (&json!(3), &json!(false)));
    assert_eq!(count(&app, "SELECT sum(amount)::bigint FROM usage_events").await, 3);
}

#[tokio::test]
async fn what_the_plan_lacks_is_refused_and_claims_no_key() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let body = json!({ "feature_id": "ai_requests", "idempotency_key": "again" });
    consume(&app, &ada, body.clone()).await.expect_problem(403, "feature_not_in_plan");
    allow(&app, &ada, "limit_value = 1").await;
    let granted = consume(&app, &ada, body).await.expect_status(200);
    assert_eq!(granted.header("idempotency-replayed"), None);
    app.database().sql("UPDATE features SET is_active = false WHERE id = 'ai_requests'").await;
    consume(&app, &ada, json!({ "feature_id": "ai_requests" })).await.expect_problem(403, "feature_disabled");
}

#[tokio::test]
async fn bad_input_is_told_apart() {
    let app = TestApp::start().await;
    let ada = limited(&app, 3).await;
    for amount in [json!(0), json!(-1), json!(1.5), json!(1e30), json!("1")] {
        let body = json!({ "feature_id": "ai_requests", "amount": amount });
        expect_field(consume(&app, &ada, body).await, "amount");
    }
    let long = "k".repeat(256);
    let body = json!({ "feature_id": "ai_requests", "idempotency_key": long });
    expect_field(consume(&app, &ada, body).await, "idempotency_key");
    consume(&app, &ada, json!({ "feature_id": "nothing" })).await.expect_problem(404, "not_found");
    let body = json!({ "feature_id": "custom_theme", "amount": 2 });
    expect_field(consume(&app, &ada, body).await, "amount");
    consume(&app, &ada, json!({ "feature_id": "custom_theme" })).await.expect_status(200);
    let two = app.post("/api/usage").bearer(&ada).idempotency_key("a");
    let two = two.json(json!({ "feature_id": "ai_requests", "idempotency_key": "b" })).send().await;
    expect_field(two, "idempotency_key");
    assert_eq!(count(&app, "SELECT count(*) FROM usage_events WHERE feature_id = 'ai_requests'").await, 0);
}

#[tokio::test]
async fn a_retry_counts_once_whichever_door_it_comes_by() {
    let app = TestApp::start().await;
    let ada = limited(&app, 10).await;
    let body = json!({ "feature_id": "ai_requests", "amount": 2, "idempotency_key": "one" });
    let first = consume(&app, &ada, body.clone()).await.expect_status(200);
    let again = consume(&app, &ada, body.clone()).await.expect_status(200);
    assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &first.body));
    let header = app.post("/api/usage").bearer(&ada).idempotency_key("one");
    let header = header.json(json!({ "feature_id": "ai_requests", "amount": 2 })).send().await.expect_status(200);
    assert_eq!(header.body, first.body);
    let batch =
        app.post("/api/usage/batch").bearer(&ada).json(json!({ "items": [body] })).send().await.expect_status(200);
    assert_eq!((batch.at("/data/0/replayed"), batch.at("/data/0/consumed")), (&json!(true), &first.body));
    let mut on_behalf = body.clone();
    on_behalf["user_id"] = json!(ada.id.to_string());
    let admin = consume(&app, &app.admin().await, on_behalf).await.expect_status(200);
    assert_eq!(admin.body, first.body);
    let other = json!({ "feature_id": "ai_requests", "amount": 3, "idempotency_key": "one" });
    consume(&app, &ada, other).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(count(&app, "SELECT used FROM usage_counters").await, 2);
}

#[tokio::test]
async fn duplicates_in_flight_share_the_first_outcome() {
    let app = TestApp::start().await;
    let ada = limited(&app, 100).await;
    let body = json!({ "feature_id": "ai_requests", "idempotency_key": "same" });
    let answers = join_all((0..30).map(|_| consume(&app, &ada, body.clone()))).await;
    for answer in answers {
        assert_eq!(answer.expect_status(200).at("/current"), &json!(1));
    }
    assert_eq!(count(&app, "SELECT used FROM usage_counters").await, 1);
}

#[tokio::test]
async fn two_processes_grant_exactly_the_limit() {
    let one = TestApp::start().await;
    let other = TestApp::over(Arc::clone(one.database()), |_| {}).await;
    let ada = limited(&one, 150).await;
    let body = json!({ "feature_id": "ai_requests", "amount": 3 });
    let asked = (0..200).map(|number| consume(if number % 2 == 0 { &one } else { &other }, &ada, body.clone()));
    let answers = join_all(asked).await;
    let granted = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert_eq!((granted, refused), (50, 150));
    assert_eq!(count(&one, "SELECT used FROM usage_counters").await, 150);
    assert_eq!(count(&one, "SELECT count(*) FROM usage_events").await, 50);
    assert_eq!(count(&one, "SELECT count(*) FROM idempotency_keys").await, 50);
}

#[tokio::test]
async fn tokens_pay_for_what_lies_beyond_the_limit() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    allow(&app, &ada, "limit_value = 5, overage = 'tokens'").await;
    let body = json!({ "feature_id": "ai_requests", "amount": 8 });
    let answers = join_all((0..20).map(|_| consume(&app, &ada, body.clone()))).await;
    let granted = i64::try_from(answers.iter().filter(|answer| answer.status == 200).count()).unwrap();
    // 100 tokens and a limit of 5 allow 105 units: 13 times 8.
    assert_eq!(granted, 13);
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.body["code"] == "insufficient_tokens"));
    assert_eq!(count(&app, &format!("SELECT token_balance FROM users WHERE id = '{}'", ada.id)).await, 100 - 99);
    assert_eq!(count(&app, "SELECT overage FROM usage_counters").await, 99);
    let findings = app.get("/api/admin/integrity").bearer(&app.admin().await).send().await;
    assert_eq!(findings.at("/data"), &json!([]), "the ledger is in balance");
}

#[tokio::test]
async fn a_batch_answers_each_for_itself() {
    let app = TestApp::start().await;
    let ada = limited(&app, 5).await;
    let items = json!([
        { "feature_id": "ai_requests", "amount": 4, "idempotency_key": "a" },
        { "feature_id": "ai_requests", "amount": 4, "idempotency_key": "b" },
        { "feature_id": "nothing" },
        { "feature_id": "ai_requests", "amount": 1, "idempotency_key": "c" },
        { "feature_id": "ai_requests", "amount": 4, "idempotency_key": "a" },
        { "feature_id": "ai_requests", "user_id": NOBODY },
    ]);
    let answer =
        app.post("/api/usage/batch").bearer(&ada).json(json!({ "items": items })).send().await.expect_status(200);
    let statuses: Vec<_> = answer.at("/data").as_array().unwrap().iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, [200, 429, 404, 200, 200, 403]);
    assert_eq!(answer.at("/data/4/replayed"), &json!(true));
    assert_eq!(answer.at("/data/1/problem/remaining"), &json!(1));
    for items in [json!([]), json!(vec![json!({ "feature_id": "ai_requests" }); 1_001])] {
        expect_field(app.post("/api/usage/batch").bearer(&ada).json(json!({ "items": items })).send().await, "items");
    }
    let many = json!({ "items": vec![json!({ "feature_id": "custom_theme" }); 1_000] });
    let many = app.post("/api/usage/batch").bearer(&ada).json(many).send().await.expect_status(200);
    assert!(many.at("/data").as_array().unwrap().iter().all(|item| item["status"] == 200));
}

#[tokio::test]
async fn consuming_for_others_needs_the_right() {
    let app = TestApp::start().await;
    let (ada, eve) = (limited(&app, 5).await, app.signup("eve@example.com").await);
    for user_id in [ada.id.to_string(), NOBODY.to_owned()] {
        let body = json!({ "feature_id": "ai_requests", "user_id": user_id });
        consume(&app, &eve, body).await.expect_problem(403, "forbidden");
    }
    let admin = app.admin().await;
    let body = json!({ "feature_id": "ai_requests", "user_id": NOBODY });
    consume(&app, &admin, body).await.expect_problem(404, "not_found");
    let body = json!({ "feature_id": "ai_requests", "user_id": ada.id.to_string() });
    assert_eq!(consume(&app, &admin, body).await.expect_status(200).at("/remaining"), &json!(4));
}

#[tokio::test]
async fn a_new_period_is_a_new_counter_and_a_plan_change_keeps_the_old_one() {
    let app = TestApp::start().await;
    let ada = limited(&app, 5).await;
    let last_month = format!(
        "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used)
         VALUES ('{}', 'ai_requests', 'month', date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '1 month', 5)",
        ada.id
    );
    app.database().sql(&last_month).await;
    let body = json!({ "feature_id": "ai_requests", "amount": 5 });
    assert_eq!(consume(&app, &ada, body.clone()).await.expect_status(200).at("/current"), &json!(5));
    consume(&app, &ada, body.clone()).await.expect_problem(429, "limit_reached");
    let up = json!({ "plan_id": "platinum" });
    app.post("/api/users/me/plan").bearer(&ada).json(up).send().await.expect_status(200);
    let unlimited = consume(&app, &ada, body).await.expect_status(200);
    assert_eq!((unlimited.at("/current"), unlimited.at("/limit")), (&json!(10), &Value::Null));
}

#[tokio::test]
async fn a_period_that_moves_carries_what_was_used_and_brings_no_second_quota() {
    let app = TestApp::start().await;
    let ada = limited(&app, 5).await;
    let used = |answer: Answer| (answer.status, answer.at("/current").clone(), answer.at("/remaining").clone());
    let body = |amount: i64| json!({ "feature_id": "ai_requests", "amount": amount });
    let check = async || app.get("/api/users/me/features/ai_requests").bearer(&ada).send().await;
    assert_eq!(used(consume(&app, &ada, body(2)).await), (200, json!(2), json!(3)));
    // The kind of period changes: the check already has the use before anything is counted in the new period.
    allow(&app, &ada, "limit_period = 'billing_period'").await;
    assert_eq!(used(check().await), (200, json!(2), json!(3)));
    assert_eq!(used(consume(&app, &ada, body(1)).await), (200, json!(3), json!(2)));
    // The anchor changes: a subscription begins.
    let subscription = format!(
        "INSERT INTO user_subscriptions (user_id, plan_id, status, current_period_start, current_period_end)
         VALUES ('{}', 'gold', 'active', now() - interval '1 hour', now() + interval '1 month')",
        ada.id
    );
    app.database().sql(&subscription).await;
    assert_eq!(used(consume(&app, &ada, body(1)).await), (200, json!(4), json!(1)));
    // Back to the first counter, which does not have the last two units.
    allow(&app, &ada, "limit_period = 'month'").await;
    assert_eq!(used(check().await), (200, json!(4), json!(1)));
    assert_eq!(used(consume(&app, &ada, body(1)).await), (200, json!(5), json!(0)));
    consume(&app, &ada, body(1)).await.expect_problem(429, "limit_reached");
    assert_eq!(count(&app, "SELECT count(*) FROM usage_counters WHERE NOT superseded").await, 1);
    assert_eq!(count(&app, "SELECT sum(used - carried)::bigint FROM usage_counters").await, 5);
    assert_eq!(count(&app, "SELECT sum(amount)::bigint FROM usage_events").await, 5);
}
