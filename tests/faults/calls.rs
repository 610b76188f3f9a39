//! Model calls when the process is killed during the call, in each phase, and when the database is stopped: the sweep,
//! or the call itself, brings the books to the state that is documented for the phase.

use std::process::Stdio;
use std::time::Duration;

use harness::sqlx::{self, AssertSqlSafe, PgConnection};
use harness::{TestDatabase, sqlx::Connection as _};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::upstream::{AnswerPace, Fault, Script, Upstream};

use crate::clusters::OwnCluster;
use crate::service::Service;
use crate::writers::within;

/// The shortest reservation that the service accepts.
const HOLD_SECONDS: &str = "3";
/// The reservation's lifetime, the sweep's period of five seconds, and a margin for a busy machine.
const SWEPT_WITHIN: Duration = Duration::from_secs(40);
/// Words that every tokenizer counts as one token each.
const WORDS: usize = 30;

struct Stage {
    service: Service,
    upstream: Upstream,
    client: reqwest::Client,
    token: String,
    database: String,
}

fn start(database: (&str, &str), upstream: &Upstream) -> Service {
    let urls = [upstream.openai_url(), upstream.anthropic_url(), upstream.gemini_url()];
    let variables = [
        ("PB__DATABASE__URL", database.0),
        ("PB__DATABASE__DIRECT_URL", database.1),
        ("PB__AUTH__SIGNING_KEY", harness::SIGNING_KEY),
        ("PB__AI__CALLS__HOLD_SECONDS", HOLD_SECONDS),
        ("PB__AI__OPENAI__BASE_URL", &*urls[0]),
        ("PB__AI__OPENAI__API_KEY", "k"),
        ("PB__AI__CLAUDE__BASE_URL", &*urls[1]),
        ("PB__AI__CLAUDE__API_KEY", "k"),
        ("PB__AI__GEMINI__BASE_URL", &*urls[2]),
        ("PB__AI__GEMINI__API_KEY", "k"),
    ];
    tokio::task::block_in_place(|| Service::start(&variables, Stdio::inherit()))
}

impl Stage {
    /// A user without any request left, who pays for each call with tokens.
    async fn set(service_url: &str, owner_url: &str) -> Self {
        let upstream = Upstream::start();
        let service = start((service_url, owner_url), &upstream);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().unwrap();
        let body = json!({ "email": "ann@example.com", "password": "correct horse battery", "name": "ann" });
        let signed_up = client.post(format!("{}/api/auth/signup", service.address)).json(&body).send().await.unwrap();
        let token = signed_up.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned();
        let stage = Self { service, upstream, client, token, database: owner_url.to_owned() };
        stage
            .sql(
                "UPDATE plan_features SET limit_value = 0, overage = 'tokens' WHERE plan_id = 'gold' AND feature_id = 'ai_requests';
                 UPDATE users SET plan_id = 'gold';
                 INSERT INTO token_transactions (user_id, amount, type, balance_after)
                 SELECT id, 1000000, 'topup', token_balance + 1000000 FROM users;
                 UPDATE users SET token_balance = token_balance + 1000000",
            )
            .await;
        stage
    }

    async fn sql(&self, statements: &str) {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn number(&self, query: &str) -> i64 {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        let number = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    }

    /// `(model, input, output, source, outcome)` of each logged call.
    async fn books(&self) -> Vec<(String, i64, i64, String, String)> {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        let sql = "SELECT model::text, input_tokens, output_tokens, source::text, outcome::text FROM ai_usage_logs ORDER BY created_at, id";
        let books = sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        books
    }

    /// Requests a stream in a task, because a killed process does not respond.
    fn ask(&self, model: &str) -> tokio::task::JoinHandle<Option<Response>> {
        let sent = self.request(model).send();
        tokio::spawn(async move { sent.await.ok() })
    }

    fn request(&self, model: &str) -> RequestBuilder {
        let body = json!({ "model": model, "message": "Hello there", "max_tokens": 100, "stream": true });
        self.client.post(format!("{}/api/ai/chat", self.service.address)).bearer_auth(&self.token).json(&body)
    }

    async fn phase_is(&self, phase: &str) {
        let query = format!("SELECT count(*) FROM usage_reservations WHERE status = 'pending' AND phase = '{phase}'");
        within(Duration::from_secs(15), phase, async || self.number(&query).await == 1).await;
    }

    /// Kills the process, starts another one, and waits until no reservation is pending.
    async fn kill_and_sweep(&mut self, service_url: &str) {
        self.service.kill();
        self.service = start((service_url, &self.database), &self.upstream);
        self.swept().await;
    }

    async fn swept(&self) {
        let pending = "SELECT count(*) FROM usage_reservations WHERE status = 'pending'";
        within(SWEPT_WITHIN, "the sweep", async || self.number(pending).await == 0).await;
    }

    /// Every logged token was charged, nothing is reserved, and the checks have no findings.
    async fn expect_in_order(&self) {
        let used: i64 = self.books().await.iter().map(|(_, input, output, ..)| input + output).sum();
        let spent = "SELECT coalesce(-sum(amount), 0)::bigint FROM token_transactions WHERE type = 'usage'";
        assert_eq!(self.number(spent).await, used);
        let calls = i64::try_from(self.books().await.len()).unwrap();
        assert_eq!(self.number("SELECT coalesce(sum(used), 0)::bigint FROM usage_counters").await, calls);
        assert_eq!(self.number("SELECT sum(token_reserved)::bigint FROM users").await, 0);
        assert_eq!(self.number("SELECT count(*) FROM integrity_findings").await, 0);
        let mut findings = migration::verify(&self.database).await.unwrap();
        // This check runs as the owner, and a cloned database has the default rights of a new one.
        findings.retain(|found| !["LOGIN_RIGHTS", "PUBLIC_TEMPORARY"].contains(&found.finding.as_str()));
        assert!(findings.is_empty(), "{findings:?}");
    }
}

fn text() -> String {
    vec!["a"; WORDS].join(" ")
}

/// Kills the process in each phase, and checks the logged outcome after the sweep of the next process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_in_any_phase_leaves_books_in_the_documented_state() {
    let database = TestDatabase::new().await;
    let service_url = database.service_url();
    let mut stage = Stage::set(&service_url, &database.owner_url()).await;
    let models = ["gpt-5.4-mini", "claude-sonnet-5", "gemini-3.5-flash"];

    // Reserved, and not recorded as sent: that record is written 20 ms later. The sweep releases the reservation.
    stage.upstream.script_others(Script::fails(Fault::HangBeforeHead));
    let lock = "SELECT count(*) FROM usage_reservations WHERE status = 'pending'";
    let mut blocker = PgConnection::connect(&stage.database).await.unwrap();
    let asked = stage.ask(models[0]);
    within(Duration::from_secs(15), "the hold", async || stage.number(lock).await == 1).await;
    // Resets the phase if it was recorded by now, which restores the state before it.
    sqlx::raw_sql("BEGIN; UPDATE usage_reservations SET phase = 'reserved' WHERE status = 'pending'")
        .execute(&mut blocker)
        .await
        .unwrap();
    stage.service.kill();
    sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
    blocker.close().await.unwrap();
    assert!(asked.await.unwrap().is_none());
    stage.kill_and_sweep(&service_url).await;
    assert_eq!(stage.books().await, []);
    stage.expect_in_order().await;

    // Sent and not answered: the input is billed as it was counted.
    for model in models {
        let before = stage.books().await.len();
        let asked = stage.ask(model);
        stage.phase_is("dispatched").await;
        stage.kill_and_sweep(&service_url).await;
        assert!(asked.await.unwrap().is_none());
        let books = stage.books().await;
        let (booked, input, output, source, outcome) = books.last().unwrap();
        assert_eq!((books.len(), booked.as_str(), *input > 2, *output), (before + 1, model, true, 0));
        assert_eq!((source.as_str(), outcome.as_str()), ("partial", "swept"));
    }

    // During the response: the input is billed, and the output as of the last recorded progress.
    for model in models {
        stage.upstream.script(model, Script::says(&text()).with_fault(Fault::HoldAfter { events: 12 }));
        let before = stage.books().await.len();
        let mut response = stage.ask(model).await.unwrap().unwrap();
        response.chunk().await.unwrap();
        stage.upstream.until("the hold", |stub| stub.held() == 1).await;
        stage.phase_is("first_byte").await;
        let delivered = "SELECT (detail->>'delivered_tokens')::bigint FROM usage_reservations WHERE status = 'pending'";
        within(Duration::from_secs(15), "a mark with words", async || stage.number(delivered).await > 5).await;
        let marked = stage.number(delivered).await;
        stage.kill_and_sweep(&service_url).await;
        let books = stage.books().await;
        let (booked, _, output, source, outcome) = books.last().unwrap();
        assert_eq!((books.len(), booked.as_str(), *output), (before + 1, model, marked));
        assert_eq!((source.as_str(), outcome.as_str()), ("partial", "swept"));
    }
    stage.expect_in_order().await;
}

/// A repeat with the same idempotency key reaches another process and gets `answer_lost`: no second call, no second
/// charge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_call_whose_process_is_killed_is_lost_and_not_made_again() {
    let database = TestDatabase::new().await;
    let service_url = database.service_url();
    let mut stage = Stage::set(&service_url, &database.owner_url()).await;
    let model = "gpt-5.4-mini";
    stage.upstream.script(model, Script::says(&text()).with_fault(Fault::HoldAfter { events: 12 }));
    let keyed = |stage: &Stage| stage.request(model).header("Idempotency-Key", "once").send();
    let mut response = keyed(&stage).await.unwrap();
    response.chunk().await.unwrap();
    stage.phase_is("first_byte").await;
    stage.service.kill();
    stage.service = start((&service_url, &stage.database), &stage.upstream);
    // Before and after the sweep: the first repeat waits until the outcome of the call is known.
    for _ in 0..2 {
        let repeat = keyed(&stage).await.unwrap();
        let status = repeat.status();
        let problem: Value = repeat.json().await.unwrap();
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("answer_lost")), "{problem}");
    }
    stage.swept().await;
    assert_eq!(stage.upstream.requests().len(), 1);
    assert_eq!(stage.books().await.len(), 1);
    stage.expect_in_order().await;
}

/// The settlement is one transaction: killed before its commit, it did not happen; after it, it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_while_it_settles_bills_once() {
    let database = TestDatabase::new().await;
    let service_url = database.service_url();
    let mut stage = Stage::set(&service_url, &database.owner_url()).await;
    stage.upstream.script("gpt-5.4-mini", Script::says(&text()).with_fault(Fault::HoldAfter { events: 12 }));
    let mut response = stage.ask("gpt-5.4-mini").await.unwrap().unwrap();
    response.chunk().await.unwrap();
    stage.phase_is("first_byte").await;
    // The user's row is locked, so the settlement waits in its transaction.
    let mut blocker = PgConnection::connect(&stage.database).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM users FOR UPDATE").execute(&mut blocker).await.unwrap();
    stage.upstream.let_go(1);
    stage.upstream.settled(1).await;
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    within(Duration::from_secs(10), "the settlement", async || stage.number(waiting).await > 0).await;
    stage.service.kill();
    sqlx::raw_sql("ROLLBACK").execute(&mut blocker).await.unwrap();
    blocker.close().await.unwrap();
    stage.kill_and_sweep(&service_url).await;
    assert_eq!(stage.books().await.len(), 1);
    stage.expect_in_order().await;
    // Killed at several moments around the settlement: billed at most once each.
    for (number, wait) in [0, 2, 5, 10, 20].into_iter().enumerate() {
        let pace = AnswerPace { between: Duration::from_millis(1), ..AnswerPace::default() };
        stage.upstream.script("gpt-5.4-mini", Script::says(&text()).paced(pace));
        let asked = stage.ask("gpt-5.4-mini");
        let requests = number as u64 + 2;
        stage.upstream.until("the end of the answer", |stub| stub.totals().finished >= requests).await;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        stage.kill_and_sweep(&service_url).await;
        asked.await.unwrap();
        assert!(stage.books().await.len() <= number + 2);
        stage.expect_in_order().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_in_the_middle_of_a_call_finds_it_billed_once() {
    let mut cluster = OwnCluster::durable().await;
    let service_url = cluster.service_url().to_owned();
    let stage = Stage::set(&service_url, cluster.owner_url()).await;
    for is_long in [false, true] {
        let before = stage.books().await.len();
        stage.upstream.script("gpt-5.4-mini", Script::says(&text()).with_fault(Fault::HoldAfter { events: 12 }));
        let mut response = stage.ask("gpt-5.4-mini").await.unwrap().unwrap();
        response.chunk().await.unwrap();
        stage.phase_is("first_byte").await;
        cluster.stop_immediately().await;
        stage.upstream.let_go(1);
        stage.upstream.until("the end of the answer", |stub| stub.totals().answering == 0).await;
        // Longer than the reservation lasts, or shorter.
        tokio::time::sleep(Duration::from_secs(if is_long { 5 } else { 1 })).await;
        cluster.start_again().await;
        stage.swept().await;
        let books = stage.books().await;
        assert_eq!(books.len(), before + 1);
        let (_, _, output, source, _) = books.last().unwrap();
        let is_whole = (*output, source.as_str()) == (i64::try_from(WORDS).unwrap(), "provider");
        // Either the process or the sweep is first once the database is back: on a slow machine the short outage also
        // outlasts the reservation.
        assert!(is_whole || source == "partial", "{books:?}");
        stage.expect_in_order().await;
    }
    drop(stage);
    cluster.stop().await;
}
