//! The steps: up, down, status, seeds, and what a run must not change.

use harness::TestDatabase;
use migration::{FindingSeverity, MigrationReport};

use crate::catalogue::{assert_same, everything};
use crate::clusters::run;
use crate::undoing::undo_from;

/// Everything that the steps and the replaceable texts make, without its date.
async fn schema_of(database: &TestDatabase) -> Vec<String> {
    let text = migration::schema_sql(&database.owner_url()).await.unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn up_makes_everything_on_an_empty_database() {
    let database = TestDatabase::empty().await;
    let report = migration::up(&database.owner_url()).await.unwrap();
    assert_eq!(report.applied, migration::names());
    assert!(report.replaced.iter().any(|part| part == "policies/users"), "{:?}", report.replaced);
    let status = migration::status(&database.owner_url()).await.unwrap();
    assert!(status.len() >= 10 && status.iter().all(|step| step.applied), "{status:?}");
    migration::seed(&database.owner_url()).await.unwrap();
    let findings = migration::verify(&database.owner_url()).await.unwrap();
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == FindingSeverity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test]
async fn up_twice_does_nothing_the_second_time() {
    let database = TestDatabase::empty().await;
    migration::up(&database.owner_url()).await.unwrap();
    let applied = "SELECT max(applied_at)::text FROM replaceable_checksums";
    let (before, replaced_at) =
        (everything(&database.owner_url()).await, database.query_scalar::<String>(applied).await);
    let again = migration::up(&database.owner_url()).await.unwrap();
    assert_eq!(again, MigrationReport::default());
    assert_same("up twice", &before, &everything(&database.owner_url()).await);
    assert_eq!(database.query_scalar::<String>(applied).await, replaced_at);
}

#[tokio::test]
async fn down_to_zero_leaves_nothing_of_ours() {
    let database = TestDatabase::empty().await;
    let before = everything(&database.owner_url()).await;
    migration::up(&database.owner_url()).await.unwrap();
    migration::seed(&database.owner_url()).await.unwrap();
    assert!(everything(&database.owner_url()).await.len() > before.len() + 300);
    let mut undone = migration::down(&database.owner_url(), None).await.unwrap();
    undone.reverse();
    assert_eq!(undone, migration::names());
    assert_same("down to zero", &before, &everything(&database.owner_url()).await);
    assert!(migration::status(&database.owner_url()).await.unwrap().iter().all(|step| !step.applied));
    assert_eq!(migration::down(&database.owner_url(), None).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn down_goes_with_the_rows_of_users_in_it() {
    let database = TestDatabase::new().await;
    let before = everything(&TestDatabase::empty().await.owner_url()).await;
    database.sql(crate::samples::HELPERS).await;
    database.sql(&crate::samples::rows()).await;
    database.sql("DROP SCHEMA trial CASCADE").await;
    migration::down(&database.owner_url(), None).await.unwrap();
    assert_same("down with rows", &before, &everything(&database.owner_url()).await);
}

#[tokio::test]
async fn up_after_down_makes_the_same_again() {
    let database = TestDatabase::empty().await;
    migration::up(&database.owner_url()).await.unwrap();
    let before = schema_of(&database).await;
    migration::down(&database.owner_url(), None).await.unwrap();
    let report = migration::up(&database.owner_url()).await.unwrap();
    assert_eq!(report.applied, migration::names());
    assert_same("up, down, up", &before, &schema_of(&database).await);
}

#[tokio::test]
async fn every_step_can_be_undone_alone_and_done_again() {
    let database = TestDatabase::new().await;
    let (whole, names) = (schema_of(&database).await, migration::names());
    for steps_left in (0..names.len()).rev() {
        let undone = migration::down(&database.owner_url(), Some(1)).await.unwrap();
        assert_eq!(undone, [names[steps_left].clone()]);
        let status = migration::status(&database.owner_url()).await.unwrap();
        assert_eq!(status.iter().filter(|step| step.applied).count(), steps_left);
        if steps_left == names.len() - 3 {
            let findings = migration::verify(&database.owner_url()).await.unwrap();
            let pending: Vec<&str> = findings.iter().map(|finding| finding.subject.as_str()).collect();
            assert!(findings.iter().all(|finding| finding.finding == "PENDING_STEP"), "{findings:?}");
            assert_eq!(pending, names[steps_left..]);
            migration::up(&database.owner_url()).await.unwrap();
            assert_same("three steps again", &whole, &schema_of(&database).await);
            migration::down(&database.owner_url(), Some(3)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn seeding_twice_is_seeding_once_and_an_operators_changes_stay() {
    let database = TestDatabase::empty().await;
    migration::up(&database.owner_url()).await.unwrap();
    let first = migration::seed(&database.owner_url()).await.unwrap();
    assert_eq!(first.seeded, 3 + 5 + 15);
    database
        .sql(
            "UPDATE plans SET price_monthly = 1234, is_active = false WHERE id = 'gold';
             UPDATE features SET display_name = 'ours' WHERE id = 'ai_requests';
             UPDATE plan_features SET limit_value = 77, enabled = false WHERE plan_id = 'gold' AND feature_id = 'ai_requests'",
        )
        .await;
    let rows = "SELECT jsonb_build_object('plans', (SELECT jsonb_agg(p ORDER BY id) FROM plans p),
        'features', (SELECT jsonb_agg(f ORDER BY id) FROM features f),
        'pairs', (SELECT jsonb_agg(x ORDER BY plan_id, feature_id) FROM plan_features x),
        'audit', (SELECT count(*) FROM audit_logs))::text";
    let before: String = database.query_scalar(rows).await;
    assert_eq!(migration::seed(&database.owner_url()).await.unwrap(), MigrationReport::default());
    assert_eq!(database.query_scalar::<String>(rows).await, before);
    assert!(before.contains("1234") && before.contains("77"));
}

#[tokio::test]
async fn price_ids_of_stripe_fill_gaps_and_overwrite_nothing() {
    let database = TestDatabase::new().await;
    let settings = |price: &str| {
        migration::SeedSettings::from_lookup(|name| (name == "STRIPE_GOLD_MONTHLY_PRICE_ID").then(|| price.to_owned()))
    };
    assert_eq!(migration::seed_with(&database.owner_url(), &settings("price_1")).await.unwrap().seeded, 1);
    assert_eq!(migration::seed_with(&database.owner_url(), &settings("price_2")).await.unwrap().seeded, 0);
    let kept: String = database.query_scalar("SELECT stripe_price_id_monthly FROM plans WHERE id = 'gold'").await;
    assert_eq!(kept, "price_1");
}

#[tokio::test]
async fn fresh_makes_ours_anew_and_touches_nothing_of_others() {
    let database = TestDatabase::empty().await;
    migration::up(&database.owner_url()).await.unwrap();
    migration::seed(&database.owner_url()).await.unwrap();
    let theirs = "CREATE TABLE theirs (id int PRIMARY KEY, note text); INSERT INTO theirs VALUES (1, 'kept');
        CREATE VIEW their_view AS SELECT note FROM theirs;
        CREATE FUNCTION their_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE TRIGGER update_theirs BEFORE UPDATE ON theirs FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
        CREATE POLICY users_select_own ON theirs USING (true);
        GRANT SELECT ON theirs TO anon;
        CREATE SCHEMA other; CREATE TABLE other.users (id int); INSERT INTO other.users VALUES (7)";
    database.sql(theirs).await;
    database.sql("UPDATE plans SET price_monthly = 1 WHERE id = 'gold'").await;
    let (before, whole) = (everything(&database.owner_url()).await, schema_of(&database).await);
    let report = migration::fresh(&database.owner_url()).await.unwrap();
    assert_eq!(report.applied, migration::names());
    assert_same("fresh", &before, &everything(&database.owner_url()).await);
    assert_same("fresh", &whole, &schema_of(&database).await);
    let kept: (String, i32, i32) = database
        .query_one("SELECT (SELECT note FROM their_view), (SELECT id FROM other.users), their_function()")
        .await;
    assert_eq!(kept, ("kept".to_owned(), 7, 1));
    assert!(database.query_scalar::<bool>("SELECT has_table_privilege('anon', 'theirs', 'SELECT')").await);
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM plans").await, 0);
}

#[tokio::test]
async fn what_others_built_on_ours_stops_fresh_and_loses_no_row() {
    let database = TestDatabase::new().await;
    let whole = schema_of(&database).await;
    database
        .sql("CREATE TABLE theirs (plan varchar(50) REFERENCES plans (id)); INSERT INTO theirs VALUES ('gold')")
        .await;
    let error = format!("{:#}", migration::fresh(&database.owner_url()).await.unwrap_err());
    assert!(error.contains("theirs") || error.contains("depend"), "{error}");
    let kept: (i64, i64) =
        database.query_one("SELECT (SELECT count(*) FROM plans), (SELECT count(*) FROM theirs)").await;
    assert_eq!(kept, (3, 1));
    migration::up(&database.owner_url()).await.unwrap();
    assert_same("the next up", &whole, &schema_of(&database).await);
}

#[tokio::test]
async fn up_stops_at_a_name_that_is_anothers_and_changes_nothing() {
    for theirs in [
        "CREATE TABLE plans (mine int)",
        "CREATE VIEW user_plan_summary AS SELECT 1 AS mine",
        "CREATE FUNCTION effective_plan(uuid) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ] {
        let database = TestDatabase::empty().await;
        run(&database.owner_url(), theirs).await.unwrap();
        let before = everything(&database.owner_url()).await;
        let error = migration::up(&database.owner_url()).await.unwrap_err().to_string();
        assert!(error.contains("nothing was changed"), "{theirs}: {error}");
        assert_same(theirs, &before, &everything(&database.owner_url()).await);
    }
}

#[tokio::test]
async fn the_services_login_may_ask_for_the_status_and_migrate_nothing() {
    let database = TestDatabase::new().await;
    let status = migration::status(&database.service_url()).await.unwrap();
    assert!(!status.is_empty() && status.iter().all(|step| step.applied));
    assert!(migration::down(&database.service_url(), None).await.is_err());
    assert!(migration::status(&database.owner_url()).await.unwrap().iter().all(|step| step.applied));
}

#[tokio::test]
async fn conversations_and_holds_of_before_get_their_times_and_their_units() {
    let database = TestDatabase::new().await;
    undo_from(&database, "000013_chat_and_key_limits").await;
    let ann = crate::people::sign_up(&database, "ann").await;
    database
        .sql(&format!(
            "INSERT INTO chat_sessions (id, user_id, created_at, ended_at) VALUES
                ('00000000-0000-4000-8000-000000000001', '{ann}', '2026-01-01Z', NULL),
                ('00000000-0000-4000-8000-000000000002', '{ann}', '2026-01-01Z', '2026-01-02Z'),
                ('00000000-0000-4000-8000-000000000003', '{ann}', '2026-01-01Z', '2026-01-02Z');
             INSERT INTO chat_messages (session_id, role, content, created_at) VALUES
                ('00000000-0000-4000-8000-000000000003', 'user', 'first', '2026-01-03Z'),
                ('00000000-0000-4000-8000-000000000003', 'assistant', 'second', '2026-01-03Z');
             INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, tokens_reserved, expires_at, status)
                VALUES ('{ann}', 'api_access', 'month', now(), 9, 4, now(), 'settled'),
                    ('{ann}', 'api_access', 'month', now(), 9, 0, now(), 'settled')"
        ))
        .await;
    migration::up(&database.owner_url()).await.unwrap();
    let days: String = database
        .query_scalar(
            "SELECT string_agg(to_char(updated_at AT TIME ZONE 'UTC', 'DD'), ' ' ORDER BY id) FROM chat_sessions",
        )
        .await;
    assert_eq!(days, "01 02 03", "when it began, when it ended, when something was said last");
    let order: String =
        database.query_scalar("SELECT string_agg(content, ' ' ORDER BY created_at, seq) FROM chat_messages").await;
    assert_eq!(order, "first second");
    let beyond: String =
        database.query_scalar("SELECT string_agg(beyond::text, ' ' ORDER BY beyond) FROM usage_reservations").await;
    assert_eq!(beyond, "0 4");
}
