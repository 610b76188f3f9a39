//! Reservations over HTTP: the reserved amount can be used once, despite repeats, late requests and lost responses.

use futures_util::future::join_all;
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::usage::{allow, count, limited};
use crate::{NOBODY, expect_field};

async fn reserve(app: &TestApp, user: &TestUser, body: Value) -> Answer {
    app.post("/api/usage/reservations").bearer(user).json(body).send().await
}

async fn held(app: &TestApp, user: &TestUser, amount: i64) -> String {
    let answer = reserve(app, user, json!({ "feature_id": "ai_requests", "amount": amount })).await.expect_status(201);
    answer.text_at("/id").to_owned()
}

async fn change(app: &TestApp, user: &TestUser, id: &str, action: &str, body: Value) -> Answer {
    let request = app.post(&format!("/api/usage/reservations/{id}/{action}")).bearer(user);
    if body.is_null() { request.send().await } else { request.json(body).send().await }
}

async fn settle(app: &TestApp, user: &TestUser, id: &str, amount: i64) -> Answer {
    change(app, user, id, "settle", json!({ "amount": amount })).await
}

async fn release(app: &TestApp, user: &TestUser, id: &str) -> Answer {
    change(app, user, id, "release", Value::Null).await
}

/// `used`, `reserved`, `overage` of the only counter.
async fn counter(app: &TestApp) -> (i64, i64, i64) {
    let numbers = app
        .database()
        .query_all("SELECT used, reserved, overage FROM usage_counters WHERE feature_id = 'ai_requests'")
        .await;
    assert_eq!(numbers.len(), 1);
    numbers[0]
}

/// Makes every reservation overdue, and waits until the job has expired them.
async fn let_expire(app: &TestApp) {
    app.database().sql("UPDATE usage_reservations SET expires_at = now() - interval '1 minute'").await;
    for _ in 0..300 {
        if count(app, "SELECT count(*) FROM usage_reservations WHERE status = 'pending'").await == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the sweep gives back what is overdue, within 15 s");
}

async fn expect_books_in_order(app: &TestApp) {
    let findings = app.get("/api/admin/integrity").bearer(&app.admin().await).send().await;
    assert_eq!(findings.at("/data"), &json!([]));
}

#[tokio::test]
async fn what_is_held_is_kept_from_others_and_settled_with_what_was_used() {
    let app = TestApp::start().await;
    let ada = limited(&app, 10).await;
    let first = reserve(&app, &ada, json!({ "feature_id": "ai_requests", "amount": 6 })).await.expect_status(201);
    let numbers = (first.at("/amount"), first.text_at("/status"), first.at("/reserved"), first.at("/remaining"));
    assert_eq!(numbers, (&json!(6), "pending", &json!(6), &json!(4)));
    assert!(first.text_at("/expires_at").ends_with('Z') && !first.text_at("/idempotency_key").is_empty());
    let refused = reserve(&app, &ada, json!({ "feature_id": "ai_requests", "amount": 5 })).await;
    assert_eq!(refused.expect_problem(429, "limit_reached").at("/reserved"), &json!(6));
    let consumed = app.post("/api/usage").bearer(&ada).json(json!({ "feature_id": "ai_requests", "amount": 5 }));
    consumed.send().await.expect_problem(429, "limit_reached");
    let id = first.text_at("/id");
    let settled = settle(&app, &ada, id, 4).await.expect_status(200);
    let numbers = (settled.text_at("/status"), settled.at("/amount"), settled.at("/held"), settled.at("/overage"));
    assert_eq!(numbers, ("settled", &json!(4), &json!(6), &json!(0)));
    assert_eq!(
        (settled.at("/current"), settled.at("/reserved"), settled.at("/remaining")),
        (&json!(4), &json!(0), &json!(6))
    );
    assert_eq!(counter(&app).await, (4, 0, 0));
    assert_eq!(count(&app, "SELECT sum(amount)::bigint FROM usage_events WHERE reservation_id IS NOT NULL").await, 4);
    expect_books_in_order(&app).await;
}

#[tokio::test]
async fn more_than_was_held_is_counted_too() {
    let app = TestApp::start().await;
    let ada = limited(&app, 10).await;
    let id = held(&app, &ada, 8).await;
    let settled = settle(&app, &ada, &id, 12).await.expect_status(200);
    assert_eq!(
        (settled.at("/current"), settled.at("/overage"), settled.at("/remaining")),
        (&json!(12), &json!(4), &json!(2))
    );
    assert_eq!(counter(&app).await, (12, 0, 4));
    let nothing = held(&app, &ada, 2).await;
    settle(&app, &ada, &nothing, 0).await.expect_status(200);
    assert_eq!(counter(&app).await, (12, 0, 4));
    expect_books_in_order(&app).await;
}

#[tokio::test]
async fn a_repeat_is_answered_as_it_was_first_and_another_end_is_a_conflict() {
    let app = TestApp::start().await;
    let ada = limited(&app, 10).await;
    let body = json!({ "feature_id": "ai_requests", "amount": 3, "idempotency_key": "hold", "ttl_seconds": 60 });
    let first = reserve(&app, &ada, body.clone()).await.expect_status(201);
    let again = reserve(&app, &ada, body.clone()).await.expect_status(201);
    assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &first.body));
    let mut other = body.clone();
    other["ttl_seconds"] = json!(61);
    reserve(&app, &ada, other).await.expect_problem(422, "idempotency_key_reused");
    let consumed = json!({ "feature_id": "ai_requests", "amount": 3, "idempotency_key": "hold" });
    let consumed = app.post("/api/usage").bearer(&ada).json(consumed).send().await;
    consumed.expect_problem(422, "idempotency_key_reused");

    let id = first.text_at("/id");
    let settled = settle(&app, &ada, id, 2).await.expect_status(200);
    held(&app, &ada, 5).await;
    let again = settle(&app, &ada, id, 2).await.expect_status(200);
    assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &settled.body));
    let otherwise = settle(&app, &ada, id, 3).await.expect_problem(409, "reservation_settled");
    assert_eq!((otherwise.text_at("/reservation_status"), otherwise.at("/amount")), ("settled", &json!(2)));
    release(&app, &ada, id).await.expect_problem(409, "reservation_settled");
    change(&app, &ada, id, "extend", json!({})).await.expect_problem(409, "reservation_settled");
    // The response to the reservation's idempotency key is the original one, although the reservation has ended.
    assert_eq!(reserve(&app, &ada, body).await.expect_status(201).body, first.body);

    let released = held(&app, &ada, 1).await;
    let first = release(&app, &ada, &released).await.expect_status(200);
    assert_eq!((first.text_at("/status"), first.at("/reserved")), ("released", &json!(5)));
    assert_eq!(release(&app, &ada, &released).await.expect_status(200).body, first.body);
    settle(&app, &ada, &released, 1).await.expect_problem(409, "reservation_released");
    assert_eq!(counter(&app).await, (2, 5, 0));
    expect_books_in_order(&app).await;
}

#[tokio::test]
async fn what_nobody_settles_is_given_back_and_a_late_settle_is_still_counted() {
    let app = TestApp::start().await;
    let ada = limited(&app, 10).await;
    let (late, lost) = (held(&app, &ada, 6).await, held(&app, &ada, 4).await);
    let_expire(&app).await;
    assert_eq!(counter(&app).await, (0, 0, 0));
    change(&app, &ada, &late, "extend", json!({})).await.expect_problem(409, "reservation_expired");
    held(&app, &ada, 7).await;
    let settled = settle(&app, &ada, &late, 6).await.expect_status(200);
    assert_eq!((settled.text_at("/status"), settled.at("/overage")), ("settled", &json!(3)));
    assert_eq!(counter(&app).await, (6, 7, 3), "three still fit beside what is held");
    assert_eq!(settle(&app, &ada, &late, 6).await.expect_status(200).body, settled.body);
    let released = release(&app, &ada, &lost).await.expect_status(200);
    assert_eq!(released.text_at("/status"), "released");
    expect_books_in_order(&app).await;
}

#[tokio::test]
async fn a_hold_is_extended_in_time_and_in_amount() {
    let app = TestApp::start().await;
    let ada = limited(&app, 10).await;
    let id = held(&app, &ada, 4).await;
    let ends = |answer: &Answer| answer.text_at("/expires_at").to_owned();
    let longer = change(&app, &ada, &id, "extend", json!({ "ttl_seconds": 3_600 })).await.expect_status(200);
    let shorter = change(&app, &ada, &id, "extend", json!({ "ttl_seconds": 10 })).await.expect_status(200);
    assert_eq!(ends(&longer), ends(&shorter), "a later end stays");
    let more = change(&app, &ada, &id, "extend", json!({ "amount": 9 })).await.expect_status(200);
    assert_eq!((more.at("/amount"), more.at("/reserved"), more.at("/remaining")), (&json!(9), &json!(9), &json!(1)));
    let same = change(&app, &ada, &id, "extend", json!({ "amount": 9 })).await.expect_status(200);
    assert_eq!(same.at("/reserved"), &json!(9), "the whole is said, so that a repeat adds nothing");
    change(&app, &ada, &id, "extend", json!({ "amount": 11 })).await.expect_problem(429, "limit_reached");
    assert_eq!(counter(&app).await, (0, 9, 0));
    settle(&app, &ada, &id, 9).await.expect_status(200);
    assert_eq!(counter(&app).await, (9, 0, 0));
}

#[tokio::test]
async fn the_part_beyond_the_limit_is_held_on_the_tokens() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    allow(&app, &ada, "limit_value = 5, overage = 'tokens'").await;
    let balance = async || {
        let sql = format!("SELECT token_balance, token_reserved FROM users WHERE id = '{}'", ada.id);
        app.database().query_all::<(i64, i64)>(&sql).await[0]
    };
    let id = held(&app, &ada, 65).await;
    assert_eq!((balance().await, counter(&app).await), ((100, 60), (0, 5, 0)));
    let refused = reserve(&app, &ada, json!({ "feature_id": "ai_requests", "amount": 41 })).await;
    refused.expect_problem(402, "insufficient_tokens");
    let lost = held(&app, &ada, 40).await;
    assert_eq!(balance().await, (100, 100));
    settle(&app, &ada, &id, 25).await.expect_status(200);
    assert_eq!((balance().await, counter(&app).await), ((80, 40), (25, 0, 20)));
    let_expire(&app).await;
    assert_eq!(balance().await, (80, 0));
    let answer = settle(&app, &ada, &lost, 100).await.expect_status(200);
    assert_eq!((answer.at("/overage"), balance().await), (&json!(100), (0, 0)), "as far as the balance goes");
    assert_eq!(counter(&app).await, (125, 0, 120));
    expect_books_in_order(&app).await;
}

#[tokio::test]
async fn a_hold_is_settled_in_the_period_in_which_it_was_made() {
    let app = TestApp::start().await;
    let ada = limited(&app, 10).await;
    let id = held(&app, &ada, 6).await;
    let last_month = "date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '1 month'";
    app.database()
        .sql(&format!(
            "UPDATE usage_counters SET period_start = {last_month}, period_end = period_start;
             UPDATE usage_reservations SET period_start = {last_month}"
        ))
        .await;
    let whole = held(&app, &ada, 10).await;
    let settled = settle(&app, &ada, &id, 5).await.expect_status(200);
    assert_eq!((settled.at("/current"), settled.at("/reserved")), (&json!(5), &json!(0)));
    settle(&app, &ada, &whole, 10).await.expect_status(200);
    let used = "SELECT string_agg(used || '/' || reserved, ' ' ORDER BY period_start) FROM usage_counters";
    assert_eq!(app.database().query_scalar::<String>(used).await, "5/0 10/0");
    assert_eq!(count(&app, "SELECT count(DISTINCT period_start) FROM usage_events").await, 2);
}

#[tokio::test]
async fn holds_at_once_never_exceed_the_limit_and_end_once() {
    let app = TestApp::start().await;
    let ada = limited(&app, 100).await;
    let body = json!({ "feature_id": "ai_requests", "amount": 3 });
    let answers = join_all((0..60).map(|_| reserve(&app, &ada, body.clone()))).await;
    let ids: Vec<_> =
        answers.iter().filter(|answer| answer.status == 201).map(|answer| answer.text_at("/id").to_owned()).collect();
    assert_eq!((ids.len(), counter(&app).await), (33, (0, 99, 0)));
    let endings = ids.iter().flat_map(|id| [(id, 1), (id, 2), (id, 3), (id, 2)]);
    let endings = endings.map(|(id, amount)| settle(&app, &ada, id, amount));
    let answers = join_all(endings).await;
    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status)));
    let used = count(&app, "SELECT sum(settled_amount)::bigint FROM usage_reservations WHERE status = 'settled'").await;
    assert_eq!(counter(&app).await, (used, 0, 0));
    assert_eq!(count(&app, "SELECT count(*) FROM usage_events").await, 33);
    expect_books_in_order(&app).await;
}

#[tokio::test]
async fn bad_input_is_told_apart() {
    let app = TestApp::start().await;
    let (ada, eve) = (limited(&app, 10).await, app.signup("eve@example.com").await);
    for (field, value) in
        [("amount", json!(0)), ("amount", json!(1.5)), ("ttl_seconds", json!(0)), ("ttl_seconds", json!(86_401))]
    {
        let mut body = json!({ "feature_id": "ai_requests" });
        body[field] = value;
        expect_field(reserve(&app, &ada, body).await, field);
    }
    reserve(&app, &ada, json!({ "feature_id": "nothing" })).await.expect_problem(404, "not_found");
    expect_field(reserve(&app, &ada, json!({ "feature_id": "custom_theme", "amount": 2 })).await, "amount");
    let others = json!({ "feature_id": "ai_requests", "user_id": ada.id.to_string() });
    reserve(&app, &eve, others.clone()).await.expect_problem(403, "forbidden");
    let id = held(&app, &ada, 2).await;
    for amount in [json!(-1), json!(0.5), Value::Null] {
        expect_field(change(&app, &ada, &id, "settle", json!({ "amount": amount })).await, "amount");
    }
    for (user, id) in [(&ada, NOBODY), (&ada, "no-id"), (&eve, id.as_str())] {
        settle(&app, user, id, 1).await.expect_problem(404, "not_found");
        release(&app, user, id).await.expect_problem(404, "not_found");
        change(&app, user, id, "extend", json!({})).await.expect_problem(404, "not_found");
    }
    let admin = app.admin().await;
    let on_behalf = reserve(&app, &admin, others).await.expect_status(201);
    settle(&app, &ada, on_behalf.text_at("/id"), 1).await.expect_status(200);
    settle(&app, &admin, &id, 2).await.expect_status(200);
    assert_eq!(counter(&app).await, (3, 0, 0));
}
