//! The audit trail: each change with its actor and reason.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, time_at};

async fn trail(app: &TestApp, admin: &TestUser, query: &str) -> Answer {
    app.get(&format!("/api/admin/audit?{query}")).bearer(admin).send().await.expect_status(200)
}

/// The newest entry, without the values that differ from run to run.
async fn newest(app: &TestApp, admin: &TestUser, query: &str) -> Value {
    let answer = trail(app, admin, query).await;
    time_at(&answer, "/data/0/created_at");
    let mut entry = answer.at("/data/0").clone();
    for field in ["id", "created_at"] {
        entry.as_object_mut().unwrap().remove(field);
    }
    entry
}

#[tokio::test]
async fn a_plan_change_leaves_one_row_with_who_changed_it() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let body = json!({ "plan_id": "gold" });
    app.post("/api/users/me/plan").bearer(&ada).json(body).send().await.expect_status(200);
    let query = format!("table_name=users&record_id={}", ada.id);
    let own = json!({ "table_name": "users", "record_id": ada.id, "action": "plan_change",
        "old_values": { "plan_type": "free" }, "new_values": { "plan_type": "gold" }, "actor_id": ada.id, "reason": null });
    assert_eq!(newest(&app, &admin, &query).await, own);
    let body = json!({ "plan_id": "platinum", "reason": "for the trouble" });
    let grant = app.post(&format!("/api/admin/users/{}/plan", ada.id)).bearer(&admin).json(body);
    grant.send().await.expect_status(200);
    let granted = json!({ "table_name": "users", "record_id": ada.id, "action": "plan_change",
        "old_values": { "plan_type": "gold" }, "new_values": { "plan_type": "platinum" }, "actor_id": admin.id,
        "reason": "for the trouble" });
    assert_eq!(newest(&app, &admin, &query).await, granted);
    assert_eq!(trail(&app, &admin, &query).await.at("/data").as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn changes_of_the_catalogue_are_kept_with_before_and_after() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let silver = json!({ "id": "silver", "name": "Silver", "display_name": "シルバー" });
    app.post("/api/plans").bearer(&admin).json(silver).send().await.expect_status(201);
    let entry = newest(&app, &admin, "table_name=plans&record_id=silver").await;
    assert_eq!((&entry["action"], &entry["actor_id"]), (&json!("insert"), &json!(admin.id)));
    assert!(entry["old_values"].is_null() && entry["new_values"]["name"] == "Silver", "{entry:#}");
    let rename = json!({ "name": "Sterling" });
    app.patch("/api/plans/silver").bearer(&admin).json(rename).send().await.expect_status(200);
    let entry = newest(&app, &admin, "table_name=plans&record_id=silver").await;
    assert_eq!((&entry["old_values"]["name"], &entry["new_values"]["name"]), (&json!("Silver"), &json!("Sterling")));
    let grant = json!({ "enabled": true, "limit_value": 5 });
    app.put("/api/plans/silver/features/ai_requests").bearer(&admin).json(&grant).send().await.expect_status(200);
    let entry = newest(&app, &admin, "table_name=plan_features&record_id=silver:ai_requests").await;
    assert_eq!((&entry["action"], &entry["new_values"]["limit_value"]), (&json!("insert"), &json!(5)));
    app.delete("/api/plans/silver/features/ai_requests").bearer(&admin).send().await.expect_status(200);
    let entry = newest(&app, &admin, "table_name=plan_features&record_id=silver:ai_requests").await;
    assert_eq!((&entry["action"], &entry["new_values"]), (&json!("delete"), &Value::Null));
    app.delete("/api/plans/silver").bearer(&admin).send().await.expect_status(204);
    let entry = newest(&app, &admin, "table_name=plans&record_id=silver").await;
    assert_eq!((&entry["action"], &entry["old_values"]["name"]), (&json!("delete"), &json!("Sterling")));
    let off = json!({ "is_active": false });
    app.patch("/api/features/ai_requests").bearer(&admin).json(off).send().await.expect_status(200);
    let entry = newest(&app, &admin, "table_name=features").await;
    assert_eq!((&entry["record_id"], &entry["actor_id"]), (&json!("ai_requests"), &json!(admin.id)));
}

#[tokio::test]
async fn what_changes_nothing_leaves_no_row() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let before = trail(&app, &admin, "table_name=plans").await;
    let same = json!({ "name": "Gold Plan", "price_monthly": "980" });
    app.patch("/api/plans/gold").bearer(&admin).json(same).send().await.expect_status(200);
    app.patch("/api/plans/gold").bearer(&admin).json(json!({})).send().await.expect_status(200);
    let refused = json!({ "name": "x", "price_monthly": "-1" });
    app.patch("/api/plans/gold").bearer(&admin).json(refused).send().await.expect_status(422);
    assert_eq!(trail(&app, &admin, "table_name=plans").await.body, before.body);
}

#[tokio::test]
async fn roles_and_overrides_are_kept_with_their_reason() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let body = json!({ "role": "admin", "reason": "joins the team" });
    let put = app.put(&format!("/api/admin/users/{}/role", ada.id)).bearer(&admin).json(body);
    put.send().await.expect_status(200);
    let entry = newest(&app, &admin, &format!("table_name=users&record_id={}", ada.id)).await;
    let expected = json!({ "table_name": "users", "record_id": ada.id, "action": "update",
        "old_values": { "role": "user" }, "new_values": { "role": "admin" }, "actor_id": admin.id, "reason": "joins the team" });
    assert_eq!(entry, expected);
    let body = json!({ "enabled": true, "limit_value": 7, "reason": "a good customer" });
    let put = app.put(&format!("/api/admin/users/{}/overrides/ai_requests", ada.id)).bearer(&ada).json(body);
    put.send().await.expect_status(200);
    let entry = newest(&app, &admin, "table_name=feature_overrides").await;
    assert_eq!((&entry["actor_id"], &entry["reason"]), (&json!(ada.id), &json!("a good customer")));
    assert_eq!(entry["record_id"], format!("{}:ai_requests", ada.id));
}

#[tokio::test]
async fn a_change_made_in_sql_is_kept_too() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    app.database().sql(&format!("UPDATE users SET plan_id = 'gold' WHERE id = '{}'", ada.id)).await;
    let entry = newest(&app, &admin, &format!("record_id={}", ada.id)).await;
    assert_eq!((&entry["action"], &entry["actor_id"]), (&json!("plan_change"), &Value::Null));
}

#[tokio::test]
async fn the_trail_is_filtered_and_read_page_by_page() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    for plan in ["gold", "platinum", "gold", "platinum", "free"] {
        let body = json!({ "plan_id": plan });
        app.post("/api/users/me/plan").bearer(&ada).json(body).send().await.expect_status(200);
    }
    let by_actor = trail(&app, &admin, &format!("actor_id={}", ada.id)).await;
    assert_eq!(by_actor.at("/data").as_array().unwrap().len(), 5);
    assert!(by_actor.at("/next_cursor").is_null(), "{by_actor}");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for expected in [2, 2, 1] {
        let page = trail(&app, &admin, &format!("actor_id={}&limit=2{cursor}", ada.id)).await;
        let data = page.at("/data").as_array().unwrap();
        assert_eq!(data.len(), expected, "{page}");
        seen.extend(data.iter().cloned());
        cursor = page.at("/next_cursor").as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!(&json!(seen), by_actor.at("/data"), "no row twice, none left out");
    assert_eq!(seen[0]["new_values"]["plan_type"], "free", "newest first");
    for nothing in [&format!("actor_id={NOBODY}"), "table_name=nothing", "record_id=%27%20OR%201%3D1"] {
        assert_eq!(trail(&app, &admin, nothing).await.at("/data"), &json!([]), "{nothing}");
    }
}

#[tokio::test]
async fn an_unfit_question_names_its_parameter() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let long = format!("table_name={}", "t".repeat(64));
    for query in ["limit=0", "limit=1000", "cursor=abc", "actor_id=ada", "table=users", "record_id=%00", &long] {
        let answer = app.get(&format!("/api/admin/audit?{query}")).bearer(&admin).send().await;
        answer.expect_problem(422, "invalid");
    }
    for micros in ["8000000000000000000", "-8000000000000000000"] {
        let path = format!("/api/admin/audit?cursor={micros}_{NOBODY}");
        let answer = app.get(&path).bearer(&admin).send().await;
        assert!([200, 422].contains(&answer.status), "{micros}: {answer}");
    }
}

#[tokio::test]
async fn the_trail_is_for_those_who_may_read_it() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    app.get("/api/admin/audit").send().await.expect_problem(401, "unauthorized");
    app.get("/api/admin/audit").bearer(&ada).send().await.expect_problem(403, "forbidden");
    for (permission, status) in [("audit:read", 200), ("users:read", 403)] {
        let body = json!({ "name": "auditor", "permissions": [permission] });
        let key = app.post("/api/keys").bearer(&admin).json(body).send().await.expect_status(201);
        app.get("/api/admin/audit").bearer(key.text_at("/key")).send().await.expect_status(status);
    }
}
