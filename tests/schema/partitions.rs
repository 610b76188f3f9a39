//! The monthly partitions: created ahead, filled from the default partition, dropped after their sums are stored.

use harness::{TestDatabase, sqlx};

async fn months(database: &TestDatabase, parent: &str) -> Vec<String> {
    let query =
        format!("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{parent}'::regclass ORDER BY 1");
    database.query_all::<(String,)>(&query).await.into_iter().map(|(name,)| name).collect()
}

async fn month_name(database: &TestDatabase, parent: &str, months: i32) -> String {
    let query = format!(
        "SELECT '{parent}_' || to_char(now() AT TIME ZONE 'UTC' + make_interval(months => {months}), 'YYYY_MM')"
    );
    database.query_scalar(&query).await
}

/// Runs like the job: in the service's role, one piece in its own transaction, in less than two seconds.
async fn call(database: &TestDatabase) -> Option<String> {
    let begun = std::time::Instant::now();
    let mut transaction = database.owner().begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL ROLE app_service").execute(&mut *transaction).await.unwrap();
    let lines: Vec<String> =
        sqlx::query_scalar("SELECT maintain_partitions()").fetch_all(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert!(lines.len() <= 1, "one piece a call: {lines:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(2));
    lines.into_iter().next()
}

/// Runs until nothing is left; returns the work done, without the days that were summed.
async fn maintain(database: &TestDatabase) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(line) = call(database).await {
        said.push(line);
    }
    said.retain(|line| !line.starts_with("summed"));
    said
}

#[tokio::test]
async fn this_month_and_the_next_three_are_there() {
    let database = TestDatabase::new().await;
    for parent in ["usage_events", "ai_usage_logs"] {
        let mut expected = Vec::new();
        for ahead in 0..=3 {
            expected.push(month_name(&database, parent, ahead).await);
        }
        expected.push(format!("{parent}_default"));
        assert_eq!(months(&database, parent).await, expected);
    }
    assert_eq!(maintain(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn rows_of_a_month_that_was_not_made_are_moved_into_it() {
    let database = TestDatabase::new().await;
    database
        .sql(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, created_at)
             SELECT gen_random_uuid(), 'f', 'month', now(), n, date_trunc('month', now(), 'UTC') + interval '5 months' FROM generate_series(1, 10) n",
        )
        .await;
    let name = month_name(&database, "usage_events", 5).await;
    assert_eq!(maintain(&database).await, [format!("made {name}")]);
    let found: (i64, i64, bool, i64) = database
        .query_one(&format!(
            "SELECT (SELECT count(*) FROM {name}), (SELECT count(*) FROM usage_events_default), relrowsecurity,
                (SELECT count(*) FROM aclexplode(relacl) x WHERE x.grantee <> relowner) FROM pg_class WHERE relname = '{name}'"
        ))
        .await;
    assert_eq!(found, (10, 0, true, 0));
    let indexes: (i64, i64) = database
        .query_one(&format!(
            "SELECT (SELECT count(*) FROM pg_index WHERE indrelid = '{name}'::regclass), (SELECT count(*)
            FROM pg_index WHERE indrelid = 'usage_events'::regclass)"
        ))
        .await;
    assert_eq!(indexes.0, indexes.1);
}

#[tokio::test]
async fn a_month_goes_six_months_after_its_end_and_its_sums_stay() {
    let database = TestDatabase::new().await;
    for (months_ago, stays) in [(6, true), (7, false)] {
        let name = month_name(&database, "usage_events", -months_ago).await;
        database
            .sql(&format!(
                "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, overage, created_at)
                 SELECT '00000000-0000-4000-8000-00000000000a', 'f', 'month', now() - interval '{months_ago} months', 5, 1,
                 now() - interval '{months_ago} months' FROM generate_series(1, 3)"
            ))
            .await;
        let said = maintain(&database).await;
        assert!(said.contains(&format!("made {name}")), "{said:?}");
        assert_eq!(said.contains(&format!("dropped {name}")), !stays, "{months_ago} months ago: {said:?}");
        let sums: (Option<i64>, Option<i64>, Option<i64>, i64) = database
            .query_one(&format!(
                "SELECT sum(amount)::bigint, sum(overage)::bigint, sum(events)::bigint, (SELECT count(*) FROM usage_events
                    WHERE abs(extract(epoch FROM created_at - (now() - interval '{months_ago} months'))) < 86400)
                 FROM usage_rollups"
            ))
            .await;
        let kept = if stays { (None, None, None, 3) } else { (Some(15), Some(3), Some(3), 0) };
        assert_eq!(sums, kept, "{months_ago} months ago");
    }
}

#[tokio::test]
async fn a_reader_on_an_old_month_keeps_no_new_month_from_being_made_and_stops_no_consumption() {
    let database = TestDatabase::new().await;
    database
        .sql(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, created_at)
             SELECT gen_random_uuid(), 'f', 'month', now(), n, now() - interval '9 months' FROM generate_series(1, 10) n",
        )
        .await;
    let (old, new) = (month_name(&database, "usage_events", -9).await, month_name(&database, "usage_events", 6).await);
    assert!(call(&database).await.unwrap().starts_with("made"));
    let mut reader = database.owner().begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {old}"))).execute(&mut *reader).await.unwrap();
    database
        .sql(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, created_at)
             SELECT gen_random_uuid(), 'f', 'month', now(), n, date_trunc('month', now(), 'UTC') + interval '6 months' FROM generate_series(1, 10) n",
        )
        .await;
    let mut said = Vec::new();
    while said.last().is_none_or(|line: &String| !line.starts_with("busy")) {
        said.push(call(&database).await.unwrap());
    }
    assert_eq!(said[0], format!("made {new}"), "new months come first: {said:?}");
    assert!(said[1..said.len() - 1].iter().all(|line| line.starts_with(&format!("summed {old}"))), "{said:?}");
    assert!((28..=33).contains(&said.len()), "a day a call: {said:?}");
    assert!(said.last().unwrap().contains(&old));
    // Finished work is kept, and the rest is short after the reader has ended.
    assert_eq!(database.query_scalar::<i64>("SELECT sum(events)::bigint FROM usage_rollups").await, 10);
    reader.rollback().await.unwrap();
    assert_eq!(maintain(&database).await, [format!("dropped {old}")]);
}

#[tokio::test]
async fn a_sum_that_stands_there_is_not_written_again_and_one_process_is_at_it() {
    let database = TestDatabase::new().await;
    database
        .sql(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, created_at)
             SELECT gen_random_uuid(), 'f', 'month', now(), n, now() - interval '9 months' FROM generate_series(1, 10) n;
             SELECT roll_up_usage() FROM generate_series(1, 400)",
        )
        .await;
    let rows = "SELECT string_agg(r.xmin::text || r.user_id::text, ' ' ORDER BY r.user_id) FROM usage_rollups r";
    let before: String = database.query_scalar(rows).await;
    let mut other = database.owner().begin().await.unwrap();
    sqlx::raw_sql("SELECT maintain_partitions()").execute(&mut *other).await.unwrap();
    assert_eq!(call(&database).await, None, "it neither waits nor does the same");
    other.commit().await.unwrap();
    let said = maintain(&database).await;
    assert!(said.last().unwrap().starts_with("dropped"), "{said:?}");
    assert_eq!(database.query_scalar::<String>(rows).await, before);
}
