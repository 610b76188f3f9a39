//! Concurrent runs of migrations, and aborted ones.

use std::time::Duration;

use harness::TestDatabase;
use migration::MigrationReport;

use crate::catalogue::{assert_same, lines};
use crate::clusters::{PrivateCluster, run};

#[tokio::test]
async fn two_runs_on_one_database_wait_for_each_other() {
    let database = TestDatabase::empty().await;
    let url = database.owner_url();
    let (first, second) = futures_util::join!(migration::up(&url), migration::up(&url));
    let mut reports = [first.unwrap(), second.unwrap()];
    reports.sort_by_key(|report| report.applied.len());
    assert_eq!(reports[0], MigrationReport::default());
    assert_eq!(reports[1].applied, migration::names());
    let (one, two) = futures_util::join!(migration::seed(&url), migration::seed(&url));
    assert_eq!(one.unwrap().seeded + two.unwrap().seeded, 23);
}

#[tokio::test]
async fn an_up_and_a_down_that_meet_leave_all_or_nothing() {
    let database = TestDatabase::new().await;
    let url = database.owner_url();
    let (up, down) = futures_util::join!(migration::up(&url), migration::down(&url, None));
    up.unwrap();
    down.unwrap();
    let status = migration::status(&url).await.unwrap();
    assert!(status.iter().all(|step| step.applied) || status.iter().all(|step| !step.applied), "{status:?}");
}

/// Roles belong to the whole cluster: on a new one every run creates the same six at the same moment.
#[tokio::test]
async fn runs_on_many_databases_of_a_new_cluster_do_not_collide() {
    let cluster = PrivateCluster::start().await;
    let mut urls = vec![cluster.owner_url().to_owned()];
    for name in ["second", "third", "fourth"] {
        urls.push(cluster.database(name).await);
    }
    let runs: Vec<_> = urls.iter().map(|url| migration::up(url)).collect();
    for outcome in futures_util::future::join_all(runs).await {
        assert_eq!(outcome.unwrap().applied, migration::names());
    }
    let again: Vec<_> = urls.iter().map(|url| migration::fresh(url)).collect();
    for outcome in futures_util::future::join_all(again).await {
        outcome.unwrap();
    }
    assert_roles(&urls[0]).await;
    for url in &urls {
        migration::seed(url).await.unwrap();
        let findings = migration::verify(url).await.unwrap();
        assert!(findings.iter().all(|finding| finding.severity == migration::FindingSeverity::Warning), "{findings:?}");
        migration::down(url, None).await.unwrap();
    }
    assert_roles(&urls[0]).await; // down leaves the roles
    cluster.stop().await;
}

/// The attributes that schema.md gives each role, if the migration made it.
async fn assert_roles(url: &str) {
    let attributes = lines(
        url,
        "SELECT concat_ws(' ', rolname, CASE WHEN rolcanlogin THEN 'login' END, CASE WHEN rolinherit THEN 'inherit' END,
            CASE WHEN rolbypassrls THEN 'bypassrls' END,
            CASE WHEN rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication THEN 'mighty' END)
         FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY rolname",
    );
    let expected = [
        "anon",
        "app_service inherit",
        "app_user login",
        "authenticated",
        "readonly_user inherit",
        "service_role bypassrls",
    ];
    assert_eq!(attributes.await, expected);
    let members = "SELECT format('%s is %s', member::regrole, roleid::regrole) FROM pg_auth_members
        WHERE member::regrole::text = 'app_user' ORDER BY 1";
    assert_eq!(lines(url, members).await, ["app_user is app_service", "app_user is authenticated"]);
    let passwords = "SELECT count(*)::text FROM pg_authid WHERE rolname = 'app_user' AND rolpassword IS NOT NULL";
    assert_eq!(lines(url, passwords).await, ["0"], "app_user is made without a password");
}

/// Sleeps in the middle of a run, after a statement with this tag on an object whose name begins with `object`.
fn stop_at(tag: &str, object: &str) -> String {
    format!(
        "CREATE FUNCTION pg_temp_stop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
           IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE '{object}%') THEN PERFORM pg_sleep(60); END IF; END $$;
         CREATE EVENT TRIGGER stop_here ON ddl_command_end WHEN TAG IN ('{tag}') EXECUTE FUNCTION pg_temp_stop()"
    )
}

/// The run is aborted in the middle of a step, of the functions, of the policies; the next one completes it.
#[tokio::test]
async fn a_run_that_dies_in_the_middle_is_finished_by_the_next() {
    let whole = migration::schema_sql(&TestDatabase::new().await.owner_url()).await.unwrap();
    let whole: Vec<String> = whole.lines().map(str::to_owned).collect();
    for (tag, object) in [
        ("CREATE TABLE", "public.features"),
        ("CREATE TABLE", "public.usage_events_default"),
        ("CREATE INDEX", "public.idx_outbox_waiting"),
        ("CREATE FUNCTION", "public.effective_plan("),
        ("CREATE POLICY", "users_update_own on public.users"),
    ] {
        let database = TestDatabase::empty().await;
        let url = database.owner_url();
        run(&url, &stop_at(tag, object)).await.unwrap();
        let outcome = futures_util::join!(migration::up(&url), kill_when_asleep(&database)).0;
        assert!(outcome.is_err(), "{object}");
        run(&url, "DROP EVENT TRIGGER stop_here; DROP FUNCTION pg_temp_stop()").await.unwrap();
        migration::up(&url).await.unwrap();
        let made = migration::schema_sql(&url).await.unwrap();
        assert_same(object, &whole, &made.lines().map(str::to_owned).collect::<Vec<_>>());
        migration::seed(&url).await.unwrap();
        let findings = migration::verify(&url).await.unwrap();
        assert!(findings.iter().all(|finding| finding.severity == migration::FindingSeverity::Warning), "{findings:?}");
    }
}

/// Terminates both connections of a run at once, like kill -9: the working one and the one with the lock.
async fn kill_when_asleep(database: &TestDatabase) {
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    for _ in 0..400 {
        if database.query_scalar::<i64>(asleep).await > 0 {
            let kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'product-base-migration'";
            return database.sql(kill).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the run never came to its stop");
}
