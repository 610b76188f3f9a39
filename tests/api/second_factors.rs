//! Second factors: set up, required at log-in, used once, removed; and administrators who need one.

use harness::{Answer, TestApp, TestUser};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::{expect_field, now};

const ADDRESS: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery";

/// The code that a device shows for this secret, this many steps from now.
fn code(secret: &str, steps: i64) -> String {
    let digit = |letter: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == letter).unwrap();
    let bits: Vec<bool> =
        secret.bytes().flat_map(|letter| (0..5).rev().map(move |place| digit(letter) >> place & 1 == 1)).collect();
    let key: Vec<u8> =
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | u8::from(*bit))).collect();
    let mut mac = Hmac::<Sha1>::new_from_slice(&key).unwrap();
    mac.update(&(now().timestamp() / 30 + steps).to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let offset = usize::from(hash[19] & 15);
    let number = u32::from_be_bytes(hash[offset..offset + 4].try_into().unwrap()) & 0x7FFF_FFFF;
    format!("{:06}", number % 1_000_000)
}

async fn log_in(app: &TestApp, email: &str, totp: Option<&str>) -> Answer {
    let mut body = json!({ "email": email, "password": PASSWORD });
    if let Some(totp) = totp {
        body["totp"] = json!(totp);
    }
    app.post("/api/auth/login").json(body).send().await
}

async fn enroll(app: &TestApp, token: &str) -> String {
    let offered = app.post("/api/auth/totp/enroll").bearer(token).send().await.expect_status(200);
    assert_eq!(offered.header("cache-control"), Some("no-store"));
    let secret = offered.text_at("/secret").to_owned();
    assert!(offered.text_at("/otpauth_url").contains(&format!("?secret={secret}&")), "{offered}");
    secret
}

async fn confirm(app: &TestApp, token: &str, code: &str) -> Answer {
    app.post("/api/auth/totp/confirm").bearer(token).json(json!({ "code": code })).send().await
}

async fn remove(app: &TestApp, ada: &TestUser, code: &str) -> Answer {
    app.delete("/api/auth/totp").bearer(ada).json(json!({ "code": code })).send().await
}

/// Moves the last use of a code some steps into the past, so that no test waits for the next one.
async fn let_a_step_pass(app: &TestApp) {
    app.database().sql("UPDATE second_factors SET last_step = last_step - 2").await;
}

fn recovery_codes(confirmed: &Answer) -> Vec<String> {
    let codes = confirmed.at("/recovery_codes").as_array().unwrap();
    codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_second_factor_is_asked_for_once_it_is_confirmed_and_a_code_is_used_once() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    confirm(&app, &ada.access_token, "123456").await.expect_problem(404, "not_found");
    let first = enroll(&app, &ada.access_token).await;
    let secret = enroll(&app, &ada.access_token).await;
    assert_ne!(first, secret);
    log_in(&app, ADDRESS, None).await.expect_status(200);
    confirm(&app, &ada.access_token, &code(&first, 0)).await.expect_problem(401, "totp_wrong");
    expect_field(confirm(&app, &ada.access_token, "").await, "code");
    let confirmed = confirm(&app, &ada.access_token, &code(&secret, 0)).await.expect_status(200);
    assert_eq!(recovery_codes(&confirmed).len(), 10);
    confirm(&app, &ada.access_token, &code(&secret, 1)).await.expect_problem(409, "totp_enrolled");
    app.post("/api/auth/totp/enroll").bearer(&ada).send().await.expect_problem(409, "totp_enrolled");

    log_in(&app, ADDRESS, None).await.expect_problem(401, "totp_required");
    let_a_step_pass(&app).await;
    let shown = code(&secret, 0);
    log_in(&app, ADDRESS, Some(&shown)).await.expect_status(200);
    log_in(&app, ADDRESS, Some(&shown)).await.expect_problem(401, "totp_wrong");
    log_in(&app, ADDRESS, Some(&code(&secret, -1))).await.expect_problem(401, "totp_wrong");
    log_in(&app, ADDRESS, Some(&code(&secret, 3))).await.expect_problem(401, "totp_wrong");
    let wrong = json!({ "email": ADDRESS, "password": "not the password", "totp": code(&secret, 1) });
    app.post("/api/auth/login").json(wrong).send().await.expect_problem(401, "wrong_credentials");
    // A device whose clock is 30 s ahead.
    let spaced = code(&secret, 1);
    log_in(&app, ADDRESS, Some(&format!("{} {}", &spaced[..3], &spaced[3..]))).await.expect_status(200);

    let prove = |body: Value| app.post("/api/auth/reauthenticate").bearer(&ada).json(body).send();
    prove(json!({ "password": PASSWORD })).await.expect_problem(401, "totp_required");
    let_a_step_pass(&app).await;
    prove(json!({ "password": PASSWORD, "totp": code(&secret, 1) })).await.expect_status(204);

    // The password alone proves nothing here, and cannot be changed alone.
    let change = |body: Value| app.post("/api/auth/password/change").bearer(&ada).json(body).send();
    let other = "a staple of old batteries";
    change(json!({ "current": PASSWORD, "password": other })).await.expect_problem(401, "totp_required");
    let_a_step_pass(&app).await;
    let with_code = json!({ "current": PASSWORD, "password": other, "totp": code(&secret, 1) });
    change(with_code).await.expect_status(204);
    app.database().sql("UPDATE second_factors SET last_step = last_step - 2").await;
    let back = json!({ "current": other, "password": PASSWORD, "totp": code(&secret, 1) });
    change(back).await.expect_status(204);

    remove(&app, &ada, "000000").await.expect_problem(401, "totp_wrong");
    let_a_step_pass(&app).await;
    remove(&app, &ada, &code(&secret, 1)).await.expect_status(204);
    remove(&app, &ada, &code(&secret, 1)).await.expect_problem(404, "not_found");
    log_in(&app, ADDRESS, None).await.expect_status(200);
}

#[tokio::test]
async fn a_recovery_code_is_used_once_and_nothing_is_stored_in_clear() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let secret = enroll(&app, &ada.access_token).await;
    let codes = recovery_codes(&confirm(&app, &ada.access_token, &code(&secret, 0)).await.expect_status(200));
    let typed = format!("{}-{}", codes[0][..8].to_uppercase(), &codes[0][8..]);
    log_in(&app, ADDRESS, Some(&typed)).await.expect_status(200);
    log_in(&app, ADDRESS, Some(&codes[0])).await.expect_problem(401, "totp_wrong");
    let at_once = futures_util::future::join_all((0..6).map(|_| log_in(&app, ADDRESS, Some(&codes[1])))).await;
    assert_eq!(at_once.iter().filter(|answer| answer.status == 200).count(), 1);
    let stored: String =
        app.database().query_scalar("SELECT f::text || encode(f.sealed_secret, 'escape') FROM second_factors f").await;
    assert!(codes.iter().chain([&secret]).all(|shown| !stored.contains(shown.as_str())));
    let left: i32 = app.database().query_scalar("SELECT cardinality(recovery_marks) FROM second_factors").await;
    assert_eq!(left, 8);
    remove(&app, &ada, &codes[2]).await.expect_status(204);
    let exported = app.get("/api/users/me/export").bearer(&ada).send().await.expect_status(200);
    assert!(!exported.text.contains("sealed_secret") && !exported.text.contains("network_mark"), "{exported}");
}

#[tokio::test]
async fn one_code_at_once_opens_one_session() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let secret = enroll(&app, &ada.access_token).await;
    confirm(&app, &ada.access_token, &code(&secret, 0)).await.expect_status(200);
    let_a_step_pass(&app).await;
    let shown = code(&secret, 1);
    let answers = futures_util::future::join_all((0..8).map(|_| log_in(&app, ADDRESS, Some(&shown)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
}

#[tokio::test]
async fn guesses_are_limited_like_those_of_passwords() {
    let app = TestApp::with(|settings| settings.rate_limits.login_failures_before_delay = 4).await;
    let ada = app.signup(ADDRESS).await;
    let secret = enroll(&app, &ada.access_token).await;
    confirm(&app, &ada.access_token, &code(&secret, 0)).await.expect_status(200);
    for _ in 0..3 {
        log_in(&app, ADDRESS, Some("000000")).await.expect_problem(401, "totp_wrong");
    }
    remove(&app, &ada, "000000").await.expect_problem(401, "totp_wrong");
    log_in(&app, ADDRESS, Some("000000")).await.expect_problem(429, "too_many_attempts");
    remove(&app, &ada, "000000").await.expect_problem(429, "too_many_attempts");
}

#[tokio::test]
async fn a_second_factor_needs_the_person_and_a_recent_proof() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let key = json!({ "name": "k", "permissions": ["users:read", "users:write"] });
    let key = app.post("/api/keys").bearer(&ada).json(key).send().await.expect_status(201);
    let key = key.text_at("/key");
    app.post("/api/auth/totp/enroll").bearer(key).send().await.expect_problem(403, "person_required");
    confirm(&app, key, "123456").await.expect_problem(403, "person_required");
    app.database().sql("UPDATE sessions SET authenticated_at = now() - interval '11 min'").await;
    app.post("/api/auth/totp/enroll").bearer(&ada).send().await.expect_problem(403, "reauthentication_required");
}

#[tokio::test]
async fn where_administrators_need_one_they_can_do_nothing_else_before() {
    let app = TestApp::with(|settings| settings.auth.require_admin_totp = true).await;
    let (admin, ada) = (app.admin().await, app.signup(ADDRESS).await);
    app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    for path in ["/api/users/me", "/api/admin/users", "/api/keys", "/api/plans"] {
        let answer = app.get(path).bearer(&admin).send().await;
        // Public routes stay available to them.
        if path == "/api/plans" {
            answer.expect_status(200)
        } else {
            answer.expect_problem(403, "totp_enrollment_required")
        };
    }
    for request in [app.delete("/api/users/me"), app.post("/api/keys").json(json!({ "name": "k" }))] {
        request.bearer(&admin).send().await.expect_problem(403, "totp_enrollment_required");
    }
    let refreshed = app.post("/api/auth/refresh").json(json!({ "refresh_token": admin.refresh_token }));
    let refreshed = refreshed.send().await.expect_status(200);
    app.get("/api/auth/sessions").bearer(refreshed.text_at("/access_token")).send().await.expect_status(200);
    app.get("/api/admin/users")
        .bearer(refreshed.text_at("/access_token"))
        .send()
        .await
        .expect_problem(403, "totp_enrollment_required");
    let secret = enroll(&app, &admin.access_token).await;
    confirm(&app, &admin.access_token, &code(&secret, 0)).await.expect_status(200);
    let again = app.post("/api/auth/refresh").json(json!({ "refresh_token": refreshed.text_at("/refresh_token") }));
    let again = again.send().await.expect_status(200);
    app.get("/api/admin/users").bearer(again.text_at("/access_token")).send().await.expect_status(200);
    let_a_step_pass(&app).await;
    let fresh = log_in(&app, "admin@example.com", Some(&code(&secret, 1))).await.expect_status(200);
    app.get("/api/admin/users").bearer(fresh.text_at("/access_token")).send().await.expect_status(200);
}
