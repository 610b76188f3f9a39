//! Supabase as the identity provider: its tokens are accepted, its identities get profiles here, nothing more.

use app::settings::shape::SecretText;
use harness::{Answer, IssuerKey, TestApp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use testkit::jwks::StubJwks;

use crate::{NOBODY, expect_field, now};

const SECRET: &str = "the JWT secret of a Supabase project";
const ADA: &str = "a0000000-0000-4000-8000-00000000000a";
const EVE: &str = "e0000000-0000-4000-8000-00000000000e";

/// With a shared secret, and with two identities that have no profile yet.
async fn app() -> TestApp {
    let app = TestApp::with(|settings| settings.auth.supabase.jwt_secret = SecretText::new(SECRET)).await;
    app.database().sql("ALTER TABLE auth.users ADD COLUMN email_confirmed_at timestamptz").await;
    add_identity(&app, ADA, "ada@example.com").await;
    add_identity(&app, EVE, "eve@example.com").await;
    app
}

async fn add_identity(app: &TestApp, id: &str, email: &str) {
    app.database().sql(&format!("INSERT INTO auth.users (id, email) VALUES ('{id}', '{email}')")).await;
}

fn claims(subject: &str) -> Value {
    json!({ "sub": subject, "role": "authenticated", "aud": "authenticated", "iat": now().timestamp(), "exp": now().timestamp() + 900,
        "iss": "https://project.supabase.co/auth/v1", "session_id": NOBODY, "is_anonymous": false })
}

fn sign(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn token(subject: &str) -> String {
    sign(&claims(subject))
}

async fn create(app: &TestApp, token: &str, body: Value) -> Answer {
    app.post("/api/users").bearer(token).json(body).send().await
}

async fn app_with_keys(stub: &StubJwks) -> TestApp {
    let app = TestApp::with(|settings| settings.auth.supabase.jwks_url = stub.url()).await;
    add_identity(&app, ADA, "ada@example.com").await;
    app
}

/// The claims of a token of this stub's project.
fn claims_of(stub: &StubJwks, subject: &str) -> Value {
    let mut claims = claims(subject);
    claims["iss"] = json!(format!("{}/auth/v1", stub.origin()));
    claims
}

/// The log-in in the token counts as the proof, otherwise its issue time: with a log-in list, a refresh does not renew
/// it.
#[tokio::test]
async fn a_recent_proof_is_what_the_token_says_of_it() {
    let app = app().await;
    app.database().sql("UPDATE auth.users SET created_at = now() - interval '1 day'").await;
    create(&app, &token(ADA), json!({ "user_id": ADA, "name": "Ada" })).await.expect_status(201);
    let at = |minutes: i64| now().timestamp() - minutes * 60;
    let log_in = |minutes: i64| json!([{ "method": "password", "timestamp": at(minutes) }]);
    let with = |pairs: &[(&str, Value)]| {
        let mut claims = claims(ADA);
        for (claim, value) in pairs {
            claims[*claim] = value.clone();
        }
        sign(&claims)
    };
    for (what, token, is_recent) in [
        ("issued now", with(&[]), true),
        ("issued before", with(&[("iat", json!(at(11)))]), false),
        ("says nothing", with(&[("iat", Value::Null)]), false),
        ("refreshed now", with(&[("amr", log_in(60))]), false),
        (
            "refresh in the list",
            with(&[("amr", json!([log_in(60)[0], { "method": "token_refresh", "timestamp": at(0) }]))]),
            false,
        ),
        ("logged in now", with(&[("amr", log_in(1))]), true),
        ("second factor now", with(&[("amr", json!([log_in(60)[0], { "method": "totp", "timestamp": at(2) }]))]), true),
        ("auth_time", with(&[("auth_time", json!(at(60)))]), false),
        ("methods by name", with(&[("amr", json!(["password"]))]), true),
        ("a time ahead", with(&[("amr", log_in(-60))]), false),
        ("no list", with(&[("amr", json!("password")), ("auth_time", json!("now"))]), true),
    ] {
        let answer = app.post("/api/keys").bearer(&token).json(json!({ "name": what })).send().await;
        if is_recent {
            answer.expect_status(201);
        } else {
            answer.expect_problem(403, "reauthentication_required");
        }
    }
}

#[tokio::test]
async fn accounts_are_kept_elsewhere() {
    let app = app().await;
    let account = json!({ "email": "new@example.com", "password": "correct horse battery" });
    for (path, body) in [
        ("signup", account.clone()),
        ("login", account),
        ("refresh", json!({ "refresh_token": "x" })),
        ("logout", json!({ "refresh_token": "x" })),
    ] {
        let answer = app.post(&format!("/api/auth/{path}")).json(body).send().await;
        answer.expect_problem(404, "identity_elsewhere");
    }
    let change = json!({ "current": "correct horse battery", "password": "a staple of old batteries" });
    for request in [
        app.post("/api/auth/password/change").json(change),
        app.post("/api/auth/reauthenticate").json(json!({ "password": "correct horse battery" })),
        app.get("/api/auth/sessions"),
        app.delete("/api/auth/sessions"),
        app.delete(&format!("/api/auth/sessions/{NOBODY}")),
    ] {
        request.bearer(&token(ADA)).send().await.expect_problem(404, "identity_elsewhere");
    }
    let identities: i64 = app.database().query_scalar("SELECT count(*) FROM auth.users").await;
    assert_eq!(identities, 2, "no administrator is made");
}

#[tokio::test]
async fn without_a_profile_there_is_one_thing_to_do() {
    let app = app().await;
    let ada = token(ADA);
    let requests = [
        app.get("/api/users/me"),
        app.delete("/api/users/me"),
        app.get("/api/users/me/plan"),
        app.get("/api/users/me/features/ai_requests"),
        app.get("/api/keys"),
        app.post("/api/keys").json(json!({ "name": "server" })),
        app.get("/api/admin/users"),
    ];
    for request in requests {
        let answer = request.bearer(&ada).send().await.expect_problem(403, "profile_missing");
        assert!(answer.text_at("/detail").contains("POST /api/users"), "{answer}");
    }
    app.get("/api/plans").bearer(&ada).send().await.expect_status(200);
    let made = create(&app, &ada, json!({ "user_id": ADA, "name": "Ada" })).await.expect_status(201);
    assert_eq!((made.text_at("/id"), made.text_at("/email")), (ADA, "ada@example.com"));
    assert_eq!((made.text_at("/role"), made.text_at("/plan_id")), ("user", "free"));
    assert_eq!(made.at("/token_balance"), 100);
    let me = app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    assert_eq!(me.body, made.body);
}

#[tokio::test]
async fn each_pitfall_of_making_a_profile_gets_its_answer() {
    let app = app().await;
    let ada = token(ADA);
    let no_id = expect_field(create(&app, &ada, json!({ "name": "Ada" })).await, "user_id");
    assert!(no_id.text_at("/detail").contains("missing"), "{no_id}");
    expect_field(create(&app, &ada, json!({ "user_id": null, "name": "Ada" })).await, "user_id");
    create(&app, &ada, json!({ "user_id": EVE, "name": "Eve" })).await.expect_problem(404, "not_found");
    create(&app, &ada, json!({ "user_id": NOBODY, "name": "Nobody" })).await.expect_problem(404, "not_found");
    let unknown = create(&app, &token(NOBODY), json!({ "user_id": NOBODY, "name": "Nobody" })).await;
    let unknown = unknown.expect_problem(422, "identity_unknown");
    assert!(unknown.text_at("/detail").contains("ign up first"), "{unknown}");
    let other_email = json!({ "user_id": ADA, "name": "Ada", "email": "eve@example.com" });
    expect_field(create(&app, &ada, other_email).await, "email");
    let no_email = json!({ "user_id": ADA, "name": "Ada", "email": "ada" });
    expect_field(create(&app, &ada, no_email).await, "email");
    for field in ["role", "plan_id", "token_balance", "id"] {
        let mut body = json!({ "user_id": ADA, "name": "Ada" });
        body[field] = json!("admin");
        expect_field(create(&app, &ada, body).await, field);
    }
    expect_field(create(&app, &ada, json!({ "user_id": ADA, "name": "a\u{0}b" })).await, "name");
    expect_field(create(&app, &ada, json!({ "user_id": ADA })).await, "name");
    let rows: i64 = app.database().query_scalar("SELECT count(*) FROM users").await;
    assert_eq!(rows, 0, "no pitfall leaves anything behind");
    let same_email = json!({ "userId": ADA, "name": "Ada", "email": "ADA@example.com" });
    create(&app, &ada, same_email.clone()).await.expect_status(201);
    create(&app, &ada, same_email).await.expect_problem(409, "profile_exists");
}

#[tokio::test]
async fn a_profile_made_twice_with_one_key_is_made_once() {
    let app = app().await;
    let ada = token(ADA);
    let send = async || {
        let request = app.post("/api/users").bearer(&ada).idempotency_key("make ada");
        request.json(json!({ "user_id": ADA, "name": "Ada" })).send().await.expect_status(201)
    };
    let (first, second) = (send().await, send().await);
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(first.text, second.text);
}

#[tokio::test]
async fn of_many_profiles_at_once_one_is_made() {
    let app = app().await;
    let ada = token(ADA);
    let body = json!({ "user_id": ADA, "name": "Ada" });
    let answers = futures_util::future::join_all((0..6).map(|_| create(&app, &ada, body.clone()))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

/// An identity whose address the provider has confirmed.
async fn add_confirmed(app: &TestApp, id: &str, email: &str) {
    add_identity(app, id, email).await;
    app.database().sql(&format!("UPDATE auth.users SET email_confirmed_at = now() WHERE id = '{id}'")).await;
}

#[tokio::test]
async fn who_owns_the_named_address_is_the_administrator_from_the_first_moment() {
    let app = app().await;
    add_confirmed(&app, NOBODY, "Admin@example.com").await;
    let admin = token(NOBODY);
    let made = create(&app, &admin, json!({ "user_id": NOBODY, "name": "Root" })).await.expect_status(201);
    assert_eq!(made.text_at("/role"), "admin");
    app.get("/api/admin/users").bearer(&admin).send().await.expect_status(200);
    // They may also make the profiles of others, but only for existing identities.
    create(&app, &admin, json!({ "user_id": EVE, "name": "Eve" })).await.expect_status(201);
    let unknown = json!({ "user_id": "d0000000-0000-4000-8000-00000000000d", "name": "Dan" });
    create(&app, &admin, unknown).await.expect_problem(422, "identity_unknown");
}

#[tokio::test]
async fn an_address_that_is_not_proved_to_be_ones_own_gives_no_right() {
    const OTHER: &str = "d0000000-0000-4000-8000-00000000000d";
    let confirmed = "UPDATE auth.users SET email_confirmed_at = now()";
    let cases = [
        ("not confirmed", vec![(NOBODY, "admin@example.com")], ""),
        (
            "another case of another identity",
            vec![(OTHER, "admin@example.com"), (NOBODY, "ADMIN@example.com")],
            confirmed,
        ),
        ("a look-alike", vec![(NOBODY, "adm\u{131}n@example.com")], confirmed),
        ("the Kelvin sign", vec![(NOBODY, "admin@example.com\u{212A}")], confirmed),
        (
            "an administrator is there",
            vec![(NOBODY, "admin@example.com")],
            "UPDATE auth.users SET email_confirmed_at = now();
            INSERT INTO users (id, name, role) VALUES ('e0000000-0000-4000-8000-00000000000e', 'eve', 'admin')",
        ),
        (
            "the provider does not tell",
            vec![(NOBODY, "admin@example.com")],
            "ALTER TABLE auth.users DROP COLUMN email_confirmed_at",
        ),
    ];
    for (what, identities, sql) in cases {
        let app = app().await;
        app.database().sql("DROP INDEX auth.idx_auth_users_email").await;
        for (id, email) in identities {
            add_identity(&app, id, email).await;
        }
        app.database().sql(sql).await;
        let token = token(NOBODY);
        let made = create(&app, &token, json!({ "user_id": NOBODY, "name": "Nobody" })).await.expect_status(201);
        assert_eq!(made.text_at("/role"), "user", "{what}");
        let database = app.database().clone();
        app.stop().await;
        let app = TestApp::over(database, |settings| settings.auth.supabase.jwt_secret = SecretText::new(SECRET)).await;
        assert_eq!(app.get("/api/admin/users").bearer(&token).send().await.status, 403, "{what}");
    }
}

#[tokio::test]
async fn a_profile_that_is_there_already_is_made_administrator_at_the_start() {
    let app = app().await;
    app.database().sql("UPDATE auth.users SET email_confirmed_at = now()").await;
    create(&app, &token(ADA), json!({ "user_id": ADA, "name": "Ada" })).await.expect_status(201);
    let database = app.database().clone();
    app.stop().await;
    let app = TestApp::over(database, |settings| {
        settings.auth.supabase.jwt_secret = SecretText::new(SECRET);
        "ADA@example.com".clone_into(&mut settings.admin.email);
    })
    .await;
    app.get("/api/admin/users").bearer(&token(ADA)).send().await.expect_status(200);
}

#[tokio::test]
async fn a_server_makes_profiles_with_a_key_that_acts_for_others() {
    let app = app().await;
    add_confirmed(&app, NOBODY, "admin@example.com").await;
    let admin = token(NOBODY);
    create(&app, &admin, json!({ "user_id": NOBODY, "name": "Root" })).await.expect_status(201);
    let make = async |on_behalf: bool| {
        let body = json!({ "name": "server", "permissions": ["users:write"], "on_behalf": on_behalf });
        let key = app.post("/api/keys").bearer(&admin).json(body).send().await.expect_status(201);
        key.text_at("/key").to_owned()
    };
    let (server, plain) = (make(true).await, make(false).await);
    create(&app, &plain, json!({ "user_id": EVE, "name": "Eve" })).await.expect_problem(404, "not_found");
    create(&app, &server, json!({ "user_id": EVE, "name": "Eve" })).await.expect_status(201);
}

#[tokio::test]
async fn a_profile_can_go_and_come_back_without_a_second_bonus() {
    let app = app().await;
    let ada = token(ADA);
    let body = json!({ "user_id": ADA, "name": "Ada" });
    create(&app, &ada, body.clone()).await.expect_status(201);
    app.delete("/api/users/me").bearer(&ada).send().await.expect_status(204);
    app.get("/api/users/me").bearer(&ada).send().await.expect_problem(403, "profile_missing");
    let identities: i64 = app.database().query_scalar("SELECT count(*) FROM auth.users").await;
    assert_eq!(identities, 2, "the identity is Supabase's and stays");
    let again = create(&app, &ada, body).await.expect_status(201);
    assert_eq!(again.at("/token_balance"), 0);
}

#[tokio::test]
async fn only_a_users_own_token_speaks_for_them() {
    let app = app().await;
    create(&app, &token(ADA), json!({ "user_id": ADA, "name": "Ada" })).await.expect_status(201);
    app.get("/api/users/me").bearer(&token(ADA)).send().await.expect_status(200);
    for (claim, value) in [
        ("role", json!("service_role")),
        ("role", json!("anon")),
        ("aud", json!("another")),
        ("exp", json!(now().timestamp() - 120)),
        ("sub", json!("ada")),
        ("sub", Value::Null),
    ] {
        let mut claims = claims(ADA);
        claims[claim] = value.clone();
        let answer = app.get("/api/users/me").bearer(&sign(&claims)).send().await;
        assert_eq!(answer.status, 401, "{claim} = {value}: {answer}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_set_is_held_to() {
    let app = TestApp::with(|settings| {
        settings.auth.supabase.jwt_secret = SecretText::new(SECRET);
        "https://project.supabase.co/auth/v1".clone_into(&mut settings.auth.supabase.issuer);
    })
    .await;
    add_identity(&app, ADA, "ada@example.com").await;
    create(&app, &token(ADA), json!({ "user_id": ADA, "name": "Ada" })).await.expect_status(201);
    let mut others = claims(ADA);
    others["iss"] = json!("https://another.supabase.co/auth/v1");
    app.get("/api/users/me").bearer(&sign(&others)).send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn tokens_are_verified_by_the_projects_public_keys() {
    let (key, other) = (IssuerKey::new("one", 7), IssuerKey::new("two", 9));
    let stub = StubJwks::start(&[key.public()]);
    let app = app_with_keys(&stub).await;
    let token = key.sign(&claims_of(&stub, ADA));
    create(&app, &token, json!({ "user_id": ADA, "name": "Ada" })).await.expect_status(201);
    app.get("/api/users/me").bearer(&token).send().await.expect_status(200);
    let named_alike = IssuerKey::new("one", 9);
    let by_public_key = jsonwebtoken::encode(
        &Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) },
        &claims_of(&stub, ADA),
        &EncodingKey::from_secret(key.public().to_string().as_bytes()),
    );
    let mut elsewhere = claims_of(&stub, ADA);
    elsewhere["iss"] = json!("https://example.com/auth/v1");
    for (what, token) in [
        ("an unknown key", other.sign(&claims_of(&stub, ADA))),
        ("a known name, another key", named_alike.sign(&claims_of(&stub, ADA))),
        ("the public key as a secret", by_public_key.unwrap()),
        ("a key without a name", sign(&claims_of(&stub, ADA))),
        ("another issuer", key.sign(&elsewhere)),
    ] {
        let answer = app.get("/api/users/me").bearer(&token).send().await;
        assert_eq!(answer.status, 401, "{what}: {answer}");
    }
    assert!(stub.requests() <= 2, "unknown keys do not become load on the issuer: {}", stub.requests());
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_fault_of_the_caller() {
    let key = IssuerKey::new("one", 7);
    let stub = StubJwks::start(&[key.public()]);
    let app = app_with_keys(&stub).await;
    let token = key.sign(&claims_of(&stub, ADA));
    create(&app, &token, json!({ "user_id": ADA, "name": "Ada" })).await.expect_status(201);
    stub.fail(500);
    let later = key.sign(&claims_of(&stub, ADA));
    app.get("/api/users/me").bearer(&later).send().await.expect_status(200);
    let other = TestApp::over(app.database().clone(), |settings| settings.auth.supabase.jwks_url = stub.url()).await;
    let away = other.get("/api/users/me").bearer(&token).send().await;
    let away = away.expect_problem(503, "identity_provider_away");
    assert!(away.header("retry-after").is_some(), "{away}");
    other.get("/api/plans").send().await.expect_status(200);
}
