//! The hourly sums: made in bounded parts, with the same result when repeated, and right after their month is dropped.

use harness::{TestDatabase, sqlx};

use crate::people::sign_up;

/// Sum, overage and number of the summed events.
type Sums = (Option<i64>, Option<i64>, Option<i64>);

async fn used(database: &TestDatabase, user: &str, ago: &str, amount: i64, overage: i64) {
    database
        .sql(&format!(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, overage, created_at)
             VALUES ('{user}', 'api_access', 'lifetime', 'epoch', {amount}, {overage}, now() - interval '{ago}')"
        ))
        .await;
}

async fn counted(database: &TestDatabase, user: &str, total: i64, overage: i64) {
    database
        .sql(&format!(
            "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, overage)
             VALUES ('{user}', 'api_access', 'lifetime', 'epoch', {total}, {overage})"
        ))
        .await;
}

/// Runs like the job: in the service's role.
async fn roll_up(database: &TestDatabase) -> i64 {
    let mut transaction = database.owner().begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL ROLE app_service").execute(&mut *transaction).await.unwrap();
    let left = sqlx::query_scalar("SELECT roll_up_usage()").fetch_one(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    left
}

async fn sums(database: &TestDatabase) -> Sums {
    let query = "SELECT sum(amount)::bigint, sum(overage)::bigint, sum(events)::bigint FROM usage_rollups";
    database.query_one(query).await
}

async fn rows(database: &TestDatabase) -> Vec<(String,)> {
    database.query_all("SELECT r::text || r.xmin FROM usage_rollups r ORDER BY 1").await
}

async fn findings(database: &TestDatabase) -> Vec<(String, String)> {
    database.query_all("SELECT finding, detail FROM integrity_findings ORDER BY 1, 2").await
}

#[tokio::test]
async fn hours_that_are_over_are_summed_once_and_again_changes_nothing() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await.to_string();
    assert_eq!((roll_up(&database).await, sums(&database).await), (0, (None, None, None)), "nothing to sum");
    database.sql("DELETE FROM rollup_watermarks").await;
    for (ago, amount, overage) in [("3 hours", 1, 0), ("3 hours", 2, 1), ("2 hours", 4, 0), ("0 hours", 8, 0)] {
        used(&database, &ann, ago, amount, overage).await;
    }
    counted(&database, &ann, 15, 1).await;
    while roll_up(&database).await > 0 {}
    assert_eq!(sums(&database).await, (Some(7), Some(1), Some(3)), "the hour of now is not over");
    let first = rows(&database).await;
    assert_eq!(first.len(), 2, "a row an hour: {first:?}");
    assert_eq!(roll_up(&database).await, 0);
    database.sql("UPDATE rollup_watermarks SET reached_at = reached_at - interval '5 hours'").await;
    assert_eq!(roll_up(&database).await, 0);
    assert_eq!(rows(&database).await, first, "not one row is written again");
    assert_eq!(findings(&database).await, []);
}

#[tokio::test]
async fn what_was_committed_late_is_in_the_sums_an_hour_later() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await.to_string();
    used(&database, &ann, "3 hours", 1, 0).await;
    while roll_up(&database).await > 0 {}
    // The watermark after that hour, and no further; a new event now is from an hour that is already summed.
    database
        .sql("UPDATE rollup_watermarks SET reached_at = date_trunc('hour', now() - interval '3 hours', 'UTC') + interval '1 hour'")
        .await;
    database.sql("UPDATE rollup_watermarks SET final_at = reached_at").await;
    used(&database, &ann, "3 hours", 2, 0).await;
    assert!(findings(&database).await.iter().any(|(finding, _)| finding == "ROLLUP_MISMATCH"));
    assert_eq!(roll_up(&database).await, 0);
    assert_eq!(sums(&database).await, (Some(3), Some(0), Some(2)));
}

#[tokio::test]
async fn a_backlog_is_summed_a_day_at_a_time_and_gaps_are_passed_over() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await.to_string();
    for (ago, amount) in [("3000 days", 1), ("2999 days 1 hour", 2), ("2998 days", 4), ("300 days", 8), ("2 hours", 16)]
    {
        used(&database, &ann, ago, amount, 0).await;
    }
    counted(&database, &ann, 31, 0).await;
    let mut told = vec![roll_up(&database).await];
    assert_eq!(sums(&database).await.0, Some(3), "the first day and no more");
    while *told.last().unwrap() > 0 {
        told.push(roll_up(&database).await);
    }
    assert!(told.is_sorted_by(|before, after| before > after), "{told:?}");
    // One day for each of the three parts, and at most the days of this month for the last.
    assert!((4..=36).contains(&told.len()), "{told:?}");
    assert_eq!(sums(&database).await, (Some(31), Some(0), Some(5)));
    assert_eq!(findings(&database).await, [], "events that no month was made for count once");
}

#[tokio::test]
async fn one_call_at_a_time_sums() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await.to_string();
    used(&database, &ann, "2 hours", 1, 0).await;
    let mut other = database.owner().begin().await.unwrap();
    sqlx::raw_sql("SELECT roll_up_usage()").execute(&mut *other).await.unwrap();
    assert_eq!(roll_up(&database).await, 0, "it neither waits nor fails");
    other.rollback().await.unwrap();
    assert_eq!(sums(&database).await, (None, None, None));
    while roll_up(&database).await > 0 {}
    assert_eq!(sums(&database).await, (Some(1), Some(0), Some(1)));
}

#[tokio::test]
async fn a_month_that_is_dropped_stays_in_the_sums_rolled_up_before_or_not() {
    for rolled_up in [true, false] {
        let database = TestDatabase::new().await;
        let ann = sign_up(&database, "ann").await.to_string();
        used(&database, &ann, "9 months", 5, 1).await;
        used(&database, &ann, "9 months", 6, 0).await;
        used(&database, &ann, "2 hours", 7, 0).await;
        counted(&database, &ann, 18, 1).await;
        while rolled_up && roll_up(&database).await > 0 {}
        while database.query_scalar::<i64>("SELECT count(*) FROM maintain_partitions()").await > 0 {}
        let left: i64 = database.query_scalar("SELECT count(*) FROM usage_events").await;
        assert_eq!(left, 1, "the month was dropped");
        // Readers take sums up to the watermark, so it must be after the month.
        let passed: bool = database
            .query_scalar("SELECT bool_and(reached_at > now() - interval '9 months') FROM rollup_watermarks")
            .await;
        assert!(passed);
        assert_eq!(findings(&database).await, []);
        while roll_up(&database).await > 0 {}
        assert_eq!(sums(&database).await, (Some(18), Some(1), Some(3)));
        assert_eq!(findings(&database).await, []);
        database.sql("UPDATE usage_rollups SET amount = amount + 1 WHERE bucket < now() - interval '2 months'").await;
        let found = findings(&database).await;
        assert!(found.len() == 1 && found[0].0 == "COUNTER_MISMATCH" && found[0].1.contains("19"), "{found:?}");
    }
}

#[tokio::test]
async fn a_counter_without_events_is_right_where_all_of_it_was_carried() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    let counter = "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, carried)";
    database.sql(&format!("{counter} VALUES ('{ann}', 'api_access', 'day', now(), 4, 4)")).await;
    assert_eq!(findings(&database).await, []);
    database.sql(&format!("{counter} VALUES ('{ann}', 'api_access', 'month', now(), 4, 3)")).await;
    let found = findings(&database).await;
    assert!(found.len() == 1 && found[0].0 == "COUNTER_MISMATCH", "{found:?}");
}
