use chrono::{DateTime, NaiveDate, Utc};
use domain::ai::ProviderId;
use domain::ai_usage::{AiTotals, AiUsageRange, AiUsageSums, MODELS_SHOWN};
use domain::chat::ChatSessionId;
use domain::prices::NanoUsd;
use domain::users::UserId;
use harness::TestDatabase;
use ports::ai_usage::AiUsageFilter;
use uuid::Uuid;

use crate::people::{service, sign_up};

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

async fn sum(database: &TestDatabase, filter: &AiUsageFilter, from: &str, to: &str) -> AiUsageSums {
    let range = AiUsageRange { from: time(from), to: time(to) };
    let mut work = service(&*database.store()).await;
    let sums = work.ai_usage().sum(filter, &range).await.unwrap();
    work.commit().await.unwrap();
    sums
}

fn of(user_id: UserId) -> AiUsageFilter {
    AiUsageFilter { user_id: Some(user_id), ..AiUsageFilter::default() }
}

const SESSION: Uuid = Uuid::from_u128(7);

async fn prepared(database: &TestDatabase) -> (UserId, UserId) {
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    database
        .sql(&format!(
            "INSERT INTO ai_usage_logs (user_id, provider, model, tokens_used, input_tokens, output_tokens, cached_tokens,
                cost_nano_usd, source, session_id, created_at) VALUES
             ('{ann}', 'claude', 'a', 15, 10, 5, 4, 1000, 'provider', '{SESSION}', '2026-03-31 23:59:59.999999Z'),
             ('{ann}', 'claude', 'b', 30, 20, 10, 0, 2000, 'partial', NULL, '2026-04-01 00:00:00Z'),
             ('{ann}', 'openai', 'a', NULL, 100, 1, 0, 2500, 'estimated', NULL, '2026-04-01 12:00:00Z'),
             ('{ann}', 'openai', NULL, 7, 5, 2, 0, 0, 'sandbox', '{SESSION}', '2026-04-02 00:00:00Z'),
             ('{bob}', 'gemini', 'a', 50, 40, 10, 0, 9000, 'provider', NULL, '2026-04-01 00:00:00Z')"
        ))
        .await;
    (ann, bob)
}

fn told(totals: &AiTotals) -> (i64, [i64; 4], i64) {
    let tokens = [totals.input_tokens, totals.output_tokens, totals.cached_tokens, totals.total_tokens];
    (totals.requests, tokens, totals.cost.0)
}

#[tokio::test]
async fn calls_are_summed_in_all_and_divided_in_four_ways() {
    let database = TestDatabase::new().await;
    let (ann, _) = prepared(&database).await;
    let sums = sum(&database, &of(ann), "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z").await;
    assert_eq!(told(&sums.all), (4, [135, 18, 4, 153], 5_500));
    let providers: Vec<_> = sums.by_provider.iter().map(|usage| (usage.of, told(&usage.totals))).collect();
    assert_eq!(
        providers,
        [(ProviderId::CLAUDE, (2, [30, 15, 4, 45], 3_000)), (ProviderId::OPENAI, (2, [105, 3, 0, 108], 2_500))]
    );
    let models: Vec<_> =
        sums.by_model.iter().map(|usage| (usage.of.provider, usage.of.model.as_deref(), usage.totals.cost.0)).collect();
    assert_eq!(
        models,
        [
            (ProviderId::OPENAI, Some("a"), 2_500),
            (ProviderId::CLAUDE, Some("b"), 2_000),
            (ProviderId::CLAUDE, Some("a"), 1_000),
            (ProviderId::OPENAI, None, 0),
        ]
    );
    assert_eq!(sums.other_models, None);
    let date = |month, day| NaiveDate::from_ymd_opt(2026, month, day).unwrap();
    let days: Vec<_> = sums.by_day.iter().map(|usage| (usage.of, usage.totals.cost.0)).collect();
    assert_eq!(days, [(date(4, 2), 0), (date(4, 1), 4_500), (date(3, 31), 1_000)]);
    let months: Vec<_> = sums.by_month.iter().map(|usage| (usage.of, told(&usage.totals))).collect();
    assert_eq!(months, [(date(4, 1), (3, [125, 13, 0, 138], 4_500)), (date(3, 1), (1, [10, 5, 4, 15], 1_000))]);
}

#[tokio::test]
async fn only_the_calls_that_are_asked_for_are_summed() {
    let database = TestDatabase::new().await;
    let (ann, bob) = prepared(&database).await;
    let (from, to) = ("2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z");
    for (filter, cost, requests) in [
        (of(bob), 9_000, 1),
        (AiUsageFilter::default(), 14_500, 5),
        (AiUsageFilter { provider: Some(ProviderId::OPENAI), ..of(ann) }, 2_500, 2),
        (AiUsageFilter { model: Some("a".into()), ..of(ann) }, 3_500, 2),
        (AiUsageFilter { model: Some("none".into()), ..of(ann) }, 0, 0),
        (AiUsageFilter { session_id: Some(ChatSessionId(SESSION)), ..of(ann) }, 1_000, 2),
        (AiUsageFilter { session_id: Some(ChatSessionId(SESSION)), ..of(bob) }, 0, 0),
    ] {
        let sums = sum(&database, &filter, from, to).await;
        assert_eq!((sums.all.cost, sums.all.requests), (NanoUsd(cost), requests), "{filter:?}");
        for parts in [
            sums.by_provider.iter().map(|usage| usage.totals.cost.0).sum::<i64>(),
            sums.by_model.iter().map(|usage| usage.totals.cost.0).sum::<i64>(),
            sums.by_day.iter().map(|usage| usage.totals.cost.0).sum::<i64>(),
            sums.by_month.iter().map(|usage| usage.totals.cost.0).sum::<i64>(),
        ] {
            assert_eq!(parts, cost, "{filter:?}");
        }
    }
    let edge = sum(&database, &of(ann), "2026-04-01T00:00:00Z", "2026-04-02T00:00:00Z").await;
    assert_eq!((edge.all.requests, edge.all.cost), (2, NanoUsd(4_500)), "from is in it, to is not");
    let nothing = sum(&database, &of(ann), "2025-04-01T00:00:00Z", "2025-04-02T00:00:00Z").await;
    assert_eq!(nothing, AiUsageSums::default());
}

#[tokio::test]
async fn a_hundred_models_are_told_apart_and_the_others_are_one_sum() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&*database.store(), "ann").await;
    database
        .sql(&format!(
            "INSERT INTO ai_usage_logs (user_id, provider, model, tokens_used, cost_nano_usd, created_at)
             SELECT '{ann}', 'claude', 'm' || n, n, n, '2026-04-01Z' FROM generate_series(1, 103) n"
        ))
        .await;
    let ask = async || sum(&database, &of(ann), "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z").await;
    let sums = ask().await;
    let models: Vec<_> = sums.by_model.iter().map(|usage| usage.totals.cost.0).collect();
    assert_eq!(models, (4..=103).rev().collect::<Vec<i64>>(), "{MODELS_SHOWN} of them, what cost most first");
    assert_eq!(told(&sums.other_models.unwrap()), (3, [0, 0, 0, 6], 6));
    assert_eq!(sums.all.cost, NanoUsd(103 * 104 / 2));
    database
        .sql("UPDATE ai_usage_logs SET cost_nano_usd = 9223372036854775807, tokens_used = 9223372036854775807")
        .await;
    let sums = ask().await;
    assert_eq!((sums.all.cost, sums.all.total_tokens), (NanoUsd(i64::MAX), i64::MAX), "no sum overflows");
}

#[tokio::test]
async fn one_users_calls_are_found_by_the_index() {
    let database = TestDatabase::new().await;
    let (ann, _) = prepared(&database).await;
    let sql = include_str!("../../crates/adapters/src/postgres/sql/sum_ai_usage.sql")
        .replace("{calls}", include_str!("../../crates/adapters/src/postgres/sql/calls_of_one.sql"))
        .replace("{whose}", "l.user_id = $7")
        .replace("$1", "'2026-04-01Z'")
        .replace("$2", "'2026-05-01Z'")
        .replace("$3", "NULL")
        .replace("$4", "NULL")
        .replace("$5", "NULL")
        .replace("$6", "100")
        .replace("$7", &format!("'{ann}'"));
    database
        .sql(
            "INSERT INTO ai_usage_logs (user_id, provider, created_at)
             SELECT u.id, 'claude', '2026-04-01Z'::timestamptz + n * interval '1 minute'
             FROM users u, generate_series(1, 20000) n WHERE u.name = 'bob';
             ANALYZE ai_usage_logs",
        )
        .await;
    let plan: Vec<(String,)> = database.query_all(&format!("EXPLAIN {sql}")).await;
    let plan: Vec<String> = plan.into_iter().map(|(line,)| line).collect();
    assert!(plan.iter().any(|line| line.contains("user_id = ")), "{plan:#?}");
    assert!(!plan.iter().any(|line| line.contains("Seq Scan on ai_usage_logs_2026_04")), "{plan:#?}");
}
