//! The rights of every role on every table, tested with real statements and compared with the matrix.

use std::collections::{BTreeMap, BTreeSet};

use harness::TestDatabase;
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};

use crate::clusters::refusal;
use crate::matrix::{MATRIX, ROLES, Role, USER_CANNOT_READ, USER_UPDATES};
use crate::samples::{HELPERS, rows};

/// A database with rows of Ann and of Bob in every table.
pub async fn peopled() -> TestDatabase {
    let database = TestDatabase::new().await;
    database.sql(HELPERS).await;
    database.sql(&rows()).await;
    database
}

/// A transaction in this role; it is rolled back when it is dropped.
pub async fn as_role(database: &TestDatabase, role: &Role) -> Transaction<'static, Postgres> {
    let mut transaction = database.owner().begin().await.unwrap();
    let opening =
        format!("SET LOCAL ROLE {}; SELECT set_config('request.jwt.claims', '{}', true)", role.name, role.claims);
    sqlx::raw_sql(AssertSqlSafe(opening)).execute(&mut *transaction).await.unwrap();
    transaction
}

/// One try: relation, verb, detail (a column, or the number of a row), and the result of `trial.rows`.
type Try = (String, String, String, i64);

const TRIES: &str = "
SELECT name, 'S', '', trial.rows(format('SELECT FROM public.%I', name)) FROM trial.relations
UNION ALL
SELECT relation, 'I', (row_number() OVER ())::text,
    trial.rows(format('INSERT INTO public.%I SELECT * FROM jsonb_populate_record(NULL::public.%I, %L)', relation, relation, image)) FROM trial.samples
UNION ALL
SELECT c.relation, 'U', c.name, trial.rows(format('UPDATE public.%I SET %I = DEFAULT', c.relation, c.name))
FROM trial.columns c JOIN trial.relations r ON r.name = c.relation WHERE r.relkind <> 'v'
UNION ALL
SELECT name, 'D', '', trial.rows(format('DELETE FROM public.%I', name)) FROM trial.relations WHERE relkind <> 'v'";

async fn tries(database: &TestDatabase, role: &Role) -> Vec<Try> {
    let mut transaction = as_role(database, role).await;
    sqlx::query_as(TRIES).fetch_all(&mut *transaction).await.unwrap()
}

/// The number of rows of each table, without policies.
async fn totals(database: &TestDatabase) -> BTreeMap<String, i64> {
    let counted: Vec<(String, i64)> =
        database.query_all("SELECT name, trial.rows(format('SELECT FROM public.%I', name)) FROM trial.relations").await;
    counted.into_iter().collect()
}

/// The sign of one verb from all its tries on one relation.
fn sign(verb: &str, answers: &[i64], total: i64) -> char {
    let capital = verb.chars().next().unwrap();
    let is_whole = |answer: &i64| *answer == -2 || (*answer >= 0 && *answer == if verb == "I" { 1 } else { total });
    if answers.iter().all(|answer| *answer == -1) {
        '-'
    } else if answers.iter().all(|answer| *answer == -1 || *answer == 0) && total > 0 {
        '0'
    } else if answers.iter().all(is_whole) {
        capital
    } else {
        capital.to_ascii_lowercase()
    }
}

fn cells(tries: &[Try], totals: &BTreeMap<String, i64>) -> BTreeMap<String, String> {
    let mut cells = BTreeMap::new();
    for (relation, total) in totals {
        let cell: String = ["S", "I", "U", "D"]
            .into_iter()
            .map(|verb| {
                let answers: Vec<i64> =
                    tries.iter().filter(|found| &found.0 == relation && found.1 == verb).map(|found| found.3).collect();
                if answers.is_empty() { '-' } else { sign(verb, &answers, *total) }
            })
            .collect();
        cells.insert(relation.clone(), cell);
    }
    cells
}

#[tokio::test]
async fn every_role_may_do_what_the_matrix_says_and_no_more() {
    let database = peopled().await;
    let totals = totals(&database).await;
    let listed: BTreeSet<&str> = MATRIX.iter().map(|(relation, _)| *relation).collect();
    let partitions: Vec<(String,)> = database.query_all("SELECT name FROM trial.relations WHERE is_partition").await;
    let partitions: BTreeSet<String> = partitions.into_iter().map(|(name,)| name).collect();
    let there: BTreeSet<&str> = totals.keys().map(String::as_str).filter(|name| !partitions.contains(*name)).collect();
    assert_eq!(there, listed, "the matrix speaks of every table and view");
    let mut wrong = Vec::new();
    for (position, role) in ROLES.iter().enumerate() {
        let found = cells(&tries(&database, role).await, &totals);
        for (relation, expected) in MATRIX {
            assert!(totals[relation] > 0 || relation == "integrity_findings", "no row in {relation}");
            if found[relation] != expected[position] {
                wrong.push(format!(
                    "{} {:?} on {relation}: {} is expected, {} was found",
                    role.name, role.claims, expected[position], found[relation]
                ));
            }
        }
        for partition in &partitions {
            if found[partition] != "----" {
                wrong.push(format!(
                    "{} reaches the partition {partition} by its own name: {}",
                    role.name, found[partition]
                ));
            }
        }
    }
    assert!(partitions.len() >= 2 * 5 + 8, "{partitions:?}");
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
}

#[tokio::test]
async fn users_change_the_listed_columns_and_no_others() {
    let database = peopled().await;
    for role in ROLES.iter().filter(|role| ["anon", "authenticated"].contains(&role.name)) {
        let allowed: BTreeSet<String> = tries(&database, role)
            .await
            .into_iter()
            .filter(|(_, verb, _, answer)| verb == "U" && *answer != -1)
            .map(|(relation, _, column, _)| format!("{relation}.{column}"))
            // Granted for upserts, and restricted by the policy to the own id; without a row there is no check.
            .filter(|column| !["learning_progress.user_id", "tutorial_completion.user_id"].contains(&column.as_str()))
            .collect();
        let expected: BTreeSet<String> =
            USER_UPDATES.iter().filter(|_| role.name == "authenticated").map(|column| (*column).to_owned()).collect();
        assert_eq!(allowed, expected, "{} {:?}", role.name, role.claims);
    }
}

#[tokio::test]
async fn users_do_not_read_the_secrets_in_their_own_rows() {
    let database = peopled().await;
    let unreadable =
        "SELECT c.relation || '.' || c.name FROM trial.columns c JOIN trial.relations r ON r.name = c.relation
        WHERE NOT r.is_partition AND has_any_column_privilege('authenticated', r.oid, 'SELECT')
        AND NOT has_column_privilege('authenticated', r.oid, c.name, 'SELECT')
        ORDER BY 1";
    let found: Vec<(String,)> = database.query_all(unreadable).await;
    assert_eq!(found.into_iter().map(|(column,)| column).collect::<Vec<_>>(), USER_CANNOT_READ);
}

/// Also the rights that no row shows: TRUNCATE, REFERENCES, TRIGGER, sequences, and default privileges.
#[tokio::test]
async fn no_role_of_ours_truncates_or_hangs_triggers() {
    let database = peopled().await;
    let found: Vec<(String,)> = database
        .query_all(
            "SELECT format('%s may %s %s', g.rolname, p, r.name)
                FROM trial.relations r, unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']) p, pg_roles g
             WHERE g.rolname IN ('anon', 'authenticated', 'app_service', 'readonly_user', 'app_user', 'service_role')
             AND has_table_privilege(g.oid, r.oid, p)
             UNION ALL SELECT format('%s may create in public', g.rolname) FROM pg_roles g
             WHERE g.rolname IN ('anon', 'authenticated', 'app_service', 'readonly_user', 'app_user', 'service_role')
             AND has_schema_privilege(g.oid, 'public', 'CREATE')
             UNION ALL SELECT format('%s may %s in auth', g.rolname, r.relname) FROM pg_class r, pg_roles g
             WHERE r.relnamespace = 'auth'::regnamespace AND r.relkind = 'r' AND has_any_column_privilege(g.oid, r.oid, 'SELECT, INSERT, UPDATE')
             AND g.rolname IN ('anon', 'authenticated', 'app_service', 'readonly_user', 'app_user', 'service_role')",
        )
        .await;
    assert!(found.is_empty(), "{found:?}");
}

/// The login of the service, over its own connection: it has no rights before it takes a role, and can take no other
/// role.
#[tokio::test]
async fn the_services_login_has_two_roles_and_nothing_by_itself() {
    let database = peopled().await;
    for (statement, state) in [
        ("SELECT FROM api_keys", "42501"),
        ("SELECT FROM users_that_are_not", "42P01"),
        ("UPDATE plans SET price_monthly = 0", "42501"),
        ("SET ROLE readonly_user", "42501"),
        ("SET ROLE service_role", "42501"),
        ("SET ROLE postgres", "42501"),
        ("SET SESSION AUTHORIZATION postgres", "42501"),
        ("ALTER TABLE users DISABLE ROW LEVEL SECURITY", "42501"),
        ("SELECT * FROM auth.users", "42501"),
        ("CREATE TABLE public.mine (id int)", "42501"),
        ("SELECT identity_email(gen_random_uuid())", "42501"),
        ("ALTER ROLE app_user BYPASSRLS", "42501"),
    ] {
        assert_eq!(refusal(&database.service_url(), statement).await.0, state, "{statement}");
    }
    let mut login = PgConnection::connect(&database.service_url()).await.unwrap();
    for statement in
        ["SELECT FROM users", "SELECT FROM plans", "SELECT FROM user_subscriptions", "SELECT FROM ai_usage_logs"]
    {
        assert_eq!(sqlx::raw_sql(statement).execute(&mut login).await.unwrap().rows_affected(), 0, "{statement}");
    }
    for role in ["authenticated", "app_service"] {
        let taken = format!("BEGIN; SET LOCAL ROLE {role}; SELECT FROM plans; ROLLBACK");
        sqlx::raw_sql(AssertSqlSafe(taken)).execute(&mut login).await.unwrap();
    }
    let owned: i64 = database
        .query_scalar(
            "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid IN (SELECT oid FROM pg_roles
            WHERE rolname IN ('app_user', 'app_service', 'authenticated', 'anon', 'readonly_user'))",
        )
        .await;
    assert_eq!(owned, 0, "they own nothing, anywhere in the cluster");
}
