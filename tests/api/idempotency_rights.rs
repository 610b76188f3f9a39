//! Stored responses: a response is replayed only to credentials that could have received it themselves.

use harness::{Answer, Bearer, TestApp, TestUser};
use serde_json::{Value, json};

async fn key(app: &TestApp, maker: &TestUser, body: Value) -> Answer {
    app.post("/api/keys").bearer(maker).json(body).send().await.expect_status(201)
}

async fn send(app: &TestApp, path: &str, who: &(impl Bearer + ?Sized), body: &Value) -> Answer {
    app.post(path).bearer(who).idempotency_key(&format!("once {path}")).json(body).send().await
}

#[tokio::test]
async fn a_weak_key_gets_no_secret_of_a_strong_one() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let manager = |mut more: Value| {
        let mut body = json!({ "name": "m", "permissions": ["keys:manage"] });
        body.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
        body
    };
    let all = json!({ "permissions": ["keys:manage", "users:read", "usage:write"] });
    let strong = key(&app, &ada, manager(all)).await;
    let body = json!({ "name": "n", "permissions": ["keys:manage"] });
    let by_strong = send(&app, "/api/keys", strong.text_at("/key"), &body).await.expect_status(201);
    let limited = json!({ "limits": { "monthly_cost_usd": "1" } });
    let short = json!({ "expires_at": crate::in_seconds(600) });
    for (what, more) in [("fewer permissions", json!({})), ("limits", limited), ("a shorter life", short)] {
        let weak = key(&app, &ada, manager(more)).await;
        let refused = send(&app, "/api/keys", weak.text_at("/key"), &body).await;
        let refused = refused.expect_problem(403, "idempotency_key_forbidden");
        assert!(!refused.text.contains(by_strong.text_at("/key")), "{what}");
    }
    for again in [strong.text_at("/key"), ada.access_token.as_str()] {
        let replayed = send(&app, "/api/keys", again, &body).await.expect_status(201);
        assert_eq!(replayed.text, by_strong.text, "whoever could do as much gets it");
    }
    let path = format!("/api/keys/{}/rotate", strong.text_at("/id"));
    let successor = app.post(&path).bearer(strong.text_at("/key")).json(json!({})).send().await.expect_status(201);
    assert_eq!(send(&app, "/api/keys", successor.text_at("/key"), &body).await.text, by_strong.text);
    // A key that may not grant these permissions gets that error first.
    let body = json!({ "name": "n", "permissions": ["users:read"] });
    let weak = key(&app, &ada, manager(json!({}))).await;
    let path = "/api/keys";
    let made = app.post(path).bearer(&ada).idempotency_key("other").json(&body).send().await.expect_status(201);
    let refused = app.post(path).bearer(weak.text_at("/key")).idempotency_key("other").json(&body).send().await;
    assert!(!refused.expect_problem(403, "forbidden").text.contains(made.text_at("/key")));
    assert_eq!(app.database().query_scalar::<i64>("SELECT count(*) FROM idempotent_answers").await, 2);
}

#[tokio::test]
async fn a_rotation_is_given_again_to_the_same_key_only_or_to_a_stronger_one() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let managing = json!({ "name": "m", "permissions": ["keys:manage"] });
    let (one, other) = (key(&app, &ada, managing.clone()).await, key(&app, &ada, managing).await);
    let path = format!("/api/keys/{}/rotate", one.text_at("/id"));
    let body = json!({ "overlap_seconds": 600 });
    let first = send(&app, &path, one.text_at("/key"), &body).await.expect_status(201);
    // The rotated key is in its overlap, and the response is its own.
    assert_eq!(send(&app, &path, one.text_at("/key"), &body).await.text, first.text);
    assert_eq!(send(&app, &path, &ada, &body).await.text, first.text);
    assert_eq!(send(&app, &path, other.text_at("/key"), &body).await.text, first.text, "it could have rotated it");
    app.database().sql("UPDATE idempotent_answers SET rights = NULL").await;
    assert_eq!(send(&app, &path, &ada, &body).await.text, first.text, "an answer of an earlier release");
    send(&app, &path, other.text_at("/key"), &body).await.expect_problem(403, "idempotency_key_forbidden");
}

/// Each route that takes an `Idempotency-Key`: a key of the same user without the route's permission, and one with that
/// permission but fewer others, get nothing of a stored response.
#[tokio::test]
async fn no_route_gives_a_stored_answer_to_who_may_less() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let made = key(&app, &admin, json!({ "name": "server" })).await;
    let rotate = format!("/api/keys/{}/rotate", made.text_at("/id"));
    let grant = format!("/api/admin/users/{}/plan", ada.id);
    let named = |id: &str| json!({ "id": id, "name": id, "display_name": id });
    let price =
        json!({ "provider": "openai", "model": "gpt-one", "kind": "input", "usd_per_million": "1", "version": "v" });
    let nothing = key(&app, &admin, json!({ "name": "n", "permissions": ["users:read"] })).await;
    let credit = json!({ "user_id": ada.id, "amount": 5 });
    let used = json!({ "feature_id": "ai_requests", "amount": 1 });
    let held = json!({ "feature_id": "ai_requests", "amount": 1, "ttl_seconds": 60 });
    let told = json!({ "message": "hi", "model": "gpt-6-sol" });
    for (path, body, permission, is_bound) in [
        ("/api/plans", named("silver"), "plans:write", true),
        ("/api/features", named("search"), "plans:write", true),
        ("/api/admin/prices", price, "plans:write", true),
        ("/api/keys", json!({ "name": "k", "permissions": ["keys:manage"] }), "keys:manage", true),
        (rotate.as_str(), json!({}), "keys:manage", true),
        ("/api/users/me/plan", json!({ "plan_id": "gold" }), "billing:manage", true),
        (grant.as_str(), json!({ "plan_id": "platinum" }), "users:write", true),
        ("/api/ai/sessions", json!({ "title": "t" }), "ai:chat", true),
        ("/api/ai/chat", told, "ai:chat", true),
        ("/api/tokens/topup", credit.clone(), "billing:manage", false),
        ("/api/tokens/bonus", credit, "billing:manage", false),
        ("/api/usage", used, "usage:write", false),
        ("/api/usage/reservations", held, "usage:write", false),
    ] {
        let first = send(&app, path, &admin, &body).await;
        assert!((200..300).contains(&first.status), "{first}");
        let refused = send(&app, path, nothing.text_at("/key"), &body).await;
        assert_eq!((refused.status, &refused.body["code"]), (403, &json!("forbidden")), "{path}: {refused}");
        let able = key(&app, &admin, json!({ "name": "a", "permissions": [permission] })).await;
        let second = send(&app, path, able.text_at("/key"), &body).await;
        if is_bound {
            assert_eq!(second.status, 403, "{path}: {second}");
            let code = second.body["code"].as_str().unwrap_or_default().to_owned();
            assert!(["idempotency_key_forbidden", "forbidden"].contains(&code.as_str()), "{path}: {second}");
        } else {
            // The response is the row, which a caller with the permission may read through other routes too.
            assert_eq!(second.header("idempotency-replayed"), Some("true"), "{path}: {second}");
        }
        let again = send(&app, path, &admin, &body).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{path}: {again}");
        assert_eq!(again.text, first.text, "{path}");
    }
}
