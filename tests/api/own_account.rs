//! The caller's own account: a changed password, common passwords, and the own sessions with their end.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::identity::refresh;
use crate::{NOBODY, expect_field};

const ADDRESS: &str = "ada.lovelace@example.com";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "a staple of old batteries";

async fn log_in(app: &TestApp, password: &str) -> Answer {
    app.post("/api/auth/login").json(json!({ "email": ADDRESS, "password": password })).send().await
}

async fn change(app: &TestApp, ada: &TestUser, current: &str, password: &str) -> Answer {
    let body = json!({ "current": current, "password": password });
    app.post("/api/auth/password/change").bearer(ada).json(body).send().await
}

async fn sessions(app: &TestApp, ada: &TestUser) -> Vec<Value> {
    let listed = app.get("/api/auth/sessions").bearer(ada).send().await.expect_status(200);
    listed.at("/data").as_array().unwrap().clone()
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions_and_not_this_one() {
    let app = TestApp::start().await;
    let (here, there, bob) = (app.signup(ADDRESS).await, app.login(ADDRESS).await, app.signup("bob@example.com").await);
    let changed = change(&app, &here, PASSWORD, OTHER).await.expect_status(204);
    assert!(changed.text.is_empty());
    refresh(&app, &there.refresh_token).await.expect_problem(401, "refresh_refused");
    refresh(&app, &here.refresh_token).await.expect_status(200);
    refresh(&app, &bob.refresh_token).await.expect_status(200);
    log_in(&app, PASSWORD).await.expect_problem(401, "wrong_credentials");
    log_in(&app, OTHER).await.expect_status(200);
    let alive: i64 = app
        .database()
        .query_scalar(&format!(
            "SELECT count(*) FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
        WHERE s.user_id = '{}' AND s.revoked_at IS NOT NULL AND t.revoked_at IS NULL",
            here.id
        ))
        .await;
    assert_eq!(alive, 0);
}

#[tokio::test]
async fn an_unfit_change_changes_nothing() {
    let app = TestApp::start().await;
    let (ada, other) = (app.signup(ADDRESS).await, app.login(ADDRESS).await);
    change(&app, &ada, "not the password", OTHER).await.expect_problem(401, "wrong_credentials");
    for (current, password, field) in [
        ("", OTHER, "current"),
        (PASSWORD, "elevenchars", "password"),
        (PASSWORD, &"p".repeat(129), "password"),
        (PASSWORD, PASSWORD, "password"),
        (PASSWORD, "password1234", "password"),
        (PASSWORD, "Ada.Lovelace1", "password"),
        (PASSWORD, "abcdefghijkl", "password"),
    ] {
        let refused = expect_field(change(&app, &ada, current, password).await, field);
        assert!(!refused.text.contains(password), "{refused}");
    }
    let body = json!({ "current": PASSWORD, "password": OTHER });
    app.post("/api/auth/password/change").json(body.clone()).send().await.expect_problem(401, "unauthorized");
    let key = json!({ "name": "k", "permissions": ["users:read", "users:write"] });
    let key = app.post("/api/keys").bearer(&ada).json(key).send().await.expect_status(201);
    let by_key = app.post("/api/auth/password/change").bearer(key.text_at("/key")).json(body);
    by_key.send().await.expect_problem(403, "person_required");
    refresh(&app, &other.refresh_token).await.expect_status(200);
    log_in(&app, PASSWORD).await.expect_status(200);
}

#[tokio::test]
async fn of_many_changes_at_once_one_is_made() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let wanted: Vec<String> = (0..6).map(|number| format!("{number} staples of old batteries")).collect();
    let answers =
        futures_util::future::join_all(wanted.iter().map(|wanted| change(&app, &ada, PASSWORD, wanted))).await;
    let made: Vec<_> = answers.iter().zip(&wanted).filter(|(answer, _)| answer.status == 204).collect();
    assert_eq!(made.len(), 1);
    log_in(&app, made[0].1).await.expect_status(200);
}

#[tokio::test]
async fn a_common_password_opens_no_account() {
    let app = TestApp::start().await;
    for password in
        ["password1234", "Qwertyuiop12", "aaaaaaaaaaaa", "123456789012", "P@ssw0rd2026", "ada.lovelace@example.com"]
    {
        let body = json!({ "email": ADDRESS, "password": password });
        let refused = expect_field(app.post("/api/auth/signup").json(body).send().await, "password");
        assert!(!refused.text.contains(password) && refused.text_at("/detail").contains("guesses"), "{refused}");
    }
    app.signup(ADDRESS).await;
}

#[tokio::test]
async fn own_sessions_are_listed_and_ended() {
    let app = TestApp::start().await;
    let here = app.signup(ADDRESS).await;
    let body = json!({ "email": ADDRESS, "password": PASSWORD });
    let there =
        app.post("/api/auth/login").header("user-agent", "the phone").json(body).send().await.expect_status(200);
    let bob = app.signup("bob@example.com").await;
    let listed = sessions(&app, &here).await;
    assert_eq!(listed.len(), 2);
    let (phone, desk) = (&listed[0], &listed[1]);
    assert_eq!(
        (&phone["user_agent"], &phone["current"], &desk["current"]),
        (&json!("the phone"), &json!(false), &json!(true))
    );
    for time in ["created_at", "last_used_at", "authenticated_at", "expires_at"] {
        assert!(phone[time].as_str().is_some_and(|text| text.ends_with('Z')), "{phone:#}");
    }
    let page = app.get("/api/auth/sessions?limit=1").bearer(&here).send().await.expect_status(200);
    let next = format!("/api/auth/sessions?limit=1&cursor={}", page.text_at("/next_cursor"));
    let next = app.get(&next).bearer(&here).send().await.expect_status(200);
    assert_eq!((next.at("/data/0/id"), next.at("/next_cursor")), (&desk["id"], &Value::Null));

    let of_bob = sessions(&app, &bob).await;
    for absent in [of_bob[0]["id"].as_str().unwrap(), NOBODY] {
        let path = format!("/api/auth/sessions/{absent}");
        app.delete(&path).bearer(&here).send().await.expect_problem(404, "not_found");
    }
    let path = format!("/api/auth/sessions/{}", phone["id"].as_str().unwrap());
    for _ in 0..2 {
        app.delete(&path).bearer(&here).send().await.expect_status(204);
    }
    refresh(&app, there.text_at("/refresh_token")).await.expect_problem(401, "refresh_refused");
    assert_eq!(sessions(&app, &here).await.len(), 1);

    let (third, fourth) = (app.login(ADDRESS).await, app.login(ADDRESS).await);
    app.delete("/api/auth/sessions").bearer(&here).send().await.expect_status(204);
    for ended in [&third, &fourth] {
        refresh(&app, &ended.refresh_token).await.expect_problem(401, "refresh_refused");
    }
    refresh(&app, &here.refresh_token).await.expect_status(200);
    refresh(&app, &bob.refresh_token).await.expect_status(200);
    let key = json!({ "name": "k", "permissions": ["users:read", "users:write"] });
    let key = app.post("/api/keys").bearer(&here).json(key).send().await.expect_status(201);
    for request in [app.get("/api/auth/sessions"), app.delete("/api/auth/sessions"), app.delete(&path)] {
        request.bearer(key.text_at("/key")).send().await.expect_problem(403, "person_required");
    }
}

#[tokio::test]
async fn a_session_lives_no_longer_than_its_life_however_often_it_is_refreshed() {
    let app = TestApp::start().await;
    let (ada, other) = (app.signup(ADDRESS).await, app.login(ADDRESS).await);
    let older = |days: u32| format!("UPDATE sessions SET created_at = created_at - interval '{days} d'");
    app.database().sql(&older(89)).await;
    let second = refresh(&app, &ada.refresh_token).await.expect_status(200);
    let left: f64 = app
        .database()
        .query_scalar(
            "SELECT max(extract(epoch FROM t.expires_at - now()))::float8 FROM refresh_tokens t WHERE t.used_at IS NULL
            AND EXISTS (SELECT FROM refresh_tokens o WHERE o.replaced_by = t.id)",
        )
        .await;
    assert!((86_000.0..=86_400.0).contains(&left), "{left} s are left");
    app.database().sql(&older(1)).await;
    for token in [second.text_at("/refresh_token"), &ada.refresh_token, &other.refresh_token] {
        refresh(&app, token).await.expect_problem(401, "refresh_refused");
    }
    assert_eq!(sessions(&app, &ada).await.len(), 0);
    assert_eq!(sessions(&app, &app.login(ADDRESS).await).await.len(), 1);
}
