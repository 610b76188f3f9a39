//! Failed log-ins: growing delays by account and network, a limit by account, and no lockout of the owner by other
//! networks.

use harness::{Answer, TestApp, TestUser};
use serde_json::json;

const ADDRESS: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery";
const WRONG: &str = "not the password";
const HOME: &str = "192.0.2.1";

/// `free` failures of an account and network without a delay, and at most `per_hour` of an account.
async fn app(free: u32, per_hour: u32) -> TestApp {
    TestApp::with(|settings| {
        settings.server.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
        settings.rate_limits.login_failures_before_delay = free;
        settings.rate_limits.login_failures_per_account = per_hour;
    })
    .await
}

async fn log_in(app: &TestApp, from: &str, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password });
    app.post("/api/auth/login").header("x-forwarded-for", from).json(body).send().await
}

fn wait(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("it says how long").parse().expect("in seconds")
}

async fn sign_up_at_home(app: &TestApp) {
    let body = json!({ "email": ADDRESS, "password": PASSWORD });
    app.post("/api/auth/signup").header("x-forwarded-for", HOME).json(body).send().await.expect_status(201);
}

#[tokio::test]
async fn failures_of_one_network_wait_and_a_success_starts_anew() {
    let app = app(3, 100).await;
    sign_up_at_home(&app).await;
    for (round, email) in [ADDRESS, " ADA@Example.com"].into_iter().enumerate() {
        for _ in 0..2 {
            log_in(&app, HOME, email, WRONG).await.expect_problem(401, "wrong_credentials");
        }
        log_in(&app, HOME, ADDRESS, PASSWORD).await.expect_status(200);
        assert!(round < 2);
    }
    for _ in 0..3 {
        log_in(&app, HOME, ADDRESS, WRONG).await.expect_problem(401, "wrong_credentials");
    }
    // The response does not depend on whether the password is right.
    for password in [WRONG, PASSWORD] {
        let refused = log_in(&app, HOME, ADDRESS, password).await.expect_problem(429, "too_many_attempts");
        assert_eq!(wait(&refused), 1, "{refused}");
    }
    log_in(&app, HOME, "bob@example.com", WRONG).await.expect_problem(401, "wrong_credentials");
    log_in(&app, "198.51.100.1", ADDRESS, PASSWORD).await.expect_status(200);
}

#[tokio::test]
async fn many_at_once_are_no_way_around() {
    let app = app(3, 100).await;
    sign_up_at_home(&app).await;
    let answers = futures_util::future::join_all((0..20).map(|_| log_in(&app, "198.51.100.7", ADDRESS, WRONG))).await;
    let judged = answers.iter().filter(|answer| answer.status == 401).count();
    assert!(judged <= 4, "{judged} of 20 guesses at once were judged");
    assert!(answers.iter().all(|answer| [401, 429].contains(&answer.status)));
}

/// Unknown addresses are counted in the same way, so that the response does not reveal which exist.
#[tokio::test]
async fn an_unknown_account_is_refused_alike() {
    let app = app(2, 100).await;
    for _ in 0..2 {
        log_in(&app, HOME, "nobody@example.com", WRONG).await.expect_problem(401, "wrong_credentials");
    }
    let refused = log_in(&app, HOME, "nobody@example.com", WRONG).await.expect_problem(429, "too_many_attempts");
    assert_eq!(wait(&refused), 1);
}

#[tokio::test]
async fn strangers_of_many_networks_lock_each_other_out_and_not_the_owner() {
    let app = app(5, 10).await;
    sign_up_at_home(&app).await;
    for stranger in 0..10 {
        let from = format!("198.51.100.{stranger}");
        log_in(&app, &from, ADDRESS, WRONG).await.expect_problem(401, "wrong_credentials");
    }
    for from in ["203.0.113.1", "203.0.113.2"] {
        let refused = log_in(&app, from, ADDRESS, PASSWORD).await.expect_problem(429, "too_many_attempts");
        assert!((3_000..=3_600).contains(&wait(&refused)), "{refused}");
    }
    log_in(&app, HOME, ADDRESS, PASSWORD).await.expect_status(200);
    // Another process starts with no failures, and knows the network from the sessions.
    let refreshed = TestApp::over(app.database().clone(), |settings| {
        settings.server.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
        settings.rate_limits.login_failures_per_account = 1;
    })
    .await;
    log_in(&refreshed, "198.51.100.1", ADDRESS, WRONG).await.expect_problem(401, "wrong_credentials");
    log_in(&refreshed, "198.51.100.2", ADDRESS, PASSWORD).await.expect_problem(429, "too_many_attempts");
    log_in(&refreshed, HOME, ADDRESS, PASSWORD).await.expect_status(200);
    log_in(&refreshed, "203.0.113.9", "bob@example.com", WRONG).await.expect_problem(401, "wrong_credentials");
}

#[tokio::test]
async fn every_way_to_try_a_password_counts() {
    let app = app(3, 100).await;
    let ada = app.signup(ADDRESS).await;
    let here = |path: &str| app.post(path).bearer(&ada).header("x-forwarded-for", HOME);
    let change = json!({ "current": WRONG, "password": "a staple of old batteries" });
    here("/api/auth/reauthenticate")
        .json(json!({ "password": WRONG }))
        .send()
        .await
        .expect_problem(401, "wrong_credentials");
    here("/api/auth/password/change").json(change.clone()).send().await.expect_problem(401, "wrong_credentials");
    log_in(&app, HOME, ADDRESS, WRONG).await.expect_problem(401, "wrong_credentials");
    here("/api/auth/reauthenticate")
        .json(json!({ "password": PASSWORD }))
        .send()
        .await
        .expect_problem(429, "too_many_attempts");
    here("/api/auth/password/change").json(change).send().await.expect_problem(429, "too_many_attempts");
    log_in(&app, HOME, ADDRESS, PASSWORD).await.expect_problem(429, "too_many_attempts");
}

#[tokio::test]
async fn refreshes_and_log_outs_are_limited_by_network() {
    let app = TestApp::with(|settings| {
        settings.server.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
        settings.rate_limits.refreshes_per_ip = 3;
    })
    .await;
    let ada = app.signup(ADDRESS).await;
    let ask = |path: &str, from: &str, ada: &TestUser| {
        let body = json!({ "refresh_token": ada.refresh_token });
        app.post(path).header("x-forwarded-for", from).json(body).send()
    };
    for path in ["/api/auth/refresh", "/api/auth/refresh", "/api/auth/logout"] {
        assert!(ask(path, HOME, &ada).await.status < 300);
    }
    for path in ["/api/auth/refresh", "/api/auth/logout"] {
        let refused = ask(path, HOME, &ada).await.expect_problem(429, "too_many_attempts");
        assert!((1..=20).contains(&wait(&refused)), "{refused}");
    }
    ask("/api/auth/refresh", "198.51.100.1", &ada).await.expect_problem(401, "refresh_refused");
}
