//! Access to own and foreign rows; missing claims; addresses; views.

use harness::TestDatabase;
use harness::sqlx::{self, AssertSqlSafe, Postgres, Transaction};

use crate::matrix::{ROLES, Role};
use crate::rights::{as_role, peopled};
use crate::samples::{ANN, BOB};

const NAMED: &str = r#"{"sub":"00000000-0000-4000-8000-00000000000a","role":"authenticated"}"#;
const AS_ANN: Role = Role { name: "authenticated", claims: NAMED };

/// The result of `trial.rows` for a statement.
async fn reached(transaction: &mut Transaction<'static, Postgres>, statement: &str) -> i64 {
    sqlx::query_scalar("SELECT trial.rows($1)").bind(statement).fetch_one(&mut **transaction).await.unwrap()
}

#[tokio::test]
async fn a_user_sees_every_own_row_and_none_of_anothers() {
    let database = peopled().await;
    let columns: Vec<(String, String)> = database
        .query_all(
            "SELECT c.relation, c.name FROM trial.columns c JOIN trial.relations r ON r.name = c.relation
             WHERE has_table_privilege('authenticated', r.oid, 'SELECT') IS NOT NULL AND has_any_column_privilege('authenticated', r.oid, 'SELECT')
               AND (c.name IN ('user_id', 'owner_id') OR (c.relation IN ('users', 'user_plan_summary') AND c.name = 'id'))",
        )
        .await;
    assert!(columns.len() >= 24, "{columns:?}");
    let mut ann = as_role(&database, &AS_ANN).await;
    for (relation, column) in columns {
        let owned = |whose: &str| format!("SELECT FROM public.{relation} WHERE {column} = '{whose}'");
        let there: i64 = database.query_scalar(&format!("SELECT trial.rows($s${}$s$)", owned(ANN))).await;
        assert_eq!(reached(&mut ann, &owned(ANN)).await, there, "{relation}.{column}");
        assert!(there > 0, "{relation}.{column}");
        assert_eq!(reached(&mut ann, &owned(BOB)).await, 0, "{relation}.{column}");
    }
}

#[tokio::test]
async fn a_user_cannot_give_oneself_a_plan_a_role_or_tokens() {
    let database = peopled().await;
    let mut ann = as_role(&database, &AS_ANN).await;
    for (statement, answer) in [
        ("UPDATE users SET name = 'Ann', wallet_address = '0x1'", 1),
        ("UPDATE users SET name = 'x' WHERE id = '00000000-0000-4000-8000-00000000000b'", 0),
        ("UPDATE users SET plan_id = 'platinum'", -1),
        ("UPDATE users SET name = 'Ann', plan_id = 'platinum'", -1),
        ("UPDATE users SET role = 'admin'", -1),
        ("UPDATE users SET token_balance = 1000000", -1),
        ("UPDATE users SET token_reserved = 0", -1),
        ("UPDATE users SET stripe_customer_id = 'cus_1'", -1),
        ("UPDATE users SET id = '00000000-0000-4000-8000-00000000000b'", -1),
        ("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'x')", -1),
        ("DELETE FROM users", -1),
        (
            "INSERT INTO token_transactions (user_id, amount, type, balance_after) VALUES ('00000000-0000-4000-8000-00000000000a', 1, 'bonus', 1)",
            -1,
        ),
        ("INSERT INTO ai_usage_logs (user_id, provider) VALUES ('00000000-0000-4000-8000-00000000000a', 'claude')", -1),
        (
            "INSERT INTO user_subscriptions (user_id, plan_id, status) VALUES ('00000000-0000-4000-8000-00000000000a', 'gold', 'active')",
            -1,
        ),
        ("UPDATE user_subscriptions SET status = 'active'", -1),
        (
            "INSERT INTO feature_overrides (user_id, feature_id, enabled) VALUES ('00000000-0000-4000-8000-00000000000a', 'export_csv', true)",
            -1,
        ),
        ("UPDATE usage_counters SET used = 0", -1),
        ("DELETE FROM usage_counters", -1),
        ("DELETE FROM scheduled_plan_changes", -1),
        ("UPDATE api_keys SET permissions = '[\"*\"]'", -1),
        ("UPDATE plans SET price_monthly = 0", -1),
        ("SELECT set_config('app.actor_id', 'x', true), maintain_partitions()", -1),
        ("SELECT identity_find('x@example.com')", -1),
        ("SELECT roll_up_usage()", -1),
        ("SELECT FROM integrity_findings()", -1),
        ("SELECT audit_row()", -1),
    ] {
        assert_eq!(reached(&mut ann, statement).await, answer, "{statement}");
    }
}

#[tokio::test]
async fn a_user_writes_own_progress_and_never_anothers() {
    let database = peopled().await;
    let mut ann = as_role(&database, &AS_ANN).await;
    for (table, column) in [("learning_progress", "lesson_id"), ("tutorial_completion", "tutorial_id")] {
        for (statement, answer) in [
            (format!("INSERT INTO {table} (user_id, {column}) VALUES ('{ANN}', 'new')"), 1),
            (format!("INSERT INTO {table} (user_id, {column}) VALUES ('{BOB}', 'new')"), -1),
            (format!("UPDATE {table} SET user_id = '{BOB}'"), -1),
            (format!("DELETE FROM {table} WHERE user_id = '{BOB}'"), 0),
            (format!("DELETE FROM {table}"), 1),
        ] {
            assert_eq!(reached(&mut ann, &statement).await, answer, "{statement}");
        }
    }
    for (statement, answer) in [
        ("UPDATE chat_sessions SET title = 'mine'", 1),
        ("UPDATE chat_sessions SET user_id = '00000000-0000-4000-8000-00000000000b'", -1),
        ("UPDATE chat_sessions SET tokens_used = 0", -1),
        ("UPDATE chat_sessions SET system = 'be brief'", 1),
        ("UPDATE chat_sessions SET system = repeat('x', 32769)", -2),
        ("UPDATE chat_sessions SET cost_nano_usd = 0", -1),
        ("UPDATE chat_sessions SET updated_at = now()", -1),
        ("UPDATE chat_messages SET cost_nano_usd = 0", -1),
        ("UPDATE api_keys SET requests_per_minute = NULL", -1),
        ("SELECT FROM api_key_counters", -1),
        ("DELETE FROM chat_sessions", 1),
    ] {
        assert_eq!(reached(&mut ann, statement).await, answer, "{statement}");
    }
}

/// Without a user in the claims there are no rows: an empty text, which is the setting after a transaction; a missing
/// setting; claims without a user.
#[tokio::test]
async fn without_claims_there_are_no_rows() {
    let database = peopled().await;
    let tables = "SELECT name FROM trial.relations WHERE has_any_column_privilege('authenticated', oid, 'SELECT')
        AND name NOT IN ('plans', 'features', 'plan_features', 'runtime_settings')";
    let tables: Vec<(String,)> = database.query_all(tables).await;
    assert!(tables.len() > 25, "{tables:?}");
    for opening in [
        "SET LOCAL ROLE authenticated",
        "SET LOCAL ROLE authenticated; SELECT set_config('request.jwt.claims', '', true)",
        "SET LOCAL ROLE authenticated; SELECT set_config('request.jwt.claims', '{}', true)",
        r#"SET LOCAL ROLE authenticated; SELECT set_config('request.jwt.claims', '{"sub":null}', true)"#,
        r#"SET LOCAL ROLE authenticated; SELECT set_config('request.jwt.claims', '{"sub":""}', true)"#,
        r#"SET LOCAL ROLE authenticated; SELECT set_config('request.jwt.claims', '{"sub":"00000000-0000-4000-8000-0000000000ff"}', true)"#,
    ] {
        let mut transaction = database.owner().begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(opening)).execute(&mut *transaction).await.unwrap();
        for (table,) in &tables {
            assert_eq!(
                reached(&mut transaction, &format!("SELECT FROM public.{table}")).await,
                0,
                "{table} after {opening}"
            );
        }
    }
}

#[tokio::test]
async fn a_plan_that_is_no_longer_sold_is_seen_by_who_has_it() {
    let database = peopled().await;
    database
        .sql(
            "UPDATE plans SET is_active = false WHERE id IN ('gold', 'platinum'); UPDATE features SET is_active = false
        WHERE id = 'api_access'",
        )
        .await;
    for (role, plans, pairs) in
        [(&ROLES[0], 1, 4), (&AS_ANN, 2, 8), (&ROLES[2], 1, 4), (&ROLES[3], 3, 15), (&ROLES[4], 3, 15)]
    {
        let mut transaction = as_role(&database, role).await;
        assert_eq!(reached(&mut transaction, "SELECT FROM plans").await, plans, "{}", role.name);
        assert_eq!(reached(&mut transaction, "SELECT FROM plan_features").await, pairs, "{}", role.name);
    }
}

/// The address for its owner, the service's roles and the reports' role; NULL for all others.
#[tokio::test]
async fn an_address_is_shown_to_its_owner_and_to_the_service() {
    let database = peopled().await;
    let address = |id: &str| Some(format!("{id}@example.com"));
    for (role, of_ann, of_bob) in [
        (&AS_ANN, address(ANN), None),
        (&ROLES[2], None, None),
        (&ROLES[3], address(ANN), address(BOB)),
        (&ROLES[4], address(ANN), address(BOB)),
        (&ROLES[6], address(ANN), address(BOB)),
    ] {
        let mut transaction = as_role(&database, role).await;
        let query = format!("SELECT identity_email('{ANN}'), identity_email('{BOB}')");
        let found: (Option<String>, Option<String>) =
            sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(found, (of_ann, of_bob), "{} {}", role.name, role.claims);
    }
    for role in [&ROLES[0], &ROLES[5]] {
        let mut transaction = as_role(&database, role).await;
        assert_eq!(reached(&mut transaction, &format!("SELECT identity_email('{ANN}')")).await, -1, "{}", role.name);
    }
}

#[tokio::test]
async fn the_views_show_what_their_reader_may_see() {
    let database: TestDatabase = peopled().await;
    for (role, people) in [(&AS_ANN, 1_i64), (&ROLES[2], 0), (&ROLES[3], 2), (&ROLES[4], 2)] {
        let mut transaction = as_role(&database, role).await;
        let summary = "SELECT count(*), count(email), count(*) FILTER (WHERE plan_type = 'free' AND plan_status = 'active'
            AND plan_display_name IS NOT NULL
            AND price_monthly = 0 AND subscription_status = 'active' AND NOT cancel_at_period_end) FROM user_plan_summary";
        let found: (i64, i64, i64) = sqlx::query_as(summary).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(found, (people, people, people), "{} {}", role.name, role.claims);
        // Gold is in force through the subscription; the override grants a feature that gold does not have.
        let access = "SELECT count(*), count(*) FILTER (WHERE enabled AND limit_value IS NULL AND feature_id = 'api_access'),
            count(*) FILTER (WHERE enabled AND limit_value = 1000 AND feature_id = 'ai_requests') FROM user_feature_access";
        let found: (i64, i64, i64) = sqlx::query_as(access).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(found, (people * 5, people, people), "{} {}", role.name, role.claims);
        let monthly = "SELECT count(*), coalesce(sum(request_count), 0)::bigint, coalesce(sum(total_tokens), 0)::bigint FROM ai_usage_monthly";
        let found: (i64, i64, i64) = sqlx::query_as(monthly).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(found, (people, people, people * 7), "{} {}", role.name, role.claims);
    }
}

/// Policies and functions use the same rule for the user: the single claim first, then the document of all claims.
#[tokio::test]
async fn policies_and_functions_mean_the_same_user() {
    let database = peopled().await;
    let (ann, bob) = (crate::samples::ANN, crate::samples::BOB);
    let claims = |sub: &str| format!(r#"{{"sub":"{sub}","role":"authenticated"}}"#);
    for (single, document, meant) in [
        (ann.to_owned(), String::new(), Some(ann)),
        (ann.to_owned(), claims(bob), Some(ann)),
        (String::new(), claims(bob), Some(bob)),
        (ann.to_uppercase(), claims(bob), Some(ann)),
        ("somebody".to_owned(), claims(bob), None),
        (format!("{ann} "), claims(bob), None),
        ("{}".to_owned(), claims(bob), None),
        (String::new(), String::new(), None),
        (String::new(), claims("somebody"), None),
        (ann.to_owned(), "no document".to_owned(), Some(ann)),
    ] {
        let mut transaction = database.owner().begin().await.unwrap();
        let opening = format!(
            "SELECT set_config('request.jwt.claim.sub', '{single}', true), set_config('request.jwt.claims', '{document}', true);
             SET LOCAL ROLE authenticated"
        );
        sqlx::raw_sql(AssertSqlSafe(opening)).execute(&mut *transaction).await.unwrap();
        let asked = "SELECT auth.uid()::text, request_user_id()::text, request_actor()::text, (SELECT min(id::text) FROM users)";
        let found: (Option<String>, Option<String>, Option<String>, Option<String>) =
            sqlx::query_as(asked).persistent(false).fetch_one(&mut *transaction).await.unwrap();
        let meant = meant.map(str::to_owned);
        assert_eq!(found, (meant.clone(), meant.clone(), meant.clone(), meant), "{single:?} {document:?}");
    }
}
