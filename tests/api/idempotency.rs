//! Idempotency: a request that is sent twice with one idempotency key is executed once, and gets the same bytes twice.

use futures_util::future::join_all;
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

async fn make_key(app: &TestApp, who: &TestUser, idempotency_key: &str, body: Value) -> Answer {
    app.post("/api/keys").bearer(who).idempotency_key(idempotency_key).json(body).send().await
}

async fn count(app: &TestApp, table: &str) -> i64 {
    app.database().query_scalar(&format!("SELECT count(*) FROM {table}")).await
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_same_bytes() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let body = json!({ "name": "server" });
    let first = make_key(&app, &ada, "k1", body.clone()).await.expect_status(201);
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = make_key(&app, &ada, "k1", body.clone()).await.expect_status(201);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(
        (again.text.as_str(), again.header("content-type")),
        (first.text.as_str(), first.header("content-type"))
    );
    assert_eq!(again.header("cache-control"), Some("no-store"));
    assert_eq!(count(&app, "api_keys").await, 1);
    let stored: String = app.database().query_scalar("SELECT row_to_json(a)::text FROM idempotent_answers AS a").await;
    assert!(!stored.contains(first.text_at("/key")) && !stored.contains("\"k1\""), "the answer lies sealed: {stored}");
    // Another process returns the same response, because it is stored in the database.
    let other = TestApp::over(app.database().clone(), |_| {}).await;
    let elsewhere = make_key(&other, &ada, "k1", body).await.expect_status(201);
    assert_eq!(elsewhere.text, first.text);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    make_key(&app, &ada, "k1", json!({ "name": "server" })).await.expect_status(201);
    let other = make_key(&app, &ada, "k1", json!({ "name": "another" })).await;
    other.expect_problem(422, "idempotency_key_reused");
    assert_eq!(count(&app, "api_keys").await, 1);
}

#[tokio::test]
async fn a_key_belongs_to_one_caller_and_one_route() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let body = json!({ "name": "server" });
    let first = make_key(&app, &ada, "k1", body.clone()).await.expect_status(201);
    let others = make_key(&app, &eve, "k1", body).await.expect_status(201);
    assert_ne!(first.text_at("/id"), others.text_at("/id"));
    let rotate = app.post(&format!("/api/keys/{}/rotate", first.text_at("/id"))).bearer(&ada).idempotency_key("k1");
    let rotated = rotate.json(json!({})).send().await.expect_status(201);
    assert_eq!(rotated.header("idempotency-replayed"), None);
    assert_eq!(count(&app, "api_keys").await, 3);
}

#[tokio::test]
async fn twenty_requests_at_once_make_exactly_one() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let body = json!({ "name": "server" });
    let answers = join_all((0..20).map(|_| make_key(&app, &ada, "k1", body.clone()))).await;
    assert_eq!(count(&app, "api_keys").await, 1);
    let mut made: Vec<String> = Vec::new();
    for answer in answers {
        if answer.status == 201 {
            made.push(answer.text);
        } else {
            let waiting = answer.expect_problem(409, "idempotency_key_in_flight");
            assert!(waiting.header("retry-after").is_some(), "{waiting}");
        }
    }
    assert!(!made.is_empty());
    made.dedup();
    assert_eq!(made.len(), 1, "whoever got an answer got the same");
    let later = make_key(&app, &ada, "k1", body).await.expect_status(201);
    assert_eq!(later.text, made[0]);
}

#[tokio::test]
async fn a_refusal_claims_nothing() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let refused = json!({ "name": "server", "permissions": ["plans:write"] });
    make_key(&app, &ada, "k1", refused).await.expect_problem(403, "forbidden");
    make_key(&app, &ada, "k1", json!({ "name": "" })).await.expect_problem(422, "invalid");
    make_key(&app, &ada, "k1", json!({ "name": "server" })).await.expect_status(201);
    let change = async |plan: &str| {
        let request = app.post("/api/users/me/plan").bearer(&ada).idempotency_key("k2");
        request.json(json!({ "plan_id": plan })).send().await
    };
    change("silver").await.expect_problem(404, "not_found");
    let silver = json!({ "id": "silver", "name": "Silver", "display_name": "Silver" });
    app.post("/api/plans").bearer(&admin).json(silver).send().await.expect_status(201);
    let changed = change("silver").await.expect_status(200);
    assert_eq!(changed.header("idempotency-replayed"), None);
    assert_eq!(change("silver").await.expect_status(200).text, changed.text, "and no `same_plan`");
}

#[tokio::test]
async fn a_preview_does_not_take_the_key_of_the_change() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let own = "/api/users/me/plan".to_owned();
    let granted = format!("/api/admin/users/{}/plan", ada.id);
    for (path, who, plan) in [(own, &ada, "gold"), (granted, &admin, "platinum")] {
        let ask = async |path: &str| {
            let request = app.post(path).bearer(who).idempotency_key("k1").json(json!({ "plan_id": plan }));
            request.send().await.expect_status(200)
        };
        assert_eq!(ask(&format!("{path}?preview=true")).await.at("/preview"), true);
        let changed = ask(&path).await;
        assert_eq!((changed.at("/preview"), changed.text_at("/plan_id")), (&json!(false), plan), "{changed}");
    }
}

#[tokio::test]
async fn every_route_that_creates_answers_a_repeat_alike() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let key = app.post("/api/keys").bearer(&ada).json(json!({ "name": "server" })).send().await.expect_status(201);
    let rotate = format!("/api/keys/{}/rotate", key.text_at("/id"));
    let grant = format!("/api/admin/users/{}/plan", ada.id);
    let named = |id: &str| json!({ "id": id, "name": id, "display_name": id });
    for (path, who, body, status) in [
        ("/api/plans", &admin, named("silver"), 201),
        ("/api/features", &admin, named("search"), 201),
        (rotate.as_str(), &ada, json!({}), 201),
        ("/api/users/me/plan", &ada, json!({ "plan_id": "gold" }), 200),
        (grant.as_str(), &admin, json!({ "plan_id": "platinum" }), 200),
    ] {
        let send = async || {
            let request = app.post(path).bearer(who).idempotency_key("once").json(&body);
            request.send().await.expect_status(status)
        };
        let (first, second) = (send().await, send().await);
        assert_eq!(first.text, second.text, "{path}");
        assert_eq!(second.header("idempotency-replayed"), Some("true"), "{path}");
    }
}

#[tokio::test]
async fn an_unfit_key_is_refused() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let body = json!({ "name": "server" });
    for unfit in ["k".repeat(256).as_str(), "", "schlüssel"] {
        let answer = make_key(&app, &ada, unfit, body.clone()).await.expect_problem(422, "invalid");
        assert_eq!(answer.text_at("/errors/0/field"), "Idempotency-Key");
    }
    let twice = app.post("/api/keys").bearer(&ada).idempotency_key("k1").idempotency_key("k2").json(&body).send().await;
    twice.expect_problem(422, "invalid");
    assert_eq!(count(&app, "api_keys").await, 0);
    make_key(&app, &ada, &"k".repeat(255), body).await.expect_status(201);
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time_and_no_longer() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let first = make_key(&app, &ada, "k1", json!({ "name": "server" })).await.expect_status(201);
    let kept: bool = app
        .database()
        .query_scalar("SELECT expires_at >= now() + interval '23 hours 59 minutes' FROM idempotent_answers")
        .await;
    assert!(kept, "at least 24 hours");
    app.database().sql("UPDATE idempotent_answers SET expires_at = now() - interval '1 second'").await;
    let fresh = make_key(&app, &ada, "k1", json!({ "name": "another" })).await.expect_status(201);
    assert_ne!(fresh.text_at("/id"), first.text_at("/id"));
}
