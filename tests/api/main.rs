//! The API from outside: the real service over HTTP, a database for each test. One module a room.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails, with its own words"
)]

use harness::TestApp;

#[tokio::test]
async fn the_service_lives_and_shows_its_plans() {
    let app = TestApp::start().await;
    app.get("/healthz").send().await.expect_status(200);
    let plans = app.get("/api/plans").send().await.expect_status(200);
    let ids: Vec<&str> = plans.at("/data").as_array().unwrap().iter().filter_map(|plan| plan["id"].as_str()).collect();
    assert_eq!(ids, ["free", "gold", "platinum"]);
    app.get("/api/nothing").send().await.expect_problem(404, "not_found");
    app.get("/api/users/me").send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn users_and_the_administrator_have_tokens() {
    let app = TestApp::start().await;
    let user = app.signup("ada@example.com").await;
    let profile = app.get("/api/users/me").bearer(&user).send().await.expect_status(200);
    assert_eq!(profile.text_at("/id"), user.id.to_string());
    let admin = app.admin().await;
    app.get("/api/admin/users").bearer(&admin).send().await.expect_status(200);
    app.get("/api/admin/users").bearer(&user).send().await.expect_problem(403, "forbidden");
    app.stop().await;
}
