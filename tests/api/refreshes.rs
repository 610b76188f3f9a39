//! Refresh tokens: concurrent exchanges of a token get one successor, and a stolen token ends its session.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use harness::TestApp;
use serde_json::json;

use crate::identity::refresh;

const ADDRESS: &str = "ada@example.com";

/// Moves every exchange so far this many seconds into the past.
async fn let_pass(app: &TestApp, seconds: u32) {
    app.database().sql(&format!("UPDATE refresh_tokens SET used_at = used_at - interval '{seconds} s'")).await;
}

#[tokio::test]
async fn of_64_exchanges_at_once_all_get_one_successor() {
    let app = TestApp::start().await;
    let other_process = TestApp::over(app.database().clone(), |_| {}).await;
    let ada = app.signup(ADDRESS).await;
    let answers = join_all((0..64).map(|number| {
        let process = if number % 2 == 0 { &app } else { &other_process };
        refresh(process, &ada.refresh_token)
    }))
    .await;
    let mut successors = BTreeSet::new();
    for answer in answers {
        let answer = answer.expect_status(200);
        app.get("/api/users/me").bearer(answer.text_at("/access_token")).send().await.expect_status(200);
        successors.insert(answer.text_at("/refresh_token").to_owned());
    }
    assert_eq!(successors.len(), 1);
    let rows: i64 = app.database().query_scalar("SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL AND revoked_at IS NULL AND user_id <> (SELECT id FROM users WHERE role = 'admin')").await;
    assert_eq!(rows, 1);
    refresh(&app, successors.first().unwrap()).await.expect_status(200);
}

#[tokio::test]
async fn a_token_that_comes_again_within_the_grace_gets_the_same_successor() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let first = refresh(&app, &ada.refresh_token).await.expect_status(200);
    let_pass(&app, 28).await;
    let second = refresh(&app, &ada.refresh_token).await.expect_status(200);
    assert_eq!(first.text_at("/refresh_token"), second.text_at("/refresh_token"));
    refresh(&app, second.text_at("/refresh_token")).await.expect_status(200);
}

#[tokio::test]
async fn a_token_that_comes_after_the_grace_ends_its_session() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let other_session = app.login(ADDRESS).await;
    let second = refresh(&app, &ada.refresh_token).await.expect_status(200);
    let_pass(&app, 31).await;
    refresh(&app, &ada.refresh_token).await.expect_problem(401, "refresh_refused");
    refresh(&app, second.text_at("/refresh_token")).await.expect_problem(401, "refresh_refused");
    refresh(&app, &other_session.refresh_token).await.expect_status(200);
}

#[tokio::test]
async fn a_token_whose_successor_was_exchanged_ends_its_session_even_within_the_grace() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let second = refresh(&app, &ada.refresh_token).await.expect_status(200);
    let third = refresh(&app, second.text_at("/refresh_token")).await.expect_status(200);
    refresh(&app, &ada.refresh_token).await.expect_problem(401, "refresh_refused");
    refresh(&app, third.text_at("/refresh_token")).await.expect_problem(401, "refresh_refused");
}

#[tokio::test]
async fn a_session_that_was_ended_stays_ended_within_the_grace() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let second = refresh(&app, &ada.refresh_token).await.expect_status(200);
    let body = json!({ "refresh_token": second.text_at("/refresh_token") });
    app.post("/api/auth/logout").json(body).send().await.expect_status(204);
    refresh(&app, &ada.refresh_token).await.expect_problem(401, "refresh_refused");
}

/// The content of the database is not enough to make a successor.
#[tokio::test]
async fn another_signing_key_makes_no_successor() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let first = refresh(&app, &ada.refresh_token).await.expect_status(200);
    let other = TestApp::over(app.database().clone(), |settings| {
        settings.auth.signing_key =
            app::settings::shape::SecretText::new("another signing key, as long as it has to be");
    })
    .await;
    refresh(&other, &ada.refresh_token).await.expect_problem(401, "refresh_refused");
    assert!(!first.text_at("/refresh_token").is_empty());
}
