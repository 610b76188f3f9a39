//! AI usage: the sums of use and cost equal those of an independent computation over the same rows.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, SecondsFormat, TimeDelta, Utc};
use harness::{Answer, TestApp, TestUser, eventually};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::{NOBODY, expect_field, now, time_at};

/// A row of the call log.
struct Call {
    provider: &'static str,
    model: &'static str,
    source: &'static str,
    /// Input, output, cached.
    tokens: [i64; 3],
    nano_usd: i64,
    at: DateTime<Utc>,
}

/// Calls of two months: each provider and source, with costs that floating point would round.
fn calls(second_month: DateTime<Utc>) -> Vec<Call> {
    let providers = ["openai", "claude", "gemini"];
    let sources = ["provider", "estimated", "partial", "sandbox"];
    let call = |number: i64| {
        let index = usize::try_from(number).unwrap();
        let source = sources[index % 4];
        Call {
            provider: providers[index % 3],
            model: ["m-1", "m-2", "m-3", "m-4", "m-5"][index % 5],
            source,
            tokens: [number * 7 + 1, number * 3 + 2, number],
            nano_usd: if source == "sandbox" { 0 } else { number * 100_000_007 + 1 },
            at: second_month + TimeDelta::hours(number * 13 - 24 * 14),
        }
    };
    (0..60).map(call).collect()
}

async fn write(app: &TestApp, user: &TestUser, calls: &[Call]) {
    for Call { provider, model, source, tokens: [input, output, cached], nano_usd, at } in calls {
        let sql = format!(
            "INSERT INTO ai_usage_logs (user_id, provider, model, tokens_used, input_tokens, output_tokens, cached_tokens,
                cost_nano_usd, source, created_at)
             VALUES ('{}', '{provider}', '{model}', {}, {input}, {output}, {cached}, {nano_usd}, '{source}', '{}')",
            user.id,
            input + output,
            at.to_rfc3339()
        );
        app.database().sql(&sql).await;
    }
}

/// The sums of these calls in the response format.
fn told<'a>(calls: impl Iterator<Item = &'a Call>) -> Value {
    let (mut requests, mut tokens, mut cost) = (0, [0; 3], Decimal::ZERO);
    for call in calls {
        requests += 1;
        tokens = [0, 1, 2].map(|index: usize| tokens[index] + call.tokens[index]);
        cost += Decimal::new(call.nano_usd, 9);
    }
    let [input, output, cached] = tokens;
    json!({ "requests": requests, "cost_usd": cost.normalize().to_string(),
        "tokens": { "input": input, "output": output, "cached": cached, "total": input + output } })
}

/// The sums by the value of `of` for each call.
fn divided(calls: &[Call], of: impl Fn(&Call) -> String) -> BTreeMap<String, Value> {
    let names: Vec<String> = calls.iter().map(&of).collect();
    names.iter().map(|name| (name.clone(), told(calls.iter().filter(|call| of(call) == *name)))).collect()
}

/// The rows of a list in the response, by their names.
fn named(answer: &Answer, list: &str, fields: &[&str]) -> BTreeMap<String, Value> {
    let rows = answer.at(list).as_array().unwrap();
    let row = |row: &Value| {
        let name: Vec<&str> = fields.iter().map(|field| row[field].as_str().unwrap()).collect();
        let mut totals = row.clone();
        for field in fields {
            totals.as_object_mut().unwrap().remove(*field);
        }
        (name.join(" "), totals)
    };
    rows.iter().map(row).collect()
}

fn totals(answer: &Answer) -> Value {
    json!({ "requests": answer.at("/requests"), "tokens": answer.at("/tokens"), "cost_usd": answer.at("/cost_usd") })
}

async fn usage(app: &TestApp, user: &TestUser, query: &str) -> Answer {
    app.get(&format!("/api/ai/usage?{query}")).bearer(user).send().await
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn this_month() -> DateTime<Utc> {
    now().date_naive().with_day(1).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc()
}

#[tokio::test]
async fn sums_are_what_an_independent_computation_says() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let month = this_month();
    let calls = calls(month);
    write(&app, &ada, &calls).await;
    write(&app, &eve, &calls[..7]).await;
    let (from, to) = (month - TimeDelta::days(40), month + TimeDelta::days(40));
    let range = format!("from={}&to={}", text(from), text(to));
    let answer = usage(&app, &ada, &range).await.expect_status(200);
    assert_eq!(totals(&answer), told(calls.iter()));
    assert_eq!(named(&answer, "/by_provider", &["provider"]), divided(&calls, |call| call.provider.to_owned()));
    let by_model = divided(&calls, |call| format!("{} {}", call.provider, call.model));
    assert_eq!(named(&answer, "/by_model", &["provider", "model"]), by_model);
    let by_day = divided(&calls, |call| call.at.format("%Y-%m-%d").to_string());
    assert_eq!(named(&answer, "/by_day", &["day"]), by_day);
    let by_month = divided(&calls, |call| call.at.format("%Y-%m").to_string());
    assert_eq!((named(&answer, "/by_month", &["month"]), by_month.len()), (by_month, 2), "two months");
    let costs: Vec<Decimal> = answer.at("/by_model").as_array().unwrap().iter().map(cost).collect();
    assert!(costs.is_sorted_by(|one, next| one >= next), "what cost most comes first: {costs:?}");
    assert_eq!((time_at(&answer, "/from"), time_at(&answer, "/to")), (from, to));
    for (query, chosen) in [
        ("provider=claude", told(calls.iter().filter(|call| call.provider == "claude"))),
        ("model=m-3", told(calls.iter().filter(|call| call.model == "m-3"))),
        (
            "provider=gemini&model=m-1",
            told(calls.iter().filter(|call| (call.provider, call.model) == ("gemini", "m-1"))),
        ),
        ("model=none", told([].iter())),
    ] {
        let answer = usage(&app, &ada, &format!("{range}&{query}")).await.expect_status(200);
        assert_eq!(totals(&answer), chosen, "{query}");
    }
    let later = usage(&app, &ada, &format!("from={}&to={}", text(month), text(to))).await.expect_status(200);
    assert_eq!(totals(&later), told(calls.iter().filter(|call| call.at >= month)));
    let admin = app.admin().await;
    let ask = async |query: &str| app.get(&format!("/api/admin/ai/usage?{query}")).bearer(&admin).send().await;
    let hers = ask(&format!("{range}&user_id={}", ada.id)).await.expect_status(200);
    assert_eq!(hers.body, answer.body);
    let everybodys = ask(&range).await.expect_status(200);
    assert_eq!(totals(&everybodys), told(calls.iter().chain(&calls[..7])));
    assert_eq!((everybodys.at("/limit"), everybodys.at("/resets_at")), (&Value::Null, &Value::Null));
    ask(&format!("user_id={NOBODY}")).await.expect_problem(404, "not_found");
}

fn cost(row: &Value) -> Decimal {
    row["cost_usd"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn unless_told_it_is_this_month_and_what_the_plan_leaves() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    app.database().sql(&format!("UPDATE users SET plan_id = 'gold' WHERE id = '{}'", ada.id)).await;
    let month = this_month();
    let mut calls = calls(month);
    calls.truncate(4);
    for (call, at) in calls.iter_mut().zip([month, month + TimeDelta::seconds(1), now(), month - TimeDelta::seconds(1)])
    {
        call.at = at;
    }
    write(&app, &ada, &calls).await;
    let used = json!({ "feature_id": "ai_requests", "amount": 3 });
    app.post("/api/usage").bearer(&ada).json(used).send().await.expect_status(200);
    let answer = usage(&app, &ada, "").await.expect_status(200);
    assert_eq!(totals(&answer), told(calls[..3].iter()));
    assert_eq!((answer.at("/limit"), answer.at("/remaining")), (&json!(1_000), &json!(997)));
    assert_eq!(time_at(&answer, "/resets_at"), time_at(&answer, "/to"), "the plan's month is the calendar's");
    assert_eq!(time_at(&answer, "/from"), month);
    let before = usage(&app, &ada, &format!("to={}", text(month))).await.expect_status(200);
    assert_eq!(totals(&before), told(calls[3..].iter()), "the month that it ends in");
    app.database()
        .sql(
            "DELETE FROM plan_features WHERE feature_id = 'ai_requests'; DELETE FROM features WHERE id = 'ai_requests'",
        )
        .await;
    // The catalogue is read once a second.
    let soon = std::time::Duration::from_secs(3);
    let none = eventually(soon, || usage(&app, &ada, ""), |answer| answer.at("/limit") == 0).await;
    assert_eq!((none.at("/remaining"), none.at("/resets_at")), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn the_calls_of_one_conversation_are_summed_alone() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    for (session, nano_usd) in [(NOBODY, 7), ("00000000-0000-4000-8000-000000000001", 5)] {
        let sql = format!(
            "INSERT INTO ai_usage_logs (user_id, provider, session_id, cost_nano_usd) VALUES ('{}', 'claude', '{session}', {nano_usd})",
            ada.id
        );
        app.database().sql(&sql).await;
    }
    let query = format!("session_id={NOBODY}");
    let answer = usage(&app, &ada, &query).await.expect_status(200);
    assert_eq!((answer.at("/requests"), answer.at("/cost_usd")), (&json!(1), &json!("0.000000007")));
    assert_eq!(answer.at("/by_model/0/model"), &Value::Null, "the record names no model");
    assert_eq!(usage(&app, &eve, &query).await.expect_status(200).at("/requests"), &json!(0));
}

#[tokio::test]
async fn models_beyond_a_hundred_are_one_row() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let sql = format!(
        "INSERT INTO ai_usage_logs (user_id, provider, model, cost_nano_usd) SELECT '{}', 'claude', 'm' || n, n FROM generate_series(1, 102) n",
        ada.id
    );
    app.database().sql(&sql).await;
    let answer = usage(&app, &ada, "").await.expect_status(200);
    let rows = answer.at("/by_model").as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["model"], &rows[99]["model"]), (101, &json!("m102"), &json!("m3")));
    let other = &rows[100];
    assert_eq!((&other["provider"], &other["model"], &other["requests"]), (&Value::Null, &json!("other"), &json!(2)));
    assert_eq!(other["cost_usd"], "0.000000003");
}

#[tokio::test]
async fn an_unfit_question_names_its_parameter() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    for path in ["/api/ai/usage", "/api/admin/ai/usage"] {
        let ask = async |query: &str| app.get(&format!("{path}?{query}")).bearer(&admin).send().await;
        for (query, field) in [
            ("from=yesterday", "from"),
            ("from=9999-01-01T00:00:00Z", "from"),
            ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
            ("from=2025-01-01T00:00:00Z&to=2026-02-05T00:00:01Z", "from"),
            ("to=%2B99999-01-01T00:00:00Z", "to"),
            ("provider=acme", "provider"),
            ("model=", "model"),
            ("session_id=x", "session_id"),
            ("limit=5", "limit"),
        ] {
            expect_field(ask(query).await, field);
        }
        ask("from=2025-01-01T00:00:00Z&to=2026-02-05T00:00:00Z").await.expect_status(200);
        ask("to=0001-01-01T00:00:00Z").await.expect_status(200);
        ask("to=9999-12-31T23:59:59Z").await.expect_status(200);
    }
    let of_one = app.get(&format!("/api/ai/usage?user_id={NOBODY}")).bearer(&admin).send().await;
    expect_field(of_one, "user_id");
}

#[tokio::test]
async fn the_usage_of_others_is_for_operators() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    for path in ["/api/ai/usage", "/api/admin/ai/usage"] {
        app.get(path).send().await.expect_problem(401, "unauthorized");
    }
    app.get(&format!("/api/admin/ai/usage?user_id={}", ada.id))
        .bearer(&ada)
        .send()
        .await
        .expect_problem(403, "forbidden");
    for (permission, own) in [("usage:check", 200), ("ai:chat", 403)] {
        let body = json!({ "name": "reader", "permissions": [permission] });
        let key = app.post("/api/keys").bearer(&admin).json(body).send().await.expect_status(201);
        for path in ["/api/ai/usage", "/api/admin/ai/usage"] {
            assert_eq!(app.get(path).bearer(key.text_at("/key")).send().await.status, own, "{permission} {path}");
        }
    }
}
