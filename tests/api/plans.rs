//! Plans: the public catalogue, and its changes by administrators.

use harness::{TestApp, TestUser};
use serde_json::{Value, json};

use crate::{expect_field, find};

fn silver() -> Value {
    json!({ "id": "silver", "name": "Silver", "display_name": "シルバー", "price_monthly": "480.5", "price_yearly": "4800" })
}

async fn create(app: &TestApp, who: &TestUser, body: Value) -> harness::Answer {
    app.post("/api/plans").bearer(who).json(body).send().await
}

#[tokio::test]
async fn the_public_list_has_the_shape_that_clients_rely_on() {
    let app = TestApp::start().await;
    let answer = app.get("/api/plans").send().await.expect_status(200);
    assert!(answer.at("/next_cursor").is_null());
    let gold = find(answer.at("/data"), "id", "gold");
    let mut described = gold.clone();
    let features = described.as_object_mut().unwrap().remove("features").unwrap();
    let expected = json!({ "id": "gold", "name": "Gold Plan", "display_name": "ゴールドプラン", "description": null,
        "price_monthly": "980.00", "price_yearly": "9800.00", "currency": "JPY", "is_active": true });
    assert_eq!(described, expected);
    assert_eq!(features.as_array().unwrap().len(), 5);
    let limited = json!({ "feature_id": "ai_requests", "enabled": true, "limit_value": 1000, "limit_period": "month",
        "overage": "block" });
    assert_eq!(find(&features, "feature_id", "ai_requests"), &limited);
    assert!(find(&features, "feature_id", "export_csv")["limit_value"].is_null());
    assert_eq!(find(&features, "feature_id", "api_access")["enabled"], false);
    assert_eq!(find(answer.at("/data"), "id", "free")["price_monthly"], "0.00");
    assert_eq!(find(answer.at("/data"), "id", "platinum")["price_yearly"], "29800.00");
    let one = app.get("/api/plans/gold").send().await.expect_status(200);
    assert_eq!(&one.body, gold);
}

#[tokio::test]
async fn an_unknown_plan_is_not_found_however_it_is_spelled() {
    let app = TestApp::start().await;
    for id in ["diamond", "GOLD", "gold%20", "%00", "a%2Fb", "' OR 1=1", &"x".repeat(51)] {
        app.get(&format!("/api/plans/{id}")).send().await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_withdrawn_plan_is_shown_to_administrators_only() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let withdraw = json!({ "is_active": false });
    let changed = app.patch("/api/plans/gold").bearer(&admin).json(withdraw).send().await.expect_status(200);
    assert_eq!(changed.at("/is_active"), false);
    let public = app.get("/api/plans").bearer(&ada).send().await.expect_status(200);
    assert!(!public.text.contains("\"gold\""), "{public}");
    app.get("/api/plans/gold").send().await.expect_problem(404, "not_found");
    app.get("/api/plans/gold").bearer(&ada).send().await.expect_problem(404, "not_found");
    let to_admin = app.get("/api/plans").bearer(&admin).send().await.expect_status(200);
    assert_eq!(find(to_admin.at("/data"), "id", "gold")["is_active"], false);
    app.get("/api/plans/gold").bearer(&admin).send().await.expect_status(200);
    // Users of the plan keep it.
    let grant = format!("/api/admin/users/{}/plan", ada.id);
    let body = json!({ "plan_id": "gold" });
    app.post(&grant).bearer(&admin).json(body).send().await.expect_problem(422, "plan_inactive");
}

#[tokio::test]
async fn an_administrator_makes_changes_and_deletes_a_plan() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let created = create(&app, &admin, silver()).await.expect_status(201);
    let expected = json!({ "id": "silver", "name": "Silver", "display_name": "シルバー", "description": null,
        "price_monthly": "480.50", "price_yearly": "4800.00", "currency": "JPY", "is_active": true, "features": [] });
    assert_eq!(created.body, expected);
    let ids = |answer: &harness::Answer| {
        answer.at("/data").as_array().unwrap().iter().map(|plan| plan["id"].clone()).collect::<Vec<_>>()
    };
    let listed = app.get("/api/plans").send().await.expect_status(200);
    assert_eq!(ids(&listed), ["free", "silver", "gold", "platinum"], "cheapest first, and at once");
    create(&app, &admin, silver()).await.expect_problem(409, "id_taken");
    let edit = json!({ "display_name": "銀", "description": "for some", "price_monthly": "500", "price_yearly": null,
        "currency": "USD" });
    let changed = app.patch("/api/plans/silver").bearer(&admin).json(edit).send().await.expect_status(200);
    assert_eq!((changed.text_at("/name"), changed.text_at("/display_name")), ("Silver", "銀"));
    assert_eq!((changed.text_at("/price_monthly"), changed.text_at("/currency")), ("500.00", "USD"));
    assert!(changed.at("/price_yearly").is_null());
    let shown = app.get("/api/plans/silver").send().await.expect_status(200);
    assert_eq!(shown.body, changed.body);
    app.delete("/api/plans/silver").bearer(&admin).send().await.expect_status(204);
    app.get("/api/plans/silver").send().await.expect_problem(404, "not_found");
    app.delete("/api/plans/silver").bearer(&admin).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn the_catalogue_is_the_administrators_to_change() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let reader = json!({ "name": "reader", "permissions": ["plans:read", "users:write"] });
    let reader = app.post("/api/keys").bearer(&admin).json(reader).send().await.expect_status(201);
    let reader = reader.text_at("/key").to_owned();
    let requests = || {
        let grant = json!({ "enabled": true, "limit_value": 1 });
        [
            app.post("/api/plans").json(silver()),
            app.patch("/api/plans/gold").json(json!({ "name": "x" })),
            app.delete("/api/plans/gold"),
            app.put("/api/plans/gold/features/ai_requests").json(grant),
            app.delete("/api/plans/gold/features/ai_requests"),
        ]
    };
    for request in requests() {
        request.send().await.expect_problem(401, "unauthorized");
    }
    for request in requests() {
        request.bearer(&ada).send().await.expect_problem(403, "forbidden");
    }
    for request in requests() {
        request.bearer(&reader).send().await.expect_problem(403, "forbidden");
    }
    let gold = app.get("/api/plans/gold").send().await.expect_status(200);
    assert_eq!(gold.text_at("/name"), "Gold Plan");
}

#[tokio::test]
async fn a_key_with_the_permission_changes_the_catalogue() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let writer = json!({ "name": "writer", "permissions": ["plans:write"] });
    let writer = app.post("/api/keys").bearer(&admin).json(writer).send().await.expect_status(201);
    let body = json!({ "name": "Golden" });
    let changed = app.patch("/api/plans/gold").bearer(writer.text_at("/key")).json(body).send().await;
    assert_eq!(changed.expect_status(200).text_at("/name"), "Golden");
}

#[tokio::test]
async fn an_unfit_plan_names_its_field() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let unfit = [
        ("id", json!("Silver Plan")),
        ("id", json!("sil/ver")),
        ("id", json!("")),
        ("id", json!("s".repeat(51))),
        ("name", json!("")),
        ("name", json!("n".repeat(101))),
        ("name", json!("a\u{0}b")),
        ("display_name", Value::Null),
        ("description", json!("d".repeat(2_001))),
        ("price_monthly", json!("-0.01")),
        ("price_monthly", json!("1.005")),
        ("price_monthly", json!("100000000")),
        ("price_monthly", json!("free")),
        ("price_yearly", json!("-1")),
        ("price_yearly", json!("1e400")),
        ("currency", json!("jpy")),
        ("currency", json!("YEN!")),
        ("is_active", json!("yes")),
        ("stripe_price_id_monthly", json!("price_1")),
        ("features", json!([])),
    ];
    for (field, value) in unfit {
        let mut body = silver();
        body[field] = value.clone();
        expect_field(create(&app, &admin, body).await, field);
        if !["id", "display_name", "features", "stripe_price_id_monthly"].contains(&field) {
            let changes = json!({ field: value });
            expect_field(app.patch("/api/plans/gold").bearer(&admin).json(changes).send().await, field);
        }
    }
    expect_field(app.patch("/api/plans/gold").bearer(&admin).json(json!({ "id": "x" })).send().await, "id");
    app.get("/api/plans/silver").bearer(&admin).send().await.expect_problem(404, "not_found");
    let unknown = app.patch("/api/plans/diamond").bearer(&admin).json(json!({ "name": "x" })).send().await;
    unknown.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_plan_that_somebody_has_or_falls_back_to_stays() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let body = json!({ "plan_id": "gold" });
    app.post("/api/users/me/plan").bearer(&ada).json(body).send().await.expect_status(200);
    let delete = async |id: &str| app.delete(&format!("/api/plans/{id}")).bearer(&admin).send().await;
    delete("gold").await.expect_problem(409, "plan_in_use");
    delete("free").await.expect_problem(409, "plan_is_fallback");
    let withdraw = json!({ "is_active": false });
    let withdrawn = app.patch("/api/plans/free").bearer(&admin).json(withdraw).send().await;
    withdrawn.expect_problem(409, "plan_is_fallback");
    delete("platinum").await.expect_status(204);
    app.database()
        .sql(&format!(
            "INSERT INTO scheduled_plan_changes (user_id, plan_id, effective_at) VALUES ('{}', 'gold', now() + interval '1 day'); \
             UPDATE users SET plan_id = 'free'",
            ada.id
        ))
        .await;
    delete("gold").await.expect_problem(409, "plan_in_use");
}

#[tokio::test]
async fn a_changed_limit_holds_for_its_users_at_once() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let check = async || app.get("/api/users/me/features/ai_requests").bearer(&ada).send().await.expect_status(200);
    let grant =
        async |body: Value| app.put("/api/plans/free/features/ai_requests").bearer(&admin).json(body).send().await;
    assert_eq!(check().await.text_at("/reason"), "feature_not_in_plan");
    let granted = grant(json!({ "enabled": true, "limit_value": 3 })).await.expect_status(200);
    let feature = find(granted.at("/features"), "feature_id", "ai_requests");
    assert_eq!(
        feature,
        &json!({ "feature_id": "ai_requests", "enabled": true, "limit_value": 3, "limit_period": "month", "overage": "block" })
    );
    let answer = check().await;
    assert_eq!((answer.at("/allowed"), answer.at("/limit")), (&json!(true), &json!(3)));
    grant(json!({ "enabled": true, "limit_value": null, "limit_period": "lifetime", "overage": "tokens" }))
        .await
        .expect_status(200);
    let answer = check().await;
    assert!(answer.at("/limit").is_null() && answer.at("/resets_at").is_null(), "{answer}");
    let revoked = app.delete("/api/plans/free/features/ai_requests").bearer(&admin).send().await.expect_status(200);
    assert!(!revoked.text.contains("ai_requests"), "{revoked}");
    assert_eq!(check().await.text_at("/reason"), "feature_not_in_plan");
    app.delete("/api/plans/free/features/ai_requests").bearer(&admin).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn an_unfit_grant_names_its_field() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let put = async |path: &str, body: Value| app.put(path).bearer(&admin).json(body).send().await;
    let path = "/api/plans/gold/features/ai_requests";
    for (field, value) in [
        ("limit_value", json!(-1)),
        ("limit_value", json!(1.5)),
        ("limit_value", json!("10")),
        ("limit_value", json!(9_223_372_036_854_775_808_u64)),
        ("limit_period", json!("week")),
        ("overage", json!("free")),
        ("enabled", Value::Null),
        ("plan_id", json!("gold")),
    ] {
        let mut body = json!({ "enabled": true });
        body[field] = value;
        expect_field(put(path, body).await, field);
    }
    expect_field(put(path, json!({})).await, "enabled");
    let body = json!({ "enabled": true, "limit_value": i64::MAX });
    put(path, body.clone()).await.expect_status(200);
    put("/api/plans/diamond/features/ai_requests", body.clone()).await.expect_problem(404, "not_found");
    put("/api/plans/gold/features/telepathy", body).await.expect_problem(404, "not_found");
}
