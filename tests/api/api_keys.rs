//! The life of API keys, from the only response that shows them to their end.

use std::time::{Duration, Instant};

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{NOBODY, expect_field, find, in_seconds, time_at, without_request_id};

async fn create(app: &TestApp, owner: &TestUser, body: Value) -> Answer {
    app.post("/api/keys").bearer(owner).json(body).send().await
}

/// A key that can read the profile.
async fn reader(app: &TestApp, owner: &TestUser) -> Answer {
    create(app, owner, json!({ "name": "reader", "permissions": ["users:read"] })).await.expect_status(201)
}

/// The status of a request with this key.
async fn try_key(app: &TestApp, key: &str) -> u16 {
    app.get("/api/users/me").header("X-API-Key", key).send().await.status
}

async fn rotate(app: &TestApp, owner: &TestUser, id: &str, body: Value) -> Answer {
    app.post(&format!("/api/keys/{id}/rotate")).bearer(owner).json(body).send().await
}

#[tokio::test]
async fn a_key_is_shown_once_and_works_in_both_headers() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let made = reader(&app, &ada).await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let (id, key) = (made.text_at("/id"), made.text_at("/key"));
    assert!(key.starts_with("sk_live_") && key.len() >= 40, "{made}");
    assert!(key.starts_with(made.text_at("/prefix")) && key.ends_with(made.text_at("/last_four")), "{made}");
    assert_eq!((made.at("/permissions"), made.at("/on_behalf")), (&json!(["users:read"]), &json!(false)));
    assert_eq!((made.at("/expires_at"), made.at("/is_active")), (&Value::Null, &json!(true)));
    let by_bearer = app.get("/api/users/me").bearer(key).send().await.expect_status(200);
    assert_eq!(by_bearer.text_at("/id"), ada.id.to_string());
    assert_eq!(try_key(&app, key).await, 200);
    let secret = &key[made.text_at("/prefix").len()..];
    let listed = app.get("/api/keys").bearer(&ada).send().await.expect_status(200);
    let shown = find(listed.at("/data"), "id", id);
    assert_eq!((&shown["name"], shown.get("key")), (&json!("reader"), None));
    let one = app.get(&format!("/api/keys/{id}")).bearer(&ada).send().await.expect_status(200);
    for answer in [&listed, &one] {
        assert!(!answer.text.contains(secret), "the secret is shown again: {answer}");
    }
    let rows: Vec<(String,)> = app.database().query_all("SELECT row_to_json(k)::text FROM api_keys AS k").await;
    assert!(!rows[0].0.contains(secret), "the secret is stored");
    app.delete(&format!("/api/keys/{id}")).bearer(&ada).send().await.expect_status(204);
    assert_eq!(try_key(&app, key).await, 401);
    let gone = app.get(&format!("/api/keys/{id}")).bearer(&ada).send().await.expect_status(200);
    assert_eq!(gone.at("/is_active"), false);
    time_at(&gone, "/revoked_at");
    app.delete(&format!("/api/keys/{id}")).bearer(&ada).send().await.expect_status(204);
}

#[tokio::test]
async fn an_unfit_key_names_its_field() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("n".repeat(101))),
        ("name", json!("a\u{0}b")),
        ("permissions", json!([])),
        ("permissions", json!("users:read")),
        ("permissions[0]", json!(["users:fly"])),
        ("permissions", json!(["users:read"].repeat(12))),
        ("expires_at", json!("2020-01-01T00:00:00Z")),
        ("expires_at", json!("soon")),
        ("on_behalf", json!("yes")),
        ("user_id", json!(NOBODY)),
        ("key", json!("sk_live_mine")),
    ] {
        let mut body = json!({ "name": "server" });
        body[field.split('[').next().unwrap()] = value;
        expect_field(create(&app, &ada, body).await, field);
    }
    let listed = app.get("/api/keys").bearer(&ada).send().await.expect_status(200);
    assert_eq!(listed.at("/data"), &json!([]));
}

#[tokio::test]
async fn keys_are_listed_newest_first_page_by_page() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let eve = app.signup("eve@example.com").await;
    reader(&app, &eve).await;
    for number in 1..=5 {
        create(&app, &ada, json!({ "name": format!("key {number}") })).await.expect_status(201);
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    for expected in [2, 2, 1] {
        let page = app.get(&format!("/api/keys?limit=2{cursor}")).bearer(&ada).send().await.expect_status(200);
        let data = page.at("/data").as_array().unwrap();
        assert_eq!(data.len(), expected, "{page}");
        names.extend(data.iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        cursor = page.at("/next_cursor").as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!(names, ["key 5", "key 4", "key 3", "key 2", "key 1"]);
    assert_eq!(cursor, "", "the last page has no next");
    for query in ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=", "page=2"] {
        let answer = app.get(&format!("/api/keys?{query}")).bearer(&ada).send().await;
        answer.expect_problem(422, "invalid");
    }
}

#[tokio::test]
async fn a_cursor_at_the_end_of_time_is_no_fault_of_ours() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for micros in ["8000000000000000000", "-8000000000000000000", "-300000000000000000", "0"] {
        let answer = app.get(&format!("/api/keys?cursor={micros}_{NOBODY}")).bearer(&ada).send().await;
        assert!([200, 422].contains(&answer.status), "{micros}: {answer}");
    }
}

#[tokio::test]
async fn a_key_rotated_without_overlap_stops_at_once() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let old = reader(&app, &ada).await;
    assert_eq!(try_key(&app, old.text_at("/key")).await, 200);
    let new = rotate(&app, &ada, old.text_at("/id"), json!({ "overlap_seconds": 0 })).await.expect_status(201);
    assert_ne!(new.text_at("/key"), old.text_at("/key"));
    assert_eq!((new.at("/name"), new.at("/permissions")), (old.at("/name"), old.at("/permissions")));
    assert_eq!(try_key(&app, old.text_at("/key")).await, 401);
    assert_eq!(try_key(&app, new.text_at("/key")).await, 200);
    let shown = app.get(&format!("/api/keys/{}", old.text_at("/id"))).bearer(&ada).send().await.expect_status(200);
    assert_eq!(shown.at("/rotated_to"), new.at("/id"));
}

#[tokio::test]
async fn a_rotated_key_goes_on_for_its_overlap() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let old = reader(&app, &ada).await;
    let new = rotate(&app, &ada, old.text_at("/id"), json!({ "overlap_seconds": 60 })).await.expect_status(201);
    assert_eq!(try_key(&app, old.text_at("/key")).await, 200);
    assert_eq!(try_key(&app, new.text_at("/key")).await, 200);
    app.advance(Duration::from_secs(61));
    assert_eq!(try_key(&app, old.text_at("/key")).await, 401);
    assert_eq!(try_key(&app, new.text_at("/key")).await, 200);
    let later = rotate(&app, &ada, new.text_at("/id"), json!({})).await.expect_status(201);
    let shown = app.get(&format!("/api/keys/{}", new.text_at("/id"))).bearer(&ada).send().await.expect_status(200);
    let left = time_at(&shown, "/expires_at") - time_at(&later, "/created_at");
    // The clock of the service is 61 s ahead of the database's.
    assert!((3_590..=3_671).contains(&left.num_seconds()), "an hour unless told: {shown}");
}

#[tokio::test]
async fn a_key_is_rotated_once_and_within_bounds() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let old = reader(&app, &ada).await;
    let id = old.text_at("/id");
    for overlap in [json!(-1), json!(604_801), json!(1.5), json!("60")] {
        expect_field(rotate(&app, &ada, id, json!({ "overlap_seconds": overlap })).await, "overlap_seconds");
    }
    let new = rotate(&app, &ada, id, json!({ "overlap_seconds": 604_800 })).await.expect_status(201);
    rotate(&app, &ada, id, json!({})).await.expect_problem(409, "key_not_rotatable");
    app.delete(&format!("/api/keys/{}", new.text_at("/id"))).bearer(&ada).send().await.expect_status(204);
    rotate(&app, &ada, new.text_at("/id"), json!({})).await.expect_problem(409, "key_not_rotatable");
    rotate(&app, &ada, NOBODY, json!({})).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_key_ends_at_its_expiry() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let body = json!({ "name": "short", "permissions": ["users:read"], "expires_at": in_seconds(60) });
    let key = create(&app, &ada, body).await.expect_status(201);
    assert_eq!(try_key(&app, key.text_at("/key")).await, 200);
    app.advance(Duration::from_secs(61));
    assert_eq!(try_key(&app, key.text_at("/key")).await, 401);
    rotate(&app, &ada, key.text_at("/id"), json!({})).await.expect_problem(409, "key_not_rotatable");
}

#[tokio::test]
async fn unknown_expired_revoked_and_misspelled_keys_get_the_same_answer() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let (expired, revoked, unknown) = (reader(&app, &ada).await, reader(&app, &ada).await, reader(&app, &ada).await);
    let id = |key: &Answer| key.text_at("/id").to_owned();
    let sql = format!("UPDATE api_keys SET expires_at = now() - interval '1 hour' WHERE id = '{}'", id(&expired));
    app.database().sql(&sql).await;
    app.delete(&format!("/api/keys/{}", id(&revoked))).bearer(&ada).send().await.expect_status(204);
    app.database().sql(&format!("DELETE FROM api_keys WHERE id = '{}'", id(&unknown))).await;
    let mut misspelled = reader(&app, &ada).await.text_at("/key").to_owned();
    let last = misspelled.pop().unwrap();
    misspelled.push(if last == 'a' { 'b' } else { 'a' });
    let without = app.get("/api/users/me").send().await.expect_problem(401, "unauthorized");
    for (what, key) in [
        ("expired", expired.text_at("/key")),
        ("revoked", revoked.text_at("/key")),
        ("unknown", unknown.text_at("/key")),
        ("misspelled", &misspelled),
        ("a prefix", "sk_live_"),
        ("no key", "key"),
        ("empty", ""),
        ("too long", &"sk_live_x".repeat(1_000)),
    ] {
        let answer = app.get("/api/users/me").header("X-API-Key", key).send().await;
        assert_eq!(without_request_id(&answer), without_request_id(&without), "{what}: {answer}");
    }
}

#[tokio::test]
async fn a_use_of_a_key_is_written_down_within_seconds() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let key = reader(&app, &ada).await;
    assert!(key.at("/last_used_at").is_null());
    assert_eq!(try_key(&app, key.text_at("/key")).await, 200);
    let (path, asked) = (format!("/api/keys/{}", key.text_at("/id")), Instant::now());
    loop {
        let shown = app.get(&path).bearer(&ada).send().await.expect_status(200);
        if !shown.at("/last_used_at").is_null() {
            assert!((crate::now() - time_at(&shown, "/last_used_at")).num_seconds() < 15, "{shown}");
            return;
        }
        assert!(asked.elapsed() < Duration::from_secs(12), "nothing was written down: {shown}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_last_uses_are_written_down_at_the_stop() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let key = reader(&app, &ada).await;
    assert_eq!(try_key(&app, key.text_at("/key")).await, 200);
    let database = app.database().clone();
    app.stop().await;
    let noted: bool = database.query_scalar("SELECT last_used_at IS NOT NULL FROM api_keys").await;
    assert!(noted);
}

#[tokio::test]
async fn a_revocation_reaches_every_process_within_a_second() {
    let one = TestApp::start().await;
    let other = TestApp::over(one.database().clone(), |_| {}).await;
    let ada = one.signup("ada@example.com").await;
    let key = reader(&one, &ada).await;
    assert_eq!(try_key(&other, key.text_at("/key")).await, 200);
    one.delete(&format!("/api/keys/{}", key.text_at("/id"))).bearer(&ada).send().await.expect_status(204);
    assert_eq!(try_key(&one, key.text_at("/key")).await, 401);
    other.advance(Duration::from_millis(1_100));
    assert_eq!(try_key(&other, key.text_at("/key")).await, 401);
}
