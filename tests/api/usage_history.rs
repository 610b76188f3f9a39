//! Usage history: the use over time, complete up to the moment.

use chrono::{TimeDelta, Timelike};
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field, now, time_at};

async fn signed_up(app: &TestApp) -> TestUser {
    let ada = app.signup("ada@example.com").await;
    app.database().sql(&format!("UPDATE users SET plan_id = 'gold' WHERE id = '{}'", ada.id)).await;
    ada
}

/// Events of the past in the database, each with its time.
async fn used(app: &TestApp, user: &TestUser, feature: &str, past: &[(&str, i64)]) {
    for (at, amount) in past {
        let event = format!(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, overage, created_at)
             VALUES ('{}', '{feature}', 'month', date_trunc('month', timestamptz '{at}', 'UTC'), {amount}, {amount} / 4, '{at}')",
            user.id
        );
        app.database().sql(&event).await;
    }
}

/// Runs the roll-up job until it is done.
async fn roll_up(app: &TestApp) {
    while app.database().query_scalar::<i64>("SELECT roll_up_usage()").await > 0 {}
}

async fn history(app: &TestApp, user: &TestUser, query: &str) -> Answer {
    app.get(&format!("/api/usage?{query}")).bearer(user).send().await
}

fn amounts(answer: &Answer) -> Vec<i64> {
    answer.at("/data").as_array().unwrap().iter().map(|row| row["amount"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn what_was_just_acknowledged_is_in_the_answer() {
    let app = TestApp::start().await;
    let ada = signed_up(&app).await;
    let empty = history(&app, &ada, "").await.expect_status(200);
    assert_eq!(empty.body, json!({ "data": [], "next_cursor": null }));
    for (amount, sum) in [(2, 2), (3, 5), (4, 9)] {
        let body = json!({ "feature_id": "ai_requests", "amount": amount });
        app.post("/api/usage").bearer(&ada).json(body).send().await.expect_status(200);
        for bucket in ["hour", "day", "month"] {
            let answer = history(&app, &ada, &format!("bucket={bucket}&from={}", day_ago())).await.expect_status(200);
            assert_eq!(amounts(&answer).iter().sum::<i64>(), sum, "by {bucket}: {answer}");
        }
    }
    roll_up(&app).await;
    let row = history(&app, &ada, "").await.expect_status(200).at("/data/0").clone();
    assert_eq!(
        (&row["feature_id"], &row["period"], &row["overage"]),
        (&json!("ai_requests"), &json!("month"), &json!(0))
    );
    assert!(row["events"].as_i64().unwrap() >= 1 && row["period_start"].as_str().unwrap().ends_with("-01T00:00:00Z"));
    let by_day = history(&app, &ada, "bucket=day").await;
    let bucket = time_at(&by_day, "/data/0/bucket");
    assert!(bucket.hour() == 0 && now() - bucket < TimeDelta::hours(25), "a day of UTC: {bucket}");
}

fn day_ago() -> String {
    (now() - TimeDelta::hours(24)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[tokio::test]
async fn totals_are_what_was_consumed_across_hours_days_and_months() {
    let app = TestApp::start().await;
    let (ada, eve) = (signed_up(&app).await, app.signup("eve@example.com").await);
    let uses = [
        ("2025-01-31 22:59:59.999999Z", 1),
        ("2025-01-31 23:00:00Z", 2),
        ("2025-01-31 23:59:59.999999Z", 4),
        ("2025-02-01 00:00:00Z", 8),
    ];
    used(&app, &ada, "ai_requests", &uses).await;
    used(&app, &eve, "ai_requests", &[("2025-01-31 23:30:00Z", 100)]).await;
    let range = "from=2025-01-31T00:00:00Z&to=2025-02-02T00:00:00Z";
    let ask = async || {
        let mut said = Vec::new();
        for bucket in ["hour", "day", "month"] {
            said.push(amounts(&history(&app, &ada, &format!("{range}&bucket={bucket}")).await.expect_status(200)));
        }
        said
    };
    let expected = [vec![8, 6, 1], vec![8, 7], vec![8, 7]];
    assert_eq!(ask().await, expected, "from the events");
    roll_up(&app).await;
    assert_eq!(ask().await, expected, "from the sums");
    let hours = history(&app, &ada, &format!("{range}&bucket=hour")).await;
    let row = json!({ "feature_id": "ai_requests", "bucket": "2025-01-31T23:00:00Z", "period": "month",
        "period_start": "2025-01-01T00:00:00Z", "amount": 6, "overage": 1, "events": 2 });
    assert_eq!(hours.at("/data/1"), &row);
    let inside = "bucket=hour&from=2025-01-31T23:10:00Z&to=2025-02-01T00:00:00Z";
    assert_eq!(
        amounts(&history(&app, &ada, inside).await),
        [6],
        "whole buckets, and not the one that begins at the end"
    );
    let admin = app.admin().await;
    let every = app.get(&format!("/api/admin/usage?{range}&bucket=hour")).bearer(&admin).send().await;
    assert_eq!(amounts(&every.expect_status(200)), [8, 106, 1]);
    let hers = history(&app, &admin, &format!("{range}&user_id={}", eve.id)).await.expect_status(200);
    assert_eq!(amounts(&hers), [100]);
}

#[tokio::test]
async fn pages_and_filters_show_each_sum_once() {
    let app = TestApp::start().await;
    let ada = signed_up(&app).await;
    for feature in ["ai_requests", "api_access", "custom_theme"] {
        used(
            &app,
            &ada,
            feature,
            &[("2025-05-01 10:00:00Z", 1), ("2025-05-02 10:00:00Z", 2), ("2025-05-05 10:00:00Z", 4)],
        )
        .await;
    }
    let range = "from=2025-05-01T00:00:00Z&to=2025-05-08T00:00:00Z";
    for path in ["/api/usage", "/api/admin/usage"] {
        let caller = if path == "/api/usage" { ada.clone() } else { app.admin().await };
        let get = async |query: &str| {
            app.get(&format!("{path}?{range}&{query}")).bearer(&caller).send().await.expect_status(200)
        };
        let whole = get("limit=100").await;
        assert_eq!(amounts(&whole), [4, 4, 4, 2, 2, 2, 1, 1, 1]);
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = get(&format!("limit=2{cursor}")).await;
            seen.extend(page.at("/data").as_array().unwrap().iter().cloned());
            pages += 1;
            let Some(next) = page.at("/next_cursor").as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!((&Value::Array(seen), pages), (whole.at("/data"), 5));
        let one = get("feature_id=api_access").await;
        assert_eq!(amounts(&one), [4, 2, 1]);
        assert!(one.at("/data").as_array().unwrap().iter().all(|row| row["feature_id"] == "api_access"));
        assert_eq!(amounts(&get("period=day").await), [0; 0]);
        assert_eq!(amounts(&get("period=month&feature_id=ai_requests&bucket=month").await), [7]);
    }
}

#[tokio::test]
async fn an_unfit_question_names_its_parameter() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let from = "from=2025-01-01T00:00:00Z";
    for path in ["/api/usage", "/api/admin/usage"] {
        let ask = async |query: &str| app.get(&format!("{path}?{query}")).bearer(&admin).send().await;
        for (query, field) in [
            ("bucket=minute", "bucket"),
            ("period=year", "period"),
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("cursor=abc", "cursor"),
            ("cursor=1.a.year.1", "cursor"),
            ("from=yesterday", "from"),
            ("to=2025-13-01T00:00:00Z", "to"),
            ("from=%2B99999-01-01T00:00:00Z", "from"),
            ("table=users", "table"),
        ] {
            expect_field(ask(query).await, field);
        }
        for (bucket, longest, beyond) in [
            ("hour", "2025-02-01T00:00:00Z", "2025-02-01T00:00:01Z"),
            ("day", "2026-02-05T00:00:00Z", "2026-02-05T00:00:01Z"),
            ("month", "2035-01-01T00:00:00Z", "2035-01-01T00:00:01Z"),
        ] {
            ask(&format!("bucket={bucket}&{from}&to={longest}")).await.expect_status(200);
            let refused = expect_field(ask(&format!("bucket={bucket}&{from}&to={beyond}")).await, "from");
            assert!(refused.text_at("/detail").contains("at most"), "{refused}");
        }
        expect_field(ask(&format!("{from}&to=2025-01-01T00:00:00Z")).await, "from");
        expect_field(ask("from=9999-12-31T23:59:59Z").await, "from");
        ask("bucket=month&to=9999-12-31T23:59:59Z").await.expect_status(200);
        ask("bucket=hour&to=0001-02-01T00:00:00Z").await.expect_status(200);
        ask("feature_id=nothing").await.expect_problem(404, "not_found");
        ask("feature_id=No%20Id").await.expect_problem(404, "not_found");
    }
    let of_one = app.get(&format!("/api/admin/usage?user_id={NOBODY}")).bearer(&admin).send().await;
    expect_field(of_one, "user_id");
}

#[tokio::test]
async fn the_use_of_others_is_for_those_who_may_see_it() {
    let app = TestApp::start().await;
    let (admin, ada, eve) = (app.admin().await, signed_up(&app).await, app.signup("eve@example.com").await);
    for path in ["/api/usage", "/api/admin/usage"] {
        app.get(path).send().await.expect_problem(401, "unauthorized");
    }
    for user_id in [ada.id.to_string(), NOBODY.to_owned()] {
        history(&app, &eve, &format!("user_id={user_id}")).await.expect_problem(403, "forbidden");
    }
    app.get("/api/admin/usage").bearer(&eve).send().await.expect_problem(403, "forbidden");
    history(&app, &eve, &format!("user_id={}", eve.id)).await.expect_status(200);
    history(&app, &admin, &format!("user_id={NOBODY}")).await.expect_problem(404, "not_found");
    history(&app, &admin, &format!("user_id={}", ada.id)).await.expect_status(200);
    for (permissions, on_behalf, own, others, all) in [
        (json!(["usage:check"]), false, 200, 403, 200),
        (json!(["usage:check"]), true, 200, 200, 200),
        (json!(["usage:write"]), false, 403, 403, 403),
    ] {
        let body = json!({ "name": "reader", "permissions": permissions, "on_behalf": on_behalf });
        let key = app.post("/api/keys").bearer(&admin).json(body).send().await.expect_status(201);
        let ask = async |path: &str| app.get(path).bearer(key.text_at("/key")).send().await.status;
        assert_eq!(ask("/api/usage").await, own);
        assert_eq!(ask(&format!("/api/usage?user_id={}", ada.id)).await, others);
        assert_eq!(ask("/api/admin/usage").await, all);
    }
}
