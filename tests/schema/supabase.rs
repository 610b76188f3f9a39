//! On Supabase: nothing in `auth` is altered, users get no more rights than elsewhere, and everything works.

use adapters::postgres::{PgStore, PoolSettings};
use domain::identity::Role;
use domain::users::{NewUser, UserId};
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use harness::{TestDatabase, pool_settings};
use migration::FindingSeverity;
use ports::store::{Scope, Store, StoreError};

use crate::catalogue::{assert_same, everything, lines, rights_of_users, schema};
use crate::clusters::{PrivateCluster, refusal};
use crate::supabase_imitation::{MIGRATOR, MIGRATOR_PASSWORD, imitation};

const ANN: &str = "00000000-0000-4000-8000-00000000000a";
const BOB: &str = "00000000-0000-4000-8000-00000000000b";

/// The roles with their attributes, and their memberships.
const ROLES: &str = "SELECT format('%s %s%s%s%s%s%s', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
    rolbypassrls) FROM pg_roles WHERE rolname !~ '^pg_'
    UNION ALL SELECT format('%s in %s', member::regrole, roleid::regrole) FROM pg_auth_members WHERE roleid::regrole::text !~ '^pg_' ORDER BY 1";

/// Everything in one test, because a cluster takes a second or two.
#[tokio::test]
async fn a_supabase_database_is_migrated_used_and_left_as_it_was() {
    let cluster = PrivateCluster::start().await;
    cluster.sql(&imitation("product_base")).await;
    let (owner, migrator) = (cluster.owner_url().to_owned(), cluster.url_as(MIGRATOR, MIGRATOR_PASSWORD));
    let columns = "SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'auth.users'::regclass AND attnum > 0";
    assert_eq!(lines(&owner, columns).await, ["35"]);
    let (auth, all, roles) = (schema(&owner, "auth").await, everything(&owner).await, lines(&owner, ROLES).await);

    let report = migration::up(&migrator).await.unwrap();
    assert_eq!(report.applied, migration::names());
    assert_eq!(migration::seed(&migrator).await.unwrap().seeded, 23);
    assert_eq!(migration::up(&migrator).await.unwrap(), migration::MigrationReport::default());
    assert_same("auth after up and seed", &auth, &schema(&owner, "auth").await);
    let after = lines(&owner, ROLES).await;
    assert!(roles.iter().all(|role| after.contains(role)), "roles that existed are as they were: {roles:?} {after:?}");
    assert_no_errors(&migrator).await;
    assert_rights_as_elsewhere(&owner).await;
    assert_append_only_for_service_role(&owner).await;
    the_service_works(&cluster).await;
    users_stay_in_their_rows(&owner).await;

    migration::fresh(&migrator).await.unwrap();
    migration::down(&migrator, None).await.unwrap();
    assert_same("auth after down", &auth, &schema(&owner, "auth").await);
    assert_same("everything after down", &all, &everything(&owner).await);
    assert_eq!(lines(&owner, "SELECT note FROM theirs").await, ["kept"]);
    cluster.stop().await;
}

async fn assert_no_errors(url: &str) {
    let findings = migration::verify(url).await.unwrap();
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == FindingSeverity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// `anon` and `authenticated` have the same rights as in a plain database; another team's objects are not changed.
async fn assert_rights_as_elsewhere(owner: &str) {
    let here = rights_of_users(owner).await;
    let (theirs, ours): (Vec<String>, Vec<String>) = here.into_iter().partition(|right| right.contains("their"));
    for right in ["anon may SELECT theirs", "authenticated may DELETE theirs", "anon may EXECUTE their_function()"] {
        assert!(theirs.iter().any(|found| found == right), "{right} in {theirs:?}");
    }
    let plain = TestDatabase::empty().await;
    migration::up(&plain.owner_url()).await.unwrap();
    assert_same("plain Postgres (before) and Supabase (after)", &rights_of_users(&plain.owner_url()).await, &ours);
}

/// Rights that default privileges gave to `service_role`, and that break our promises, are revoked by name.
async fn assert_append_only_for_service_role(owner: &str) {
    let of = |verbs: &str| {
        format!(
            "SELECT c.relname || ' ' || p FROM pg_class c, unnest(ARRAY[{verbs}]) p, unnest(ARRAY['service_role', 'anon', 'authenticated', 'app_user']) r
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S') AND c.relname NOT LIKE 'theirs%'
               AND (CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(r, c.oid, 'USAGE, UPDATE') ELSE has_table_privilege(r, c.oid, p) END) ORDER BY 1"
        )
    };
    assert_eq!(lines(owner, &of("'TRUNCATE', 'TRIGGER', 'REFERENCES'")).await, Vec::<String>::new());
    let written = "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
        AND NOT c.relispartition AND c.relname <> 'theirs' AND has_any_column_privilege('service_role', c.oid, 'INSERT, UPDATE')
        ORDER BY 1";
    let expected = [
        "api_keys",
        "api_usage",
        "chat_messages",
        "chat_sessions",
        "feature_overrides",
        "features",
        "generated_apis",
        "learning_progress",
        "organization_members",
        "organizations",
        "plan_features",
        "plans",
        "runtime_settings",
        "scheduled_plan_changes",
        "sessions",
        "tutorial_completion",
        "usage_alerts",
        "user_subscriptions",
        "users",
        "webhook_deliveries",
        "webhook_endpoints",
    ];
    assert_eq!(lines(owner, written).await, expected, "nothing of the books, the trail, the secrets");
    let balance = "SELECT has_column_privilege('service_role', 'users', c, 'UPDATE')::text FROM unnest(ARRAY['token_balance', 'token_reserved', 'plan_id']) c";
    assert_eq!(lines(owner, balance).await, ["false", "false", "true"]);
    let seen = "SELECT r FROM unnest(ARRAY['signing_keys', 'refresh_tokens', 'idempotent_answers', 'ai_answers', 'audit_logs']) r
        WHERE has_table_privilege('service_role', 'public.' || r, 'SELECT')";
    assert_eq!(lines(owner, seen).await, ["audit_logs"]);
    let partitions =
        "SELECT c.relname || ' ' || p FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE',
        'TRUNCATE']) p, unnest(ARRAY['anon', 'authenticated', 'service_role', 'app_service']) g
        WHERE c.relispartition AND c.relkind = 'r' AND has_table_privilege(g, c.oid, p)";
    assert_eq!(lines(owner, partitions).await, Vec::<String>::new());
}

/// The service's own store: `app_service` has no rights in `auth`, but can show an address and refuses an unknown
/// identity.
async fn the_service_works(cluster: &PrivateCluster) {
    let identities = format!(
        "ALTER ROLE app_user PASSWORD 'service'; INSERT INTO auth.users (id, email) VALUES ('{ANN}', 'Ann@example.com'), ('{BOB}', 'bob@example.com')"
    );
    cluster.sql(&identities).await;
    let settings = PoolSettings { max_connections: 2, ..pool_settings(cluster.url_as("app_user", "service")) };
    let store = PgStore::connect(settings).unwrap();
    store.self_test().await.unwrap();
    let mut work = store.begin(Scope::SERVICE).await.unwrap();
    for id in [ANN, BOB] {
        let new = NewUser { id: UserId(id.parse().unwrap()), name: "somebody".to_owned(), role: Role::User };
        work.users().insert(&new).await.unwrap();
    }
    work.commit().await.unwrap();
    let mut work = store.begin(Scope::SERVICE).await.unwrap();
    let absent = NewUser { id: UserId(uuid::Uuid::from_u128(7)), name: "nobody".to_owned(), role: Role::User };
    let refused = work.users().insert(&absent).await;
    assert!(
        matches!(&refused, Err(StoreError::Constraint { constraint }) if constraint == "fk_users_auth"),
        "{refused:?}"
    );
    drop(work);
    let ann = UserId(ANN.parse().unwrap());
    for scope in [Scope::SERVICE, Scope::User(ann)] {
        let mut work = store.begin(scope).await.unwrap();
        let found = work.users().find(ann).await.unwrap().unwrap();
        assert_eq!(found.email.map(|email| email.to_string().to_lowercase()).as_deref(), Some("ann@example.com"));
        assert_eq!((found.plan_id.as_str(), found.token_balance), ("free", 100));
    }
    store.close().await;
    let missing = format!("SET session_replication_role = replica; DELETE FROM auth.users WHERE id = '{BOB}'");
    cluster.sql(&missing).await;
    assert_eq!(
        lines(cluster.owner_url(), "SELECT finding || ' ' || subject FROM integrity_findings").await,
        [format!("MISSING_AUTH_USER {BOB}")]
    );
    cluster.sql(&format!("INSERT INTO auth.users (id, email) VALUES ('{BOB}', 'bob@example.com')")).await;
}

/// Connects like a Supabase client: through the `authenticator`, with the claims of a token.
async fn users_stay_in_their_rows(owner: &str) {
    let (server, database) = owner.rsplit_once('/').unwrap();
    let (_, host) = server.rsplit_once('@').unwrap();
    let url = format!("postgres://authenticator:authenticator@{host}/{database}");
    let as_ann = format!(
        r#"SET ROLE authenticated; SELECT set_config('request.jwt.claims', '{{"sub":"{ANN}","role":"authenticated"}}', false);"#
    );
    for forbidden in [
        "UPDATE users SET plan_id = 'gold'",
        "UPDATE users SET token_balance = 1000000",
        "INSERT INTO user_subscriptions (user_id, plan_id, status) SELECT id, 'gold', 'active' FROM users",
        "DELETE FROM users",
        "TRUNCATE users CASCADE",
        "SELECT * FROM auth.users",
        "SELECT * FROM usage_events_default",
        "SELECT * FROM audit_logs",
        "SELECT maintain_partitions()",
        "SELECT identity_find('bob@example.com')",
        "UPDATE product_base_migrations SET version = 'x'",
        "SET ROLE app_service",
    ] {
        let (state, _) = refusal(&url, &format!("{as_ann} {forbidden}")).await;
        assert_eq!(state, "42501", "{forbidden}");
    }
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(as_ann.as_str())).execute(&mut connection).await.unwrap();
    let query = format!(
        "SELECT (SELECT count(*) FROM users), (SELECT email FROM user_plan_summary), identity_email('{BOB}'),
            check_feature_access('{ANN}', 'ai_requests')"
    );
    let seen: (i64, Option<String>, Option<String>, bool) =
        sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap();
    assert_eq!(seen, (1, Some("Ann@example.com".to_owned()), None, false));
    connection.close().await.unwrap();
}
