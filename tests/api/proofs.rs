//! Recent proof: irreversible acts and changes by administrators need a recent authentication.

use harness::{Request, TestApp, TestUser};
use serde_json::json;

use crate::NOBODY;

const ADDRESS: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery";

/// Moves all log-ins this many minutes into the past.
async fn let_pass(app: &TestApp, minutes: u32) {
    let past = format!("now() - interval '{minutes} min'");
    app.database().sql(&format!("UPDATE sessions SET authenticated_at = {past}, created_at = {past}")).await;
}

/// Acts of administrators and of users that need a recent proof.
fn acts(app: &TestApp, ada: &TestUser) -> Vec<(&'static str, Request)> {
    let user = format!("/api/admin/users/{}", ada.id);
    let feature = json!({ "enabled": true, "limit_value": 7 });
    let price = json!({ "provider": "claude", "model": "m", "kind": "input", "usd_per_million": "1", "version": "v" });
    let named = json!({ "id": "silver", "name": "x", "display_name": "x" });
    let tokens = json!({ "user_id": ada.id, "amount": 1 });
    let refund = json!({ "user_id": ada.id, "transaction_id": NOBODY });
    vec![
        ("role", app.put(&format!("{user}/role")).json(json!({ "role": "user" }))),
        ("plan", app.post(&format!("{user}/plan")).json(json!({ "plan_id": "gold" }))),
        ("override", app.put(&format!("{user}/overrides/ai_requests")).json(&feature)),
        ("override's end", app.delete(&format!("{user}/overrides/ai_requests"))),
        ("top-up", app.post("/api/tokens/topup").json(&tokens)),
        ("bonus", app.post("/api/tokens/bonus").json(&tokens)),
        ("refund", app.post("/api/tokens/refund").json(refund)),
        ("price", app.post("/api/admin/prices").json(price)),
        ("new plan", app.post("/api/plans").json(&named)),
        ("plan's change", app.patch("/api/plans/gold").json(json!({ "description": "x" }))),
        ("plan's feature", app.put("/api/plans/gold/features/ai_requests").json(feature)),
        ("plan's feature's end", app.delete("/api/plans/gold/features/ai_requests")),
        ("plan's end", app.delete("/api/plans/silver")),
        ("new feature", app.post("/api/features").json(named)),
        ("feature's change", app.patch("/api/features/ai_requests").json(json!({ "description": "x" }))),
        ("feature's end", app.delete("/api/features/silver")),
        ("new key", app.post("/api/keys").json(json!({ "name": "k" }))),
        ("rotation", app.post(&format!("/api/keys/{NOBODY}/rotate")).json(json!({}))),
        ("end of the profile", app.delete("/api/users/me")),
    ]
}

#[tokio::test]
async fn without_a_recent_proof_nothing_of_weight_is_done() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup(ADDRESS).await);
    let_pass(&app, 11).await;
    let refreshed = app.post("/api/auth/refresh").json(json!({ "refresh_token": admin.refresh_token }));
    let refreshed = refreshed.send().await.expect_status(200);
    for token in [admin.access_token.as_str(), refreshed.text_at("/access_token")] {
        for (what, request) in acts(&app, &ada) {
            let refused = request.bearer(token).send().await.expect_problem(403, "reauthentication_required");
            assert!(refused.text_at("/detail").contains("/api/auth/reauthenticate"), "{what}: {refused}");
        }
    }
    // Reads and protective acts need no recent proof.
    for path in ["/api/admin/users", "/api/keys", "/api/auth/sessions", "/api/admin/audit"] {
        app.get(path).bearer(&admin).send().await.expect_status(200);
    }
    app.delete(&format!("/api/admin/users/{}/keys/{NOBODY}", ada.id))
        .bearer(&admin)
        .send()
        .await
        .expect_problem(404, "not_found");
    app.delete("/api/auth/sessions").bearer(&admin).send().await.expect_status(204);
    for (what, request) in acts(&app, &ada) {
        let status = request.bearer(&ada).send().await.status;
        assert_eq!(status, 403, "{what}");
    }
}

#[tokio::test]
async fn the_password_proves_a_session_anew_and_no_other() {
    let app = TestApp::start().await;
    let (here, there) = (app.admin().await, app.admin().await);
    let ada = app.signup(ADDRESS).await;
    let_pass(&app, 11).await;
    let prove = |who: &TestUser, password: &str| {
        app.post("/api/auth/reauthenticate").bearer(who).json(json!({ "password": password })).send()
    };
    prove(&here, "not the password").await.expect_problem(401, "wrong_credentials");
    let make_key = |who: &TestUser| app.post("/api/keys").bearer(who).json(json!({ "name": "k" })).send();
    make_key(&here).await.expect_problem(403, "reauthentication_required");
    prove(&here, PASSWORD).await.expect_status(204);
    for (what, request) in acts(&app, &ada) {
        let answer = request.bearer(&here).send().await;
        assert!(answer.status < 300 || [404, 409].contains(&answer.status), "{what}: {answer}");
    }
    make_key(&there).await.expect_problem(401, "unauthorized"); // the last act deleted the account
}

#[tokio::test]
async fn a_session_that_has_ended_proves_nothing() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let log_out = app.post("/api/auth/logout").json(json!({ "refresh_token": ada.refresh_token }));
    log_out.send().await.expect_status(204);
    app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    app.delete("/api/users/me").bearer(&ada).send().await.expect_problem(403, "reauthentication_required");
    let prove = app.post("/api/auth/reauthenticate").bearer(&ada).json(json!({ "password": PASSWORD }));
    prove.send().await.expect_problem(403, "reauthentication_required");
    let again = app.login(ADDRESS).await;
    app.delete("/api/users/me").bearer(&again).send().await.expect_status(204);
}

#[tokio::test]
async fn keys_act_by_their_permissions_but_for_what_needs_the_person() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup(ADDRESS).await);
    let key = json!({ "name": "k", "permissions": ["*"] });
    let key = app.post("/api/keys").bearer(&admin).json(key).send().await.expect_status(201);
    let key = key.text_at("/key");
    let_pass(&app, 11).await;
    let in_person = ["role", "end of the profile"];
    for (what, request) in acts(&app, &ada) {
        let answer = request.bearer(key).send().await;
        if in_person.contains(&what) {
            answer.expect_problem(403, "person_required");
        } else {
            assert!(answer.status < 300 || [404, 409].contains(&answer.status), "{what}: {answer}");
        }
    }
    app.post("/api/auth/reauthenticate")
        .bearer(key)
        .json(json!({ "password": PASSWORD }))
        .send()
        .await
        .expect_problem(403, "person_required");
}

#[tokio::test]
async fn the_bound_is_a_setting_and_can_be_switched_off() {
    let app = TestApp::with(|settings| settings.auth.reauthentication_minutes = 0).await;
    let ada = app.signup(ADDRESS).await;
    let_pass(&app, 10_000).await;
    app.post("/api/keys").bearer(&ada).json(json!({ "name": "k" })).send().await.expect_status(201);
    let strict = TestApp::over(app.database().clone(), |settings| settings.auth.reauthentication_minutes = 30).await;
    let_pass(&app, 29).await;
    strict.post("/api/keys").bearer(&ada).json(json!({ "name": "k" })).send().await.expect_status(201);
    let_pass(&app, 31).await;
    let refused = strict.post("/api/keys").bearer(&ada).json(json!({ "name": "k" })).send().await;
    refused.expect_problem(403, "reauthentication_required");
}

/// Sessions of an earlier release have no time of proof; their log-in counts.
#[tokio::test]
async fn a_session_of_an_earlier_release_counts_from_its_log_in() {
    let app = TestApp::start().await;
    let ada = app.signup(ADDRESS).await;
    let make_key = || app.post("/api/keys").bearer(&ada).json(json!({ "name": "k" })).send();
    app.database().sql("UPDATE sessions SET authenticated_at = NULL, network_mark = NULL").await;
    make_key().await.expect_status(201);
    app.database().sql("UPDATE sessions SET created_at = now() - interval '11 min'").await;
    make_key().await.expect_problem(403, "reauthentication_required");
}
