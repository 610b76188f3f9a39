//! Usage through REST and through the SQL function `consume_usage`: both count together.

use std::time::Duration;

use futures_util::future::join_all;
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

/// A user on `gold`, with these terms for `ai_requests`.
async fn on_terms(app: &TestApp, email: &str, terms: &str) -> TestUser {
    let user = app.signup(email).await;
    let sql = format!(
        "UPDATE plan_features SET {terms} WHERE plan_id = 'gold' AND feature_id = 'ai_requests';
         UPDATE users SET plan_id = 'gold' WHERE id = '{}'",
        user.id
    );
    app.database().sql(&sql).await;
    user
}

async fn by_rest(app: &TestApp, user: &TestUser, body: Value) -> Answer {
    app.post("/api/usage").bearer(user).json(body).send().await
}

/// A connection with the service's login.
async fn connected(app: &TestApp) -> PgConnection {
    PgConnection::connect(&app.database().service_url()).await.unwrap()
}

/// Consumes in its own transaction, as the user in the claims, like a Supabase client. The transaction stays open for a
/// moment, as if it had other writes, so that concurrent ones meet the lock.
async fn by_sql(connection: &mut PgConnection, user: &TestUser, arguments: &str) -> Value {
    let (transaction, row) = begun_in_sql(connection, user, arguments).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    transaction.commit().await.unwrap();
    row
}

/// The same up to the commit.
async fn begun_in_sql<'c>(
    connection: &'c mut PgConnection,
    user: &TestUser,
    arguments: &str,
) -> (Transaction<'c, Postgres>, Value) {
    let mut transaction = connection.begin().await.unwrap();
    let opening = format!(
        "SELECT set_config('role', 'authenticated', true),
            set_config('request.jwt.claims', '{{\"sub\":\"{}\",\"role\":\"authenticated\"}}', true)",
        user.id
    );
    sqlx::raw_sql(AssertSqlSafe(opening)).execute(&mut *transaction).await.unwrap();
    let query = format!("SELECT to_jsonb(c) FROM consume_usage('{}', {arguments}) c", user.id);
    let row: Value = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut *transaction).await.unwrap();
    (transaction, row)
}

/// A hundred requests over REST and a hundred in SQL, in parallel; returns the number of grants of each.
async fn race(app: &TestApp, user: &TestUser) -> (usize, usize) {
    let rest = join_all((0..100).map(|_| by_rest(app, user, json!({ "feature_id": "ai_requests" }))));
    let sql = join_all((0..4).map(async |_| {
        let mut connection = connected(app).await;
        let mut granted = 0;
        for _ in 0..25 {
            let row = by_sql(&mut connection, user, "'ai_requests'").await;
            granted += usize::from(row["allowed"] == true);
        }
        granted
    }));
    let (rest, sql) = futures_util::join!(rest, sql);
    let refused = rest.iter().filter(|answer| answer.status == 429 || answer.status == 402).count();
    let granted = rest.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(granted + refused, 100, "{:?}", rest.iter().map(|answer| answer.status).collect::<Vec<_>>());
    (granted, sql.into_iter().sum())
}

async fn number(app: &TestApp, sql: &str) -> i64 {
    app.database().query_scalar(sql).await
}

#[tokio::test]
async fn rest_and_sql_together_grant_exactly_the_limit() {
    let app = TestApp::start().await;
    let ada = on_terms(&app, "ada@example.com", "limit_value = 120, overage = 'block'").await;
    let (rest, sql) = race(&app, &ada).await;
    assert_eq!(rest + sql, 120, "{rest} by REST, {sql} in SQL");
    assert!(rest > 0 && sql > 0, "both had a share: {rest} by REST, {sql} in SQL");
    for table in [
        "SELECT used FROM usage_counters",
        "SELECT count(*) FROM usage_events",
        "SELECT count(*) FROM idempotency_keys",
    ] {
        assert_eq!(number(&app, table).await, 120, "{table}");
    }
}

#[tokio::test]
async fn rest_and_sql_together_spend_exactly_the_tokens() {
    let app = TestApp::start().await;
    let ada = on_terms(&app, "ada@example.com", "limit_value = 20, overage = 'tokens'").await;
    let (rest, sql) = race(&app, &ada).await;
    assert_eq!(rest + sql, 120, "a limit of 20 and 100 tokens: {rest} by REST, {sql} in SQL");
    assert_eq!(number(&app, &format!("SELECT token_balance FROM users WHERE id = '{}'", ada.id)).await, 0);
    assert_eq!(number(&app, "SELECT overage FROM usage_counters").await, 100);
    let findings = app.get("/api/admin/integrity").bearer(&app.admin().await).send().await;
    assert_eq!(findings.at("/data"), &json!([]), "the ledger is in balance");
}

/// A response of REST or SQL with parsed times, because their formats differ.
fn comparable(answer: &Value) -> Value {
    let mut answer = answer.clone();
    for time in ["as_of", "period_start", "resets_at"] {
        let read: Option<chrono::DateTime<chrono::Utc>> = answer[time].as_str().map(|text| text.parse().unwrap());
        answer[time] = json!(read);
    }
    answer.as_object_mut().unwrap().remove("replayed");
    answer
}

#[tokio::test]
async fn a_key_is_replayed_by_whichever_door_it_comes_again() {
    let app = TestApp::start().await;
    let ada = on_terms(&app, "ada@example.com", "limit_value = 5, overage = 'tokens'").await;
    let mut connection = connected(&app).await;
    let body = |key: &str| json!({ "feature_id": "ai_requests", "amount": 4, "idempotency_key": key });

    let first = by_sql(&mut connection, &ada, "'ai_requests', 4, 'in sql'").await;
    let again = by_rest(&app, &ada, body("in sql")).await.expect_status(200);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(comparable(&again.body), comparable(&first));

    // This one is paid for in part.
    let first = by_rest(&app, &ada, body("by rest")).await.expect_status(200);
    let again = by_sql(&mut connection, &ada, "'ai_requests', 4, 'by rest'").await;
    assert_eq!((&again["replayed"], &again["current"]), (&json!(true), &json!(8)));
    assert_eq!(comparable(&again), comparable(&first.body));

    let other = json!({ "feature_id": "ai_requests", "amount": 1, "idempotency_key": "in sql" });
    by_rest(&app, &ada, other).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(number(&app, "SELECT used FROM usage_counters").await, 8);
    assert_eq!(number(&app, &format!("SELECT token_balance FROM users WHERE id = '{}'", ada.id)).await, 97);
}

/// It reads the keys, waits for the counter that the first one has locked, and finds the limit reached by that one.
#[tokio::test]
async fn a_duplicate_that_waits_for_the_last_unit_is_answered_as_the_first_one() {
    let app = TestApp::start().await;
    let ada = on_terms(&app, "ada@example.com", "limit_value = 2, overage = 'block'").await;
    by_rest(&app, &ada, json!({ "feature_id": "ai_requests" })).await.expect_status(200);
    let mut connection = connected(&app).await;
    let (transaction, first) = begun_in_sql(&mut connection, &ada, "'ai_requests', 1, 'the last'").await;
    assert_eq!((&first["allowed"], &first["remaining"]), (&json!(true), &json!(0)));
    let again = by_rest(&app, &ada, json!({ "feature_id": "ai_requests", "idempotency_key": "the last" }));
    let commit = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while number(&app, waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        transaction.commit().await.unwrap();
    };
    let (again, ()) = futures_util::join!(again, commit);
    let again = again.expect_status(200);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(comparable(&again.body), comparable(&first));
    let other = by_rest(&app, &ada, json!({ "feature_id": "ai_requests", "idempotency_key": "one more" })).await;
    other.expect_problem(429, "limit_reached");
}

/// All rows that the two leave, without ids, keys and times.
const ROWS: [&str; 5] = [
    "SELECT to_jsonb(n) - 'user_id' FROM usage_counters n WHERE user_id = $1",
    "SELECT to_jsonb(e) - ARRAY['user_id', 'id', 'created_at'] FROM usage_events e WHERE user_id = $1 ORDER BY idempotency_key",
    "SELECT to_jsonb(k) - ARRAY['user_id', 'created_at'] FROM idempotency_keys k WHERE user_id = $1 ORDER BY key",
    "SELECT jsonb_build_array(amount, type, description, balance_after, reference_id, idempotency_key)
        FROM token_transactions WHERE user_id = $1 ORDER BY seq",
    "SELECT to_jsonb(u.token_balance) FROM users u WHERE id = $1",
];

#[tokio::test]
async fn both_doors_leave_the_same_rows() {
    let app = TestApp::start().await;
    let ada = on_terms(&app, "ada@example.com", "limit_value = 5, overage = 'tokens'").await;
    let bob = on_terms(&app, "bob@example.com", "limit_value = 5, overage = 'tokens'").await;
    let mut connection = connected(&app).await;
    for (key, amount) in [("a", 3), ("b", 4), ("c", 1000), ("d", 1)] {
        let body = json!({ "feature_id": "ai_requests", "amount": amount, "idempotency_key": key });
        let rest = by_rest(&app, &ada, body).await;
        let sql = by_sql(&mut connection, &bob, &format!("'ai_requests', {amount}, '{key}'")).await;
        for told in ["current", "limit", "remaining", "reserved", "plan_id", "feature_id"] {
            assert_eq!(rest.body[told], sql[told], "{key}: {told}");
        }
    }
    for query in ROWS {
        let rows = async |user: &TestUser| -> Vec<Value> {
            let rows = sqlx::query_scalar(query).bind(user.id.0).fetch_all(app.database().owner()).await;
            rows.unwrap()
        };
        let (rest, sql) = (rows(&ada).await, rows(&bob).await);
        assert!(!rest.is_empty(), "{query}");
        assert_eq!(rest, sql, "{query}");
    }
}
