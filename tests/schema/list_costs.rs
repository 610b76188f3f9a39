//! The cost of a list page: it reads about as many rows as it shows, whatever the size of the table, and the use of all
//! users is read from the totals.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::{TestApp, TestDatabase};

use crate::clusters::run;

/// The maximum number of rows that a page of five may read of a table, including the caller's identification.
const ROWS_MAX: i64 = 300;

const FILL: &str = "
INSERT INTO auth.users (id, email, created_at) SELECT gen_random_uuid(), 'u' || n || '@example.com', now() FROM generate_series(1, 4000) n;
INSERT INTO users (id, name, created_at) SELECT a.id, 'u', now() - random() * interval '300 days' FROM auth.users a WHERE a.email LIKE 'u%';
INSERT INTO audit_logs (table_name, record_id, action, created_at)
SELECT CASE WHEN n % 1000 = 0 THEN 'plans' ELSE 'users' END, n::text, 'update', now() - random() * interval '300 days' FROM generate_series(1, 8000) n;
INSERT INTO api_keys (user_id, key_hash, key_prefix, last_four, name, is_active, created_at)
SELECT '$1', n::text, 'sk_live_', 'abcd', 'k', false, now() - random() * interval '300 days' FROM generate_series(1, 4000) n;
INSERT INTO chat_sessions (user_id, updated_at) SELECT '$1', now() - random() * interval '300 days' FROM generate_series(1, 4000) n;
INSERT INTO usage_rollups (user_id, feature_id, period, period_start, bucket, amount, events)
SELECT u.id, 'ai_requests', 'lifetime', 'epoch', date_trunc('hour', now(), 'UTC') - make_interval(hours => 24 + n), 1, 1
FROM (SELECT id FROM users LIMIT 1000) u CROSS JOIN generate_series(1, 20) n;
INSERT INTO rollup_watermarks VALUES ('usage_events', date_trunc('hour', now(), 'UTC'))
    ON CONFLICT (name) DO UPDATE SET reached_at = EXCLUDED.reached_at;
INSERT INTO ai_usage_logs (user_id, provider, model, input_tokens, output_tokens, cost_nano_usd, created_at)
SELECT '$1', 'openai', 'm' || n % 3, 10, 5, 7, date_trunc('hour', now(), 'UTC') - make_interval(mins => n) FROM generate_series(1, 9000) n;
";

async fn rows_read(database: &TestDatabase) -> BTreeMap<String, i64> {
    let sql = "SELECT coalesce(p.relname, c.relname)::text, sum(s.seq_tup_read + coalesce(s.idx_tup_fetch, 0))::bigint
        FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
        LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent
        WHERE s.schemaname = 'public' GROUP BY 1";
    database.query_all::<(String, i64)>(sql).await.into_iter().collect()
}

#[tokio::test]
async fn a_page_reads_about_as_many_rows_as_it_shows() {
    let app = TestApp::start().await;
    let database = Arc::clone(app.database());
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    database.sql(&FILL.replace("$1", &ada.id.to_string())).await;
    let calls =
        async |app: &TestApp| app.get("/api/admin/ai/usage").bearer(&admin).send().await.expect_status(200).body;
    let from_the_record = calls(&app).await;
    // Connections report their reads when they end, so stop the service before the statistics are read.
    app.stop().await;
    run(&database.owner_url(), "SELECT roll_up_ai_usage() FROM generate_series(1, 20)").await.unwrap();
    // So that the integrity job has nothing to check meanwhile.
    run(&database.owner_url(), "SELECT claim_integrity_piece(clock_timestamp()) FROM generate_series(1, 18); ANALYZE")
        .await
        .unwrap();
    let app = TestApp::over(Arc::clone(&database), |_| {}).await;
    let before = rows_read(&database).await;
    let from_the_sums = calls(&app).await;
    assert_eq!(from_the_sums["by_model"], from_the_record["by_model"], "the same from the sums");
    assert_eq!(from_the_sums["by_day"], from_the_record["by_day"]);
    for (who, path) in [
        (&admin, "/api/admin/users?limit=5"),
        (&admin, "/api/admin/audit?limit=5"),
        (&admin, "/api/admin/audit?limit=5&table_name=users"),
        (&admin, "/api/admin/audit?limit=5&table_name=users&record_id=17"),
        (&ada, "/api/keys?limit=5"),
        (&ada, "/api/ai/sessions?limit=5"),
        (&ada, "/api/tokens/transactions?limit=5"),
        (&admin, "/api/admin/usage?limit=5&bucket=month"),
        (&admin, "/api/admin/usage?limit=5&bucket=hour"),
        (&admin, "/api/admin/ai/usage"),
    ] {
        let page = app.get(path).bearer(who).send().await.expect_status(200);
        if let Some(cursor) = page.body["next_cursor"].as_str() {
            app.get(&format!("{path}&cursor={cursor}")).bearer(who).send().await.expect_status(200);
        }
    }
    // A connection reports its reads when it ends.
    app.stop().await;
    let after = rows_read(&database).await;
    for table in [
        "users",
        "audit_logs",
        "api_keys",
        "chat_sessions",
        "usage_rollups",
        "usage_totals",
        "ai_usage_logs",
        "ai_usage_totals",
    ] {
        let read = after.get(table).copied().unwrap_or_default() - before.get(table).copied().unwrap_or_default();
        let bound = if table == "ai_usage_totals" || table == "usage_totals" { 4 * ROWS_MAX } else { ROWS_MAX };
        assert!(read <= bound, "{table}: {read} rows were read");
    }
}
