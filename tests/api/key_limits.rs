//! Limits of API keys: shown, changed, removed, kept at a rotation; and who may set them.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field, find};

async fn create(app: &TestApp, bearer: &str, body: Value) -> Answer {
    app.post("/api/keys").bearer(bearer).json(body).send().await
}

async fn change(app: &TestApp, bearer: &str, id: &str, body: Value) -> Answer {
    app.patch(&format!("/api/keys/{id}")).bearer(bearer).json(body).send().await
}

fn limits(requests: Option<i64>, tokens: Option<i64>, cost: Option<&str>) -> Value {
    json!({ "requests_per_minute": requests, "tokens_per_minute": tokens, "monthly_cost_usd": cost })
}

async fn signed_up(app: &TestApp) -> TestUser {
    app.signup("ada@example.com").await
}

#[tokio::test]
async fn limits_are_told_changed_and_taken_away() {
    let app = TestApp::start().await;
    let ada = signed_up(&app).await;
    let bearer = ada.access_token.as_str();
    let bare = create(&app, bearer, json!({ "name": "bare" })).await.expect_status(201);
    assert_eq!(bare.at("/limits"), &limits(None, None, None));
    let body = json!({ "name": "k", "limits": { "requests_per_minute": 60, "monthly_cost_usd": "12.500000001" } });
    let key = create(&app, bearer, body).await.expect_status(201);
    assert_eq!(key.at("/limits"), &limits(Some(60), None, Some("12.500000001")));
    let id = key.text_at("/id");
    for (body, name, expected) in [
        (json!({}), "k", limits(Some(60), None, Some("12.500000001"))),
        (json!({ "name": "other" }), "other", limits(Some(60), None, Some("12.500000001"))),
        (
            json!({ "limits": { "tokens_per_minute": 1_000 } }),
            "other",
            limits(Some(60), Some(1_000), Some("12.500000001")),
        ),
        (
            json!({ "limits": { "requests_per_minute": null } }),
            "other",
            limits(None, Some(1_000), Some("12.500000001")),
        ),
        (
            json!({ "limits": { "monthly_cost_usd": "9223372036.854775807" } }),
            "other",
            limits(None, Some(1_000), Some("9223372036.854775807")),
        ),
        (json!({ "limits": { "monthly_cost_usd": 0.5 } }), "other", limits(None, Some(1_000), Some("0.5"))),
        (json!({ "limits": {} }), "other", limits(None, Some(1_000), Some("0.5"))),
        (json!({ "limits": null }), "other", limits(None, None, None)),
    ] {
        let changed = change(&app, bearer, id, body.clone()).await.expect_status(200);
        assert_eq!((changed.at("/name"), changed.at("/limits")), (&json!(name), &expected), "{body}");
        let read = app.get(&format!("/api/keys/{id}")).bearer(&ada).send().await.expect_status(200);
        assert_eq!(read.body, changed.body);
    }
    let listed = app.get("/api/keys").bearer(&ada).send().await.expect_status(200);
    assert_eq!(find(listed.at("/data"), "id", id)["limits"], limits(None, None, None));
    let actor = format!(
        "SELECT count(*) FROM audit_logs WHERE table_name = 'api_keys' AND record_id = '{id}' AND actor_id = '{}'",
        ada.id
    );
    assert_eq!(app.database().query_scalar::<i64>(&actor).await, 6, "each change is in the audit trail");
}

#[tokio::test]
async fn unfit_limits_name_their_field() {
    let app = TestApp::start().await;
    let ada = signed_up(&app).await;
    let key = create(&app, &ada.access_token, json!({ "name": "k" })).await.expect_status(201);
    for (field, value) in [
        ("requests_per_minute", json!(0)),
        ("requests_per_minute", json!(-1)),
        ("requests_per_minute", json!(1.5)),
        ("requests_per_minute", json!("many")),
        ("tokens_per_minute", json!(0)),
        ("monthly_cost_usd", json!("0")),
        ("monthly_cost_usd", json!("-1")),
        ("monthly_cost_usd", json!("0.0000000001")),
        ("monthly_cost_usd", json!("9223372036.854775808")),
        ("monthly_cost_usd", json!("much")),
        ("requests_per_day", json!(1)),
    ] {
        let mut body = json!({ "name": "k", "limits": {} });
        body["limits"][field] = value;
        let field = format!("limits.{field}");
        expect_field(create(&app, &ada.access_token, body.clone()).await, &field);
        expect_field(change(&app, &ada.access_token, key.text_at("/id"), body).await, &field);
    }
    for body in [json!({ "name": "" }), json!({ "name": "a\nb" })] {
        expect_field(change(&app, &ada.access_token, key.text_at("/id"), body).await, "name");
    }
    let body = json!({ "permissions": ["*"] });
    expect_field(change(&app, &ada.access_token, key.text_at("/id"), body).await, "permissions");
}

#[tokio::test]
async fn a_rotated_key_keeps_its_limits() {
    let app = TestApp::start().await;
    let ada = signed_up(&app).await;
    let told = limits(Some(1), Some(2), Some("3"));
    let key = create(&app, &ada.access_token, json!({ "name": "k", "limits": told })).await.expect_status(201);
    let path = format!("/api/keys/{}/rotate", key.text_at("/id"));
    let successor = app.post(&path).bearer(&ada).json(json!({})).send().await.expect_status(201);
    assert_eq!(successor.at("/limits"), &told);
    assert_ne!(successor.at("/id"), key.at("/id"));
}

#[tokio::test]
async fn a_limited_key_cannot_free_itself() {
    let app = TestApp::start().await;
    let ada = signed_up(&app).await;
    let told = limits(Some(10), None, Some("5"));
    let body = json!({ "name": "k", "permissions": ["keys:manage"], "limits": told });
    let limited = create(&app, &ada.access_token, body).await.expect_status(201);
    let free = create(&app, &ada.access_token, json!({ "name": "free", "permissions": ["keys:manage"] })).await;
    let (bearer, id) = (limited.text_at("/key"), limited.text_at("/id"));
    for wider in [json!(null), limits(Some(11), None, Some("5")), limits(Some(10), None, None)] {
        change(&app, bearer, id, json!({ "limits": wider })).await.expect_problem(403, "forbidden");
        let body = json!({ "name": "n", "permissions": ["keys:manage"], "limits": wider });
        create(&app, bearer, body).await.expect_problem(403, "forbidden");
    }
    let rotate = format!("/api/keys/{}/rotate", free.text_at("/id"));
    app.post(&rotate).bearer(bearer).json(json!({})).send().await.expect_problem(403, "forbidden");
    let body = json!({ "name": "n", "permissions": ["keys:manage"], "limits": limits(Some(10), Some(1), Some("4.9")) });
    create(&app, bearer, body).await.expect_status(201);
    change(&app, bearer, id, json!({ "name": "renamed" })).await.expect_status(200);
    change(&app, bearer, id, json!({ "limits": { "requests_per_minute": 1 } })).await.expect_status(200);
    // Its own limit, as cached, is the new one at once.
    change(&app, bearer, id, json!({ "limits": { "requests_per_minute": 10 } })).await.expect_problem(403, "forbidden");
    change(&app, &ada.access_token, id, json!({ "limits": null })).await.expect_status(200);
    change(&app, bearer, id, json!({ "limits": { "requests_per_minute": 99 } })).await.expect_status(200);
}

#[tokio::test]
async fn other_limits_reach_every_process_within_a_second() {
    let one = TestApp::start().await;
    let other = TestApp::over(one.database().clone(), |_| {}).await;
    let ada = signed_up(&one).await;
    let body = json!({ "name": "k", "permissions": ["keys:manage"] });
    let key = create(&one, &ada.access_token, body).await.expect_status(201);
    let (bearer, id) = (key.text_at("/key"), key.text_at("/id"));
    // The other process has cached the key without limits.
    change(&other, bearer, id, json!({ "name": "a" })).await.expect_status(200);
    let told = json!({ "limits": { "requests_per_minute": 5 } });
    change(&one, &ada.access_token, id, told).await.expect_status(200);
    other.advance(std::time::Duration::from_millis(1_100));
    let wider = json!({ "name": "b", "permissions": ["keys:manage"] });
    create(&other, bearer, wider).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn another_users_key_is_none() {
    let app = TestApp::start().await;
    let (ada, eve) = (signed_up(&app).await, app.signup("eve@example.com").await);
    let key = create(&app, &ada.access_token, json!({ "name": "k" })).await.expect_status(201);
    for id in [key.text_at("/id"), NOBODY, "no-id"] {
        change(&app, &eve.access_token, id, json!({ "name": "hers" })).await.expect_problem(404, "not_found");
    }
    let body = json!({ "name": "r", "permissions": ["usage:check"] });
    let reader = create(&app, &ada.access_token, body).await.expect_status(201);
    let refused = change(&app, reader.text_at("/key"), key.text_at("/id"), json!({ "name": "x" })).await;
    refused.expect_problem(403, "forbidden");
}
