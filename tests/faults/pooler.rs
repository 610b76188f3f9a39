//! Behind a transaction pooler (design/security.md, hazard 1): every client gets its own rows.

use std::sync::Arc;

use adapters::postgres::{PgStore, PoolSettings, PoolerMode};
use app::settings::shape::{PoolerKind as PoolerSetting, SecretText};
use domain::features::FeatureId;
use domain::plans::PlanId;
use harness::sqlx::{Connection as _, PgConnection};
use harness::{Answer, TestApp, TestDatabase, TestUser};
use ports::store::{Scope, Store, StoreError};
use serde_json::json;

use crate::pgbouncer::{PgBouncer, mixes_statements};
use crate::writers::retry_after;

const CLIENTS: usize = 64;
const REQUESTS_EACH: usize = 63;
/// The percentage of requests that must succeed; the others may get a 503.
const ANSWERED_PERCENT: usize = 95;

async fn app_behind(bouncer: &PgBouncer, database: &Arc<TestDatabase>) -> Arc<TestApp> {
    let app = TestApp::over(Arc::clone(database), |settings| {
        settings.database.url = SecretText::new(bouncer.url());
        settings.database.pooler = PoolerSetting::Transaction;
        settings.database.max_connections = 10;
    });
    Arc::new(app.await)
}

fn store_behind(bouncer: &PgBouncer, database: &TestDatabase, pooler: PoolerMode) -> PgStore {
    let settings =
        PoolSettings { url: bouncer.url().to_owned(), pooler, max_connections: 10, ..database.pool_settings() };
    PgStore::connect(settings).unwrap()
}

/// Sends a request whose kind depends on `round`, and returns whether the response has the expected content.
async fn ask(app: &TestApp, me: &TestUser, client: usize, round: usize) -> (Answer, bool) {
    let name = format!("client {client} round {round}");
    let is = |answer: &Answer, pointer: &str, expected: &str| {
        answer.body.pointer(pointer).is_some_and(|found| *found == expected)
    };
    let get = async |path: &str| app.get(path).bearer(me).send().await;
    let (answer, is_right): (Answer, fn(&Answer) -> bool) = match round % 9 {
        0 => {
            let answer = get("/api/users/me").await;
            let right = is(&answer, "/id", &me.id.to_string()) && is(&answer, "/email", &me.email);
            return (answer, right);
        }
        1 => {
            let answer = app.patch("/api/users/me").bearer(me).json(json!({ "name": name })).send().await;
            let right = is(&answer, "/id", &me.id.to_string()) && is(&answer, "/name", &name);
            return (answer, right);
        }
        2 => {
            let answer = get("/api/keys").await;
            let right = answer.body["data"].as_array().is_some_and(|keys| keys.len() == 1)
                && is(&answer, "/data/0/name", &me.email);
            return (answer, right);
        }
        3 => (get("/api/plans").await, |answer| answer.body["data"].as_array().is_some_and(|plans| plans.len() == 3)),
        4 => (get("/api/plans/gold").await, |answer| {
            answer.body["id"] == "gold" && answer.body["display_name"] == "ゴールドプラン"
        }),
        5 => (get("/api/users/me/plan").await, |answer| {
            answer.text.contains("free") && !answer.text.contains("platinum")
        }),
        6 => (get("/api/users/me/features/export_csv").await, |answer| {
            answer.body["feature_id"] == "export_csv" && answer.body["allowed"] == false
        }),
        7 => (get("/api/features/api_access").await, |answer| answer.body["id"] == "api_access"),
        _ => (get("/api/plans/nothing").await, |answer| answer.status == 404 && answer.body["code"] == "not_found"),
    };
    let right = is_right(&answer);
    (answer, right)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_thousand_requests_through_two_connections_get_their_own_rows() {
    let database = Arc::new(TestDatabase::new().await);
    let Some(bouncer) = PgBouncer::start(&database) else { return };
    let app = app_behind(&bouncer, &database).await;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let app = Arc::clone(&app);
        clients.push(tokio::spawn(async move {
            let me = app.signup(&format!("client{client}@example.com")).await;
            app.post("/api/keys").bearer(&me).json(json!({ "name": me.email })).send().await.expect_status(201);
            let (mut answered, mut away) = (0, 0);
            for round in 0..REQUESTS_EACH {
                let (answer, is_right) = ask(&app, &me, client, client + round).await;
                if answer.status == 503 {
                    assert!(retry_after(&answer).is_some(), "{answer}");
                    away += 1;
                } else {
                    assert!(is_right, "client {client}: {answer}");
                    answered += 1;
                }
            }
            (answered, away)
        }));
    }
    let (mut answered, mut away) = (0, 0);
    for client in clients {
        let counted = client.await.unwrap();
        (answered, away) = (answered + counted.0, away + counted.1);
    }
    println!("{answered} answers with the right rows, {away} honest 503s");
    assert!(answered * 100 >= (answered + away) * ANSWERED_PERCENT, "{answered} answered, {away} away");
    let used = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app_user'";
    assert!(database.query_scalar::<i64>(used).await <= 2, "the pooler has two connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_units_of_work_through_two_connections_get_their_own_rows() {
    let database = Arc::new(TestDatabase::new().await);
    let Some(bouncer) = PgBouncer::start(&database) else { return };
    database
        .sql(
            "INSERT INTO auth.users (id, email) SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
                'u' || n || '@example.com' FROM generate_series(0, 63) n;
             INSERT INTO users (id, name) SELECT id, email FROM auth.users",
        )
        .await;
    let store = Arc::new(store_behind(&bouncer, &database, PoolerMode::Transaction));
    store.self_test().await.unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(units_of_work(Arc::clone(&store), client))).collect();
    for client in clients {
        client.await.unwrap();
    }
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(database.query_scalar::<i64>(open).await, 0);
}

async fn units_of_work(store: Arc<PgStore>, client: usize) {
    let me: uuid::Uuid = format!("00000000-0000-4000-8000-{client:012}").parse().unwrap();
    let me = domain::users::UserId(me);
    let features = ["ai_requests", "export_csv", "custom_theme", "priority_support", "api_access"];
    for round in 0..REQUESTS_EACH / 3 {
        let feature = FeatureId::parse(features[(client + round) % features.len()]).unwrap();
        let plan = PlanId::parse(["free", "gold", "platinum"][(client + round) % 3]).unwrap();
        // A full pool may be reported as `Unavailable`; every other error is a failure.
        let mut work = match store.begin(Scope::User(me)).await {
            Ok(work) => work,
            Err(StoreError::Unavailable(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        let user = work.users().find(me).await.unwrap().unwrap();
        assert_eq!((user.id, user.name), (me, format!("u{client}@example.com")));
        let facts = work.entitlements().find(me, &feature).await.unwrap().unwrap();
        assert_eq!(facts.entitlement.feature_id, feature);
        assert_eq!(work.plans().find(&plan).await.unwrap().unwrap().id, plan);
        assert_eq!(work.features().find(&feature).await.unwrap().unwrap().id, feature);
        work.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_start_with_named_statements_behind_it_is_refused_and_told_the_fix() {
    let database = Arc::new(TestDatabase::new().await);
    let Some(bouncer) = PgBouncer::start(&database) else { return };
    if !mixes_statements() {
        println!("skipped: this pgbouncer knows prepared statements");
        return;
    }
    for _ in 0..3 {
        let refused = store_behind(&bouncer, &database, PoolerMode::None).self_test().await;
        assert_names_the_fix(&format!("{}", refused.unwrap_err()));
    }
    let url = bouncer.url().to_owned();
    let starting = tokio::spawn(async move {
        TestApp::over(database, |settings| settings.database.url = SecretText::new(url)).await;
    });
    let refused = starting.await.expect_err("the start is refused").into_panic();
    assert_names_the_fix(refused.downcast_ref::<String>().unwrap());
}

#[track_caller]
fn assert_names_the_fix(text: &str) {
    assert!(text.contains(r#"database.pooler = "transaction""#) && text.contains("max_prepared_statements"), "{text}");
}

#[tokio::test]
async fn the_start_up_parameter_that_the_pooler_refuses_is_not_sent() {
    let database = TestDatabase::new().await;
    let Some(bouncer) = PgBouncer::start(&database) else { return };
    let refused = PgConnection::connect(bouncer.url()).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("extra_float_digits"), "the driver by itself would send it: {refused}");
    let store = store_behind(&bouncer, &database, PoolerMode::Transaction);
    store.probe().await.unwrap();
    store.self_test().await.unwrap();
}
