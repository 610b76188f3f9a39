//! Usage under pressure: full queues, locked rows, commands that cannot be written, and a database that hangs. One
//! command never stops the others.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{Answer, TestApp, TestUser, sqlx};
use serde_json::{Value, json};

use crate::usage::{allow, count, limited};

async fn consume(app: &TestApp, user: &TestUser, key: &str) -> Answer {
    let body = json!({ "feature_id": "ai_requests", "idempotency_key": key });
    app.post("/api/usage").bearer(user).json(body).send().await
}

/// A transaction that has the user's counter locked.
async fn hold_counter(app: &TestApp, user: &TestUser) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut holder = app.database().owner().begin().await.unwrap();
    let sql = format!("SELECT FROM usage_counters WHERE user_id = '{}' FOR UPDATE", user.id);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *holder).await.unwrap();
    holder
}

#[tokio::test]
async fn a_counter_that_somebody_holds_stops_nobody_else() {
    let app = TestApp::start().await;
    let ada = limited(&app, 100).await;
    let eve = app.signup("eve@example.com").await;
    allow(&app, &eve, "limit_value = 100").await;
    consume(&app, &ada, "warm").await.expect_status(200);
    let holder = hold_counter(&app, &ada).await;
    let waiting = consume(&app, &ada, "held");
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let asked = Instant::now();
        for number in 0..10 {
            consume(&app, &eve, &format!("free {number}")).await.expect_status(200);
        }
        let took = asked.elapsed();
        holder.rollback().await.unwrap();
        took
    };
    let (held, took) = tokio::join!(waiting, others);
    assert_eq!(held.expect_status(200).at("/current"), &json!(2), "it waited for its counter, and was counted");
    assert!(took < Duration::from_secs(1), "the others did not wait: {took:?}");
}

#[tokio::test]
async fn a_counter_that_is_held_for_too_long_is_a_503_to_that_one_only() {
    let app = TestApp::with(|settings| settings.database.lock_timeout_ms = 200).await;
    let ada = limited(&app, 100).await;
    consume(&app, &ada, "warm").await.expect_status(200);
    let holder = hold_counter(&app, &ada).await;
    let refused = consume(&app, &ada, "held").await.expect_problem(503, "busy");
    assert!(refused.header("retry-after").is_some());
    holder.rollback().await.unwrap();
    let again = consume(&app, &ada, "held").await.expect_status(200);
    assert_eq!((again.header("idempotency-replayed"), again.at("/current")), (None, &json!(2)));
}

#[tokio::test]
async fn a_full_queue_is_a_503_and_counts_nothing() {
    let app = TestApp::with(|settings| {
        settings.usage.queue = 2;
        settings.usage.batch = 1;
    })
    .await;
    let ada = limited(&app, 1_000).await;
    let answers = join_all((0..150).map(|number| {
        let (app, ada) = (&app, &ada);
        async move { consume(app, ada, &number.to_string()).await }
    }))
    .await;
    let granted = i64::try_from(answers.iter().filter(|answer| answer.status == 200).count()).unwrap();
    let refused: Vec<_> = answers.into_iter().filter(|answer| answer.status != 200).collect();
    assert!(granted > 0 && !refused.is_empty(), "{granted} granted, {} refused", refused.len());
    for answer in refused {
        assert!(answer.expect_problem(503, "busy").header("retry-after").is_some());
    }
    assert_eq!(count(&app, "SELECT used FROM usage_counters").await, granted);
}

#[tokio::test]
async fn a_command_that_cannot_be_written_fails_alone() {
    let app = TestApp::start().await;
    let ada = limited(&app, 1_000).await;
    app.database()
        .sql(
            "CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN RAISE EXCEPTION 'poison' USING ERRCODE = 'data_exception'; END $$;
             CREATE TRIGGER refuse_poison BEFORE INSERT ON usage_events
                 FOR EACH ROW WHEN (NEW.idempotency_key = 'poison') EXECUTE FUNCTION refuse_poison()",
        )
        .await;
    let keys = (0..40).map(|number| if number == 17 { "poison".to_owned() } else { number.to_string() });
    let items: Vec<Value> = keys.map(|key| json!({ "feature_id": "ai_requests", "idempotency_key": key })).collect();
    let answer = app.post("/api/usage/batch").bearer(&ada).json(json!({ "items": items })).send().await;
    let statuses: Vec<_> =
        answer.expect_status(200).at("/data").as_array().unwrap().iter().map(|item| item["status"].clone()).collect();
    let failed: Vec<_> = statuses.iter().enumerate().filter(|(_, status)| **status != 200).collect();
    assert_eq!(failed, [(17, &json!(500))]);
    assert_eq!(count(&app, "SELECT used FROM usage_counters").await, 39);
    assert_eq!(count(&app, "SELECT count(*) FROM idempotency_keys").await, 39);
}

#[tokio::test]
async fn a_database_that_hangs_is_a_503_in_time_for_everybody_who_waits() {
    let app = TestApp::with(|settings| settings.database.statement_timeout_ms = 1_500).await;
    let ada = limited(&app, 1_000).await;
    consume(&app, &ada, "warm").await.expect_status(200);
    // Nothing can be read or written any more, as with a stalled disk.
    let mut holder = app.database().owner().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    let asked = (0..20_u64).map(|number| {
        let (app, ada) = (&app, &ada);
        async move {
            tokio::time::sleep(Duration::from_millis(number * 100)).await;
            let asked = Instant::now();
            (consume(app, ada, &number.to_string()).await, asked.elapsed())
        }
    });
    for (answer, took) in join_all(asked).await {
        assert_eq!(answer.status, 503, "never allowed: {answer}");
        assert!(took < Duration::from_secs(3), "within 3 s: {took:?}");
    }
    holder.rollback().await.unwrap();
    consume(&app, &ada, "after").await.expect_status(200);
    // Some were running when the database came back, as a 503 allows. Their idempotency keys decide it.
    for number in 0..20 {
        consume(&app, &ada, &number.to_string()).await.expect_status(200);
    }
    assert_eq!(count(&app, "SELECT used FROM usage_counters").await, 22);
}
