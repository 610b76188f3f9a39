//! Manual changes of the migrated objects: `verify` reports them, and `repair` reverts them or leaves them reported.

use harness::TestDatabase;
use migration::{FindingSeverity, VerifyFinding};

use crate::clusters::{PrivateCluster, run};

/// A change by the owner; its finding; whether `repair` reverts it.
type Tamper = (&'static str, &'static str, bool);

const TEXTS: [Tamper; 16] = [
    (
        "CREATE OR REPLACE FUNCTION may_see_user(p_user_id uuid) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN true; END'",
        "CHANGED_FUNCTION",
        true,
    ),
    (
        "DO $$ BEGIN EXECUTE replace(pg_get_functiondef('chain_token_transaction()'::regprocedure), 'RETURN NEW', 'NEW.amount := 0; RETURN NEW'); END $$",
        "CHANGED_FUNCTION",
        true,
    ),
    ("ALTER FUNCTION effective_plan(uuid, timestamptz) VOLATILE", "CHANGED_FUNCTION", true),
    ("ALTER FUNCTION feature_entitlement(uuid, text, timestamptz) SECURITY DEFINER", "DEFINER_SEARCH_PATH", true),
    ("ALTER FUNCTION identity_find(text) RESET search_path", "DEFINER_SEARCH_PATH", true),
    ("CREATE FUNCTION consume_usage(uuid, text) RETURNS int LANGUAGE sql AS 'SELECT 1'", "FOREIGN_FUNCTION", false),
    ("ALTER TABLE token_transactions DISABLE TRIGGER chain_token_transactions", "CHANGED_TRIGGER", true),
    ("ALTER TABLE plans ENABLE REPLICA TRIGGER audit_plans", "CHANGED_TRIGGER", true),
    ("DROP TRIGGER refuse_audit_logs_update ON audit_logs", "MISSING_TRIGGER", true),
    (
        "CREATE TRIGGER quiet BEFORE INSERT ON audit_logs FOR EACH ROW EXECUTE FUNCTION refuse_update()",
        "FOREIGN_TRIGGER",
        false,
    ),
    ("CREATE RULE quiet AS ON INSERT TO audit_logs DO INSTEAD NOTHING", "FOREIGN_RULE", false),
    ("DROP POLICY users_select_own ON users", "MISSING_POLICY", true),
    ("ALTER POLICY users_select_own ON users USING (true)", "CHANGED_POLICY", true),
    ("ALTER POLICY users_select_own ON users TO PUBLIC", "CHANGED_POLICY", true),
    ("CREATE POLICY open ON api_keys FOR SELECT TO authenticated USING (true)", "FOREIGN_POLICY", false),
    (
        "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW ai_usage_monthly WITH (security_invoker = true) AS '
            || regexp_replace(pg_get_viewdef('ai_usage_monthly'::regclass), ';$', '') || ' LIMIT 1'; END $$",
        "CHANGED_VIEW",
        true,
    ),
];

const STRUCTURE: [Tamper; 17] = [
    ("ALTER VIEW user_plan_summary SET (security_invoker = false)", "VIEW_AS_OWNER", true),
    ("ALTER TABLE plans DROP CONSTRAINT check_plan_prices", "MISSING_CONSTRAINT", true),
    (
        "ALTER TABLE plans DROP CONSTRAINT check_plan_prices; ALTER TABLE plans ADD CONSTRAINT check_plan_prices CHECK (true)",
        "CHANGED_CONSTRAINT",
        true,
    ),
    (
        "DO $$ DECLARE d text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'check_plan_prices'); BEGIN
            ALTER TABLE plans DROP CONSTRAINT check_plan_prices;
            EXECUTE 'ALTER TABLE plans ADD CONSTRAINT check_plan_prices ' || d || ' NOT VALID'; END $$",
        "CHANGED_CONSTRAINT",
        true,
    ),
    ("ALTER TABLE usage_counters DROP CONSTRAINT usage_counters_pkey", "MISSING_CONSTRAINT", true),
    ("ALTER TABLE users DROP CONSTRAINT fk_users_auth", "MISSING_CONSTRAINT", true),
    (
        "DO $$ DECLARE k text := (SELECT conname FROM pg_constraint WHERE conrelid = 'token_transactions'::regclass AND contype = 'u' LIMIT 1); BEGIN
            EXECUTE 'ALTER TABLE token_transactions DROP CONSTRAINT ' || quote_ident(k); END $$",
        "MISSING_CONSTRAINT",
        true,
    ),
    ("ALTER TABLE api_keys DISABLE TRIGGER ALL", "CHANGED_CONSTRAINT", true),
    ("DROP INDEX idx_plans_active", "MISSING_INDEX", true),
    ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_plans_active'::regclass", "CHANGED_INDEX", true),
    ("ALTER TABLE plans ALTER COLUMN currency DROP DEFAULT", "CHANGED_COLUMN", true),
    ("ALTER TABLE plans ALTER COLUMN currency DROP NOT NULL", "CHANGED_COLUMN", true),
    ("ALTER TABLE users ALTER COLUMN token_balance SET DEFAULT 1000000", "CHANGED_COLUMN", true),
    ("ALTER TABLE plans ALTER COLUMN name TYPE text", "CHANGED_COLUMN", false),
    ("ALTER TABLE plans DISABLE ROW LEVEL SECURITY", "RLS_DISABLED", true),
    ("ALTER TABLE plans FORCE ROW LEVEL SECURITY", "CHANGED_TABLE", true),
    ("ALTER SEQUENCE chat_messages_seq_seq CYCLE MAXVALUE 10", "CHANGED_SEQUENCE", true),
];

const RIGHTS: [Tamper; 12] = [
    ("GRANT SELECT ON users TO pg_monitor", "EXCESS_RIGHT", true),
    ("GRANT UPDATE (token_balance) ON users TO pg_monitor", "EXCESS_RIGHT", true),
    ("GRANT SELECT ON api_keys TO app_service WITH GRANT OPTION", "EXCESS_RIGHT", true),
    ("GRANT INSERT ON plans TO service_role", "EXCESS_RIGHT", true),
    ("GRANT EXECUTE ON FUNCTION identity_credentials(text) TO PUBLIC", "EXCESS_RIGHT", true),
    ("GRANT EXECUTE ON FUNCTION identity_credentials(text) TO pg_monitor", "EXCESS_RIGHT", true),
    ("GRANT USAGE ON SEQUENCE chat_messages_seq_seq TO authenticated", "EXCESS_RIGHT", true),
    ("GRANT CREATE ON SCHEMA public TO authenticated", "EXCESS_RIGHT", true),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "EXCESS_RIGHT", true),
    (
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO app_user', current_database()); END $$",
        "EXCESS_RIGHT",
        true,
    ),
    ("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO anon", "DEFAULT_RIGHT", true),
    ("REVOKE USAGE ON SCHEMA public FROM app_service, PUBLIC", "MISSING_RIGHT", true),
];

const MEMBERSHIPS: [Tamper; 4] = [
    ("CREATE ROLE mallory LOGIN IN ROLE app_service", "EXCESS_MEMBERSHIP", true),
    ("CREATE ROLE eve LOGIN IN ROLE app_user", "EXCESS_MEMBERSHIP", true),
    ("GRANT app_service TO app_user WITH ADMIN OPTION", "EXCESS_MEMBERSHIP", true),
    ("ALTER ROLE app_user SET session_replication_role = replica", "ROLE_SETTING", false),
];

async fn errors(url: &str) -> Vec<VerifyFinding> {
    let findings = migration::verify(url).await.unwrap();
    findings.into_iter().filter(|finding| finding.severity == FindingSeverity::Error).collect()
}

async fn tried(url: &str, (tamper, finding, is_mended): Tamper) {
    run(url, tamper).await.unwrap_or_else(|error| panic!("{tamper}: {error}"));
    let found = errors(url).await;
    assert!(found.iter().any(|error| error.finding == finding), "{tamper}: {found:?}");
    assert!(found.iter().all(|error| !error.subject.is_empty() && !error.detail.contains("product_base_reference")));
    // A foreign object with one of our names stops `up` and `repair`; both report it.
    let repaired = migration::repair(url).await;
    assert!(repaired.is_ok() || !is_mended, "{tamper}: {repaired:?}");
    let left = errors(url).await;
    assert_eq!(left.is_empty(), is_mended, "{tamper}: {left:?}");
}

async fn each(tampers: &[Tamper]) {
    assert_eq!(errors(&TestDatabase::new().await.owner_url()).await, [], "an untouched database has no finding");
    for chunk in tampers.chunks(4) {
        let tries = chunk.iter().map(|tamper| async {
            let database = TestDatabase::new().await;
            tried(&database.owner_url(), *tamper).await;
        });
        futures_util::future::join_all(tries).await;
    }
}

#[tokio::test]
async fn changed_texts_are_found_and_put_back() {
    each(&TEXTS).await;
}

#[tokio::test]
async fn changed_structure_is_found_and_put_back() {
    each(&STRUCTURE).await;
}

#[tokio::test]
async fn changed_rights_are_found_and_put_back() {
    each(&RIGHTS).await;
}

#[tokio::test]
async fn who_may_act_as_the_service_is_known() {
    let cluster = PrivateCluster::start().await;
    let url = cluster.owner_url().to_owned();
    migration::up(&url).await.unwrap();
    migration::seed(&url).await.unwrap();
    for tamper in MEMBERSHIPS {
        tried(&url, tamper).await;
    }
    cluster.stop().await;
}

/// Objects of other teams beside ours, and equivalent definitions in another spelling.
#[tokio::test]
async fn what_is_not_ours_is_no_error() {
    let database = TestDatabase::new().await;
    database
        .sql(
            "CREATE TABLE theirs (id int PRIMARY KEY, user_id uuid REFERENCES users (id)); GRANT ALL ON theirs TO PUBLIC;
             CREATE FUNCTION their_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE INDEX theirs_on_ours ON users (name);
             ALTER TABLE users ADD COLUMN theirs text;
             ALTER VIEW user_plan_summary SET (security_invoker = on);
             SELECT make_partition('usage_events', '2031-05-01'::timestamp)",
        )
        .await;
    assert_eq!(errors(&database.owner_url()).await, []);
    migration::repair(&database.owner_url()).await.unwrap();
    assert_eq!(errors(&database.owner_url()).await, []);
    let there: i64 =
        database.query_scalar("SELECT count(*) FROM pg_class WHERE relname IN ('theirs', 'theirs_on_ours')").await;
    assert_eq!(there, 2, "nothing of theirs is dropped");
}

/// Changes to rows with every trigger off, including those for which only `verify` reads whole tables.
#[tokio::test]
async fn books_are_compared_from_both_ends() {
    const CALLS: &str = "INSERT INTO ai_usage_logs (user_id, provider, model, input_tokens, output_tokens, cost_nano_usd, api_key_id, created_at)
        SELECT '$1', 'openai', 'm', 10, 5, 7, '00000000-0000-4000-8000-000000000000', date_trunc('month', date_trunc('month', now(), 'UTC') - interval '1 day', 'UTC') + interval '2 hours'
        FROM generate_series(1, 3);";
    for (finding, damage) in [
        ("AI_TOTAL_MISMATCH", "DELETE FROM ai_usage_logs"),
        ("AI_TOTAL_MISMATCH", "UPDATE ai_usage_logs SET cost_nano_usd = 0"),
        ("KEY_WINDOW_MISMATCH", "UPDATE api_key_counters SET cost_nano_usd = 0"),
        ("KEY_WINDOW_MISMATCH", "DELETE FROM api_key_counters"),
        ("TOTAL_MISMATCH", "DELETE FROM usage_totals"),
        ("ROLLUP_MISMATCH", "DELETE FROM usage_events"),
        ("COUNTER_MISSING", "DELETE FROM usage_counters"),
    ] {
        let database = TestDatabase::new().await;
        let ann = crate::people::sign_up(&database, "ann").await;
        let books = format!(
            "UPDATE product_base_migrations SET applied_at = applied_at - 90 * 86400;
             SELECT make_partition(p, date_trunc('month', date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 day')) FROM unnest(ARRAY['usage_events', 'ai_usage_logs']) p;
             INSERT INTO api_keys (id, user_id, key_hash, key_prefix, last_four, name)
             VALUES ('00000000-0000-4000-8000-000000000000', '$1', 'h', 'sk_live_x', 'abcd', 'k');
             {CALLS}
             INSERT INTO api_key_counters (api_key_id, period, period_start, requests, tokens, cost_nano_usd)
             VALUES ('00000000-0000-4000-8000-000000000000', 'month', date_trunc('month', date_trunc('month', now(), 'UTC') - interval '1 day', 'UTC'), 3, 45, 21);
             INSERT INTO ai_usage_totals SELECT date_trunc('hour', min(created_at), 'UTC'), 'openai', 'm', 3, 30, 15, 0, 45, 21 FROM ai_usage_logs;
             INSERT INTO rollup_watermarks (name, reached_at) VALUES ('ai_usage_logs', date_trunc('month', date_trunc('month', now(), 'UTC') - interval '1 day', 'UTC') + interval '3 hours')
                ON CONFLICT (name) DO UPDATE SET reached_at = EXCLUDED.reached_at;
             INSERT INTO usage_counters (user_id, feature_id, period, period_start, used) VALUES ('$1', 'api_access', 'month', '2026-01-01Z', 5);
             INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, created_at)
             VALUES ('$1', 'api_access', 'month', '2026-01-01Z', 5, now() - interval '3 hours');
             SELECT roll_up_usage() FROM generate_series(1, 40); UPDATE rollup_watermarks SET final_at = reached_at + interval '4 days' WHERE name = 'usage_events'"
        )
        .replace("$1", &ann.to_string());
        database.sql(&books).await;
        assert_eq!(errors(&database.owner_url()).await, [], "sound books");
        run(&database.owner_url(), &format!("SET session_replication_role = replica; {damage}")).await.unwrap();
        let found = errors(&database.owner_url()).await;
        assert!(found.iter().any(|error| error.finding == finding), "{damage}: {found:?}");
    }
}

/// A ledger that was truncated together with its balance and its head is detected with a line that was stored
/// elsewhere.
#[tokio::test]
async fn a_line_that_was_kept_tells_of_a_ledger_that_was_cut() {
    let database = TestDatabase::new().await;
    let url = database.owner_url();
    let ann = crate::people::sign_up(&database, "ann").await;
    database
        .sql(&format!(
            "INSERT INTO token_transactions (user_id, amount, type, created_at)
             SELECT '{ann}', 5, 'topup', now() - interval '1 hour' FROM generate_series(1, 3)"
        ))
        .await;
    let line = migration::ledger_line(&url).await.unwrap();
    assert_eq!(migration::compare_ledgers(&url, &line).await.unwrap(), []);
    database.sql(&format!("INSERT INTO token_transactions (user_id, amount, type) VALUES ('{ann}', 5, 'topup')")).await;
    assert_eq!(migration::compare_ledgers(&url, &line).await.unwrap(), [], "what came later is no difference");
    database
        .sql(&format!("DELETE FROM token_transactions WHERE user_id = '{ann}' AND seq > 3; DELETE FROM ledger_heads"))
        .await;
    let found = migration::compare_ledgers(&url, &line).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].finding.as_str(), found[0].severity), ("LEDGER_SINCE_MISMATCH", FindingSeverity::Error));
    for wrong in ["", "ledgers-at:1", "ledgers-at:x:1"] {
        assert!(migration::compare_ledgers(&url, wrong).await.is_err(), "{wrong}");
    }
}
