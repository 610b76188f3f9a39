//! Existing roles: `up` sets the attributes that the rights depend on, `verify` checks them, the service requires them.

use adapters::postgres::{PgStore, PoolSettings};
use harness::pool_settings;
use migration::FindingSeverity;
use ports::store::{Scope, Store};

use crate::catalogue::lines;
use crate::clusters::PrivateCluster;

/// Section 6.2 of the seeds, with the grants that an operator adds so that the service can log in.
const SEEDS_ROLES: &str =
    "CREATE ROLE readonly_user; CREATE ROLE app_user; GRANT CONNECT ON DATABASE postgres TO app_user, readonly_user";

const ATTRIBUTES: &str = "SELECT concat_ws(' ', rolname, CASE WHEN rolcanlogin THEN 'login' END, CASE WHEN rolinherit THEN 'inherit' END,
    CASE WHEN rolbypassrls THEN 'bypassrls' END, CASE WHEN rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication THEN 'mighty' END)
    FROM pg_roles WHERE rolname IN ('app_user', 'app_service', 'readonly_user') ORDER BY 1";

async fn excess(cluster: &PrivateCluster, login: &str) -> Vec<String> {
    let settings = PoolSettings { max_connections: 1, ..pool_settings(cluster.url_as(login, "secret")) };
    let store = PgStore::connect(settings).unwrap();
    let mut work = store.begin(Scope::SERVICE).await.unwrap();
    let state = work.maintenance().state().await.unwrap();
    drop(work);
    store.close().await;
    state.excess_rights
}

async fn errors(cluster: &PrivateCluster) -> Vec<String> {
    let findings = migration::verify(cluster.owner_url()).await.unwrap();
    let errors = findings.iter().filter(|finding| finding.severity == FindingSeverity::Error);
    errors.map(|finding| format!("{} {}", finding.finding, finding.subject)).collect()
}

#[tokio::test]
async fn roles_of_the_seeds_get_what_the_rights_rest_on() {
    let cluster = PrivateCluster::start().await;
    cluster.sql(SEEDS_ROLES).await;
    migration::up(cluster.owner_url()).await.unwrap();
    migration::seed(cluster.owner_url()).await.unwrap();
    assert_eq!(
        lines(cluster.owner_url(), ATTRIBUTES).await,
        ["app_service inherit", "app_user login", "readonly_user inherit"]
    );
    assert_eq!(errors(&cluster).await, Vec::<String>::new());
    cluster.sql("ALTER ROLE app_user PASSWORD 'secret'").await;
    assert_eq!(excess(&cluster, "app_user").await, Vec::<String>::new());

    // Changed by hand, one at a time: found by `verify`, reported at the start, corrected by `up`.
    for (change, finding, told) in [
        ("ALTER ROLE app_user INHERIT", "ROLE_RIGHTS app_user", Some("without taking the role on")),
        ("ALTER ROLE app_user BYPASSRLS", "ROLE_RIGHTS app_user", Some("bypasses row-level security")),
        ("ALTER ROLE app_user CREATEROLE CREATEDB", "ROLE_RIGHTS app_user", Some("may make roles")),
        ("ALTER ROLE app_user REPLICATION", "ROLE_RIGHTS app_user", Some("may replicate")),
        ("ALTER ROLE app_service LOGIN", "ROLE_RIGHTS app_service", None),
        ("ALTER ROLE app_service BYPASSRLS", "ROLE_RIGHTS app_service", Some("may become a role that bypasses")),
        ("ALTER ROLE readonly_user CREATEROLE", "ROLE_RIGHTS readonly_user", None),
    ] {
        cluster.sql(change).await;
        let found = errors(&cluster).await;
        assert!(found.iter().any(|line| line == finding), "{change}: {found:?}");
        if let Some(told) = told {
            let rights = excess(&cluster, "app_user").await;
            assert!(rights.iter().any(|right| right.contains(told)), "{change}: {rights:?}");
        }
        migration::up(cluster.owner_url()).await.unwrap();
        assert_eq!(errors(&cluster).await, Vec::<String>::new(), "{change}");
    }

    // `up` must not revoke a membership, which may be intended: it is reported.
    cluster.sql("GRANT pg_read_all_data TO app_user").await;
    assert_eq!(errors(&cluster).await, ["EXCESS_MEMBERSHIP app_user"]);
    assert!(excess(&cluster, "app_user").await.iter().any(|right| right.contains("pg_read_all_data")));
    cluster.stop().await;
}

/// Logins with other names: only their effective rights matter.
#[tokio::test]
async fn the_start_looks_at_what_a_login_can_do() {
    let cluster = PrivateCluster::start().await;
    migration::up(cluster.owner_url()).await.unwrap();
    let lean = "NOINHERIT LOGIN PASSWORD 'secret'; GRANT app_service, authenticated TO";
    for (login, made, told) in [
        ("lean", format!("CREATE ROLE lean {lean} lean"), None),
        (
            "heir",
            "CREATE ROLE heir INHERIT LOGIN PASSWORD 'secret'; GRANT app_service, authenticated TO heir".to_owned(),
            Some("the login has the rights of app_service, authenticated without taking the role on"),
        ),
        (
            "chain",
            format!(
                "CREATE ROLE chain {lean} chain; CREATE ROLE middle; CREATE ROLE top SUPERUSER; GRANT top TO middle; GRANT middle TO chain"
            ),
            Some("the login may become a superuser (top)"),
        ),
        (
            "owner",
            format!(
                "CREATE ROLE owner {lean} owner; CREATE ROLE tables; ALTER TABLE users OWNER TO tables; GRANT tables TO owner"
            ),
            Some("the login may become the owner of the tables (tables)"),
        ),
        (
            "maker",
            format!("CREATE ROLE maker {lean} maker; GRANT CREATE ON SCHEMA public TO maker"),
            Some("the login may create in public"),
        ),
        (
            "files",
            format!("CREATE ROLE files {lean} files; GRANT pg_read_server_files TO files"),
            Some("the login is a member of pg_read_server_files"),
        ),
    ] {
        cluster.sql(&made).await;
        let rights = excess(&cluster, login).await;
        assert_eq!(rights.first().map(String::as_str), told, "{login}: {rights:?}");
    }
    cluster.stop().await;
}

/// If the migrating login may not alter a role, it reports the statement for an administrator, and stops.
#[tokio::test]
async fn a_login_without_the_right_to_alter_roles_names_the_statement() {
    let cluster = PrivateCluster::start().await;
    cluster.sql("CREATE ROLE team LOGIN CREATEROLE PASSWORD 'secret'; ALTER DATABASE product_base OWNER TO team").await;
    let team = cluster.url_as("team", "secret");
    migration::up(&team).await.unwrap();
    cluster.sql("ALTER ROLE app_user BYPASSRLS").await;
    let refused = migration::up(&team).await.unwrap_err();
    assert!(format!("{refused:#}").contains("ALTER ROLE app_user LOGIN NOINHERIT"), "{refused:#}");
    cluster.sql("ALTER ROLE app_user NOBYPASSRLS; ALTER ROLE team NOCREATEROLE").await;
    migration::up(&team).await.expect("nothing is to alter, so no right to alter is needed");
    cluster.stop().await;
}
