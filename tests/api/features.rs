//! Features: the other half of the catalogue.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{expect_field, find};

fn search() -> Value {
    json!({ "id": "search", "name": "Search", "display_name": "検索" })
}

async fn create(app: &TestApp, who: &TestUser, body: Value) -> Answer {
    app.post("/api/features").bearer(who).json(body).send().await
}

#[tokio::test]
async fn everybody_sees_the_features() {
    let app = TestApp::start().await;
    let answer = app.get("/api/features").send().await.expect_status(200);
    assert_eq!(answer.at("/data").as_array().unwrap().len(), 5);
    assert!(answer.at("/next_cursor").is_null());
    let expected = json!({ "id": "ai_requests", "name": "AI Requests", "display_name": "AI機能",
        "description": "OpenAI/Claude/Geminiへのリクエスト機能", "kind": "metered", "unit": "request", "is_active": true });
    assert_eq!(find(answer.at("/data"), "id", "ai_requests"), &expected);
    assert_eq!(find(answer.at("/data"), "id", "custom_theme")["kind"], "boolean");
    let one = app.get("/api/features/ai_requests").send().await.expect_status(200);
    assert_eq!(one.body, expected);
    app.get("/api/features/telepathy").send().await.expect_problem(404, "not_found");
    app.get("/api/features/AI%20REQUESTS").send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn an_administrator_makes_changes_and_deletes_a_feature() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let created = create(&app, &admin, search()).await.expect_status(201);
    let expected = json!({ "id": "search", "name": "Search", "display_name": "検索", "description": null,
        "kind": "metered", "unit": null, "is_active": true });
    assert_eq!(created.body, expected);
    create(&app, &admin, search()).await.expect_problem(409, "id_taken");
    let edit = json!({ "name": "Finding", "description": "of things", "unit": "query" });
    let changed = app.patch("/api/features/search").bearer(&admin).json(edit).send().await.expect_status(200);
    assert_eq!((changed.text_at("/name"), changed.text_at("/unit")), ("Finding", "query"));
    let edit = json!({ "description": null, "unit": null });
    let changed = app.patch("/api/features/search").bearer(&admin).json(edit).send().await.expect_status(200);
    assert!(changed.at("/description").is_null() && changed.at("/unit").is_null(), "{changed}");
    assert_eq!(changed.text_at("/name"), "Finding");
    app.delete("/api/features/search").bearer(&admin).send().await.expect_status(204);
    app.get("/api/features/search").send().await.expect_problem(404, "not_found");
    app.delete("/api/features/search").bearer(&admin).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_feature_that_is_switched_off_is_off_for_everybody() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let body = json!({ "plan_id": "platinum" });
    app.post("/api/users/me/plan").bearer(&ada).json(body).send().await.expect_status(200);
    let check = async || app.get("/api/users/me/features/ai_requests").bearer(&ada).send().await.expect_status(200);
    assert_eq!(check().await.text_at("/reason"), "ok");
    let switch = async |on: bool| {
        let body = json!({ "is_active": on });
        app.patch("/api/features/ai_requests").bearer(&admin).json(body).send().await.expect_status(200)
    };
    switch(false).await;
    let off = check().await;
    assert_eq!((off.at("/allowed"), off.text_at("/reason")), (&json!(false), "feature_disabled"));
    app.get("/api/features/ai_requests").send().await.expect_problem(404, "not_found");
    app.get("/api/features/ai_requests").bearer(&admin).send().await.expect_status(200);
    let public = app.get("/api/features").bearer(&ada).send().await.expect_status(200);
    assert!(!public.text.contains("\"ai_requests\""), "{public}");
    switch(true).await;
    assert_eq!(check().await.text_at("/reason"), "ok");
}

#[tokio::test]
async fn a_feature_in_use_is_not_deleted() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let delete = async || app.delete("/api/features/search").bearer(&admin).send().await;
    app.delete("/api/features/ai_requests").bearer(&admin).send().await.expect_problem(409, "feature_in_use");
    create(&app, &admin, search()).await.expect_status(201);
    let exception = format!("/api/admin/users/{}/overrides/search", ada.id);
    app.put(&exception).bearer(&admin).json(json!({ "enabled": true })).send().await.expect_status(200);
    delete().await.expect_problem(409, "feature_in_use");
    app.delete(&exception).bearer(&admin).send().await.expect_status(204);
    let counter = format!(
        "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used) \
         VALUES ('{}', 'search', 'month', date_trunc('month', now()), 1)",
        ada.id
    );
    app.database().sql(&counter).await;
    delete().await.expect_problem(409, "feature_in_use");
    app.database().sql("DELETE FROM usage_counters").await;
    delete().await.expect_status(204);
}

#[tokio::test]
async fn features_are_the_administrators_to_change() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let requests = || {
        [
            app.post("/api/features").json(search()),
            app.patch("/api/features/ai_requests").json(json!({ "is_active": false })),
            app.delete("/api/features/ai_requests"),
        ]
    };
    for request in requests() {
        request.send().await.expect_problem(401, "unauthorized");
    }
    for request in requests() {
        request.bearer(&ada).send().await.expect_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn an_unfit_feature_names_its_field() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for (field, value) in [
        ("id", json!("Search!")),
        ("id", json!("s".repeat(51))),
        ("name", json!("n".repeat(101))),
        ("display_name", json!(" ")),
        ("description", json!("d".repeat(2_001))),
        ("description", json!("a\u{0}b")),
        ("kind", json!("magic")),
        ("unit", json!("")),
        // The limit of the column: varchar(30).
        ("unit", json!("u".repeat(31))),
        ("is_active", json!(1)),
        ("price", json!("1")),
    ] {
        let mut body = search();
        body[field] = value.clone();
        expect_field(create(&app, &admin, body).await, field);
        if !["id", "kind", "price"].contains(&field) {
            let changes = json!({ field: value });
            expect_field(app.patch("/api/features/ai_requests").bearer(&admin).json(changes).send().await, field);
        }
    }
    let mut longest = search();
    longest["unit"] = json!("単".repeat(30));
    longest["description"] = json!("説".repeat(2_000));
    create(&app, &admin, longest).await.expect_status(201);
    let changes = json!({ "kind": "boolean" });
    expect_field(app.patch("/api/features/ai_requests").bearer(&admin).json(changes).send().await, "kind");
    let unknown = app.patch("/api/features/telepathy").bearer(&admin).json(json!({ "name": "x" })).send().await;
    unknown.expect_problem(404, "not_found");
}
