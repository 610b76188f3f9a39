//! Operators: all users' profiles, roles and plans, and the findings of the data checks.

use domain::subscriptions::BillingMode;
use harness::{TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field};

async fn set_role(app: &TestApp, admin: &TestUser, user: &TestUser, role: &str) {
    let put = app.put(&format!("/api/admin/users/{}/role", user.id)).bearer(admin).json(json!({ "role": role }));
    assert_eq!(put.send().await.expect_status(200).text_at("/role"), role);
}

#[tokio::test]
async fn profiles_are_listed_newest_first_page_by_page() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for name in ["ada", "bob", "cyd", "dan"] {
        app.signup(&format!("{name}@example.com")).await;
    }
    let (mut emails, mut cursor) = (Vec::new(), String::new());
    for expected in [2, 2, 1] {
        let page = app.get(&format!("/api/admin/users?limit=2{cursor}")).bearer(&admin).send().await;
        let page = page.expect_status(200);
        let data = page.at("/data").as_array().unwrap();
        assert_eq!(data.len(), expected, "{page}");
        emails.extend(data.iter().map(|user| user["email"].as_str().unwrap().split('@').next().unwrap().to_owned()));
        cursor = page.at("/next_cursor").as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!(emails, ["dan", "cyd", "bob", "ada", "admin"]);
    assert_eq!(cursor, "");
    for query in ["limit=0", "limit=101", "cursor=1_x", "name=ada"] {
        let answer = app.get(&format!("/api/admin/users?{query}")).bearer(&admin).send().await;
        answer.expect_problem(422, "invalid");
    }
}

#[tokio::test]
async fn an_operator_reads_anybodys_profile_and_plan() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let own = app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    let read = app.get(&format!("/api/admin/users/{}", ada.id)).bearer(&admin).send().await.expect_status(200);
    assert_eq!(read.body, own.body);
    let plan = app.get(&format!("/api/admin/users/{}/plan", ada.id)).bearer(&admin).send().await.expect_status(200);
    assert_eq!((plan.text_at("/user_id"), plan.text_at("/plan_id")), (ada.id.to_string().as_str(), "free"));
    for id in [NOBODY, "ada", "%00", "1"] {
        app.get(&format!("/api/admin/users/{id}")).bearer(&admin).send().await.expect_problem(404, "not_found");
        app.get(&format!("/api/admin/users/{id}/plan")).bearer(&admin).send().await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_role_holds_from_the_next_request_on() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let users = async || app.get("/api/admin/users").bearer(&ada).send().await;
    users().await.expect_problem(403, "forbidden");
    set_role(&app, &admin, &ada, "admin").await;
    users().await.expect_status(200);
    set_role(&app, &admin, &ada, "user").await;
    users().await.expect_problem(403, "forbidden");
    let path = format!("/api/admin/users/{}/role", ada.id);
    let put = async |path: &str, body: Value| app.put(path).bearer(&admin).json(body).send().await;
    expect_field(put(&path, json!({ "role": "owner" })).await, "role");
    expect_field(put(&path, json!({})).await, "role");
    expect_field(put(&path, json!({ "role": "admin", "plan_id": "gold" })).await, "plan_id");
    expect_field(put(&path, json!({ "role": "admin", "reason": "a\u{0}b" })).await, "reason");
    put(&format!("/api/admin/users/{NOBODY}/role"), json!({ "role": "admin" })).await.expect_problem(404, "not_found");
    let own = app.put(&path).bearer(&ada).json(json!({ "role": "admin" })).send().await;
    own.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn an_operator_grants_a_plan_whatever_the_billing() {
    let app = TestApp::with(|settings| settings.billing.mode = BillingMode::Stripe).await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let path = format!("/api/admin/users/{}/plan", ada.id);
    let grant = async |path: &str, body: Value| app.post(path).bearer(&admin).json(body).send().await;
    let preview = grant(&format!("{path}?preview=true"), json!({ "plan_id": "gold" })).await.expect_status(200);
    assert_eq!((preview.at("/preview"), preview.text_at("/plan_id")), (&json!(true), "free"));
    let granted = grant(&path, json!({ "plan_id": "gold", "reason": "a friend" })).await.expect_status(200);
    assert_eq!((granted.text_at("/plan_id"), granted.text_at("/user_id")), ("gold", ada.id.to_string().as_str()));
    grant(&path, json!({ "plan_id": "gold" })).await.expect_problem(422, "same_plan");
    grant(&path, json!({ "plan_id": "diamond" })).await.expect_problem(404, "not_found");
    grant(&path, json!({ "plan_id": "free", "when": "period_end" })).await.expect_problem(422, "no_paid_period");
    expect_field(grant(&path, json!({ "plan_id": "free", "reason": "r".repeat(501) })).await, "reason");
    let absent = format!("/api/admin/users/{NOBODY}/plan");
    grant(&absent, json!({ "plan_id": "gold" })).await.expect_problem(404, "not_found");
    let eve = app.signup("eve@example.com").await;
    let own = app.post(&format!("/api/admin/users/{}/plan", eve.id)).bearer(&eve).json(json!({ "plan_id": "gold" }));
    own.send().await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn the_checks_find_nothing_in_sound_data_and_name_what_is_not() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let find = async || app.get("/api/admin/integrity").bearer(&admin).send().await.expect_status(200);
    assert_eq!(find().await.at("/data"), &json!([]));
    let break_it = format!("UPDATE users SET token_balance = token_balance + 1 WHERE id = '{}'", ada.id);
    app.database().sql(&break_it).await;
    let found = find().await;
    let findings = found.at("/data").as_array().unwrap();
    assert!(
        findings.iter().any(|finding| finding["subject"].as_str().unwrap().contains(&ada.id.to_string())),
        "{found}"
    );
    for field in ["finding", "subject", "detail"] {
        assert!(findings[0][field].as_str().is_some_and(|text| !text.is_empty()), "{found}");
    }
    app.get("/api/admin/integrity").bearer(&ada).send().await.expect_problem(403, "forbidden");
    app.get("/api/admin/integrity").send().await.expect_problem(401, "unauthorized");
}
