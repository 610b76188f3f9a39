//! Identity: sign-up, log-in, sessions and tokens of the built-in accounts.

use app::settings::shape::SecretText;
use futures_util::future::join_all;
use harness::{Answer, TestApp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field, now, without_request_id};

const PASSWORD: &str = "correct horse battery";
const SIGNING_KEY: &str = "a signing key that these tests alone know";

async fn sign_up(app: &TestApp, body: Value) -> Answer {
    app.post("/api/auth/signup").json(body).send().await
}

pub async fn log_in(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("/api/auth/login").json(json!({ "email": email, "password": password })).send().await
}

pub async fn refresh(app: &TestApp, token: &str) -> Answer {
    app.post("/api/auth/refresh").json(json!({ "refresh_token": token })).send().await
}

async fn log_out(app: &TestApp, token: &str) -> Answer {
    app.post("/api/auth/logout").json(json!({ "refresh_token": token })).send().await
}

async fn app_with_known_key() -> TestApp {
    TestApp::with(|settings| settings.auth.signing_key = SecretText::new(SIGNING_KEY)).await
}

/// The claims of a valid token.
fn claims(subject: &str) -> Value {
    let issued_at = now().timestamp();
    json!({ "sub": subject, "role": "authenticated", "aud": "authenticated", "iss": "product-base",
        "email": "ada@example.com", "iat": issued_at, "exp": issued_at + 900 })
}

fn sign(key: &str, algorithm: Algorithm, claims: &Value) -> String {
    let key = EncodingKey::from_secret(key.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn with_claim(subject: &str, claim: &str, value: Value) -> String {
    let mut claims = claims(subject);
    claims[claim] = value;
    sign(SIGNING_KEY, Algorithm::HS256, &claims)
}

#[tokio::test]
async fn a_sign_up_answers_tokens_and_the_user() {
    let app = TestApp::start().await;
    let body = json!({ "email": " Ada@Example.com ", "password": PASSWORD, "name": "Ada Lovelace" });
    let answer = sign_up(&app, body).await.expect_status(201);
    assert_eq!(answer.text_at("/token_type"), "Bearer");
    assert_eq!(answer.at("/expires_in"), 900);
    assert!(!answer.text_at("/refresh_token").is_empty());
    assert_eq!(answer.text_at("/user/email"), "ada@example.com");
    assert_eq!(answer.text_at("/user/name"), "Ada Lovelace");
    assert_eq!(answer.text_at("/user/role"), "user");
    assert_eq!(answer.text_at("/user/plan_id"), "free");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!answer.text.contains(PASSWORD), "{answer}");
    let me = app.get("/api/users/me").bearer(answer.text_at("/access_token")).send().await.expect_status(200);
    assert_eq!(me.at("/id"), answer.at("/user/id"));
}

#[tokio::test]
async fn without_a_name_the_email_gives_one() {
    let app = TestApp::start().await;
    let answer = sign_up(&app, json!({ "email": "grace@example.com", "password": PASSWORD })).await.expect_status(201);
    assert_eq!(answer.text_at("/user/name"), "grace");
}

#[tokio::test]
async fn an_email_has_one_account_whatever_its_case() {
    let app = TestApp::start().await;
    app.signup("ada@example.com").await;
    let again = sign_up(&app, json!({ "email": "ADA@example.COM", "password": "another password" })).await;
    again.expect_problem(409, "email_taken");
    log_in(&app, "ada@example.com", "another password").await.expect_problem(401, "wrong_credentials");
    log_in(&app, "Ada@Example.Com", PASSWORD).await.expect_status(200);
}

#[tokio::test]
async fn of_many_sign_ups_at_once_one_is_made() {
    let app = TestApp::start().await;
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    let answers = join_all((0..6).map(|_| sign_up(&app, body.clone()))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
    let rows: i64 = app.database().query_scalar("SELECT count(*) FROM users WHERE role = 'user'").await;
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn an_unfit_sign_up_names_the_field_and_repeats_no_value() {
    let app = TestApp::start().await;
    let fit = json!({ "email": "ada@example.com", "password": PASSWORD, "name": "Ada" });
    let unfit = [
        ("password", json!("elevenchars")),
        ("password", json!("p".repeat(129))),
        ("password", json!(123_456_789_012_345_u64)),
        ("password", json!("correct horse\u{0}battery")),
        ("password", Value::Null),
        ("email", json!("nobody.example.com")),
        ("email", json!("ada@")),
        ("email", json!("@example.com")),
        ("email", json!("ada@two@example.com")),
        ("email", json!("ada lovelace@example.com")),
        ("email", json!(format!("{}@example.com", "a".repeat(250)))),
        ("name", json!("")),
        ("name", json!("   ")),
        ("name", json!("n".repeat(101))),
        ("name", json!("two\nlines")),
        ("name", json!("nul\u{0}l")),
        ("role", json!("admin")),
        ("plan_id", json!("platinum")),
        ("token_balance", json!(1_000_000)),
        ("id", json!(NOBODY)),
    ];
    for (field, value) in unfit {
        let mut body = fit.clone();
        body[field] = value.clone();
        let answer = expect_field(sign_up(&app, body).await, field);
        let sent = value.as_str().map(str::trim).filter(|text| text.len() > 4);
        assert!(!answer.text.contains(PASSWORD), "{answer}");
        assert!(!sent.is_some_and(|text| answer.text.contains(text)), "{value} came back: {answer}");
    }
    for field in ["email", "password"] {
        let mut body = fit.clone();
        body.as_object_mut().unwrap().remove(field);
        expect_field(sign_up(&app, body).await, field);
    }
    let rows: i64 = app.database().query_scalar("SELECT count(*) FROM users WHERE role = 'user'").await;
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_password_of_12_to_128_characters_is_taken_as_it_is() {
    let app = TestApp::start().await;
    for (number, password) in
        ["twelve chars", "パスワードは十二文字です", &"p".repeat(128), "  spaces count  "].into_iter().enumerate()
    {
        let email = format!("ada{number}@example.com");
        sign_up(&app, json!({ "email": email, "password": password })).await.expect_status(201);
        log_in(&app, &email, password).await.expect_status(200);
        log_in(&app, &email, &password[..password.len() - 3]).await.expect_status(401);
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_email_get_the_same_answer() {
    let app = TestApp::start().await;
    app.signup("ada@example.com").await;
    let wrong = log_in(&app, "ada@example.com", "not the password").await.expect_problem(401, "wrong_credentials");
    for (email, password) in [
        ("nobody@example.com", PASSWORD),
        ("nobody@example.com", "not the password"),
        ("no address at all", PASSWORD),
        ("ada@example.com", "short"),
        ("ada@example.com", &"p".repeat(500)),
    ] {
        let answer = log_in(&app, email, password).await;
        assert_eq!(without_request_id(&answer), without_request_id(&wrong), "{email} {password}");
    }
    expect_field(log_in(&app, "ada@example.com", &"p".repeat(1_025)).await, "password");
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_for_a_new_pair() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let second = refresh(&app, &ada.refresh_token).await.expect_status(200);
    assert_ne!(second.text_at("/refresh_token"), ada.refresh_token);
    assert_eq!(second.text_at("/user/id"), ada.id.to_string());
    assert_eq!(second.header("cache-control"), Some("no-store"));
    app.get("/api/users/me").bearer(second.text_at("/access_token")).send().await.expect_status(200);
    refresh(&app, second.text_at("/refresh_token")).await.expect_status(200);
}

#[tokio::test]
async fn an_expired_or_made_up_refresh_token_is_refused() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for made_up in ["x", &ada.access_token[..500.min(ada.access_token.len())], "\u{1F511}"] {
        refresh(&app, made_up).await.expect_problem(401, "refresh_refused");
    }
    expect_field(refresh(&app, &"x".repeat(513)).await, "refresh_token");
    app.database().sql("UPDATE refresh_tokens SET expires_at = now() - interval '1 second'").await;
    refresh(&app, &ada.refresh_token).await.expect_problem(401, "refresh_refused");
}

#[tokio::test]
async fn a_log_out_ends_one_session_and_can_be_repeated() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let other_session = app.login("ada@example.com").await;
    log_out(&app, &ada.refresh_token).await.expect_status(204);
    refresh(&app, &ada.refresh_token).await.expect_problem(401, "refresh_refused");
    log_out(&app, &ada.refresh_token).await.expect_status(204);
    log_out(&app, "a token that nobody gave").await.expect_status(204);
    refresh(&app, &other_session.refresh_token).await.expect_status(200);
}

#[tokio::test]
async fn a_token_that_is_not_sound_is_refused_without_a_word_why() {
    let app = app_with_known_key().await;
    let ada = app.signup("ada@example.com").await;
    let id = ada.id.to_string();
    let good = sign(SIGNING_KEY, Algorithm::HS256, &claims(&id));
    app.get("/api/users/me").bearer(&good).send().await.expect_status(200);
    let parts: Vec<&str> = good.split('.').collect();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
    let mut without_expiry = claims(&id);
    without_expiry.as_object_mut().unwrap().remove("exp");
    let unsound = [
        ("garbage", "garbage".to_owned()),
        ("nothing", String::new()),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("alg none", unsigned.clone()),
        ("alg none, signed", format!("{unsigned}{}", parts[2])),
        ("another key", sign("another key of the same length, or so", Algorithm::HS256, &claims(&id))),
        ("another algorithm", sign(SIGNING_KEY, Algorithm::HS384, &claims(&id))),
        ("expired", with_claim(&id, "exp", json!(now().timestamp() - 120))),
        ("without an end", sign(SIGNING_KEY, Algorithm::HS256, &without_expiry)),
        ("not yet", with_claim(&id, "nbf", json!(now().timestamp() + 300))),
        ("for others", with_claim(&id, "aud", json!("another"))),
        ("from others", with_claim(&id, "iss", json!("https://example.com/auth/v1"))),
        ("service role", with_claim(&id, "role", json!("service_role"))),
        ("sub is a name", with_claim(&id, "sub", json!("ada"))),
        ("sub is a number", with_claim(&id, "sub", json!(7))),
        ("sub is SQL", with_claim(&id, "sub", json!("' OR 1=1 --"))),
        ("9 KB", with_claim(&id, "email", json!("x".repeat(9 * 1024)))),
    ];
    let without = app.get("/api/users/me").send().await.expect_problem(401, "unauthorized");
    for (what, token) in unsound {
        let answer = app.get("/api/users/me").bearer(&token).send().await;
        assert_eq!(without_request_id(&answer), without_request_id(&without), "{what}: {answer}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}: {answer}");
    }
}

#[tokio::test]
async fn another_scheme_is_a_credential_that_nobody_accepts() {
    let app = TestApp::start().await;
    for value in ["Basic YWRhOnBhc3N3b3Jk", "Bearer", "Bearer ", "token", "\t"] {
        for path in ["/api/users/me", "/api/plans"] {
            let answer = app.get(path).header("Authorization", value).send().await;
            answer.expect_problem(401, "unauthorized");
        }
    }
}

#[tokio::test]
async fn two_processes_honour_each_others_tokens_and_administrator() {
    let one = TestApp::start().await;
    let other = TestApp::over(one.database().clone(), |settings| {
        // The account exists already, and keeps its password.
        settings.admin.password = SecretText::new("another password of the administrator");
    })
    .await;
    let ada = one.signup("ada@example.com").await;
    other.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    refresh(&other, &ada.refresh_token).await.expect_status(200);
    let admin = log_in(&other, "admin@example.com", PASSWORD).await.expect_status(200);
    assert_eq!(admin.text_at("/user/role"), "admin");
    one.get("/api/admin/users").bearer(admin.text_at("/access_token")).send().await.expect_status(200);
}
