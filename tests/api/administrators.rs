//! Administrators: an unproven address gives no rights.

use app::operators::{AdminCommand, administer};
use app::settings::shape::{SecretText, Settings};
use futures_util::future::join_all;
use harness::TestApp;

use crate::NOBODY;
use crate::identity::log_in;

const NAMED: &str = "root@example.com";
const OPERATORS: &str = "the password of the operator";

fn named(settings: &mut Settings) {
    NAMED.clone_into(&mut settings.admin.email);
    settings.admin.password = SecretText::new(OPERATORS);
}

async fn role_of(app: &TestApp, email: &str) -> Option<String> {
    let sql = format!("SELECT (SELECT u.role FROM users u JOIN auth.users a USING (id) WHERE a.email = '{email}')");
    app.database().query_scalar::<Option<String>>(&sql).await
}

async fn run(app: &TestApp, command: AdminCommand) -> anyhow::Result<Vec<String>> {
    let mut settings = harness::test_settings();
    settings.database.url = SecretText::new(app.database().service_url());
    administer(&settings, command, Some("grace")).await
}

#[tokio::test]
async fn whoever_signed_up_with_the_named_address_stays_a_user_and_the_start_goes_on() {
    let app = TestApp::start().await;
    let attacker = app.signup(NAMED).await;
    app.database().sql("DELETE FROM auth.users WHERE email = 'admin@example.com'").await;
    let database = app.database().clone();
    app.stop().await;
    for _ in 0..2 {
        let app = TestApp::over(database.clone(), named).await;
        app.get("/api/admin/users").bearer(&attacker).send().await.expect_problem(403, "forbidden");
        assert_eq!(role_of(&app, NAMED).await.as_deref(), Some("user"));
        log_in(&app, NAMED, OPERATORS).await.expect_problem(401, "wrong_credentials");
        let admins: i64 = app.database().query_scalar("SELECT count(*) FROM users WHERE role = 'admin'").await;
        assert_eq!(admins, 0, "nobody is promoted, and nobody is made");
        app.stop().await;
    }
}

#[tokio::test]
async fn with_an_administrator_no_start_makes_another() {
    let app = TestApp::start().await;
    let user = app.signup(NAMED).await;
    let database = app.database().clone();
    app.stop().await;
    let app = TestApp::over(database, named).await;
    app.get("/api/admin/users").bearer(&user).send().await.expect_problem(403, "forbidden");
    log_in(&app, NAMED, harness::PASSWORD).await.expect_status(200);
    // A later start with another configured address makes no further administrator.
    let database = app.database().clone();
    app.stop().await;
    let app = TestApp::over(database, |settings| "late@example.com".clone_into(&mut settings.admin.email)).await;
    assert_eq!(role_of(&app, "late@example.com").await, None, "there is an administrator already");
}

#[tokio::test]
async fn of_many_starts_at_once_one_makes_the_administrator() {
    let app = TestApp::start().await;
    app.database().sql("DELETE FROM auth.users").await;
    let database = app.database().clone();
    app.stop().await;
    let starts = join_all((0..4).map(|number| {
        TestApp::over(database.clone(), move |settings| {
            named(settings);
            if number % 2 == 0 {
                "other@example.com".clone_into(&mut settings.admin.email);
            }
        })
    }));
    let apps = starts.await;
    let admins: i64 = database.query_scalar("SELECT count(*) FROM users WHERE role = 'admin'").await;
    assert_eq!(admins, 1);
    drop(apps);
}

#[tokio::test]
async fn an_operator_lists_grants_and_revokes_and_the_trail_says_who() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let users = async || app.get("/api/admin/users").bearer(&ada).send().await.status;
    assert_eq!(users().await, 403);
    let granted = run(&app, AdminCommand::Grant { user_id: ada.id.0 }).await.unwrap();
    assert!(granted[0].contains("ada@example.com") && granted[0].contains("role: admin"), "{granted:?}");
    let told = harness::eventually(crate::HEARD_WITHIN, || async { users().await }, |status| *status == 200);
    told.await;
    let listed = run(&app, AdminCommand::List).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed[1].starts_with(&ada.id.to_string()), "{listed:?}");
    run(&app, AdminCommand::Revoke { user_id: ada.id.0 }).await.unwrap();
    harness::eventually(crate::HEARD_WITHIN, || async { users().await }, |status| *status == 403).await;
    let trail: Vec<(String, Option<String>)> = app
        .database()
        .query_all(&format!(
            "SELECT new_values ->> 'role', reason FROM audit_logs WHERE table_name = 'users' AND record_id = '{}' ORDER BY created_at",
            ada.id
        ))
        .await;
    let by = |verb: &str, role: &str| (role.to_owned(), Some(format!("product-base admin {verb}, run by grace")));
    assert_eq!(trail, [by("grant", "admin"), by("revoke", "user")]);
    let unknown = run(&app, AdminCommand::Grant { user_id: NOBODY.parse().unwrap() }).await.unwrap_err();
    assert!(unknown.to_string().contains("no profile"), "{unknown}");
}
