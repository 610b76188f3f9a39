//! Conversations: opened, listed, read, renamed, ended and deleted, with their messages.

use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field, time_at};

async fn open(app: &TestApp, owner: &TestUser, body: Value) -> Answer {
    app.post("/api/ai/sessions").bearer(owner).json(body).send().await.expect_status(201)
}

async fn get(app: &TestApp, owner: &TestUser, path: &str) -> Answer {
    app.get(path).bearer(owner).send().await.expect_status(200)
}

/// A question and its answer, as a call stores them.
async fn said(app: &TestApp, session: &Answer, at: &str, text: &str) {
    let id = session.text_at("/id");
    app.database()
        .sql(&format!(
            "INSERT INTO chat_messages (session_id, role, content, tokens, cost_nano_usd, model, created_at) VALUES
                ('{id}', 'user', '{text}?', 3, 0, NULL, '{at}'), ('{id}', 'assistant', '{text}.', 4, 1250000, 'm', '{at}');
             UPDATE chat_sessions SET tokens_used = tokens_used + 7, cost_nano_usd = cost_nano_usd + 1250000 WHERE id = '{id}'"
        ))
        .await;
}

fn column(answer: &Answer, field: &str) -> Vec<String> {
    let rows = answer.at("/data").as_array().unwrap();
    rows.iter().map(|row| row[field].as_str().unwrap_or("null").to_owned()).collect()
}

#[tokio::test]
async fn a_conversation_from_its_opening_to_its_deletion() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let body = json!({ "title": "Plans", "model": "claude-sonnet-5", "system": "Be brief.\nBe kind." });
    let session = open(&app, &ada, body).await;
    let path = format!("/api/ai/sessions/{}", session.text_at("/id"));
    let expected = json!({
        "id": session.text_at("/id"), "title": "Plans", "model": "claude-sonnet-5", "system": "Be brief.\nBe kind.",
        "tokens": 0, "cost_usd": "0", "messages": 0, "ended_at": null,
        "created_at": session.text_at("/created_at"), "updated_at": session.text_at("/updated_at"),
    });
    assert_eq!(session.body, expected);
    assert_eq!(get(&app, &ada, &path).await.body, expected);
    said(&app, &session, "2026-01-01Z", "a").await;
    said(&app, &session, "2026-01-02Z", "b").await;
    let read = get(&app, &ada, &path).await;
    assert_eq!(
        (read.at("/messages"), read.at("/tokens"), read.at("/cost_usd")),
        (&json!(4), &json!(14), &json!("0.0025"))
    );
    assert!(time_at(&read, "/updated_at") > time_at(&session, "/updated_at"));
    let messages = get(&app, &ada, &format!("{path}/messages")).await;
    assert_eq!(column(&messages, "content"), ["a?", "a.", "b?", "b."]);
    let mut answer = messages.at("/data/1").clone();
    answer["id"].take();
    let expected = json!({ "id": null, "role": "assistant", "content": "a.", "tokens": 4, "cost_usd": "0.00125", "model": "m",
        "created_at": "2026-01-01T00:00:00Z" });
    assert_eq!(answer, expected);
    let change = async |body: Value| app.patch(&path).bearer(&ada).json(body).send().await.expect_status(200);
    let unchanged = change(json!({})).await;
    assert_eq!(unchanged.body, read.body, "nothing is changed, not even the time");
    assert_eq!(change(json!({ "title": "Other" })).await.at("/system"), "Be brief.\nBe kind.");
    let bare = change(json!({ "title": null, "system": null })).await;
    assert_eq!((bare.at("/title"), bare.at("/system"), bare.at("/messages")), (&Value::Null, &Value::Null, &json!(4)));
    let end = async || app.post(&format!("{path}/end")).bearer(&ada).send().await.expect_status(200);
    let ended = end().await;
    time_at(&ended, "/ended_at");
    assert_eq!(end().await.body, ended.body, "ending it again changes nothing");
    let record = format!(
        "INSERT INTO ai_usage_logs (user_id, provider, session_id, cost_nano_usd) VALUES ('{}', 'claude', '{}', 5)",
        ada.id,
        session.text_at("/id")
    );
    app.database().sql(&record).await;
    app.delete(&path).bearer(&ada).send().await.expect_status(204);
    app.delete(&path).bearer(&ada).send().await.expect_problem(404, "not_found");
    app.get(&path).bearer(&ada).send().await.expect_problem(404, "not_found");
    let left = "SELECT (SELECT count(*) FROM chat_messages), (SELECT count(*) FROM ai_usage_logs)";
    assert_eq!(app.database().query_one::<(i64, i64)>(left).await, (0, 1), "the record of the cost stays");
}

#[tokio::test]
async fn conversations_are_listed_by_when_they_last_went_on_page_by_page() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    open(&app, &eve, json!({ "title": "hers" })).await;
    let mut sessions = Vec::new();
    for title in ["a", "b", "c", "d", "e"] {
        sessions.push(open(&app, &ada, json!({ "title": title })).await);
    }
    said(&app, &sessions[1], "2026-01-01Z", "b").await;
    let end = format!("/api/ai/sessions/{}/end", sessions[3].text_at("/id"));
    app.post(&end).bearer(&ada).send().await.expect_status(200);
    let titles = async |query: &str| column(&get(&app, &ada, &format!("/api/ai/sessions?{query}")).await, "title");
    assert_eq!(titles("").await, ["d", "b", "e", "c", "a"]);
    assert_eq!(titles("state=open").await, ["b", "e", "c", "a"]);
    assert_eq!(titles("state=ended").await, ["d"]);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for expected in [2, 2, 1] {
        let page = get(&app, &ada, &format!("/api/ai/sessions?limit=2{cursor}")).await;
        assert_eq!(column(&page, "title").len(), expected);
        seen.extend(column(&page, "title"));
        cursor = page.at("/next_cursor").as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!((seen.concat().as_str(), cursor.as_str()), ("dbeca", ""));
    for (query, field) in
        [("state=closed", "state"), ("limit=0", "limit"), ("cursor=x", "cursor"), ("table=users", "table")]
    {
        expect_field(app.get(&format!("/api/ai/sessions?{query}")).bearer(&ada).send().await, field);
    }
}

#[tokio::test]
async fn messages_come_oldest_first_page_by_page() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let session = open(&app, &ada, json!({})).await;
    for (at, text) in [("2026-01-03Z", "c"), ("2026-01-01Z", "a"), ("2026-01-02Z", "b")] {
        said(&app, &session, at, text).await;
    }
    let path = format!("/api/ai/sessions/{}/messages", session.text_at("/id"));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..6 {
        let page = get(&app, &ada, &format!("{path}?limit=1{cursor}")).await;
        seen.extend(column(&page, "content"));
        cursor = page.at("/next_cursor").as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!((seen.concat().as_str(), cursor.as_str()), ("a?a.b?b.c?c.", ""), "also between two of one moment");
    expect_field(app.get(&format!("{path}?cursor=1_x")).bearer(&ada).send().await, "cursor");
    let beyond = format!("{path}?cursor=9999999999999999_{}", "f".repeat(32));
    assert_eq!(get(&app, &ada, &beyond).await.at("/data"), &json!([]));
}

#[tokio::test]
async fn the_history_is_what_was_said_last_anywhere() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let (one, two) = (open(&app, &ada, json!({ "title": "one" })).await, open(&app, &ada, json!({})).await);
    said(&app, &one, "2026-01-01Z", "a").await;
    said(&app, &two, "2026-01-02Z", "b").await;
    said(&app, &one, "2026-01-03Z", "c").await;
    let history = get(&app, &ada, "/api/ai/history").await;
    assert_eq!(column(&history, "content"), ["c.", "c?", "b.", "b?", "a."], "five unless told");
    assert_eq!(column(&history, "title"), ["one", "one", "null", "null", "one"]);
    assert_eq!(history.text_at("/data/2/session_id"), two.text_at("/id"));
    assert_eq!(history.at("/next_cursor"), &Value::Null);
    assert_eq!(column(&get(&app, &ada, "/api/ai/history?limit=1").await, "content"), ["c."]);
    assert_eq!(column(&get(&app, &ada, "/api/ai/history?limit=100").await, "content").len(), 6);
    assert_eq!(get(&app, &eve, "/api/ai/history").await.at("/data"), &json!([]));
    for limit in ["0", "101", "x"] {
        expect_field(app.get(&format!("/api/ai/history?limit={limit}")).bearer(&ada).send().await, "limit");
    }
}

#[tokio::test]
async fn another_users_conversation_is_none() {
    let app = TestApp::start().await;
    let (admin, ada, eve) =
        (app.admin().await, app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let session = open(&app, &ada, json!({ "title": "mine" })).await;
    for id in [session.text_at("/id"), NOBODY, "no-id"] {
        let path = format!("/api/ai/sessions/{id}");
        for other in [&eve, &admin] {
            for request in [
                app.get(&path),
                app.patch(&path).json(json!({ "title": "hers" })),
                app.patch(&path).json(json!({})),
                app.delete(&path),
                app.post(&format!("{path}/end")),
                app.get(&format!("{path}/messages")),
            ] {
                request.bearer(other).send().await.expect_problem(404, "not_found");
            }
        }
    }
    let kept = get(&app, &ada, &format!("/api/ai/sessions/{}", session.text_at("/id"))).await;
    assert_eq!(kept.body, session.body);
}

#[tokio::test]
async fn a_key_needs_the_permission_and_is_named_beside_what_it_opened() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    for (permission, status) in [("ai:chat", 201), ("usage:write", 403)] {
        let body = json!({ "name": "k", "permissions": [permission] });
        let key = app.post("/api/keys").bearer(&ada).json(body).send().await.expect_status(201);
        let ask = async |path: &str| app.get(path).bearer(key.text_at("/key")).send().await.status;
        let opened = app.post("/api/ai/sessions").bearer(key.text_at("/key")).json(json!({})).send().await;
        assert_eq!(opened.status, status);
        let list_status = if status == 201 { 200 } else { 403 };
        assert_eq!((ask("/api/ai/sessions").await, ask("/api/ai/history").await), (list_status, list_status));
        if status == 201 {
            let named = format!("SELECT api_key_id::text FROM chat_sessions WHERE id = '{}'", opened.text_at("/id"));
            assert_eq!(app.database().query_scalar::<String>(&named).await, key.text_at("/id"));
            get(&app, &ada, &format!("/api/ai/sessions/{}", opened.text_at("/id"))).await;
        }
    }
}

#[tokio::test]
async fn an_unfit_conversation_names_its_field() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let session = open(&app, &ada, json!({ "system": "é".repeat(16_384), "title": "t".repeat(200) })).await;
    let path = format!("/api/ai/sessions/{}", session.text_at("/id"));
    for (field, value) in [
        ("title", json!("")),
        ("title", json!(" ")),
        ("title", json!("a\nb")),
        ("title", json!("t".repeat(201))),
        ("system", json!("")),
        ("system", json!("é".repeat(16_385))),
        ("system", json!("a\u{0}b")),
        ("user_id", json!(NOBODY)),
        ("cost_usd", json!("0")),
    ] {
        let mut body = json!({});
        body[field] = value;
        expect_field(app.post("/api/ai/sessions").bearer(&ada).json(&body).send().await, field);
        expect_field(app.patch(&path).bearer(&ada).json(&body).send().await, field);
    }
    for model in ["", "two words", "ä"] {
        let body = json!({ "model": model });
        expect_field(app.post("/api/ai/sessions").bearer(&ada).json(body).send().await, "model");
    }
    assert_eq!(get(&app, &ada, "/api/ai/sessions").await.at("/data").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeat_under_the_same_key_opens_nothing_twice() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let ask = async |title: &str| {
        let request = app.post("/api/ai/sessions").bearer(&ada).idempotency_key("k1");
        request.json(json!({ "title": title })).send().await
    };
    let first = ask("a").await.expect_status(201);
    let again = ask("a").await.expect_status(201);
    assert_eq!((&again.text, again.header("idempotency-replayed")), (&first.text, Some("true")));
    ask("b").await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(app.database().query_scalar::<i64>("SELECT count(*) FROM chat_sessions").await, 1);
}

#[tokio::test]
async fn the_number_of_conversations_is_bounded() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let fill = format!("INSERT INTO chat_sessions (user_id) SELECT '{}' FROM generate_series(1, 9999)", ada.id);
    app.database().sql(&fill).await;
    let last = open(&app, &ada, json!({})).await;
    let refused = app.post("/api/ai/sessions").bearer(&ada).json(json!({})).send().await;
    refused.expect_problem(422, "too_many_sessions");
    app.delete(&format!("/api/ai/sessions/{}", last.text_at("/id"))).bearer(&ada).send().await.expect_status(204);
    open(&app, &ada, json!({})).await;
}
