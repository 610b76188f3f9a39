//! The protection of the rows, and the design's rules for all tables, against the catalogue.

use harness::TestDatabase;

/// The seeds' policies: name, table, command. Each is for `authenticated` alone.
const SEED_POLICIES: [(&str, &str, &str); 5] = [
    ("users_select_own", "users", "SELECT"),
    ("users_update_own", "users", "UPDATE"),
    ("user_subscriptions_select_own", "user_subscriptions", "SELECT"),
    ("ai_usage_logs_select_own", "ai_usage_logs", "SELECT"),
    ("ai_usage_logs_insert_own", "ai_usage_logs", "INSERT"),
];

/// Functions that run as their owner and may be called by users: each returns data about its caller only.
const DEFINERS_OF_USERS: [&str; 5] = [
    "check_feature_access(uuid,text)",
    "check_usage_limit(uuid,text)",
    "consume_usage(uuid,text,bigint,text)",
    "identity_email(uuid)",
    "member_organizations()",
];

/// The query must find nothing.
async fn assert_none(database: &TestDatabase, rule: &str, query: &str) {
    let found: Vec<(String,)> = database.query_all(query).await;
    assert!(found.is_empty(), "{rule}: {found:?}");
}

#[tokio::test]
async fn row_level_security_is_on_everywhere() {
    let database = TestDatabase::new().await;
    assert_none(
        &database,
        "every table and every partition",
        "SELECT oid::regclass::text FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text IN ('public', 'auth') AND NOT relrowsecurity",
    )
    .await;
    assert_none(
        &database,
        "not forced: the definer functions need that",
        "SELECT oid::regclass::text FROM pg_class WHERE relforcerowsecurity",
    )
    .await;
    assert_none(
        &database,
        "no policy hangs on a partition",
        "SELECT polname::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relispartition",
    )
    .await;
}

#[tokio::test]
async fn policies_name_their_role_and_ask_for_the_caller_once_a_statement() {
    let database = TestDatabase::new().await;
    for (name, table, command) in SEED_POLICIES {
        let there = format!(
            "SELECT count(*) FROM pg_policies WHERE policyname = '{name}' AND tablename = '{table}' AND cmd = '{command}'
                AND roles = '{{authenticated}}' AND permissive = 'PERMISSIVE'"
        );
        assert_eq!(database.query_scalar::<i64>(&there).await, 1, "{name}");
    }
    let of_users = "FROM pg_policies WHERE schemaname = 'public' AND roles && '{public,anon,authenticated}'";
    assert_none(
        &database,
        "nobody's policy is for everybody",
        "SELECT policyname::text FROM pg_policies WHERE roles && '{public}'",
    )
    .await;
    assert_none(
        &database,
        "a user's policies are for one command each",
        &format!("SELECT policyname::text {of_users} AND cmd = 'ALL'"),
    )
    .await;
    assert_none(
        &database,
        "what a user writes is checked",
        &format!("SELECT policyname::text {of_users} AND cmd IN ('INSERT', 'UPDATE') AND with_check IS NULL"),
    )
    .await;
    // Postgres prints (select auth.uid()) like this; anything left after removing it is a call for each row.
    assert_none(
        &database,
        "(select auth.uid()), not auth.uid()",
        &format!(
        "SELECT policyname::text {of_users} AND replace(concat_ws(' ', qual, with_check), '( SELECT auth.uid() AS uid)',
            '') LIKE '%auth.uid()%'"),
    )
    .await;
    assert_none(
        &database,
        "nobody is let through by true, but the service and the reports",
        "SELECT policyname::text FROM pg_policies WHERE schemaname = 'public' AND 'true' IN (qual, with_check)
            AND NOT roles <@ '{app_service,readonly_user}'",
    )
    .await;
}

#[tokio::test]
async fn views_read_as_their_caller() {
    let database = TestDatabase::new().await;
    assert_none(&database, "security_invoker", "SELECT relname::text FROM pg_class
        WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace AND NOT coalesce(reloptions, '{}') @> '{security_invoker=true}'").await;
    assert_none(
        &database,
        "no view names auth.users",
        "SELECT viewname::text FROM pg_views WHERE schemaname = 'public' AND definition LIKE '%auth.%'",
    )
    .await;
    let views: Vec<(String,)> =
        database.query_all("SELECT viewname::text FROM pg_views WHERE schemaname = 'public' ORDER BY 1").await;
    let views: Vec<&str> = views.iter().map(|(view,)| view.as_str()).collect();
    assert_eq!(views, ["ai_usage_monthly", "integrity_findings", "user_feature_access", "user_plan_summary"]);
}

#[tokio::test]
async fn functions_that_run_as_their_owner_are_closed() {
    let database = TestDatabase::new().await;
    let definers = "FROM pg_proc p WHERE p.prosecdef AND p.pronamespace::regnamespace::text IN ('public', 'auth')";
    let count: i64 = database.query_scalar(&format!("SELECT count(*) {definers}")).await;
    assert!(count >= 15, "{count}");
    assert_none(
        &database,
        "SET search_path = pg_catalog, pg_temp",
        &format!(
            "SELECT p.oid::regprocedure::text {definers}
        AND NOT coalesce(p.proconfig, '{{}}') @> ARRAY['search_path=pg_catalog, pg_temp']"
        ),
    )
    .await;
    let callable: Vec<(String,)> = database
        .query_all(&format!("SELECT p.oid::regprocedure::text {definers} AND has_function_privilege('authenticated', p.oid, 'EXECUTE') ORDER BY 1"))
        .await;
    let callable: Vec<&str> = callable.iter().map(|(function,)| function.as_str()).collect();
    assert_eq!(callable, DEFINERS_OF_USERS);
    assert_none(
        &database,
        "anon calls nothing of ours",
        "SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND has_function_privilege('anon', p.oid, 'EXECUTE')",
    )
    .await;
    assert_none(
        &database,
        "nothing is PUBLIC's",
        "SELECT p.oid::regprocedure::text FROM pg_proc p CROSS
        JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
        WHERE p.pronamespace = 'public'::regnamespace AND x.grantee = 0",
    )
    .await;
}

#[tokio::test]
async fn every_foreign_key_has_an_index() {
    let database = TestDatabase::new().await;
    assert_none(
        &database,
        "an index that begins with the key's columns",
        "SELECT k.conname || ' of ' || k.conrelid::regclass FROM pg_constraint k
        WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND NOT EXISTS (
            SELECT FROM pg_index x WHERE x.indrelid = k.conrelid AND x.indpred IS NULL AND x.indisvalid
              AND (string_to_array(x.indkey::text, ' ')::smallint[])[1:array_length(k.conkey, 1)] @> k.conkey)",
    )
    .await;
}

#[tokio::test]
async fn times_have_zones_and_words_are_no_enums() {
    let database = TestDatabase::new().await;
    assert_none(
        &database,
        "timestamptz only",
        "SELECT attrelid::regclass || '.' || attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND a.atttypid = 'timestamp'::regtype AND a.attnum > 0",
    )
    .await;
    assert_none(
        &database,
        "no types of our own",
        "SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')",
    )
    .await;
    assert_none(&database, "no float holds money or counts", "SELECT attrelid::regclass || '.' || attname FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND a.atttypid IN ('float4'::regtype, 'float8'::regtype, 'money'::regtype)").await;
    assert_none(
        &database,
        "no extension is needed",
        "SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql'",
    )
    .await;
}

#[tokio::test]
async fn the_hot_tables_carry_no_foreign_keys_and_counters_have_room() {
    let database = TestDatabase::new().await;
    assert_none(
        &database,
        "they cost 27 %",
        "SELECT conname::text FROM pg_constraint
        WHERE contype = 'f' AND conrelid IN ('usage_events'::regclass, 'idempotency_keys'::regclass)",
    )
    .await;
    assert_none(
        &database,
        "nothing points at a partitioned table",
        "SELECT conname::text FROM pg_constraint k
        JOIN pg_class c ON c.oid = k.confrelid WHERE k.contype = 'f' AND c.relkind = 'p'",
    )
    .await;
    let options: String =
        database.query_scalar("SELECT reloptions::text FROM pg_class WHERE oid = 'usage_counters'::regclass").await;
    assert_eq!(options, "{fillfactor=70}");
    let keys: Vec<(String, String)> = database
        .query_all(
            "SELECT partrelid::regclass::text, pg_get_partkeydef(partrelid) FROM pg_partitioned_table ORDER BY 1",
        )
        .await;
    let keys: Vec<String> = keys.into_iter().map(|(table, key)| format!("{table} {key}")).collect();
    assert_eq!(
        keys,
        ["ai_usage_logs RANGE (created_at)", "idempotency_keys HASH (user_id)", "usage_events RANGE (created_at)"]
    );
}
