//! The work of triggers: the audit trail, the ledger, tombstones, the times of change.

use harness::TestDatabase;
use serde_json::{Value, json};

use crate::clusters::refusal;
use crate::people::sign_up;

async fn trail(database: &TestDatabase, table: &str) -> Vec<(String, String, Option<Value>, Option<Value>)> {
    database
        .query_all(&format!(
            "SELECT record_id, action::text, old_values, new_values FROM audit_logs WHERE table_name = '{table}' ORDER BY created_at, action"
        ))
        .await
}

#[tokio::test]
async fn a_plan_change_writes_one_audit_row_whoever_makes_it() {
    let database = TestDatabase::new().await;
    let (ann, actor) = (sign_up(&database, "ann").await, sign_up(&database, "boss").await);
    database.sql(&format!("UPDATE users SET plan_id = 'gold' WHERE id = '{ann}'")).await;
    database.sql(&format!("UPDATE users SET plan_id = 'gold', name = 'same plan' WHERE id = '{ann}'")).await;
    let expected = (
        ann.to_string(),
        "plan_change".to_owned(),
        Some(json!({"plan_type": "free"})),
        Some(json!({"plan_type": "gold"})),
    );
    assert_eq!(trail(&database, "users").await, [expected]);
    for (settings, actor_id, reason) in [
        (
            format!("SELECT set_config('app.actor_id', '{actor}', true), set_config('app.reason', 'a gift', true)"),
            Some(actor.0),
            Some("a gift"),
        ),
        (
            format!(
                r#"SELECT set_config('request.jwt.claims', '{{"sub":"{ann}"}}', true), set_config('app.actor_id', '', true)"#
            ),
            Some(ann.0),
            None,
        ),
        ("SELECT 1".to_owned(), None, None),
    ] {
        database.sql(&format!("DELETE FROM audit_logs; BEGIN; {settings};
            UPDATE users SET plan_id = CASE plan_id WHEN 'gold' THEN 'platinum' ELSE 'gold' END WHERE id = '{ann}'; COMMIT")).await;
        let (found, name, why): (Option<uuid::Uuid>, String, Option<String>) =
            database.query_one("SELECT actor_id, actor_name, reason FROM audit_logs").await;
        assert_eq!((found, why.as_deref()), (actor_id, reason));
        assert_eq!(name, database.query_scalar::<String>("SELECT session_user::text").await);
    }
}

#[tokio::test]
async fn the_catalogue_and_its_exceptions_are_audited() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    database
        .sql(&format!(
            "DELETE FROM audit_logs;
             UPDATE plans SET price_monthly = 1 WHERE id = 'gold';
             UPDATE plans SET price_monthly = 1 WHERE id = 'gold';
             DELETE FROM plan_features WHERE plan_id = 'gold' AND feature_id = 'api_access';
             INSERT INTO feature_overrides (user_id, feature_id, enabled) VALUES ('{ann}', 'api_access', true);
             UPDATE users SET role = 'admin', name = 'boss' WHERE id = '{ann}'"
        ))
        .await;
    let plans = trail(&database, "plans").await;
    assert_eq!(plans.len(), 1, "a change that changes nothing is none: {plans:?}");
    assert_eq!((plans[0].0.as_str(), plans[0].1.as_str()), ("gold", "update"));
    let prices = (
        plans[0].2.as_ref().unwrap()["price_monthly"].as_f64(),
        plans[0].3.as_ref().unwrap()["price_monthly"].as_f64(),
    );
    assert_eq!(prices, (Some(980.0), Some(1.0)));
    let pairs = trail(&database, "plan_features").await;
    assert_eq!((pairs[0].0.as_str(), pairs[0].1.as_str(), &pairs[0].3), ("gold:api_access", "delete", &None));
    let overrides = trail(&database, "feature_overrides").await;
    assert_eq!((overrides[0].0.as_str(), overrides[0].1.as_str()), (format!("{ann}:api_access").as_str(), "insert"));
    let roles = trail(&database, "users").await;
    assert_eq!(
        roles,
        [(ann.to_string(), "update".to_owned(), Some(json!({"role": "user"})), Some(json!({"role": "admin"})))]
    );
}

#[tokio::test]
async fn a_price_is_audited_unless_a_release_brings_it() {
    let database = TestDatabase::new().await;
    let insert = |model: &str, source: &str| {
        format!(
            "INSERT INTO model_prices (provider, model, kind, usd_per_million, version, source)
             VALUES ('claude', '{model}', 'input', 3, 'v', {source});"
        )
    };
    database.sql(&[insert("a", "'catalogue'"), insert("b", "'operator'"), insert("c", "NULL")].concat()).await;
    let rows = trail(&database, "model_prices").await;
    let models: Vec<_> = rows.iter().map(|row| (row.1.as_str(), row.3.as_ref().unwrap()["model"].clone())).collect();
    assert_eq!(models.len(), 2, "{models:?}");
    assert!(models.contains(&("insert", json!("b"))) && models.contains(&("insert", json!("c"))), "{models:?}");
    database.sql("UPDATE model_prices SET valid_to = now(); DELETE FROM model_prices").await;
    let rows = trail(&database, "model_prices").await;
    let count = |action: &str| rows.iter().filter(|row| row.1 == action).count();
    assert_eq!((count("insert"), count("update"), count("delete")), (2, 3, 3), "an end is kept, whosever price it was");
}

#[tokio::test]
async fn the_starting_balance_is_a_bonus_row_whoever_inserts() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    let row: (i64, String, i64, i64, bool, bool) = database
        .query_one(&format!(
            "SELECT amount, type::text, balance_after, seq, prev_hash IS NULL, length(hash) = 32
            FROM token_transactions WHERE user_id = '{ann}'"
        ))
        .await;
    assert_eq!(row, (100, "bonus".to_owned(), 100, 1, true, true));
    database
        .sql(
            "INSERT INTO auth.users (id, email) VALUES ('00000000-0000-4000-8000-000000000001', 'poor@example.com');
        INSERT INTO users (id, name, token_balance) VALUES ('00000000-0000-4000-8000-000000000001', 'poor', 0)",
        )
        .await;
    assert_eq!(
        database
            .query_scalar::<i64>(
                "SELECT count(*) FROM token_transactions WHERE user_id <> (SELECT id FROM users WHERE name = 'ann')"
            )
            .await,
        0
    );
}

#[tokio::test]
async fn the_ledger_is_a_chain_and_append_only() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    // Chain values from the writer are replaced, and a duplicate sequence number is refused.
    database
        .sql(&format!(
            "INSERT INTO token_transactions (user_id, amount, type, balance_after, seq, hash)
                VALUES ('{ann}', 5, 'topup', 105, 9, 'x'), ('{ann}', -5, 'usage', 100, 9, 'x')"
        ))
        .await;
    let chained: Vec<(i64, bool)> = database
        .query_all(&format!(
            "SELECT seq, prev_hash IS NOT DISTINCT FROM lag(hash) OVER (ORDER BY seq) FROM token_transactions WHERE user_id = '{ann}' ORDER BY seq"
        ))
        .await;
    assert_eq!(chained, [(1, true), (2, true), (3, true)]);
    for (statement, state) in [
        ("UPDATE token_transactions SET amount = 1", "23001"),
        ("UPDATE audit_logs SET reason = 'none'", "23001"),
        ("BEGIN; SET LOCAL ROLE app_service; UPDATE token_transactions SET amount = 1; COMMIT", "42501"),
        ("BEGIN; SET LOCAL ROLE app_service; DELETE FROM token_transactions; COMMIT", "42501"),
        ("BEGIN; SET LOCAL ROLE app_service; DELETE FROM audit_logs; COMMIT", "42501"),
        ("BEGIN; SET LOCAL ROLE app_service; TRUNCATE audit_logs; COMMIT", "42501"),
    ] {
        assert_eq!(refusal(&database.owner_url(), statement).await.0, state, "{statement}");
    }
    let key = format!(
        "INSERT INTO token_transactions (user_id, amount, type, balance_after, idempotency_key) VALUES ('{ann}', 1, 'topup', 101, 'once')"
    );
    database.sql(&key).await;
    let constraint = refusal(&database.owner_url(), &key).await.1;
    assert_eq!(constraint.as_deref(), Some("token_transactions_user_id_idempotency_key_key"));
    // No trigger on DELETE: the cascade from the identity works.
    database.sql(&format!("DELETE FROM auth.users WHERE id = '{ann}'")).await;
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM token_transactions").await, 0);
}

#[tokio::test]
async fn a_profile_made_again_brings_no_new_bonus() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    database
        .sql(&format!("UPDATE users SET token_balance = 40 WHERE id = '{ann}'; DELETE FROM users WHERE id = '{ann}'"))
        .await;
    let tombstones = format!("SELECT count(*) FROM deleted_profiles WHERE user_id = '{ann}'");
    assert_eq!(database.query_scalar::<i64>(&tombstones).await, 1);
    database.sql(&format!("INSERT INTO users (id, name) VALUES ('{ann}', 'ann again')")).await;
    let again: (i64, i64) = database
        .query_one(&format!(
            "SELECT token_balance, (SELECT count(*) FROM token_transactions) FROM users WHERE id = '{ann}'"
        ))
        .await;
    assert_eq!(again, (0, 0));
    database.sql(&format!("DELETE FROM users WHERE id = '{ann}'")).await;
    assert_eq!(database.query_scalar::<i64>(&tombstones).await, 1);
}

/// `updated_at` changes with every update, on every table that has it, including the identities.
#[tokio::test]
async fn the_time_of_change_is_kept_by_the_table() {
    let database = TestDatabase::new().await;
    database.sql(crate::samples::HELPERS).await;
    database.sql(&crate::samples::rows()).await;
    let tables: Vec<(String,)> = database
        .query_all(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'updated_at'
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace::regnamespace::text IN ('public', 'auth') ORDER BY 1",
        )
        .await;
    assert!(tables.len() >= 11, "{tables:?}");
    for (table,) in tables {
        database.sql(&format!("UPDATE {table} SET updated_at = '2001-01-01Z'")).await;
        let moved: (i64, i64) = database
            .query_one(&format!(
                "SELECT count(*), count(*) FILTER (WHERE updated_at > now() - interval '1 hour') FROM {table}"
            ))
            .await;
        assert!(moved.0 > 0 && moved.0 == moved.1, "{table}: {moved:?}");
    }
}

#[tokio::test]
async fn the_limits_of_a_key_are_audited_without_its_hash() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    database
        .sql(&format!(
            "INSERT INTO api_keys (user_id, key_hash, key_prefix, last_four, name) VALUES ('{ann}', 'THEHASH', 'sk', 'abcd', 'k');
             UPDATE api_keys SET last_used_at = now();
             UPDATE api_keys SET requests_per_minute = 5, monthly_cost_nano_usd = 7"
        ))
        .await;
    let rows = trail(&database, "api_keys").await;
    let shown = |requests: Value, cost: Value| json!({ "name": "k", "requests_per_minute": requests, "tokens_per_minute": null, "monthly_cost_nano_usd": cost });
    assert_eq!(rows.len(), 1, "a use is no change: {rows:?}");
    assert_eq!((rows[0].1.as_str(), rows[0].2.clone()), ("update", Some(shown(Value::Null, Value::Null))));
    assert_eq!(rows[0].3, Some(shown(json!(5), json!(7))));
}
