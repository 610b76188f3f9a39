//! Identities stored by another service: every stored state is readable, and bans and deletions are honoured.

use app::settings::shape::SecretText;
use harness::{Answer, TestApp, eventually, sqlx};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::{HEARD_WITHIN, now};

const SECRET: &str = "the JWT secret of a Supabase project";
const ADA: &str = "a0000000-0000-4000-8000-00000000000a";
const ROOT: &str = "c0000000-0000-4000-8000-00000000000c";

/// `GoTrue`'s columns beyond the compatible minimum.
const GOTRUE: &str =
    "ALTER TABLE auth.users ALTER COLUMN email DROP NOT NULL, ADD COLUMN email_confirmed_at timestamptz,
    ADD COLUMN phone text, ADD COLUMN banned_until timestamptz, ADD COLUMN deleted_at timestamptz,
    ADD COLUMN is_anonymous boolean NOT NULL DEFAULT false";

/// With one administrator, and with Ada, who has a profile.
async fn app() -> TestApp {
    let app = TestApp::with(|settings| settings.auth.supabase.jwt_secret = SecretText::new(SECRET)).await;
    app.database().sql(GOTRUE).await;
    app.database()
        .sql("UPDATE plan_features SET enabled = true, limit_value = 100 WHERE feature_id = 'ai_requests'")
        .await;
    add(&app, ADA, "'ada@example.com'").await;
    add(&app, ROOT, "'root@example.com'").await;
    for id in [ADA, ROOT] {
        create(&app, id).await.expect_status(201);
    }
    app.database().sql(&format!("UPDATE users SET role = 'admin' WHERE id = '{ROOT}'")).await;
    app
}

async fn add(app: &TestApp, id: &str, email: &str) {
    app.database().sql(&format!("INSERT INTO auth.users (id, email) VALUES ('{id}', {email})")).await;
}

async fn set(app: &TestApp, id: &str, change: &str) {
    app.database().sql(&format!("UPDATE auth.users SET {change} WHERE id = '{id}'")).await;
}

fn token(subject: &str) -> String {
    let issued_at = now().timestamp();
    token_of(subject, issued_at)
}

fn token_of(subject: &str, issued_at: i64) -> String {
    let claims = json!({ "sub": subject, "role": "authenticated", "aud": "authenticated", "iat": issued_at,
        "exp": now().timestamp() + 900 });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

async fn create(app: &TestApp, id: &str) -> Answer {
    app.post("/api/users").bearer(&token(id)).json(json!({ "user_id": id, "name": "somebody" })).send().await
}

async fn me(app: &TestApp, bearer: &str) -> Answer {
    app.get("/api/users/me").bearer(bearer).send().await
}

async fn key_of(app: &TestApp, id: &str, body: Value) -> String {
    let key = app.post("/api/keys").bearer(&token(id)).json(body).send().await.expect_status(201);
    key.text_at("/key").to_owned()
}

#[tokio::test]
async fn no_stored_identity_makes_a_read_fail() {
    let app = app().await;
    let odd = [
        ("''", Value::Null),
        ("NULL", Value::Null),
        ("'  '", Value::Null),
        ("'a@my_host.example'", json!("a@my_host.example")),
        ("'a@[127.0.0.1]'", json!("a@[127.0.0.1]")),
        ("'q2V5GtLxHh4FZ1r0o0pXQy7vBf3sXcDg0aJk9mN2uPw'", json!("q2V5GtLxHh4FZ1r0o0pXQy7vBf3sXcDg0aJk9mN2uPw")),
        ("'Ünïcode@İstanbul.example'", json!("Ünïcode@İstanbul.example")),
        ("E'zero\\u200bwidth@example.com'", json!("zero\u{200b}width@example.com")),
        ("'Two@at@example.com'", json!("Two@at@example.com")),
    ];
    for (number, (stored, _)) in odd.iter().enumerate() {
        let id = format!("d0000000-0000-4000-8000-00000000000{number}");
        add(&app, &id, stored).await;
        set(&app, &id, &format!("phone = '1555000{number}'")).await;
        create(&app, &id).await.expect_status(201);
    }
    let page = app.get("/api/admin/users?limit=100").bearer(&token(ROOT)).send().await.expect_status(200);
    for (number, (stored, shown)) in odd.iter().enumerate() {
        let id = format!("d0000000-0000-4000-8000-00000000000{number}");
        let listed = crate::find(page.at("/data"), "id", &id);
        assert_eq!(&listed["email"], shown, "{stored}");
        let one = app.get(&format!("/api/admin/users/{id}")).bearer(&token(ROOT)).send().await.expect_status(200);
        assert_eq!(one.at("/email"), shown, "{stored}");
        let own = me(&app, &token(&id)).await.expect_status(200);
        assert_eq!(own.at("/email"), shown, "{stored}");
        for path in ["/api/users/me/export", "/api/users/me/plan", "/api/keys"] {
            app.get(path).bearer(&token(&id)).send().await.expect_status(200);
        }
        app.delete("/api/users/me").bearer(&token(&id)).send().await.expect_status(204);
    }
}

#[tokio::test]
async fn who_is_banned_or_deleted_does_not_act_by_token_key_or_sql() {
    for (change, status, code) in [
        ("banned_until = now() + interval '1 hour'", 403, "identity_banned"),
        ("banned_until = 'infinity'", 403, "identity_banned"),
        ("deleted_at = now(), email = 'c29tZSBoYXNo'", 401, "unauthorized"),
    ] {
        let app = app().await;
        let permissions = json!(["users:read", "usage:write", "usage:check"]);
        let ada_key = key_of(&app, ADA, json!({ "name": "k", "permissions": permissions })).await;
        let ada = token(ADA);
        let server = key_of(&app, ROOT, json!({ "name": "s", "on_behalf": true })).await;
        let use_by = async |bearer: &str, user: &str| {
            let body = json!({ "feature_id": "ai_requests", "user_id": user });
            app.post("/api/usage").bearer(bearer).json(body).send().await
        };
        for bearer in [&ada, &ada_key, &server] {
            use_by(bearer, ADA).await.expect_status(200);
        }
        set(&app, ADA, change).await;
        for bearer in [&ada, &ada_key] {
            eventually(HEARD_WITHIN, || async { me(&app, bearer).await.status }, |told| *told == status).await;
            use_by(bearer, ADA).await.expect_problem(status, code);
            let check = app.get("/api/users/me/features/ai_requests").bearer(bearer).send().await;
            check.expect_problem(status, code);
        }
        eventually(HEARD_WITHIN, || async { use_by(&server, ADA).await.status }, |told| *told == 403).await;
        app.post("/api/users")
            .bearer(&ada)
            .json(json!({ "user_id": ADA, "name": "x" }))
            .send()
            .await
            .expect_problem(status, code);
        let sql = format!("SELECT * FROM consume_usage('{ADA}', 'ai_requests')");
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(app.database().owner()).await.unwrap_err();
        assert!(refused.to_string().contains("banned or deleted"), "{refused}");
        app.get("/api/admin/users").bearer(&token(ROOT)).send().await.expect_status(200);
        set(&app, ADA, "banned_until = now() - interval '1 second', deleted_at = NULL").await;
        for bearer in [&ada, &ada_key] {
            eventually(HEARD_WITHIN, || async { me(&app, bearer).await.status }, |told| *told == 200).await;
        }
    }
}

#[tokio::test]
async fn an_identity_that_its_provider_removed_is_gone_with_its_key() {
    let app = app().await;
    let (ada, key) = (token(ADA), key_of(&app, ADA, json!({ "name": "k", "permissions": ["users:read"] })).await);
    for bearer in [&ada, &key] {
        me(&app, bearer).await.expect_status(200);
    }
    app.database().sql(&format!("DELETE FROM auth.users WHERE id = '{ADA}'")).await;
    for bearer in [&ada, &key] {
        eventually(HEARD_WITHIN, || async { me(&app, bearer).await.status }, |told| *told == 401).await;
    }
}

/// `GoTrue`'s administrators can choose the id of a new identity.
#[tokio::test]
async fn a_token_of_an_earlier_identity_does_not_act_for_a_later_one() {
    let app = app().await;
    let (earlier, now_issued) = (token_of(ADA, now().timestamp() - 120), token(ADA));
    app.database().sql(&format!("DELETE FROM auth.users WHERE id = '{ADA}'")).await;
    add(&app, ADA, "'other@example.com'").await;
    create(&app, ADA).await.expect_status(201);
    me(&app, &earlier).await.expect_problem(401, "unauthorized");
    me(&app, &now_issued).await.expect_status(200);
}

#[tokio::test]
async fn nobody_anonymous_and_no_mailbox_that_comes_back_gets_a_bonus() {
    let app = app().await;
    let balance = async |id: &str| create(&app, id).await.expect_status(201).at("/token_balance").clone();
    let id = |number: u8| format!("d0000000-0000-4000-8000-00000000000{number}");
    add(&app, &id(1), "NULL").await;
    set(&app, &id(1), "is_anonymous = true").await;
    assert_eq!(balance(&id(1)).await, json!(0), "anonymous");
    // Marked as deleted by GoTrue, which keeps the row; then deleted.
    set(&app, ADA, "deleted_at = now(), email = 'c29tZSBoYXNo'").await;
    add(&app, &id(2), "'Ada@example.com'").await;
    assert_eq!(balance(&id(2)).await, json!(0), "the mailbox had its bonus");
    app.database().sql(&format!("DELETE FROM auth.users WHERE id = '{}'", id(2))).await;
    add(&app, &id(3), "'ada@example.com'").await;
    assert_eq!(balance(&id(3)).await, json!(0), "and still");
    for number in [4, 5] {
        add(&app, &id(number), "''").await;
        set(&app, &id(number), "phone = '15551234'").await;
        assert_eq!(balance(&id(number)).await, json!(if number == 4 { 100 } else { 0 }), "a telephone is one too");
        app.database().sql(&format!("DELETE FROM auth.users WHERE id = '{}'", id(number))).await;
    }
    add(&app, &id(6), "'new@example.com'").await;
    assert_eq!(balance(&id(6)).await, json!(100));
}
