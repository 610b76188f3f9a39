//! The integrity checks: each kind of damage produces its finding, and a sound database has none.

use harness::TestDatabase;

use crate::clusters::run;
use crate::people::sign_up;

/// The id of an API key.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// Findings of a damaged ledger: the head, which is stored outside of it, may show the damage too.
const OF_LEDGER: [&str; 3] = ["BALANCE_MISMATCH", "LEDGER_CHAIN_BROKEN", "LEDGER_HEAD_MISMATCH"];

/// Damage that constraints and triggers normally prevent; `$1` is Ann's id.
const DAMAGES: [(&str, &str); 33] = [
    ("COUNTER_MISSING", "DELETE FROM usage_counters WHERE user_id = $1"),
    ("COUNTER_MISMATCH", "UPDATE usage_counters SET used = 0, overage = 0, carried = 0 WHERE user_id = $1"),
    (
        "LEDGER_HEAD_MISMATCH",
        "DELETE FROM token_transactions WHERE user_id = $1 AND seq = 3; UPDATE users SET token_balance = 150 WHERE id = $1",
    ),
    (
        "LEDGER_HEAD_MISMATCH",
        "UPDATE token_transactions SET amount = -20, balance_after = 130, hash = ledger_hash(prev_hash, id, user_id, seq, -20, type, 130,
            description, reference_id, idempotency_key, created_at) WHERE user_id = $1 AND seq = 3; UPDATE users SET token_balance = 130 WHERE id = $1",
    ),
    (
        "LEDGER_HEAD_MISMATCH",
        "UPDATE product_base_migrations SET applied_at = applied_at - 86400; DELETE FROM ledger_heads WHERE user_id = $1",
    ),
    ("MISSING_AUTH_USER", "DELETE FROM auth.users WHERE id = $1"),
    (
        "MISSING_PLAN",
        "DELETE FROM plans WHERE id = 'gold'; INSERT INTO plans (id, name, display_name) VALUES ('other', 'o', 'o')",
    ),
    (
        "MISSING_FEATURE",
        "DELETE FROM features WHERE id = 'api_access'; INSERT INTO features (id, name, display_name) VALUES ('other', 'o', 'o')",
    ),
    ("MISSING_DATA", "DELETE FROM plan_features WHERE plan_id = 'gold' AND feature_id = 'api_access'"),
    ("MISSING_DATA", "DELETE FROM plan_features WHERE plan_id = 'gold'; DELETE FROM plans WHERE id = 'gold'"),
    ("MISSING_DATA", "DELETE FROM plan_features; DELETE FROM features"),
    ("BALANCE_MISMATCH", "UPDATE users SET token_balance = 101 WHERE id = $1"),
    ("BALANCE_MISMATCH", "DELETE FROM token_transactions WHERE user_id = $1"),
    ("LEDGER_CHAIN_BROKEN", "UPDATE token_transactions SET description = 'another' WHERE user_id = $1 AND seq = 1"),
    (
        "LEDGER_CHAIN_BROKEN",
        "UPDATE token_transactions SET created_at = created_at + interval '1 microsecond' WHERE user_id = $1 AND seq = 2",
    ),
    ("LEDGER_CHAIN_BROKEN", "UPDATE token_transactions SET seq = 4 WHERE user_id = $1 AND seq = 3"),
    (
        "LEDGER_CHAIN_BROKEN",
        "DELETE FROM token_transactions WHERE user_id = $1 AND seq = 2; UPDATE users SET token_balance = token_balance - 50 WHERE id = $1",
    ),
    ("ORPHAN_COUNTER", "INSERT INTO usage_counters VALUES (gen_random_uuid(), 'api_access', 'month', now())"),
    (
        "ORPHAN_EVENT",
        "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount) VALUES (gen_random_uuid(), 'api_access', 'month', now(), 1)",
    ),
    (
        "ORPHAN_HOLD",
        "INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, expires_at)
            VALUES ($1, 'api_access', 'month', now(), 1, now())",
    ),
    ("ORPHAN_HOLD", "INSERT INTO usage_counters VALUES ($1, 'api_access', 'month', now(), 0, 1)"),
    ("ORPHAN_HOLD", "UPDATE users SET token_reserved = 1 WHERE id = $1"),
    ("HOLD_MISMATCH", "UPDATE usage_counters SET reserved = reserved + 1 WHERE reserved > 0"),
    ("HOLD_MISMATCH", "UPDATE usage_reservations SET beyond = beyond + 1 WHERE status = 'pending'"),
    ("HOLD_MISMATCH", "UPDATE users SET token_reserved = token_reserved + 1 WHERE token_reserved > 0"),
    ("HOLD_MISMATCH", "UPDATE api_key_counters SET tokens_reserved = tokens_reserved + 1 WHERE period = 'minute'"),
    ("HOLD_MISMATCH", "UPDATE api_key_counters SET cost_reserved_nano_usd = 0 WHERE period = 'month'"),
    ("COUNTER_MISMATCH", "UPDATE usage_counters SET used = used + 1 WHERE user_id = $1"),
    ("COUNTER_MISMATCH", "UPDATE usage_counters SET carried = 0 WHERE user_id = $1"),
    ("COUNTER_MISMATCH", "UPDATE usage_counters SET overage = 0 WHERE user_id = $1"),
    (
        "ROLLUP_MISMATCH",
        "UPDATE rollup_watermarks SET final_at = reached_at; UPDATE usage_rollups SET amount = amount - 1 WHERE user_id = $1",
    ),
    (
        "ROLLUP_MISMATCH",
        "UPDATE rollup_watermarks SET final_at = reached_at; UPDATE usage_rollups SET events = events + 1 WHERE user_id = $1",
    ),
    (
        "ROLLUP_MISMATCH",
        "UPDATE rollup_watermarks SET final_at = reached_at; DELETE FROM usage_rollups WHERE user_id = $1",
    ),
];

/// Use with its sums, reservations and a ledger of three rows, all in order.
async fn sound(database: &TestDatabase) -> String {
    let (ann, bob) = (sign_up(database, "ann").await, sign_up(database, "bob").await);
    database
        .sql(&format!(
            "INSERT INTO token_transactions (user_id, amount, type, balance_after) VALUES ('{ann}', 50, 'topup', 150), ('{ann}', -30, 'usage', 120);
             UPDATE users SET token_balance = 120 WHERE id = '{ann}';
             INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, reserved)
             VALUES ('{bob}', 'api_access', 'day', '2026-01-01Z', 3, 2);
             INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, expires_at)
             VALUES ('{bob}', 'api_access', 'day', '2026-01-01Z', 1, now());
             INSERT INTO api_keys (id, user_id, key_hash, key_prefix, last_four, name)
             VALUES ('{NOBODY}', '{bob}', 'h', 'sk_live_x', 'abcd', 'k');
             INSERT INTO api_key_counters (api_key_id, period, period_start, requests, tokens_reserved, cost_reserved_nano_usd) VALUES
                ('{NOBODY}', 'minute', '2026-01-01 00:07Z', 1, 120, 5000), ('{NOBODY}', 'month', '2026-01-01Z', 1, 120, 5000);
             INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, beyond, tokens_reserved, api_key_id,
                expires_at, detail)
             VALUES ('{bob}', 'api_access', 'day', '2026-01-01Z', 2, 1, 1, '{NOBODY}', now(),
                '{{\"on_key\": {{\"windows\": {{\"minute\": \"2026-01-01T00:07:00Z\", \"month\": \"2026-01-01T00:00:00Z\"}}, \"tokens\": 120,
                    \"cost_nano_usd\": 5000}}}}');
             UPDATE users SET token_reserved = 1 WHERE id = '{bob}';
             INSERT INTO usage_events (user_id, feature_id, period, period_start, amount) VALUES ('{bob}', 'api_access', 'day', '2026-01-01Z', 3);
             INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, overage, carried)
             VALUES ('{ann}', 'api_access', 'month', '2026-01-01Z', 8, 2, 3);
             INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, overage, created_at)
             SELECT '{ann}', 'api_access', 'month', '2026-01-01Z', amount, overage, now() - interval '3 hours'
             FROM (VALUES (1, 0), (4, 2)) AS used (amount, overage);
             SELECT roll_up_usage() FROM generate_series(1, 40)"
        ))
        .await;
    ann.to_string()
}

async fn findings(database: &TestDatabase) -> Vec<(String, String, String)> {
    database.query_all("SELECT finding, subject, detail FROM integrity_findings ORDER BY 1, 2").await
}

#[tokio::test]
async fn a_sound_database_has_no_findings() {
    let database = TestDatabase::new().await;
    assert_eq!(findings(&database).await, []);
    sound(&database).await;
    assert_eq!(findings(&database).await, []);
}

#[tokio::test]
async fn every_damage_is_found_under_its_name() {
    for (finding, damage) in DAMAGES {
        let database = TestDatabase::new().await;
        let ann = sound(&database).await;
        let damage = damage.replace("$1", &format!("'{ann}'"));
        // As a replica: triggers and foreign keys are off.
        run(&database.owner_url(), &format!("SET session_replication_role = replica; {damage}")).await.unwrap();
        let found = findings(&database).await;
        assert!(found.iter().any(|(name, ..)| name == finding), "{damage}: {found:?}");
        assert!(
            found.iter().all(|(name, subject, detail)| {
                let is_of_ledger = OF_LEDGER.contains(&finding) && name == "LEDGER_HEAD_MISMATCH";
                (name == finding || is_of_ledger) && !subject.is_empty() && !detail.is_empty()
            }),
            "{damage}: {found:?}"
        );
        if !damage.contains("plan") && !damage.contains("features") && !damage.contains("gen_random_uuid()") {
            assert!(
                finding.ends_with("_HOLD")
                    || finding == "HOLD_MISMATCH"
                    || found.iter().any(|(_, subject, _)| subject.contains(&ann)),
                "{damage}: {found:?}"
            );
        }
        let verified = migration::verify(&database.owner_url()).await.unwrap();
        assert!(verified.iter().any(|line| line.finding == finding), "verify says it too: {verified:?}");
    }
}

#[tokio::test]
async fn a_deleted_profile_leaves_no_orphans() {
    let database = TestDatabase::new().await;
    let ann = sound(&database).await;
    database.sql(&format!("INSERT INTO usage_counters VALUES ('{ann}', 'api_access', 'day', now())")).await;
    database.sql(&format!("DELETE FROM auth.users WHERE id = '{ann}'")).await;
    assert_eq!(findings(&database).await, []);
}

#[tokio::test]
async fn rights_that_were_changed_by_hand_are_found_and_repaired() {
    for (finding, damage) in [
        ("RLS_DISABLED", "ALTER TABLE users DISABLE ROW LEVEL SECURITY"),
        ("RLS_DISABLED", "ALTER TABLE usage_events_default DISABLE ROW LEVEL SECURITY"),
        ("RLS_DISABLED", "ALTER TABLE product_base_migrations DISABLE ROW LEVEL SECURITY"),
        ("MISSING_POLICY", "DROP POLICY users_select_own ON users"),
        ("EXCESS_RIGHT", "GRANT UPDATE (plan_id) ON users TO authenticated"),
        ("EXCESS_RIGHT", "GRANT SELECT ON idempotency_keys_3 TO anon"),
        ("EXCESS_RIGHT", "GRANT EXECUTE ON FUNCTION identity_find(text) TO PUBLIC"),
        ("MISSING_RIGHT", "REVOKE SELECT ON plans FROM app_service"),
        ("DEFINER_SEARCH_PATH", "ALTER FUNCTION identity_email(uuid) RESET search_path"),
        ("VIEW_AS_OWNER", "ALTER VIEW user_plan_summary RESET (security_invoker)"),
    ] {
        let database = TestDatabase::new().await;
        database.sql(damage).await;
        let named = |found: Vec<migration::VerifyFinding>| {
            found
                .into_iter()
                .filter(|found| found.severity == migration::FindingSeverity::Error)
                .map(|found| found.finding)
                .collect::<Vec<_>>()
        };
        assert_eq!(named(migration::verify(&database.owner_url()).await.unwrap()), [finding], "{damage}");
        migration::repair(&database.owner_url()).await.unwrap();
        assert!(named(migration::verify(&database.owner_url()).await.unwrap()).is_empty(), "{damage}");
    }
}
