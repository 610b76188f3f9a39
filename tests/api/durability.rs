//! Acknowledged writes survive a crash, whatever `synchronous_commit` level the database or the login has.

use std::sync::Arc;

use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use harness::{TestApp, TestDatabase, TestUser};
use serde_json::json;

/// Records, for each statement on a metering table, the `synchronous_commit` level of its transaction.
const NOTES: &str = "
CREATE TABLE public.noted (relation text, level text);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
    INSERT INTO public.noted VALUES (TG_TABLE_NAME, current_setting('synchronous_commit'));
    RETURN NULL;
END $$;
DO $$ DECLARE t text; BEGIN
    FOREACH t IN ARRAY ARRAY['usage_events', 'usage_counters', 'usage_reservations', 'idempotency_keys', 'token_transactions', 'users', 'ai_usage_logs'] LOOP
        EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION public.note()', t);
    END LOOP;
END $$;";

async fn database_at(level: &str) -> Arc<TestDatabase> {
    let database = Arc::new(TestDatabase::new().await);
    database.sql(&format!("ALTER DATABASE {} SET synchronous_commit = {level}", database.name())).await;
    // The owner's connections were opened earlier; their writes are not examined.
    database.sql(NOTES).await;
    database
}

async fn in_sql(database: &TestDatabase, user: &TestUser, session_level: &str) {
    let mut connection = PgConnection::connect(&database.service_url()).await.unwrap();
    let call = format!(
        "SET synchronous_commit = {session_level}; BEGIN; SELECT set_config('role', 'authenticated', true),
            set_config('request.jwt.claims', '{{\"sub\":\"{}\"}}', true);
         SELECT FROM consume_usage('{}', 'ai_requests'); COMMIT",
        user.id, user.id
    );
    sqlx::raw_sql(AssertSqlSafe(call)).execute(&mut connection).await.unwrap();
}

/// Makes every kind of request that counts, reserves, settles or pays.
async fn spend_by_every_way(app: &TestApp) -> TestUser {
    let (user, admin) = (app.signup("ann@example.com").await, app.admin().await);
    let post = async |path: &str, body: serde_json::Value, status: u16| {
        app.post(path).bearer(&user).json(body).send().await.expect_status(status)
    };
    app.database()
        .sql("UPDATE plan_features SET enabled = true, limit_value = 3, overage = 'tokens' WHERE feature_id = 'ai_requests'")
        .await;
    let of = json!({ "feature_id": "ai_requests" });
    for _ in 0..4 {
        post("/api/usage", of.clone(), 200).await;
    }
    for ending in ["settle", "release"] {
        let held = post("/api/usage/reservations", json!({ "feature_id": "ai_requests", "amount": 2 }), 201).await;
        let path = format!("/api/usage/reservations/{}/{ending}", held.text_at("/id"));
        let body = if ending == "settle" { json!({ "amount": 1 }) } else { json!({}) };
        app.post(&path).bearer(&user).json(body).send().await.expect_status(200);
    }
    let topup = json!({ "user_id": user.id, "amount": 50, "description": "d" });
    app.post("/api/tokens/topup").bearer(&admin).json(topup).send().await.expect_status(201);
    user
}

#[tokio::test]
async fn every_use_waits_for_the_disk_where_the_database_says_off() {
    let database = database_at("off").await;
    let app = TestApp::over(Arc::clone(&database), |_| {}).await;
    let user = spend_by_every_way(&app).await;
    in_sql(&database, &user, "off").await;
    let noted: Vec<(String, String)> = database
        .query_all("SELECT DISTINCT relation, level FROM noted WHERE relation <> 'users' OR level = 'on' ORDER BY 1, 2")
        .await;
    let relations: Vec<&str> = noted.iter().map(|(relation, _)| relation.as_str()).collect();
    assert!(noted.iter().all(|(_, level)| level == "on"), "{noted:?}");
    let expected =
        ["idempotency_keys", "token_transactions", "usage_counters", "usage_events", "usage_reservations", "users"];
    assert!(expected.iter().all(|relation| relations.contains(relation)), "{relations:?}");
}

#[tokio::test]
async fn a_level_that_waits_for_the_disk_is_left_as_the_operator_chose_it() {
    for level in ["local", "remote_apply"] {
        let database = database_at(level).await;
        let app = TestApp::over(Arc::clone(&database), |_| {}).await;
        let user = spend_by_every_way(&app).await;
        in_sql(&database, &user, level).await;
        let noted: Vec<(String,)> =
            database.query_all("SELECT DISTINCT level FROM noted WHERE relation = 'usage_events'").await;
        assert_eq!(noted, [(level.to_owned(),)]);
    }
}

/// Also through the pool: behind a transaction pooler the metering has no pinned connections.
#[tokio::test]
async fn the_pool_raises_it_too() {
    let database = database_at("off").await;
    let app = TestApp::over(Arc::clone(&database), |settings| {
        settings.database.pooler = app::settings::shape::PoolerKind::Transaction;
    })
    .await;
    let user = app.signup("ann@example.com").await;
    app.database()
        .sql("UPDATE plan_features SET enabled = true, limit_value = 3 WHERE feature_id = 'ai_requests'")
        .await;
    app.post("/api/usage").bearer(&user).json(json!({ "feature_id": "ai_requests" })).send().await.expect_status(200);
    let noted: Vec<(String,)> =
        database.query_all("SELECT DISTINCT level FROM noted WHERE relation LIKE 'usage%'").await;
    assert_eq!(noted, [("on".to_owned(),)]);
}
