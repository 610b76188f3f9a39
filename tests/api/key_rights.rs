//! The rights of API keys: never more than their creator's, and never access to another user's key.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field};

pub async fn create(app: &TestApp, maker: &(impl harness::Bearer + ?Sized), body: Value) -> Answer {
    app.post("/api/keys").bearer(maker).json(body).send().await
}

/// Gives a user this many usable keys.
pub async fn fill(app: &TestApp, user: &TestUser, keys: u32) {
    let fill = format!(
        "INSERT INTO api_keys (user_id, key_hash, key_prefix, last_four, name) \
         SELECT '{}', 'hash ' || n, 'sk_live_x', 'abcd', 'key ' || n FROM generate_series(1, {keys}) AS n",
        user.id
    );
    app.database().sql(&fill).await;
}

async fn make(app: &TestApp, maker: &(impl harness::Bearer + ?Sized), permissions: Value, on_behalf: bool) -> Answer {
    let body = json!({ "name": "server", "permissions": permissions, "on_behalf": on_behalf });
    create(app, maker, body).await
}

async fn verify(app: &TestApp, who: &TestUser, key: &str) -> Answer {
    app.post("/api/keys/verify").bearer(who).json(json!({ "key": key })).send().await
}

#[tokio::test]
async fn a_key_holds_no_more_than_its_maker() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    for beyond in ["plans:write", "audit:read", "*"] {
        make(&app, &ada, json!(["users:read", beyond]), false).await.expect_problem(403, "forbidden");
        make(&app, &admin, json!([beyond]), false).await.expect_status(201);
    }
    let all_of_a_user = json!([
        "plans:read",
        "usage:check",
        "usage:write",
        "ai:chat",
        "keys:manage",
        "billing:manage",
        "users:read",
        "users:write"
    ]);
    make(&app, &ada, all_of_a_user, false).await.expect_status(201);
    let manager = make(&app, &ada, json!(["keys:manage"]), false).await.expect_status(201);
    let manager = manager.text_at("/key");
    make(&app, manager, json!(["usage:write"]), false).await.expect_problem(403, "forbidden");
    make(&app, manager, json!(["keys:manage"]), false).await.expect_status(201);
    create(&app, manager, json!({ "name": "default" })).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn a_key_made_without_a_word_meters_and_chats() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let key = create(&app, &ada, json!({ "name": "server" })).await.expect_status(201);
    assert_eq!(key.at("/permissions"), &json!(["plans:read", "usage:check", "usage:write", "ai:chat"]));
    let key = key.text_at("/key");
    app.get("/api/users/me/plan").bearer(key).send().await.expect_status(200);
    app.get("/api/users/me/features/ai_requests").bearer(key).send().await.expect_status(200);
    app.get("/api/users/me").bearer(key).send().await.expect_problem(403, "forbidden");
    app.get("/api/keys").bearer(key).send().await.expect_problem(403, "forbidden");
    create(&app, key, json!({ "name": "another" })).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn only_an_administrator_grants_on_behalf() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    make(&app, &ada, json!(["usage:check"]), true).await.expect_problem(403, "forbidden");
    let made = make(&app, &admin, json!(["usage:check"]), true).await.expect_status(201);
    assert_eq!(made.at("/on_behalf"), true);
}

#[tokio::test]
async fn a_key_without_on_behalf_makes_none_with_it() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let plain = make(&app, &admin, json!(["*"]), false).await.expect_status(201);
    let with = make(&app, &admin, json!(["usage:check"]), true).await.expect_status(201);
    let plain = plain.text_at("/key");
    make(&app, plain, json!(["usage:check"]), true).await.expect_problem(403, "forbidden");
    let rotate = app.post(&format!("/api/keys/{}/rotate", with.text_at("/id"))).bearer(plain).json(json!({}));
    rotate.send().await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn who_is_no_administrator_any_more_renews_no_on_behalf() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let set_role = async |role: &str| {
        let put = app.put(&format!("/api/admin/users/{}/role", ada.id)).bearer(&admin).json(json!({ "role": role }));
        put.send().await.expect_status(200)
    };
    set_role("admin").await;
    let key = make(&app, &ada, json!(["usage:check"]), true).await.expect_status(201);
    set_role("user").await;
    let rotate = app.post(&format!("/api/keys/{}/rotate", key.text_at("/id"))).bearer(&ada).json(json!({}));
    rotate.send().await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn a_key_loses_what_its_owner_lost() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let set_role = async |role: &str| {
        let put = app.put(&format!("/api/admin/users/{}/role", ada.id)).bearer(&admin).json(json!({ "role": role }));
        put.send().await.expect_status(200)
    };
    set_role("admin").await;
    let key = make(&app, &ada, json!(["*"]), false).await.expect_status(201);
    let key = key.text_at("/key");
    app.get("/api/admin/audit").bearer(key).send().await.expect_status(200);
    set_role("user").await;
    app.get("/api/admin/audit").bearer(key).send().await.expect_problem(403, "forbidden");
    app.get("/api/users/me").bearer(key).send().await.expect_status(200);
}

#[tokio::test]
async fn anothers_key_is_not_found() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let key = make(&app, &ada, json!(["users:read"]), false).await.expect_status(201);
    let path = format!("/api/keys/{}", key.text_at("/id"));
    for path in [path.as_str(), &format!("/api/keys/{NOBODY}"), "/api/keys/x"] {
        app.get(path).bearer(&eve).send().await.expect_problem(404, "not_found");
        app.delete(path).bearer(&eve).send().await.expect_problem(404, "not_found");
        let rotate = app.post(&format!("{path}/rotate")).bearer(&eve).json(json!({}));
        rotate.send().await.expect_problem(404, "not_found");
    }
    app.get("/api/users/me").bearer(key.text_at("/key")).send().await.expect_status(200);
    let listed = app.get("/api/keys").bearer(&eve).send().await.expect_status(200);
    assert_eq!(listed.at("/data"), &json!([]));
}

#[tokio::test]
async fn verifying_says_what_a_key_is_worth_to_who_may_know() {
    let app = TestApp::start().await;
    let (admin, ada, eve) =
        (app.admin().await, app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let key = make(&app, &ada, json!(["users:read"]), false).await.expect_status(201);
    let secret = key.text_at("/key");
    for who in [&ada, &admin] {
        let answer = verify(&app, who, secret).await.expect_status(200);
        assert_eq!((answer.at("/valid"), answer.at("/key/id")), (&json!(true), key.at("/id")));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.text.contains(secret), "{answer}");
    }
    let nothing = json!({ "valid": false, "key": null });
    for unknown in ["sk_live_unknown", "x", &format!("{secret}x")] {
        assert_eq!(verify(&app, &ada, unknown).await.expect_status(200).body, nothing);
    }
    assert_eq!(verify(&app, &eve, secret).await.expect_status(200).body, nothing, "another's");
    app.delete(&format!("/api/keys/{}", key.text_at("/id"))).bearer(&ada).send().await.expect_status(204);
    assert_eq!(verify(&app, &ada, secret).await.expect_status(200).body, nothing, "revoked");
    expect_field(verify(&app, &ada, "").await, "key");
    expect_field(verify(&app, &ada, &"k".repeat(201)).await, "key");
}

#[tokio::test]
async fn an_administrator_revokes_anybodys_key() {
    let app = TestApp::start().await;
    let (admin, ada, eve) =
        (app.admin().await, app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let key = make(&app, &ada, json!(["users:read"]), false).await.expect_status(201);
    let id = key.text_at("/id");
    let path = |owner: &TestUser| format!("/api/admin/users/{}/keys/{id}", owner.id);
    app.delete(&path(&ada)).bearer(&eve).send().await.expect_problem(403, "forbidden");
    app.delete(&path(&eve)).bearer(&admin).send().await.expect_problem(404, "not_found");
    app.get("/api/users/me").bearer(key.text_at("/key")).send().await.expect_status(200);
    app.delete(&path(&ada)).bearer(&admin).send().await.expect_status(204);
    app.get("/api/users/me").bearer(key.text_at("/key")).send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_user_has_at_most_a_hundred_usable_keys() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    fill(&app, &ada, 99).await;
    let last = make(&app, &ada, json!(["users:read"]), false).await.expect_status(201);
    make(&app, &ada, json!(["users:read"]), false).await.expect_problem(422, "too_many_keys");
    app.delete(&format!("/api/keys/{}", last.text_at("/id"))).bearer(&ada).send().await.expect_status(204);
    make(&app, &ada, json!(["users:read"]), false).await.expect_status(201);
}

#[tokio::test]
async fn of_a_key_and_a_token_the_key_counts() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let key = make(&app, &ada, json!(["users:read"]), false).await.expect_status(201);
    let both = app.get("/api/users/me").bearer(&admin).header("X-API-Key", key.text_at("/key"));
    assert_eq!(both.send().await.expect_status(200).text_at("/id"), ada.id.to_string());
    let bad = app.get("/api/users/me").bearer(&admin).header("X-API-Key", "sk_live_bad");
    bad.send().await.expect_problem(401, "unauthorized");
}
