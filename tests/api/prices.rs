//! Prices: from the catalogue file at the start, from administrators, and as callers see them.

use std::sync::Arc;

use app::settings::models::parse;
use domain::ai::ProviderProfiles;
use harness::{Answer, TestApp, TestDatabase, TestUser};
use serde_json::{Value, json};

use crate::{expect_field, find, in_seconds, time_at};

/// A catalogue of one model, with this input price.
fn file(version: &str, input: &str) -> String {
    format!(
        r#"version = "{version}"
           [providers.claude]
           tiers = {{ batch = "0.5" }}
           [[models]]
           id = "claude-one"
           provider = "claude"
           aliases = ["claude-uno"]
           max_input_tokens = 1000
           prices = {{ input = "{input}", output = "20" }}
           long = {{ above = 500, prices = {{ input = "8" }} }}"#
    )
}

/// The service with a catalogue of one model.
async fn one_model() -> TestApp {
    TestApp::with(|settings| {
        settings.ai.models = parse(&file("2026-11-12", "4"), &ProviderProfiles::default()).unwrap();
    })
    .await
}

fn draft() -> Value {
    json!({ "provider": "claude", "model": "claude-one", "kind": "input", "usd_per_million": "4.50", "version": "own" })
}

async fn add(app: &TestApp, who: &TestUser, body: &Value) -> Answer {
    app.post("/api/admin/prices").bearer(who).json(body).send().await
}

async fn prices(app: &TestApp, who: &TestUser, query: &str) -> Value {
    let answer = app.get(&format!("/api/admin/prices?limit=100&{query}")).bearer(who).send().await.expect_status(200);
    answer.at("/data").clone()
}

async fn models(app: &TestApp, who: &TestUser) -> Value {
    app.get("/api/models").bearer(who).send().await.expect_status(200).at("/data").clone()
}

/// Tier, threshold, price, source and whether it has ended, of the input prices, sorted.
fn inputs(rows: &Value) -> Vec<(String, u64, String, String, bool)> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let rows = rows.as_array().unwrap().iter().filter(|row| row["kind"] == "input");
    let mut told: Vec<_> = rows
        .map(|row| {
            let threshold = row["threshold_tokens"].as_u64().unwrap();
            (
                text(row, "tier"),
                threshold,
                text(row, "usd_per_million"),
                text(row, "source"),
                !row["valid_to"].is_null(),
            )
        })
        .collect();
    told.sort();
    told
}

fn told(rows: &[(&str, u64, &str, &str, bool)]) -> Vec<(String, u64, String, String, bool)> {
    rows.iter().map(|row| (row.0.to_owned(), row.1, row.2.to_owned(), row.3.to_owned(), row.4)).collect()
}

#[tokio::test]
async fn a_caller_sees_the_models_with_limits_and_prices() {
    let app = one_model().await;
    let ada = app.signup("ada@example.com").await;
    app.get("/api/models").send().await.expect_problem(401, "unauthorized");
    let rate = |kind: &str, tier: &str, above: u64, usd: &str| json!({ "kind": kind, "tier": tier, "geo": null, "threshold_tokens": above, "usd_per_million": usd });
    let expected = json!([{ "id": "claude-one", "provider": "claude", "purpose": "chat", "aliases": ["claude-uno"],
        "max_input_tokens": 1000, "max_output_tokens": null, "until": null, "prices": [
            rate("input", "standard", 0, "4"), rate("input", "standard", 500, "8"),
            rate("input", "batch", 0, "2"), rate("input", "batch", 500, "4"),
            rate("output", "standard", 0, "20"), rate("output", "batch", 0, "10")] }]);
    assert_eq!(models(&app, &ada).await, expected);
    for (query, count) in [("provider=claude", 1), ("provider=gemini", 0)] {
        let answer = app.get(&format!("/api/models?{query}")).bearer(&ada).send().await.expect_status(200);
        assert_eq!(answer.at("/data").as_array().unwrap().len(), count, "{query}");
    }
    for query in ["provider=acme", "model=claude-one"] {
        app.get(&format!("/api/models?{query}")).bearer(&ada).send().await.expect_problem(422, "invalid");
    }
    for (permission, status) in [("plans:read", 200), ("usage:check", 403)] {
        let body = json!({ "name": "reader", "permissions": [permission] });
        let key = app.post("/api/keys").bearer(&ada).json(body).send().await.expect_status(201);
        app.get("/api/models").bearer(key.text_at("/key")).send().await.expect_status(status);
    }
}

#[tokio::test]
async fn the_models_of_the_file_are_there_from_the_start() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let models = models(&app, &ada).await;
    assert!(models.as_array().unwrap().len() >= 34, "all but those whose time is over");
    let opus = find(&models, "id", "claude-opus-5-5");
    assert_eq!((&opus["max_input_tokens"], &opus["max_output_tokens"]), (&json!(1_000_000), &json!(128_000)));
    let rows = opus["prices"].as_array().unwrap();
    let fast = rows.iter().find(|row| row["tier"] == "fast" && row["kind"] == "input" && row["geo"] == "us").unwrap();
    assert_eq!(fast["usd_per_million"], "8.8");
    assert_eq!(find(&models, "id", "claude-opus-5")["aliases"], json!(["claude-opus-4-8"]));
    assert_eq!(find(&models, "id", "text-embedding-3-small")["purpose"], "embedding");
}

#[tokio::test]
async fn an_administrators_price_ends_the_one_before_it() {
    let app = one_model().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    models(&app, &ada).await; // caches a snapshot, which the change must replace
    let added = add(&app, &admin, &draft()).await.expect_status(201);
    let valid_from = time_at(&added, "/valid_from");
    let expected = json!({ "id": added.at("/id"), "provider": "claude", "model": "claude-one", "kind": "input",
        "tier": "standard", "geo": null, "threshold_tokens": 0, "usd_per_million": "4.5", "version": "own",
        "source": "operator", "valid_from": added.at("/valid_from"), "valid_to": null });
    assert_eq!(added.body, expected);
    let rows = prices(&app, &admin, "model=claude-one").await;
    assert_eq!(rows[0], expected, "the latest comes first");
    let expected = told(&[
        ("batch", 0, "2", "catalogue", false),
        ("batch", 500, "4", "catalogue", false),
        ("standard", 0, "4", "catalogue", true),
        ("standard", 0, "4.5", "operator", false),
        ("standard", 500, "8", "catalogue", false),
    ]);
    assert_eq!(inputs(&rows), expected);
    let before = rows.as_array().unwrap().iter().find(|row| !row["valid_to"].is_null()).unwrap();
    assert_eq!(before["valid_to"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap(), valid_from);
    assert_eq!(models(&app, &ada).await[0]["prices"][0]["usd_per_million"], "4.5");
    let in_force = prices(&app, &admin, "in_force=true").await;
    assert!(!in_force.as_array().unwrap().iter().any(|row| row["id"] == before["id"]));
    assert_eq!(prices(&app, &admin, "in_force=false").await, json!([before]));
    assert_eq!(prices(&app, &admin, "provider=openai").await, json!([]));
}

#[tokio::test]
async fn a_planned_price_waits_for_its_moment() {
    let app = one_model().await;
    let admin = app.admin().await;
    let mut planned = draft();
    planned["valid_from"] = json!(in_seconds(3_600));
    let added = add(&app, &admin, &planned).await.expect_status(201);
    assert_eq!(models(&app, &admin).await[0]["prices"][0]["usd_per_million"], "4");
    add(&app, &admin, &planned).await.expect_problem(409, "price_exists");
    // A price that starts before the planned one holds until then.
    let between = add(&app, &admin, &draft()).await.expect_status(201);
    assert_eq!(between.at("/valid_to"), added.at("/valid_from"));
    planned["valid_from"] = json!(in_seconds(-60));
    expect_field(add(&app, &admin, &planned).await, "valid_from");
}

#[tokio::test]
async fn a_model_that_no_file_knows_can_be_priced() {
    let app = one_model().await;
    let admin = app.admin().await;
    let body = json!({ "provider": "gemini", "model": "tunedModels/x", "kind": "search_call", "tier": "flex", "geo": "eu",
        "threshold_tokens": 7, "usd_per_million": "10000", "version": "2027" });
    add(&app, &admin, &body).await.expect_status(201);
    let rate = json!({ "kind": "search_call", "tier": "flex", "geo": "eu", "threshold_tokens": 7, "usd_per_million": "10000" });
    let expected = json!({ "id": "tunedModels/x", "provider": "gemini", "purpose": "chat", "aliases": [],
        "max_input_tokens": null, "max_output_tokens": null, "until": null, "prices": [rate] });
    assert_eq!(find(&models(&app, &admin).await, "id", "tunedModels/x"), &expected);
}

#[tokio::test]
async fn an_unfit_price_names_its_field() {
    let app = one_model().await;
    let admin = app.admin().await;
    for (field, value) in [
        ("provider", json!("acme")),
        ("model", json!("")),
        ("model", json!("two words")),
        ("model", json!("m".repeat(201))),
        ("kind", json!("smell")),
        ("tier", json!("warp")),
        ("geo", json!("US")),
        ("geo", json!("")),
        ("threshold_tokens", json!(-1)),
        ("threshold_tokens", json!(1_000_000_001)),
        ("usd_per_million", json!("-1")),
        ("usd_per_million", json!("0.0000001")),
        ("usd_per_million", json!("1000000000000")),
        ("usd_per_million", json!("four")),
        ("version", json!("")),
        ("version", json!("v".repeat(101))),
        ("valid_from", json!("tomorrow")),
        ("source", json!("catalogue")),
    ] {
        let mut body = draft();
        body[field] = value.clone();
        let answer = expect_field(add(&app, &admin, &body).await, field);
        assert!(!answer.text.contains("four"), "{value}");
    }
    for field in ["provider", "model", "kind", "usd_per_million", "version"] {
        let mut body = draft();
        body.as_object_mut().unwrap().remove(field);
        expect_field(add(&app, &admin, &body).await, field);
    }
    for query in ["provider=acme", "model=two%20words", "limit=0", "cursor=x", "in_force=perhaps", "kind=input"] {
        let answer = app.get(&format!("/api/admin/prices?{query}")).bearer(&admin).send().await;
        answer.expect_problem(422, "invalid");
    }
    assert_eq!(prices(&app, &admin, "").await.as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn prices_are_the_administrators_with_the_right() {
    let app = one_model().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    app.get("/api/admin/prices").bearer(&ada).send().await.expect_problem(403, "forbidden");
    app.post("/api/admin/prices")
        .bearer(&ada)
        .json(json!({ "nonsense": 1 }))
        .send()
        .await
        .expect_problem(403, "forbidden");
    for (permission, reading, writing) in [("plans:read", 200, 403), ("plans:write", 403, 201)] {
        let body = json!({ "name": "desk", "permissions": [permission] });
        let key = app.post("/api/keys").bearer(&admin).json(body).send().await.expect_status(201);
        let key = key.text_at("/key");
        app.get("/api/admin/prices").bearer(key).send().await.expect_status(reading);
        app.post("/api/admin/prices").bearer(key).json(draft()).send().await.expect_status(writing);
    }
}

#[tokio::test]
async fn a_price_is_added_once_and_audited() {
    let app = one_model().await;
    let admin = app.admin().await;
    let send =
        async |body: Value| app.post("/api/admin/prices").bearer(&admin).idempotency_key("one").json(body).send().await;
    let first = send(draft()).await.expect_status(201);
    let again = send(draft()).await.expect_status(201);
    assert_eq!((again.header("idempotency-replayed"), &again.text), (Some("true"), &first.text));
    let mut other = draft();
    other["usd_per_million"] = json!("5");
    send(other).await.expect_problem(422, "idempotency_key_reused");
    let trail = app.get("/api/admin/audit?table_name=model_prices").bearer(&admin).send().await.expect_status(200);
    let entries = trail.at("/data").as_array().unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions.len(), 2, "what the catalogue brings is in the release: {trail}");
    assert!(entries.iter().all(|entry| entry["actor_id"] == json!(admin.id)));
    let insert = find(trail.at("/data"), "action", "insert");
    assert_eq!((&insert["record_id"], insert["new_values"]["version"].as_str()), (first.at("/id"), Some("own")));
    let update = find(trail.at("/data"), "action", "update");
    assert!(update["old_values"]["valid_to"].is_null() && !update["new_values"]["valid_to"].is_null(), "{update:#}");
}

#[tokio::test]
async fn two_administrators_at_once_leave_one_price_in_force() {
    let app = one_model().await;
    let admin = app.admin().await;
    let body = draft();
    let answers = futures_util::future::join_all((0..8).map(|_| add(&app, &admin, &body))).await;
    for answer in answers {
        answer.expect_status(201);
    }
    let rows = prices(&app, &admin, "").await;
    let standard = inputs(&rows).into_iter().filter(|row| (row.0.as_str(), row.1) == ("standard", 0));
    let (ended, open): (Vec<_>, Vec<_>) = standard.partition(|row| row.4);
    assert_eq!((ended.len(), open.len()), (8, 1));
}

#[tokio::test]
async fn a_new_edition_ends_what_it_changes_and_leaves_the_operators_alone() {
    let database = Arc::new(TestDatabase::new().await);
    let start = async |version: &str, input: &str| {
        let catalogue = parse(&file(version, input), &ProviderProfiles::default()).unwrap();
        TestApp::over(Arc::clone(&database), |settings| settings.ai.models = catalogue).await
    };
    let app = start("2026-11-12", "4").await;
    let admin = app.admin().await;
    let mut own = draft();
    own["tier"] = json!("batch");
    add(&app, &admin, &own).await.expect_status(201);
    let before = prices(&app, &admin, "").await;
    app.stop().await;
    let app = start("2026-11-12", "4").await;
    assert_eq!(prices(&app, &admin, "").await, before, "twice is once");
    app.stop().await;
    let app = start("2026-12-01", "6").await;
    let changed = prices(&app, &admin, "").await;
    let expected = told(&[
        ("batch", 0, "2", "catalogue", true),
        ("batch", 0, "4.5", "operator", false),
        ("batch", 500, "4", "catalogue", false),
        ("standard", 0, "4", "catalogue", true),
        ("standard", 0, "6", "catalogue", false),
        ("standard", 500, "8", "catalogue", false),
    ]);
    assert_eq!(inputs(&changed), expected);
    let trail = app.get("/api/admin/audit?table_name=model_prices&limit=1").bearer(&admin).send().await;
    assert_eq!(trail.text_at("/data/0/reason"), "models.toml 2026-12-01");
    app.stop().await;
    let app = start("2026-11-12", "4").await;
    assert_eq!(prices(&app, &admin, "").await, changed, "an older program brings no old price back");
}

#[tokio::test]
async fn the_prices_are_read_page_by_page() {
    let app = one_model().await;
    let admin = app.admin().await;
    add(&app, &admin, &draft()).await.expect_status(201);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for expected in [3, 3, 1] {
        let page =
            app.get(&format!("/api/admin/prices?limit=3{cursor}")).bearer(&admin).send().await.expect_status(200);
        let data = page.at("/data").as_array().unwrap();
        assert_eq!(data.len(), expected, "{page}");
        seen.extend(data.iter().cloned());
        cursor = page.at("/next_cursor").as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!((json!(seen), cursor), (prices(&app, &admin, "").await, String::new()));
}
