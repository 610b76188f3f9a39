//! Upgrades while the database is in use: no long waits, nothing half done, and the blocking connection is reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use harness::{TestApp, TestDatabase};
use serde_json::json;

use crate::catalogue::{assert_same, everything};
use crate::clusters::{PrivateCluster, run};
use crate::people::sign_up;
use crate::undoing::{before, undo_from};

const SHORT: Duration = Duration::from_secs(2);

/// A transaction that has read and then stays idle, like a forgotten one.
async fn idle_reader(database: &TestDatabase, tables: &[&str]) -> PgConnection {
    let mut reader = PgConnection::connect(&database.owner_url()).await.unwrap();
    sqlx::raw_sql("SET application_name = 'forgotten'; BEGIN").execute(&mut reader).await.unwrap();
    for table in tables {
        let look = format!("SELECT count(*) FROM {table}");
        sqlx::raw_sql(AssertSqlSafe(look)).execute(&mut reader).await.unwrap();
    }
    reader
}

/// Waits until a migration has waited for a lock and given up, this many times.
async fn waits_of_migration(database: &TestDatabase, times: usize) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name = 'product-base-migration' AND wait_event_type = 'Lock'";
    let seen = async {
        for _ in 0..times {
            for expected in [1, 0] {
                while (database.query_scalar::<i64>(waiting).await > 0) != (expected > 0) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), seen).await.expect("the migration waits and gives up");
}

/// Counts use like the service, with the service's time limits, until it is stopped. Adds to the acknowledged amount,
/// and returns the longest duration; any refusal is an error.
async fn consume(
    url: String,
    user: String,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Result<Duration, sqlx::Error> {
    let mut connection = PgConnection::connect(&url).await?;
    sqlx::raw_sql("SET lock_timeout = '1s'; SET statement_timeout = '2s'").execute(&mut connection).await?;
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let once = format!(
            "BEGIN;
             UPDATE usage_counters SET used = used + 1 WHERE user_id = '{user}';
             INSERT INTO usage_events (user_id, feature_id, period, period_start, amount) VALUES ('{user}', 'api_access', 'lifetime', 'epoch', 1);
             INSERT INTO idempotency_keys (user_id, key, digest, feature_id, amount, allowed)
             VALUES ('{user}', gen_random_uuid()::text, 'd', 'api_access', 1, true);
             UPDATE users SET wallet_address = 'w' WHERE id = '{user}';
             INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, expires_at, status)
             VALUES ('{user}', 'api_access', 'lifetime', 'epoch', 1, now(), 'settled');
             SELECT count(*) FROM organizations;
             COMMIT"
        );
        sqlx::raw_sql(AssertSqlSafe(once)).execute(&mut connection).await?;
        slowest = slowest.max(begun.elapsed());
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(slowest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_under_load_beside_a_long_reader_refuses_nobody_and_loses_nothing() {
    let database = Arc::new(before("000014_key_lineages").await);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for name in ["ann", "bob", "cid"] {
        // There are no triggers, so there is no ledger; the rows are inserted as the owner.
        let user: String = database.query_scalar("SELECT gen_random_uuid()::text").await;
        database
            .sql(&format!(
                "INSERT INTO auth.users (id, email) VALUES ('{user}', '{name}@example.com'); INSERT INTO users (id, name) VALUES ('{user}', '{name}');
                 INSERT INTO usage_counters (user_id, feature_id, period, period_start) VALUES ('{user}', 'api_access', 'lifetime', 'epoch')"
            ))
            .await;
        writers.push(tokio::spawn(consume(database.owner_url(), user, Arc::clone(&stop), Arc::clone(&done))));
    }
    let tables = ["usage_counters", "users", "organizations", "usage_reservations", "usage_events", "plans"];
    let reader = idle_reader(&database, &tables).await;
    let url = database.owner_url();
    let upgrade = tokio::spawn(async move { migration::up(&url).await });
    // It has waited, given up, let other transactions through, and tried again.
    waits_of_migration(&database, 2).await;
    let before = done.load(Ordering::Relaxed);
    reader.close().await.unwrap();
    let report = upgrade.await.unwrap().unwrap();
    assert!(report.applied.len() >= 3, "{report:?}");
    assert!(done.load(Ordering::Relaxed) > before, "use is counted while the upgrade works");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let slowest = writer.await.unwrap().expect("nobody is refused");
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    }
    let counted: (i64, i64, i64) = database
        .query_one("SELECT (SELECT sum(used)::bigint FROM usage_counters), (SELECT count(*) FROM usage_events), (SELECT count(*) FROM idempotency_keys)")
        .await;
    let done = i64::try_from(done.load(Ordering::Relaxed)).unwrap();
    assert_eq!(counted, (done, done, done));
    assert!(migration::status(&database.owner_url()).await.unwrap().iter().all(|step| step.applied));
    assert_eq!(migration::up(&database.owner_url()).await.unwrap(), migration::MigrationReport::default());
}

#[tokio::test]
async fn an_upgrade_whose_patience_is_over_names_who_is_in_the_way_and_leaves_nothing_half_done() {
    let database = before("000024_organizations_outlive_owners").await;
    let reader = idle_reader(&database, &["organizations"]).await;
    let process: i32 = database
        .query_scalar(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'forgotten' AND datname = current_database()",
        )
        .await;
    let error = format!("{:#}", migration::up_within(&database.owner_url(), SHORT).await.unwrap_err());
    for told in [
        "000024_organizations",
        &format!("process {process} "),
        "forgotten",
        "idle in transaction",
        "FROM organizations",
        "waited 2 s",
    ] {
        assert!(error.contains(told), "{told}: {error}");
    }
    let status = migration::status(&database.owner_url()).await.unwrap();
    assert!(status.iter().any(|step| !step.applied && step.name.contains("000024")), "{status:?}");
    let not_null: bool = database
        .query_scalar(
            "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'organizations'::regclass AND attname = 'owner_id'",
        )
        .await;
    assert!(not_null);
    reader.close().await.unwrap();
    migration::up(&database.owner_url()).await.unwrap();
    assert!(migration::status(&database.owner_url()).await.unwrap().iter().all(|step| step.applied));
}

#[tokio::test]
async fn a_run_that_is_killed_within_a_step_goes_on_from_the_part_where_it_stopped() {
    let database = before("000023_indexes_of_lists").await;
    // CREATE INDEX CONCURRENTLY waits for older transactions, whatever they have read.
    let mut reader = idle_reader(&database, &["model_prices"]).await;
    let snapshot = "COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM model_prices";
    sqlx::raw_sql(snapshot).execute(&mut reader).await.unwrap();
    let url = database.owner_url();
    let upgrade = tokio::spawn(async move { migration::up(&url).await });
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    while database.query_scalar::<i64>(invalid).await != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        database
            .query_scalar::<bool>(
                "SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'product-base-migration' AND datname = current_database() AND query LIKE 'CREATE%'"
            )
            .await
    );
    upgrade.await.unwrap().unwrap_err();
    let parts: Option<i32> =
        database.query_scalar("SELECT parts_done FROM product_base_migrations WHERE version LIKE '%000023%'").await;
    assert!(parts.is_some(), "the step is known to be unfinished");
    assert!(migration::down(&database.owner_url(), Some(1)).await.unwrap_err().to_string().contains("not whole"));
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
    migration::up(&database.owner_url()).await.unwrap();
    assert_eq!(database.query_scalar::<i64>(invalid).await, 0);
    let indexes: i64 = database
        .query_scalar("SELECT count(*) FROM pg_indexes WHERE indexname IN ('idx_users_created_at', 'idx_usage_reservations_ended')")
        .await;
    assert_eq!(indexes, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_beside_an_idle_reader_stops_no_consumption_and_ends_by_naming_it() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let consume = async || {
        app.post("/api/usage").bearer(&ada).json(json!({ "feature_id": "api_access", "amount": 1 })).send().await.status
    };
    let first = consume().await;
    assert!(first < 500, "{first}");
    let database = app.database();
    let reader = idle_reader(
        database,
        &["users", "usage_counters", "usage_events", "plans", "idempotency_keys", "usage_rollups"],
    )
    .await;
    let url = database.owner_url();
    let repair = tokio::spawn(async move { migration::repair_within(&url, SHORT).await });
    let mut answers = 0;
    while !repair.is_finished() {
        let (begun, status) = (Instant::now(), consume().await);
        assert_eq!(status, first, "after {answers} answers");
        assert!(begun.elapsed() < Duration::from_secs(1));
        answers += 1;
    }
    assert!(answers > 5, "{answers}");
    let error = format!("{:#}", repair.await.unwrap().unwrap_err());
    assert!(error.contains("forgotten") && error.contains("idle in transaction"), "{error}");
    reader.close().await.unwrap();
    migration::repair(&database.owner_url()).await.unwrap();
    let errors = migration::verify(&database.owner_url()).await.unwrap();
    assert!(errors.iter().all(|finding| finding.severity != migration::FindingSeverity::Error), "{errors:?}");
}

#[tokio::test]
async fn a_run_that_cannot_begin_changes_nothing_and_makes_no_role() {
    let cluster = PrivateCluster::start().await;
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname IN ('app_service', 'app_user', 'anon', 'readonly_user')";
    for (position, (theirs, told)) in [
        ("CREATE TABLE theirs (a int); CREATE INDEX idx_usage_counters_x ON theirs (a); CREATE INDEX idx_chat_sessions_user_activity ON theirs (a)", "idx_chat_sessions_user_activity"),
        ("CREATE TYPE plans AS ENUM ('a')", "type public.plans"),
        ("CREATE DOMAIN outbox AS int", "type public.outbox"),
        ("CREATE TABLE theirs (a int CONSTRAINT api_keys_key_hash_key UNIQUE)", "api_keys_key_hash_key"),
        ("CREATE SEQUENCE usage_events", "sequence public.usage_events"),
        ("CREATE TABLE usage_events_2031_07 (a int)", "usage_events_2031_07"),
        ("CREATE SCHEMA auth; CREATE TABLE auth.users (id uuid PRIMARY KEY)", "auth.uid()"),
        ("CREATE SCHEMA auth; CREATE TABLE auth.users (id bigint PRIMARY KEY)", "id of the type uuid"),
        ("CREATE SCHEMA auth; CREATE TABLE auth.users (id uuid PRIMARY KEY); CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql AS 'SELECT 1::text'", "auth.uid()"),
        ("CREATE SCHEMA auth; CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'", "without a table auth.users"),
    ]
    .into_iter()
    .enumerate()
    {
        let url = cluster.database(&format!("theirs_{position}")).await;
        run(&url, theirs).await.unwrap();
        let before = everything(&url).await;
        let error = migration::up(&url).await.unwrap_err().to_string();
        assert!(error.contains("nothing was changed") && error.contains(told), "{theirs}: {error}");
        assert_same(theirs, &before, &everything(&url).await);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        assert_eq!(sqlx::query_scalar::<_, i64>(roles).fetch_one(&mut connection).await.unwrap(), 0, "{theirs}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn anothers_record_of_migrations_in_the_same_database_is_left_alone() {
    let database = TestDatabase::empty().await;
    let theirs = "CREATE TABLE seaql_migrations (version varchar PRIMARY KEY, applied_at bigint NOT NULL);
        INSERT INTO seaql_migrations VALUES ('m2020_theirs', 7)";
    database.sql(theirs).await;
    let before = everything(&database.owner_url()).await;
    let report = migration::up(&database.owner_url()).await.unwrap();
    assert_eq!(report.applied, migration::names());
    migration::down(&database.owner_url(), None).await.unwrap();
    assert_same("up and down beside another's record", &before, &everything(&database.owner_url()).await);
    let kept: Vec<(String, i64)> = database.query_all("SELECT version, applied_at FROM seaql_migrations").await;
    assert_eq!(kept, [("m2020_theirs".to_owned(), 7)]);
}

#[tokio::test]
async fn the_record_of_an_earlier_release_is_carried_over_and_kept_for_it() {
    let database = before("000014_key_lineages").await;
    // The state that this release left.
    database
        .sql(
            "CREATE TABLE seaql_migrations (version varchar NOT NULL PRIMARY KEY, applied_at bigint NOT NULL);
             ALTER TABLE seaql_migrations ENABLE ROW LEVEL SECURITY; GRANT SELECT ON seaql_migrations TO app_service; GRANT ALL ON seaql_migrations TO service_role;
             CREATE POLICY seaql_migrations_service ON seaql_migrations FOR SELECT TO app_service USING (true);
             INSERT INTO seaql_migrations SELECT version, applied_at FROM product_base_migrations;
             DROP TABLE product_base_migrations, product_base_locks",
        )
        .await;
    let pending = migration::status(&database.service_url()).await.unwrap();
    assert!(
        pending.iter().take(13).all(|step| step.applied) && pending.iter().skip(13).all(|step| !step.applied),
        "{pending:?}"
    );
    let report = migration::up(&database.owner_url()).await.unwrap();
    assert_eq!(report.applied, migration::names()[13..]);
    let same: bool = database
        .query_scalar("SELECT (SELECT array_agg(version ORDER BY version) FROM seaql_migrations) = (SELECT array_agg(version ORDER BY version) FROM product_base_migrations)")
        .await;
    assert!(same, "a process of the earlier release reads there that it is too old to migrate");
    let may_write: bool = database
        .query_scalar(
            "SELECT has_table_privilege('service_role', 'seaql_migrations', 'INSERT, UPDATE, DELETE, TRUNCATE')",
        )
        .await;
    assert!(!may_write);
    migration::down(&database.owner_url(), None).await.unwrap();
    let left: i64 = database
        .query_scalar("SELECT count(*) FROM pg_class WHERE relname IN ('seaql_migrations', 'product_base_migrations', 'product_base_locks')")
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_was_carried_outlives_a_step_that_is_undone_and_done_again() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    database
        .sql(&format!(
            "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, carried) VALUES ('{ann}', 'api_access', 'month', now(), 8, 3);
             INSERT INTO usage_events (user_id, feature_id, period, period_start, amount)
             SELECT '{ann}', 'api_access', 'month', period_start, 5 FROM usage_counters"
        ))
        .await;
    undo_from(&database, "000011_carry_counters_and_settle_holds").await;
    migration::up(&database.owner_url()).await.unwrap();
    let used: i64 = database.query_scalar("SELECT used FROM usage_counters").await;
    assert_eq!(used, 8);
    let found: Vec<(String, String)> = database.query_all("SELECT finding, detail FROM integrity_findings").await;
    assert_eq!(found, []);
}

#[tokio::test]
async fn the_service_finds_its_tables_whatever_the_search_path_of_its_login_is() {
    let database = Arc::new(TestDatabase::new().await);
    database.sql(&format!("ALTER DATABASE {} SET search_path = ''", database.name())).await;
    let app = TestApp::over(Arc::clone(&database), |_| {}).await;
    let ada = app.signup("ada@example.com").await;
    app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    let used =
        app.post("/api/usage").bearer(&ada).json(json!({ "feature_id": "ai_requests", "amount": 1 })).send().await;
    assert!(used.status < 500, "{used}");
    app.get("/readyz").send().await.expect_status(200);
}
