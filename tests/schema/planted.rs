//! Objects that a caller plants never run with another user's rights.
//!
//! A login with every right that a caller could have creates, in its temporary schema, a domain for each type of
//! Postgres and a view for each relation of ours, and in its own schema a function and an operator for everything that
//! our functions call. All of them record whether they run as another user than the one who planted them. Then every
//! definer function is called and every trigger fired. The lists come from the catalogue, so that a new function, type
//! or table is covered.

use harness::TestDatabase;
use harness::sqlx::{self, AssertSqlSafe, PgConnection};

use crate::rights::peopled;

/// As the superuser: the login, with more rights than any real one, and a function that is vulnerable on purpose.
const PLANTER: &str = r#"
CREATE ROLE planter BYPASSRLS;
CREATE SCHEMA planted AUTHORIZATION planter;
GRANT app_service, readonly_user, authenticated TO planter;
GRANT ALL ON ALL TABLES IN SCHEMA public TO planter;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO planter;
CREATE FUNCTION public.planted_control(id uuid) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = ''
    AS 'SELECT id::text';
GRANT EXECUTE ON FUNCTION public.planted_control(uuid) TO planter;
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO planter', current_database()); END $$;
SELECT set_config('request.jwt.claims', '{"sub":"00000000-0000-4000-8000-00000000000a"}', true);
SET LOCAL ROLE planter"#;

/// As the login. Domains come last: from then on type names resolve to the planted domains.
const PLANT: &str = r"
CREATE TEMP SEQUENCE spied;
GRANT ALL ON SEQUENCE spied TO PUBLIC;
CREATE FUNCTION planted.spy() RETURNS pg_catalog.bool LANGUAGE plpgsql VOLATILE AS $$ BEGIN
    IF current_user OPERATOR(pg_catalog.<>) 'planter'::pg_catalog.name THEN
        PERFORM pg_catalog.nextval('pg_temp.spied'::pg_catalog.regclass);
    END IF;
    RETURN true;
END $$;
GRANT USAGE ON SCHEMA planted TO PUBLIC;
CREATE TEMP TABLE planted_counts AS SELECT 0 AS views, 0 AS functions, 0 AS operators, 0 AS domains;
DO $plant$
DECLARE
    it record;
BEGIN
    FOR it IN
        SELECT c.relname AS name, (SELECT string_agg(format('NULL::%s AS %I', format_type(a.atttypid, a.atttypmod), a.attname), ', ' ORDER BY a.attnum)
            FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
    LOOP
        EXECUTE format('CREATE TEMP VIEW %I AS SELECT %s WHERE planted.spy()', it.name, it.columns);
        UPDATE pg_temp.planted_counts SET views = views + 1;
    END LOOP;
    FOR it IN
        SELECT p.oid, p.proname AS name, pg_get_function_identity_arguments(p.oid) AS arguments, p.prorettype::regtype AS result
        FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND EXISTS (
            SELECT FROM pg_proc o WHERE o.pronamespace = 'public'::regnamespace AND o.prosrc ~ ('\m' || p.proname || '\('))
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION planted.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM planted.spy(); RETURN NULL; END $f$',
                it.name, it.arguments, it.result);
            UPDATE pg_temp.planted_counts SET functions = functions + 1;
        EXCEPTION WHEN OTHERS THEN NULL; -- a pseudo-type
        END;
    END LOOP;
    FOR it IN
        SELECT o.oid, o.oprname AS name, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result
        FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b' AND o.oprleft::regtype::text IN
            ('text', 'uuid', 'bigint', 'integer', 'jsonb', 'timestamp with time zone', 'bytea', 'name', 'numeric', 'character varying')
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION planted.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM planted.spy(); RETURN NULL; END $f$',
                'operator_' || it.oid, it.l, it.r, it.result);
            EXECUTE format('CREATE OPERATOR planted.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = planted.%I)',
                it.name, it.l, it.r, 'operator_' || it.oid);
            UPDATE pg_temp.planted_counts SET operators = operators + 1;
        EXCEPTION WHEN OTHERS THEN NULL; -- a pseudo-type
        END;
    END LOOP;
    FOR it IN
        SELECT t.typname AS name FROM pg_catalog.pg_type t
        WHERE t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.typtype IN ('b', 'r') AND t.typelem = 0
    LOOP
        BEGIN
            EXECUTE pg_catalog.format('CREATE DOMAIN pg_temp.%I AS pg_catalog.%I CHECK (planted.spy())', it.name, it.name);
            UPDATE pg_temp.planted_counts SET domains = domains + 1;
        EXCEPTION WHEN OTHERS THEN NULL; -- a type of the catalogue alone
        END;
    END LOOP;
END
$plant$;
SET LOCAL search_path = planted, pg_temp, public, pg_catalog";

/// Every statement that runs one of our definer functions, with its name. Arguments are plausible if a name or a type
/// shows their meaning, so that the bodies run completely.
const CALLS: &str = r"
SELECT p.oid::regprocedure::text, format('SELECT FROM %s.%I(%s)', p.pronamespace::regnamespace, p.proname, coalesce((
    SELECT string_agg(CASE
        WHEN a.type = 'uuid'::regtype THEN format('%L::pg_catalog.uuid', '00000000-0000-4000-8000-00000000000a')
        WHEN a.type = 'text'::regtype THEN format('%L::pg_catalog.text', CASE
            WHEN a.name ~ 'parent' THEN 'usage_events' WHEN a.name ~ 'partition' THEN 'usage_events_2001_01'
            WHEN a.name ~ 'period' THEN 'month' WHEN a.name ~ 'email' THEN 'ann@example.com'
            WHEN a.name ~ 'key' THEN 'a key' ELSE 'api_access' END)
        WHEN a.type IN ('bigint'::regtype, 'integer'::regtype) THEN '1'
        WHEN a.type IN ('timestamptz'::regtype, 'timestamp'::regtype) THEN format('pg_catalog.now()::pg_catalog.%s', (SELECT t.typname FROM pg_type t WHERE t.oid = a.type))
        ELSE 'NULL' END, ', ' ORDER BY a.position)
    FROM unnest(p.proargtypes::oid[], p.proargnames[1:p.pronargs]) WITH ORDINALITY AS a (type, name, position)), ''))
FROM pg_proc p WHERE p.prosecdef AND p.prorettype <> 'trigger'::regtype AND p.pronamespace::regnamespace::text IN ('public', 'auth')
ORDER BY p.proname = 'planted_control', p.proname ~ 'delete|drop', 1";

/// Every statement that fires a trigger, on existing rows.
const FIRINGS: &str = r"
WITH fired AS (SELECT DISTINCT t.tgrelid AS relation FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND c.relnamespace::regnamespace::text = 'public')
SELECT 'INSERT ' || s.relation,
    format('INSERT INTO public.%I SELECT * FROM pg_catalog.jsonb_populate_record(NULL::public.%I, %L)', s.relation, s.relation, s.image)
FROM trial.samples s JOIN fired f ON f.relation = to_regclass('public.' || s.relation)
UNION ALL
SELECT 'UPDATE ' || f.relation || '.' || a.attname, format('UPDATE public.%s SET %I = %s', f.relation, a.attname, CASE
    WHEN a.atttypid = 'boolean'::regtype THEN format('NOT %I', a.attname)
    WHEN a.attname = 'plan_id' THEN '''platinum''' WHEN a.attname = 'role' THEN '''admin''' WHEN a.attname = 'status' THEN '''past_due'''
    ELSE format('%I', a.attname) END)
FROM fired f JOIN pg_attribute a ON a.attrelid = f.relation
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
UNION ALL
SELECT 'DELETE ' || f.relation, format('DELETE FROM public.%s', f.relation) FROM fired f";

async fn list(connection: &mut PgConnection, query: &'static str) -> Vec<(String, String)> {
    sqlx::query_as(query).persistent(false).fetch_all(connection).await.unwrap()
}

/// Runs a statement, rolls it back, and returns how often a planted object ran as another user.
async fn spied(connection: &mut PgConnection, statement: &str) -> i64 {
    let run = |text: &str| sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    let before = "SAVEPOINT before; SELECT pg_catalog.setval('pg_temp.spied'::pg_catalog.regclass, 1, false)";
    run(before).execute(&mut *connection).await.unwrap();
    run(statement).execute(&mut *connection).await.ok();
    run("ROLLBACK TO before").execute(&mut *connection).await.unwrap();
    let noted = "SELECT CASE WHEN is_called THEN last_value ELSE 0::bigint END FROM pg_temp.spied";
    sqlx::query_scalar(noted).persistent(false).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn nothing_that_a_caller_plants_is_run_as_the_owner() {
    let database = peopled().await;
    let mut transaction = database.owner().begin().await.unwrap();
    let firings = list(&mut transaction, FIRINGS).await;
    sqlx::raw_sql(PLANTER).execute(&mut *transaction).await.unwrap();
    let calls = list(&mut transaction, CALLS).await;
    sqlx::raw_sql(PLANT).execute(&mut *transaction).await.unwrap();
    let counts: (i32, i32, i32, i32) =
        sqlx::query_as("SELECT views, functions, operators, domains FROM pg_temp.planted_counts")
            .persistent(false)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
    assert!(counts.0 > 40 && counts.1 > 20 && counts.2 > 100 && counts.3 > 50, "{counts:?}");
    assert!(calls.len() >= 15 && firings.len() > 100, "{} calls, {} firings", calls.len(), firings.len());

    let mut open = Vec::new();
    // Twice: plans that the first round compiled under the caller's path are reused when the second one runs as the
    // owner.
    for round in 0..2 {
        for (name, statement) in firings.iter().chain(&calls) {
            let times = spied(&mut transaction, statement).await;
            if name.contains("planted_control") {
                assert!(times > 0, "the control is open, so that what was planted can be seen to run");
            } else if times > 0 {
                open.push(format!("round {round}: {name}: {times} times by {statement}"));
            }
        }
    }
    transaction.rollback().await.unwrap();
    assert!(open.is_empty(), "\n  {}", open.join("\n  "));
}

/// The rule by the catalogue: functions that run as their owner or as triggers set their own path; the others are plain
/// SQL that the planner inlines, with each type qualified by its schema.
#[tokio::test]
async fn every_function_brings_its_path_or_can_be_inlined() {
    let database = TestDatabase::new().await;
    let without: Vec<(String,)> = database
        .query_all(
            "SELECT p.proname::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
             WHERE p.pronamespace = 'public'::regnamespace
               AND NOT coalesce(p.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']
               AND (p.prosecdef OR l.lanname <> 'sql' OR p.prorettype = 'trigger'::regtype
                 OR p.proname NOT IN ('usage_period_start', 'usage_period_end', 'plan_in_force', 'effective_plan', 'usage_tally',
                    'entitlement_changes_at', 'feature_entitlement', 'lapsed_subscription', 'usage_decision', 'ledger_hash', 'normal_address')
                 OR p.prosrc ~ '::(text|uuid|jsonb|bytea|name|timestamptz|regclass)')",
        )
        .await;
    assert_eq!(without, [], "docs/DATA.md gives the reason of each that has no path");
}

#[tokio::test]
async fn nobody_but_the_owner_makes_temporary_objects_and_verify_says_so() {
    let database = TestDatabase::new().await;
    let may = "SELECT count(*) FROM pg_roles
        WHERE rolname IN ('anon', 'authenticated', 'app_user', 'app_service', 'readonly_user')
        AND has_database_privilege(oid, current_database(), 'TEMPORARY')";
    let says_so = |findings: Vec<migration::VerifyFinding>| findings.iter().any(|f| f.finding == "PUBLIC_TEMPORARY");
    // A copy of a database has the default rights of a new one, and no changed text.
    assert!(says_so(migration::verify(&database.owner_url()).await.unwrap()));
    assert_eq!(migration::up(&database.owner_url()).await.unwrap(), migration::MigrationReport::default());
    assert_eq!(database.query_scalar::<i64>(may).await, 0);
    assert!(!says_so(migration::verify(&database.owner_url()).await.unwrap()));
    migration::down(&database.owner_url(), None).await.unwrap();
    assert_eq!(database.query_scalar::<i64>(may).await, 5, "what was taken is given back");
}

/// Finds a definer function whose path was changed by hand, whatever the stored checksum is.
#[tokio::test]
async fn verify_finds_a_function_that_lost_its_path() {
    let database = TestDatabase::new().await;
    for change in ["RESET search_path", "SET search_path = ''", "SET search_path = pg_temp, pg_catalog"] {
        database.sql(&format!("ALTER FUNCTION public.identity_email(uuid) {change}")).await;
        let findings = migration::verify(&database.owner_url()).await.unwrap();
        let is_it =
            |f: &migration::VerifyFinding| f.finding == "DEFINER_SEARCH_PATH" && f.subject == "identity_email(uuid)";
        assert!(findings.iter().any(is_it), "{change}: {findings:?}");
    }
}
