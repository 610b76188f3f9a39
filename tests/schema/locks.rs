//! What can block a migration or a job, and how the sums treat a use that is committed late.

use std::time::Duration;

use harness::TestDatabase;
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};

use crate::clusters::refusal;
use crate::people::sign_up;

/// Every advisory lock that this product ever used, and several others, all taken by the service's login.
async fn hold_every_advisory_lock(database: &TestDatabase) -> PgConnection {
    let mut login = PgConnection::connect(&database.service_url()).await.unwrap();
    let locks = "SELECT pg_advisory_lock(8101829092393837413), pg_advisory_lock(k) FROM unnest(ARRAY[
        hashtextextended('product-base:roll_up_usage', 0), hashtextextended('product-base:maintain_partitions', 0)]) k";
    sqlx::raw_sql(locks).execute(&mut login).await.unwrap();
    login
}

#[tokio::test]
async fn no_login_stops_migrations_or_jobs_by_a_lock() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    let login = hold_every_advisory_lock(&database).await;
    database
        .sql(&format!(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, created_at)
             VALUES ('{ann}', 'api_access', 'lifetime', 'epoch', 5, now() - interval '2 hours')"
        ))
        .await;
    let work = async {
        migration::up(&database.owner_url()).await.unwrap();
        migration::verify(&database.owner_url()).await.unwrap();
        while database.query_scalar::<i64>("SELECT roll_up_usage()").await > 0 {}
        database.sql("SELECT maintain_partitions()").await;
    };
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("nobody waits for what a login holds");
    assert_eq!(database.query_scalar::<i64>("SELECT sum(amount)::bigint FROM usage_rollups").await, 5);
    login.close().await.unwrap();
    for role in ["app_service", "authenticated"] {
        for statement in [
            "SELECT FROM product_base_locks FOR UPDATE",
            "LOCK TABLE product_base_locks IN ACCESS SHARE MODE",
            "DELETE FROM product_base_locks",
        ] {
            let tried = format!("BEGIN; SET LOCAL ROLE {role}; {statement}");
            assert_eq!(refusal(&database.service_url(), &tried).await.0, "42501", "{role}: {statement}");
        }
    }
}

#[tokio::test]
async fn rights_on_the_locks_are_found_and_taken_back() {
    let database = TestDatabase::new().await;
    database.sql("GRANT ALL ON product_base_locks TO app_user; GRANT SELECT ON product_base_locks TO PUBLIC").await;
    let found = |findings: Vec<migration::VerifyFinding>| findings.iter().filter(|f| f.finding == "LOCK_RIGHT").count();
    assert!(found(migration::verify(&database.owner_url()).await.unwrap()) > 1);
    migration::up(&database.owner_url()).await.unwrap();
    assert_eq!(found(migration::verify(&database.owner_url()).await.unwrap()), 0);
    let open = "SELECT count(*) FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) x
        WHERE c.oid = 'product_base_locks'::regclass AND x.grantee <> c.relowner";
    assert_eq!(database.query_scalar::<i64>(open).await, 0);
}

#[tokio::test]
async fn a_database_that_is_refused_is_left_without_a_trace() {
    let database = TestDatabase::empty().await;
    database.sql("CREATE TABLE public.plans (theirs int)").await;
    assert!(migration::up(&database.owner_url()).await.is_err());
    assert!(migration::seed(&database.owner_url()).await.is_err());
    migration::verify(&database.owner_url()).await.unwrap();
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    assert_eq!(database.query_scalar::<i64>(tables).await, 1);
}

async fn in_transaction(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await.unwrap();
}

/// Moves the watermark back by hours instead of waiting for two hours.
#[tokio::test]
async fn a_use_that_is_committed_hours_later_is_in_the_sums() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    database.sql("UPDATE plan_features SET enabled = true, limit_value = NULL WHERE feature_id = 'ai_requests'").await;
    let mut long = PgConnection::connect(&database.owner_url()).await.unwrap();
    in_transaction(&mut long, &format!("BEGIN; SELECT FROM consume_usage('{ann}', 'ai_requests', 7)")).await;
    // The event is from this hour; for the sums it is from an hour that is over, and that was summed without it.
    in_transaction(&mut long, "UPDATE usage_events SET created_at = created_at - interval '3 hours'").await;
    let sum = "SELECT coalesce(sum(amount), 0)::bigint FROM usage_rollups";
    let mismatches = "SELECT count(*) FROM integrity_findings WHERE finding = 'ROLLUP_MISMATCH'";
    let state = "SELECT reached_at > now() - interval '70 minutes', final_at < now() - interval '3 hours',
        fence_at IS NOT NULL FROM rollup_watermarks";
    // The state of three hours ago, when the transaction had begun already.
    database
        .sql(
            "INSERT INTO rollup_watermarks (name, reached_at, final_at, fence_at, fence_xid)
              SELECT 'usage_events', h, h, now(), pg_current_xact_id()
              FROM (SELECT date_trunc('hour', now(), 'UTC') - interval '4 hours' AS h) x",
        )
        .await;
    for _ in 0..3 {
        database.sql("SELECT roll_up_usage()").await;
    }
    assert_eq!(
        database.query_one::<(bool, bool, bool)>(state).await,
        (true, true, true),
        "it went on, and is not final"
    );
    assert_eq!(database.query_scalar::<i64>(sum).await, 0);
    in_transaction(&mut long, "COMMIT").await;
    for _ in 0..200 {
        database.sql("SELECT roll_up_usage()").await;
        if database.query_scalar::<i64>(sum).await == 7 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(database.query_scalar::<i64>(sum).await, 7);
    assert_eq!(database.query_scalar::<i64>(mismatches).await, 0);
    database.sql("UPDATE usage_rollups SET amount = amount + 1").await;
    assert!(database.query_scalar::<i64>(mismatches).await > 0, "a sum that is final is still held against its events");
}

/// The watermark of a copy contains transaction ids that this cluster has not reached.
#[tokio::test]
async fn a_copy_in_another_cluster_does_not_wait_for_ids_of_the_first() {
    let database = TestDatabase::new().await;
    database
        .sql("INSERT INTO rollup_watermarks VALUES ('usage_events', date_trunc('hour', now(), 'UTC') - interval '5 hours',
                date_trunc('hour', now(), 'UTC') - interval '5 hours', now(), '9000000000000'::xid8); SELECT roll_up_usage()")
        .await;
    let moved = "SELECT final_at > now() - interval '3 hours' FROM rollup_watermarks";
    assert!(database.query_scalar::<bool>(moved).await);
}
