//! Runs the real service inside the test process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use adapters::clock::SystemClock;
use app::settings::load::load;
use app::settings::shape::{SecretText, Settings};
use domain::users::UserId;
use ports::clock::Clock;
use reqwest::{Client, Method};
use serde_json::json;
use testkit::clock::SteppedClock;
use tokio::sync::oneshot;

use crate::answers::Answer;
use crate::databases::TestDatabase;
use crate::requests::{Bearer, Request};

const ADMIN_EMAIL: &str = "admin@example.com";
/// Signs the tokens of the service under test; a test can forge a token with it.
pub const SIGNING_KEY: &str = "the signing key of the service in tests";
/// The bearer token for the metrics of the service under test.
pub const METRICS_TOKEN: &str = "the scraper of the tests";
/// The password of every account that the harness makes.
pub const PASSWORD: &str = "correct horse battery";

/// The limit for every request of a test. A test that needs longer builds its request with `client()`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The service with its own database, threads and port. It stops when it is dropped.
pub struct TestApp {
    address: SocketAddr,
    database: Arc<TestDatabase>,
    clock: Arc<SteppedClock>,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    stopped: Option<thread::JoinHandle<()>>,
}

/// A user that signed up or logged in, with the tokens from that response.
#[derive(Clone, Debug)]
pub struct TestUser {
    pub id: UserId,
    pub email: String,
    pub access_token: String,
    pub refresh_token: String,
}

impl Bearer for TestUser {
    fn bearer_token(&self) -> &str {
        &self.access_token
    }
}

impl TestApp {
    /// Starts the service with the settings of `config/test.toml`.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts the service with settings that differ from those of `config/test.toml`. The database is set already.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::over(Arc::new(TestDatabase::new().await), change).await
    }

    /// Starts the service over an existing database, as a second process of the service or after a restart.
    pub async fn over(database: Arc<TestDatabase>, change: impl FnOnce(&mut Settings)) -> Self {
        crate::install_tls();
        let mut settings = test_settings();
        settings.database.url = SecretText::new(database.service_url());
        settings.database.direct_url = SecretText::new(database.owner_url());
        settings.auth.signing_key = SecretText::new(SIGNING_KEY);
        settings.metrics.token = SecretText::new(METRICS_TOKEN);
        ADMIN_EMAIL.clone_into(&mut settings.admin.email);
        settings.admin.password = SecretText::new(PASSWORD);
        change(&mut settings);
        app::telemetry::init_logs(&settings.log).expect("the filter of the log is sound");
        let (stop, stopping) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let clock = Arc::new(SteppedClock::over(Arc::new(SystemClock)));
        let (kept, moved) = (Arc::clone(&database), Arc::<SteppedClock>::clone(&clock));
        let stopped = thread::Builder::new().name("service".to_owned()).spawn(move || {
            serve(settings, moved, ready, stopping);
            drop(kept); // the database is dropped after the service, so that the service stops without errors
        });
        let address = started.await.expect("the service's thread says how its start went");
        let address = address.unwrap_or_else(|error| panic!("the service did not start: {error:#}"));
        Self {
            address,
            database,
            clock,
            client: client(),
            stop: Some(stop),
            stopped: Some(stopped.expect("a thread for the service")),
        }
    }

    pub fn database(&self) -> &Arc<TestDatabase> {
        &self.database
    }

    /// Moves the clock of the service ahead. The database's stays where it is.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A request for the metrics page.
    pub fn metrics(&self) -> Request {
        self.get("/metrics").header("authorization", &format!("Bearer {METRICS_TOKEN}"))
    }

    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }

    pub fn put(&self, path: &str) -> Request {
        self.request(Method::PUT, path)
    }

    pub fn patch(&self, path: &str) -> Request {
        self.request(Method::PATCH, path)
    }

    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    pub fn request(&self, method: Method, path: &str) -> Request {
        Request::new(format!("{method} {path}"), self.client.request(method, self.url(path)))
    }

    /// Signs up a user with the built-in identity and the password of all test users.
    pub async fn signup(&self, email: &str) -> TestUser {
        let body = json!({ "email": email, "password": PASSWORD, "name": email.split('@').next() });
        let answer = self.post("/api/auth/signup").json(body).send().await.expect_status(201);
        TestUser::of(&answer)
    }

    /// Logs the same user in again, in another session.
    pub async fn login(&self, email: &str) -> TestUser {
        let body = json!({ "email": email, "password": PASSWORD });
        let answer = self.post("/api/auth/login").json(body).send().await.expect_status(200);
        TestUser::of(&answer)
    }

    /// Logs in the administrator that the settings name.
    pub async fn admin(&self) -> TestUser {
        self.login(ADMIN_EMAIL).await
    }

    /// Stops the service as SIGTERM does, and waits until it has ended.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let stopped = self.stopped.take().expect("a service stops once");
        let joined = tokio::task::spawn_blocking(|| stopped.join()).await.expect("the wait is not cancelled");
        joined.expect("the service's thread did not panic");
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        drop(self.stop.take()); // without waiting: the thread ends by itself, then the database is dropped
    }
}

impl TestUser {
    /// Reads the user from the response to a sign-up or a log-in.
    fn of(answer: &Answer) -> Self {
        let id = answer.text_at("/user/id").parse().map(UserId).expect("the id of a user is a UUID");
        let text = |pointer| answer.text_at(pointer).to_owned();
        Self {
            id,
            email: text("/user/email"),
            access_token: text("/access_token"),
            refresh_token: text("/refresh_token"),
        }
    }
}

/// Runs the service on its own runtime, so that the end of a test's runtime does not interrupt its shutdown.
fn serve(
    settings: Settings,
    clock: Arc<dyn Clock>,
    ready: oneshot::Sender<anyhow::Result<SocketAddr>>,
    stopping: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    runtime.block_on(async {
        match app::startup::start(settings, clock).await {
            Ok(running) => {
                ready.send(Ok(running.address)).ok();
                stopping.await.ok();
                running.stop().await.expect("the service stops in order");
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

/// The settings of `config/test.toml`, without a database.
pub fn test_settings() -> Settings {
    let variables = HashMap::from([("PB__ENVIRONMENT".to_owned(), "test".to_owned())]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    load(&variables, &folder).expect("config/test.toml holds valid settings")
}

fn client() -> Client {
    let builder = Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
    builder.build().expect("a client without anything special")
}
