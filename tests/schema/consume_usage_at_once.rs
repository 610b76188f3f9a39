//! Concurrent calls of `consume_usage`: which one waits for which, and what it sees after the wait.

use std::time::Duration;

use domain::users::UserId;
use harness::TestDatabase;
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinHandle;

use crate::consume_usage::{ann, call, consumed};

/// A transaction on its own connection.
async fn opened(database: &TestDatabase, isolation: &str) -> PgConnection {
    let mut connection = PgConnection::connect(&database.owner_url()).await.unwrap();
    run(&mut connection, &format!("BEGIN ISOLATION LEVEL {isolation}; SET LOCAL lock_timeout = '10s'; SELECT now()"))
        .await;
    connection
}

async fn run(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.unwrap();
}

/// The compared part of a result: whether it was granted, the counter's value, what is left, whether it is a replay; or
/// the SQLSTATE.
type Told = Result<(bool, i64, Option<i64>, bool), String>;

/// Consumes on another connection, and returns once that waits for a lock.
async fn waiting(database: &TestDatabase, arguments: String) -> JoinHandle<Told> {
    let mut other = opened(database, "READ COMMITTED").await;
    let waiter: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut other).await.unwrap();
    let task = tokio::spawn(async move {
        let answer = call(&mut other, &arguments).await;
        run(&mut other, "COMMIT").await;
        answer.map(|answer| (answer.allowed, answer.current, answer.remaining, answer.replayed))
    });
    let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {waiter} AND NOT granted");
    while database.query_scalar::<i64>(&waits).await == 0 {
        assert!(!task.is_finished(), "it was to wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task
}

/// A user whose counter exists already, so that a concurrent call waits for its lock.
async fn ann_counted(database: &TestDatabase) -> UserId {
    let ann = ann(database).await;
    consumed(database, &format!("'{ann}', 'ai_requests', 1, 'before'")).await.unwrap();
    ann
}

#[tokio::test]
async fn who_comes_second_with_a_key_waits_for_the_first_outcome() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    let same = format!("'{ann}', 'ai_requests', 2, 'same'");
    // In the first round the first transaction creates the counter; in the second it exists.
    for (end, expected) in [("ROLLBACK", (true, 2, Some(3), false)), ("COMMIT", (true, 2, Some(3), true))] {
        database.sql("DELETE FROM idempotency_keys; UPDATE usage_counters SET used = 0").await;
        let mut first = opened(&database, "READ COMMITTED").await;
        assert!(!call(&mut first, &same).await.unwrap().replayed);
        let second = waiting(&database, same.clone()).await;
        run(&mut first, end).await;
        assert_eq!(second.await.unwrap(), Ok(expected), "{end}");
        assert_eq!(database.query_scalar::<i64>("SELECT used FROM usage_counters").await, 2, "{end}");
    }
    let mut first = opened(&database, "READ COMMITTED").await;
    call(&mut first, &format!("'{ann}', 'export_csv', 1, 'other'")).await.unwrap();
    let second = waiting(&database, format!("'{ann}', 'ai_requests', 1, 'other'")).await;
    run(&mut first, "COMMIT").await;
    assert_eq!(second.await.unwrap(), Err("22023".to_owned()), "the key went to another feature meanwhile");
    let used = "SELECT used FROM usage_counters WHERE feature_id = 'ai_requests'";
    assert_eq!(database.query_scalar::<i64>(used).await, 2);
}

#[tokio::test]
async fn what_changed_during_the_wait_is_seen_under_the_lock() {
    for (change, expected) in [
        ("SELECT 1", Ok((true, 4, Some(1), false))),
        ("UPDATE plan_features SET limit_value = 4 WHERE feature_id = 'ai_requests'", Ok((true, 4, Some(0), false))),
        ("UPDATE plan_features SET limit_value = 3 WHERE feature_id = 'ai_requests'", Ok((false, 3, Some(0), false))),
        ("UPDATE plan_features SET enabled = false WHERE feature_id = 'ai_requests'", Ok((false, 3, Some(2), false))),
        // The month's count is carried into the counter that follows it.
        (
            "UPDATE plan_features SET limit_period = 'lifetime' WHERE feature_id = 'ai_requests'",
            Ok((true, 4, Some(1), false)),
        ),
        ("UPDATE plan_features SET overage = 'tokens' WHERE feature_id = 'ai_requests'", Err("40001".to_owned())),
    ] {
        let database = TestDatabase::new().await;
        let ann = ann_counted(&database).await;
        let mut first = opened(&database, "READ COMMITTED").await;
        call(&mut first, &format!("'{ann}', 'ai_requests', 2")).await.unwrap();
        let second = waiting(&database, format!("'{ann}', 'ai_requests', 1")).await;
        database.sql(change).await;
        run(&mut first, "COMMIT").await;
        assert_eq!(second.await.unwrap(), expected, "{change}");
        let sums = "SELECT (SELECT sum(used - carried)::bigint FROM usage_counters), (SELECT sum(amount)::bigint FROM usage_events)";
        let (counted, told): (i64, i64) = database.query_one(sums).await;
        assert_eq!(counted, told, "{change}");
    }
}

#[tokio::test]
async fn an_old_snapshot_is_told_to_try_again() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = TestDatabase::new().await;
        let ann = ann_counted(&database).await;
        database.sql("UPDATE plan_features SET overage = 'tokens' WHERE feature_id = 'export_csv'").await;
        for (theirs, ours) in [
            ("'ai_requests', 1, 'theirs'", "'ai_requests', 1, 'ours'"),
            ("'custom_theme', 1, 'first'", "'custom_theme', 1, 'second'"),
            ("'export_csv', 1, 'one key'", "'ai_requests', 1, 'one key'"),
        ] {
            let mut old = opened(&database, isolation).await;
            consumed(&database, &format!("'{ann}', {theirs}")).await.unwrap();
            let answer = call(&mut old, &format!("'{ann}', {ours}")).await;
            assert_eq!(answer.unwrap_err(), "40001", "{isolation}: {ours} after {theirs}");
        }
        let mut fresh = opened(&database, isolation).await;
        assert!(call(&mut fresh, &format!("'{ann}', 'ai_requests'")).await.unwrap().allowed);
        run(&mut fresh, "COMMIT").await;
    }
}

/// Tokens, two features and many callers: paying calls lock the balance before the counter, so that there is no
/// deadlock.
#[tokio::test]
async fn those_who_pay_for_several_features_do_not_lock_each_other_out() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    database
        .sql(
            "UPDATE features SET kind = 'metered';
             UPDATE plan_features SET enabled = true, limit_value = 3, overage = 'tokens' WHERE plan_id = 'gold'",
        )
        .await;
    let url = database.owner_url();
    let callers = (0..4_usize).map(|caller| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let mut granted = 0_i64;
            for step in 0..20 {
                let feature = ["ai_requests", "export_csv"][(caller + step) % 2];
                granted += i64::from(call(&mut connection, &format!("'{ann}', '{feature}', 2")).await.unwrap().allowed);
            }
            granted
        })
    });
    let mut granted = 0;
    for caller in callers.collect::<Vec<_>>() {
        granted += caller.await.unwrap();
    }
    // 100 tokens and twice a limit of 3 allow 106 units: 53 times 2.
    assert_eq!(granted, 53);
    assert_eq!(database.query_scalar::<i64>("SELECT token_balance FROM users").await, 0);
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM integrity_findings").await, 0);
}
