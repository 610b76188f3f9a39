use chrono::{DateTime, TimeDelta, Utc};
use domain::usage::PeriodKind;
use domain::usage_history::{UsageBucket, UsageSum, stretch};
use domain::users::UserId;
use harness::TestDatabase;
use ports::store::Page;
use ports::usage_history::{UsageFilter, UsagePosition};

use crate::people::{feature_id, service, sign_up};

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Uses on two days, before and after the end of an hour and of a month, in two periods and of two features.
async fn prepared(database: &TestDatabase) -> (UserId, UserId) {
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    database
        .sql(&format!(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, overage, created_at) VALUES
             ('{ann}', 'ai_requests', 'month', '2025-03-01Z', 1, 0, '2025-03-31 22:59:59.999999Z'),
             ('{ann}', 'ai_requests', 'month', '2025-03-01Z', 2, 1, '2025-03-31 23:00:00Z'),
             ('{ann}', 'ai_requests', 'month', '2025-03-01Z', 4, 0, '2025-03-31 23:59:59.999999Z'),
             ('{ann}', 'ai_requests', 'month', '2025-04-01Z', 8, 0, '2025-04-01 00:00:00Z'),
             ('{ann}', 'ai_requests', 'day', '2025-04-01Z', 16, 0, '2025-04-01 00:10:00Z'),
             ('{ann}', 'export_csv', 'month', '2025-04-01Z', 32, 0, '2025-04-01 05:00:00Z'),
             ('{bob}', 'ai_requests', 'month', '2025-04-01Z', 64, 3, '2025-04-01 00:00:00Z')"
        ))
        .await;
    (ann, bob)
}

fn of(user_id: Option<UserId>) -> UsageFilter {
    UsageFilter { user_id, feature_id: None, period: None }
}

async fn list(
    database: &TestDatabase,
    filter: &UsageFilter,
    bucket: UsageBucket,
    page: &Page<UsagePosition>,
) -> Vec<UsageSum> {
    let (from, to) = (time("2025-03-31T00:00:00Z"), time("2025-04-02T00:00:00Z"));
    let stretch = stretch(bucket, Some(from), Some(to), to).unwrap();
    let mut work = service(&*database.store()).await;
    let sums = work.usage_history().list(filter, &stretch, page).await.unwrap();
    work.commit().await.unwrap();
    sums
}

async fn all(database: &TestDatabase, filter: &UsageFilter, bucket: UsageBucket) -> Vec<UsageSum> {
    list(database, filter, bucket, &Page { after: None, limit: 100 }).await
}

fn told(sums: &[UsageSum]) -> Vec<(String, &str, &str, i64, i64, i64)> {
    let told = |sum: &UsageSum| {
        let bucket = sum.bucket.format("%d %H").to_string();
        let feature = if sum.feature_id.as_str() == "ai_requests" { "ai" } else { "csv" };
        (
            bucket,
            feature,
            if sum.period == PeriodKind::Day { "day" } else { "month" },
            sum.amount,
            sum.overage,
            sum.events,
        )
    };
    sums.iter().map(told).collect::<Vec<_>>()
}

async fn roll_up(database: &TestDatabase) -> i64 {
    let mut work = service(&*database.store()).await;
    let left = work.usage_history().roll_up().await.unwrap();
    work.commit().await.unwrap();
    left
}

#[tokio::test]
async fn sums_are_the_same_before_between_and_after_the_roll_ups() {
    let database = TestDatabase::new().await;
    let (ann, _) = prepared(&database).await;
    let ann = of(Some(ann));
    let hours = all(&database, &ann, UsageBucket::Hour).await;
    let row = |bucket: &str, feature, period, amount, overage, events| {
        (bucket.to_owned(), feature, period, amount, overage, events)
    };
    assert_eq!(
        told(&hours),
        [
            row("01 05", "csv", "month", 32, 0, 1),
            row("01 00", "ai", "day", 16, 0, 1),
            row("01 00", "ai", "month", 8, 0, 1),
            row("31 23", "ai", "month", 6, 1, 2),
            row("31 22", "ai", "month", 1, 0, 1),
        ]
    );
    let (days, months) = (all(&database, &ann, UsageBucket::Day).await, all(&database, &ann, UsageBucket::Month).await);
    assert_eq!(
        told(&days),
        [
            row("01 00", "ai", "day", 16, 0, 1),
            row("01 00", "ai", "month", 8, 0, 1),
            row("01 00", "csv", "month", 32, 0, 1),
            row("31 00", "ai", "month", 7, 1, 3),
        ]
    );
    assert_eq!((months.len(), months[3].bucket, months[3].amount), (4, time("2025-03-01T00:00:00Z"), 7));
    let everybody = all(&database, &of(None), UsageBucket::Day).await;
    let mut rolled_up = 0;
    // In the middle of a day and a month, then to the end, then after the events are deleted.
    database.sql("INSERT INTO rollup_watermarks VALUES ('usage_events', '2025-04-01 01:00Z')").await;
    database
        .sql(
            "INSERT INTO usage_rollups SELECT user_id, feature_id, period, period_start, date_trunc('hour', created_at, 'UTC'),
                sum(amount), sum(overage), count(*) FROM usage_events WHERE created_at < '2025-04-01 01:00Z' GROUP BY 1, 2, 3, 4, 5",
        )
        .await;
    loop {
        assert_eq!(all(&database, &ann, UsageBucket::Hour).await, hours, "after {rolled_up} roll-ups");
        assert_eq!(all(&database, &ann, UsageBucket::Day).await, days, "after {rolled_up} roll-ups");
        assert_eq!(all(&database, &ann, UsageBucket::Month).await, months, "after {rolled_up} roll-ups");
        assert_eq!(all(&database, &of(None), UsageBucket::Day).await, everybody, "after {rolled_up} roll-ups");
        if roll_up(&database).await == 0 {
            break;
        }
        rolled_up += 1;
    }
    database.sql("DELETE FROM usage_events").await;
    assert_eq!(all(&database, &ann, UsageBucket::Hour).await, hours, "the events are not needed any more");
    assert_eq!(all(&database, &of(None), UsageBucket::Day).await, everybody);
}

#[tokio::test]
async fn everybodys_use_is_one_sum_and_ones_own_is_ones_own() {
    let database = TestDatabase::new().await;
    let (ann, bob) = prepared(&database).await;
    let everybody = all(&database, &of(None), UsageBucket::Day).await;
    let sum = everybody.iter().find(|sum| sum.events == 2).unwrap();
    assert_eq!((sum.amount, sum.overage, sum.period_start), (72, 3, time("2025-04-01T00:00:00Z")));
    assert_eq!(everybody.iter().map(|sum| sum.amount).sum::<i64>(), 127);
    assert_eq!(all(&database, &of(Some(bob)), UsageBucket::Day).await.len(), 1);
    let one = UsageFilter { feature_id: Some(feature_id("export_csv")), ..of(Some(ann)) };
    assert_eq!(all(&database, &one, UsageBucket::Day).await.iter().map(|sum| sum.amount).collect::<Vec<_>>(), [32]);
    let one = UsageFilter { period: Some(PeriodKind::Day), ..of(Some(ann)) };
    assert_eq!(all(&database, &one, UsageBucket::Month).await.iter().map(|sum| sum.amount).collect::<Vec<_>>(), [16]);
    // The sum of two of the largest amounts exceeds the number type.
    database.sql("UPDATE usage_events SET amount = 9223372036854775807, overage = 9223372036854775807").await;
    let everybody = all(&database, &of(None), UsageBucket::Day).await;
    assert!(everybody.iter().all(|sum| (sum.amount, sum.overage) == (i64::MAX, i64::MAX)));
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip() {
    let database = TestDatabase::new().await;
    let (ann, _) = prepared(&database).await;
    for filter in [of(Some(ann)), of(None)] {
        for bucket in [UsageBucket::Hour, UsageBucket::Day, UsageBucket::Month] {
            let whole = all(&database, &filter, bucket).await;
            let (mut seen, mut after): (Vec<UsageSum>, _) = (Vec::new(), None);
            loop {
                let page = list(&database, &filter, bucket, &Page { after, limit: 1 }).await;
                let Some(last) = page.last() else { break };
                let UsageSum { bucket, feature_id, period, period_start, .. } = last.clone();
                after = Some(UsagePosition { bucket, feature_id, period, period_start });
                seen.extend(page);
            }
            assert_eq!(seen, whole, "{bucket:?}");
        }
    }
    // A position in the list of hours, used in the list of months, continues with its month.
    let after = Some(UsagePosition {
        bucket: time("2025-03-31T22:00:00Z"),
        feature_id: feature_id("ai_requests"),
        period: PeriodKind::Month,
        period_start: time("2025-03-01T00:00:00Z"),
    });
    let page = list(&database, &of(Some(ann)), UsageBucket::Month, &Page { after, limit: 10 }).await;
    assert_eq!(
        page.iter().map(|sum| (sum.bucket, sum.amount)).collect::<Vec<_>>(),
        [(time("2025-03-01T00:00:00Z"), 7)]
    );
}

#[tokio::test]
async fn a_page_sums_no_more_buckets_than_it_shows() {
    let database = TestDatabase::new().await;
    let mut sql = include_str!("../../crates/adapters/src/postgres/sql/list_usage_sums.sql")
        .replace("{sums_of}", "usage_totals AS r WHERE true")
        .replace("{events_of}", "true");
    for (parameter, value) in [
        ("$11", "21"),
        ("$10", "now()"),
        ("$9", "''"),
        ("$8", "''"),
        ("$7", "now()"),
        ("$6", "false"),
        ("$5", "null"),
        ("$4", "null"),
        ("$3", "'1 day'"),
        ("$2", "(now() - interval '1 year')"),
        ("$1", "now()"),
    ] {
        sql = sql.replace(parameter, value);
    }
    let plan: Vec<(String,)> = database.query_all(&format!("EXPLAIN {sql}")).await;
    let plan = plan.into_iter().map(|(line,)| line).collect::<Vec<_>>().join("\n");
    assert!(plan.contains("Incremental Sort") && plan.contains("Presorted Key: moment.moment"), "{plan}");
}

#[tokio::test]
async fn the_lag_is_how_far_the_watermark_is_behind_now() {
    let database = TestDatabase::new().await;
    let mut work = service(&*database.store()).await;
    assert_eq!(work.usage_history().lag_seconds().await.unwrap(), None);
    work.commit().await.unwrap();
    assert_eq!(roll_up(&database).await, 0);
    let mut work = service(&*database.store()).await;
    let lag = work.usage_history().lag_seconds().await.unwrap().unwrap();
    assert!((300..=3_905).contains(&lag), "an hour and five minutes at most: {lag}");
    let now = work.usage_history().now().await.unwrap();
    let reached: DateTime<Utc> =
        database.query_scalar("SELECT reached_at FROM rollup_watermarks WHERE name = 'usage_events'").await;
    assert!((now - reached - TimeDelta::seconds(lag)).abs() < TimeDelta::seconds(10), "{now} {reached} {lag}");
}
