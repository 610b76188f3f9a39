//! The cluster of this run, and the clerk: a thread with one runtime for the whole process, which prepares the
//! template, then creates and drops databases on demand. Each test has its own runtime, which ends with the test, so
//! everything that outlives a test runs on this thread.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use reqwest::Url;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::sqlx::{self, AssertSqlSafe, PgPool};
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::{lone_cluster, template};

/// The variable that names the cluster of the run; its value is the URL of a superuser.
const VARIABLE: &str = "PB__TEST__DATABASE_URL";

/// The clerk's own connections: the number of databases that are created or dropped at the same time.
const CLERK_CONNECTIONS: u32 = 2;

/// The SQLSTATE of a database that cannot be cloned or dropped now. The template can be in use for a moment, for
/// example by autovacuum.
const IN_USE: &str = "55006";
const TRIES: u32 = 50;
const TRY_PERIOD: Duration = Duration::from_millis(100);

pub struct Cluster {
    /// The superuser's URL, with the maintenance database.
    owner_url: Url,
    /// The migrated and seeded database that tests are cloned from.
    pub template: String,
    service_password: String,
    orders: mpsc::UnboundedSender<Order>,
}

struct Order {
    statement: String,
    done: Option<oneshot::Sender<Result<(), sqlx::Error>>>,
}

static CLUSTER: OnceCell<Result<Cluster, String>> = OnceCell::const_new();

impl Cluster {
    /// The cluster of this process. The first caller waits until it is ready; a failure is reported to every test.
    pub async fn get() -> &'static Self {
        let cluster = CLUSTER.get_or_init(|| async { open().await.map_err(|error| format!("{error:#}")) }).await;
        cluster.as_ref().unwrap_or_else(|error| panic!("no database for the tests: {error}"))
    }

    pub fn owner_url(&self, database: &str) -> String {
        url_of(&self.owner_url, database).to_string()
    }

    /// The URL with the service's login: `app_user`, a restricted role.
    pub fn service_url(&self, database: &str) -> String {
        let mut url = url_of(&self.owner_url, database);
        url.set_username(template::SERVICE_LOGIN).expect("a database URL has a user");
        url.set_password(Some(&self.service_password)).expect("a database URL has a password");
        url.to_string()
    }

    /// Runs a statement in the maintenance database.
    pub async fn order(&self, statement: String) -> Result<(), sqlx::Error> {
        let (done, answer) = oneshot::channel();
        self.orders.send(Order { statement, done: Some(done) }).expect("the clerk lives as long as the process");
        answer.await.expect("the clerk answers every order")
    }

    /// The same without waiting, for `Drop`. A statement that still runs when the process ends is not completed.
    pub fn order_soon(&self, statement: String) {
        self.orders.send(Order { statement, done: None }).ok();
    }
}

async fn open() -> anyhow::Result<Cluster> {
    crate::install_tls();
    let (ready, answer) = oneshot::channel();
    thread::Builder::new().name("clerk".to_owned()).spawn(move || work(ready)).context("the clerk's thread")?;
    answer.await.context("the clerk ended early")?
}

/// The clerk's main function; it runs until the process ends.
fn work(ready: oneshot::Sender<anyhow::Result<Cluster>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    runtime.block_on(async {
        // A cluster that this process started stops when this value is dropped.
        let (_own, owner_url) = match find().await {
            Ok(found) => found,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let (orders, inbox) = mpsc::unbounded_channel();
        let opened = prepare(owner_url, orders).await;
        let pool = opened.as_ref().ok().map(|cluster| maintenance_pool(&cluster.owner_url));
        ready.send(opened).ok();
        if let Some(pool) = pool {
            serve(inbox, &pool).await;
        }
    });
}

async fn find() -> anyhow::Result<(Option<lone_cluster::LoneCluster>, Url)> {
    #[expect(clippy::disallowed_methods, reason = "the tests have no settings file; the run names its cluster here")]
    let named = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
    let own = match named {
        Some(_) => None,
        None => Some(lone_cluster::LoneCluster::start().await.context("a cluster of our own")?),
    };
    let url = named.or_else(|| own.as_ref().map(|own| own.owner_url().to_owned())).unwrap_or_default();
    // The error omits the URL, which contains a password.
    let url = Url::parse(&url).map_err(|error| anyhow!("{VARIABLE} is not a URL: {error}"))?;
    Ok((own, url_of(&url, "postgres")))
}

async fn prepare(owner_url: Url, orders: mpsc::UnboundedSender<Order>) -> anyhow::Result<Cluster> {
    // Derived, so that all processes of a run use the same password without exchanging it.
    let service_password = format!("app-{}", owner_url.password().unwrap_or_default());
    let template = template::ensure(&owner_url, &service_password).await.context("the template of the databases")?;
    Ok(Cluster { owner_url, template, service_password, orders })
}

fn maintenance_pool(owner_url: &Url) -> PgPool {
    let options: PgConnectOptions = owner_url.as_str().parse().expect("the template was made over this URL");
    PgPoolOptions::new().max_connections(CLERK_CONNECTIONS).connect_lazy_with(options)
}

async fn serve(mut inbox: mpsc::UnboundedReceiver<Order>, pool: &PgPool) {
    while let Some(Order { statement, done }) = inbox.recv().await {
        let pool = pool.clone();
        tokio::spawn(async move {
            let outcome = execute_patiently(&pool, &statement).await;
            match (done, outcome) {
                (Some(done), outcome) => drop(done.send(outcome)),
                (None, Err(error)) => eprintln!("the harness could not clean up: {statement}: {error}"),
                (None, Ok(())) => {}
            }
        });
    }
}

/// Retries while a database is in use.
async fn execute_patiently(pool: &PgPool, statement: &str) -> Result<(), sqlx::Error> {
    let mut tries = 0;
    loop {
        let outcome = sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await;
        tries += 1;
        match outcome {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(IN_USE) && tries < TRIES => {
                tokio::time::sleep(TRY_PERIOD).await;
            }
            outcome => return outcome.map(drop),
        }
    }
}

/// The same login in another database.
pub fn url_of(url: &Url, database: &str) -> Url {
    let mut url = url.clone();
    url.set_path(database);
    url
}
