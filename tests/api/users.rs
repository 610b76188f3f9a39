//! Users: the own profile, its export and its deletion, and creating profiles beside the built-in sign-up.

use harness::{TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field};

/// With the EIP-55 checksum.
const WALLET: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

async fn profile(app: &TestApp, user: &TestUser) -> Value {
    app.get("/api/users/me").bearer(user).send().await.expect_status(200).body
}

#[tokio::test]
async fn a_profile_says_who_one_is() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let mut me = profile(&app, &ada).await;
    for time in ["created_at", "updated_at"] {
        assert!(me[time].as_str().is_some_and(|text| text.ends_with('Z')), "{me:#}");
        me.as_object_mut().unwrap().remove(time);
    }
    let expected = json!({ "id": ada.id, "email": "ada@example.com", "name": "ada", "role": "user",
        "plan_id": "free", "wallet_address": null, "token_balance": 100 });
    assert_eq!(me, expected);
}

#[tokio::test]
async fn name_and_wallet_can_be_changed_and_the_wallet_taken_away() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let patch = async |body: Value| app.patch("/api/users/me").bearer(&ada).json(body).send().await.expect_status(200);
    let named = patch(json!({ "name": "Ada 👩‍💻 Lovelace", "wallet_address": WALLET })).await;
    assert_eq!((named.text_at("/name"), named.text_at("/wallet_address")), ("Ada 👩‍💻 Lovelace", WALLET));
    let untouched = patch(json!({})).await;
    assert_eq!(untouched.text_at("/wallet_address"), WALLET);
    let taken_away = patch(json!({ "wallet_address": null })).await;
    assert!(taken_away.at("/wallet_address").is_null());
    assert_eq!(profile(&app, &ada).await["name"], "Ada 👩‍💻 Lovelace");
}

#[tokio::test]
async fn nobody_assigns_themselves_what_is_not_theirs_to_set() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let before = profile(&app, &ada).await;
    for (field, value) in [
        ("role", json!("admin")),
        ("plan_id", json!("platinum")),
        ("token_balance", json!(1_000_000)),
        ("id", json!(NOBODY)),
        ("email", json!("admin@example.com")),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("name", json!("")),
        ("name", json!("n".repeat(101))),
        ("name", json!("a\u{0}b")),
        ("name", json!(7)),
        ("wallet_address", json!("w".repeat(101))),
        ("wallet_address", json!("")),
        ("wallet_address", json!("0xabc")),
        ("wallet_address", json!("somebody's wallet")),
        ("wallet_address", json!(format!(" {WALLET}"))),
        ("wallet_address", json!(format!("{WALLET} "))),
        ("wallet_address", json!(WALLET.replace("0x5a", "0x5A"))),
        ("wallet_address", json!(WALLET.replace("0x", ""))),
        ("wallet_address", json!(7)),
    ] {
        let body = json!({ field: value });
        expect_field(app.patch("/api/users/me").bearer(&ada).json(body).send().await, field);
    }
    assert_eq!(profile(&app, &ada).await, before);
}

#[tokio::test]
async fn the_built_in_sign_up_made_the_profile_already() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let eve = app.signup("eve@example.com").await;
    let create = async |body: Value| app.post("/api/users").bearer(&ada).json(body).send().await;
    create(json!({ "user_id": ada.id, "name": "Ada" })).await.expect_problem(409, "profile_exists");
    create(json!({ "user_id": eve.id, "name": "Eve" })).await.expect_problem(404, "not_found");
    create(json!({ "user_id": NOBODY, "name": "Nobody" })).await.expect_problem(404, "not_found");
    expect_field(create(json!({ "name": "Ada" })).await, "user_id");
    expect_field(create(json!({ "user_id": "ada", "name": "Ada" })).await, "user_id");
    let admin = app.admin().await;
    let body = json!({ "user_id": NOBODY, "name": "Nobody" });
    let unknown = app.post("/api/users").bearer(&admin).json(body).send().await.expect_problem(422, "identity_unknown");
    assert!(unknown.text_at("/detail").contains("ign up first"), "{unknown}");
}

#[tokio::test]
async fn a_deleted_account_is_gone_at_once() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let key = json!({ "name": "server", "permissions": ["users:read"] });
    let key = app.post("/api/keys").bearer(&ada).json(key).send().await.expect_status(201);
    let key = key.text_at("/key");
    app.get("/api/users/me").bearer(key).send().await.expect_status(200);
    app.delete("/api/users/me").bearer(&ada).send().await.expect_status(204);
    app.get("/api/users/me").bearer(&ada).send().await.expect_problem(401, "unauthorized");
    app.delete("/api/users/me").bearer(&ada).send().await.expect_problem(401, "unauthorized");
    app.get("/api/users/me").bearer(key).send().await.expect_problem(401, "unauthorized");
    let body = json!({ "user_id": ada.id, "name": "Ada" });
    app.post("/api/users").bearer(&ada).json(body).send().await.expect_problem(401, "unauthorized");
    let body = json!({ "refresh_token": ada.refresh_token });
    app.post("/api/auth/refresh").json(body).send().await.expect_problem(401, "refresh_refused");
    let body = json!({ "email": "ada@example.com", "password": "correct horse battery" });
    app.post("/api/auth/login").json(body).send().await.expect_problem(401, "wrong_credentials");
}

#[tokio::test]
async fn an_export_holds_everything_but_secrets() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    app.signup("eve@example.com").await;
    let key = app.post("/api/keys").bearer(&ada).json(json!({ "name": "server" })).send().await.expect_status(201);
    let export = app.get("/api/users/me/export").bearer(&ada).send().await.expect_status(200);
    assert_eq!(export.header("content-disposition"), Some("attachment; filename=\"export.json\""));
    assert_eq!(export.header("cache-control"), Some("no-store"));
    assert_eq!(export.at("/users/rows/0/email"), "ada@example.com");
    assert_eq!(export.at("/users/truncated"), false);
    assert_eq!(export.at("/token_transactions/rows/0/amount"), 100);
    assert_eq!(export.at("/api_keys/rows/0/name"), "server");
    for table in ["user_subscriptions", "usage_counters", "ai_usage_logs", "chat_messages", "sessions"] {
        assert!(export.body[table]["rows"].is_array(), "{table} is missing: {export}");
    }
    let (hash, password): (String, String) =
        app.database().query_one("SELECT key_hash, encrypted_password FROM api_keys, auth.users LIMIT 1").await;
    for secret in [key.text_at("/key"), &hash, &password, "key_hash", "token_hash", "argon2", "eve@example.com"] {
        assert!(!export.text.contains(secret), "{secret} is in the export");
    }
}

#[tokio::test]
async fn an_export_can_be_a_sheet() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let rename = json!({ "name": "=HYPERLINK(\"http://evil\", \"x\")" });
    app.patch("/api/users/me").bearer(&ada).json(rename).send().await.expect_status(200);
    let sheet = app.get("/api/users/me/export?format=csv").bearer(&ada).send().await.expect_status(200);
    assert_eq!(sheet.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(sheet.header("content-disposition"), Some("attachment; filename=\"export.csv\""));
    assert!(sheet.text.starts_with("table,row,field,value\r\n"), "{sheet}");
    assert!(sheet.text.contains("users,1,email,ada@example.com\r\n"), "{sheet}");
    assert!(sheet.text.contains("users,1,name,\"'=HYPERLINK(\"\"http://evil\"\", \"\"x\"\")\"\r\n"), "{sheet}");
    expect_field(app.get("/api/users/me/export?format=xml").bearer(&ada).send().await, "format");
    expect_field(app.get("/api/users/me/export?sheet=1").bearer(&ada).send().await, "sheet");
}

#[tokio::test]
async fn a_key_reads_and_changes_the_profile_with_the_permission_for_it() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let reader = json!({ "name": "reader", "permissions": ["users:read"] });
    let reader = app.post("/api/keys").bearer(&ada).json(reader).send().await.expect_status(201);
    let reader = reader.text_at("/key");
    app.get("/api/users/me").bearer(reader).send().await.expect_status(200);
    app.get("/api/users/me/export").bearer(reader).send().await.expect_status(200);
    app.patch("/api/users/me")
        .bearer(reader)
        .json(json!({ "name": "x" }))
        .send()
        .await
        .expect_problem(403, "forbidden");
    app.delete("/api/users/me").bearer(reader).send().await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn no_key_deletes_the_account_of_its_owner() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for permissions in [json!(["users:write"]), json!(["users:read", "users:write", "keys:manage", "billing:manage"])] {
        let key = json!({ "name": "writer", "permissions": permissions });
        let key = app.post("/api/keys").bearer(&ada).json(key).send().await.expect_status(201);
        let key = key.text_at("/key");
        app.delete("/api/users/me").bearer(key).send().await.expect_problem(403, "person_required");
        app.patch("/api/users/me").bearer(key).json(json!({ "name": "x" })).send().await.expect_status(200);
    }
    app.delete("/api/users/me").bearer(&ada).send().await.expect_status(204);
}
