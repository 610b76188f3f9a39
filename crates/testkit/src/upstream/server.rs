//! The stub's interface for tests: start it, write scripts, read its requests and its bill.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::bill::{BillLine, BillTotals};
use super::books::{ScriptedModels, UpstreamBooks};
use super::catalogue;
use super::http::UpstreamRequest;
use super::play::serve;
use super::script::Script;

/// More connections than a test machine has sockets for.
const CONNECTIONS_MAX: usize = 10_000;
/// How long `until` waits before it fails its test.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Port 0 picks any free port.
    pub address: SocketAddr,
    pub threads: usize,
    /// How many requests and bill lines are kept. The totals cover all.
    pub kept: usize,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), threads: 1, kept: 10_000 }
    }
}

/// The stub upstream. It serves on threads of its own, so it works with any runtime of the test, and stops when
/// dropped.
pub struct Upstream {
    address: SocketAddr,
    books: Arc<UpstreamBooks>,
    runtime: Option<Runtime>,
}

impl Upstream {
    pub fn start() -> Self {
        Self::start_with(&UpstreamSettings::default())
    }

    pub fn start_with(settings: &UpstreamSettings) -> Self {
        let listener = TcpListener::bind(settings.address).expect("the address of the stub is free");
        listener.set_nonblocking(true).expect("a listener can be made asynchronous");
        let address = listener.local_addr().expect("a bound listener has an address");
        let books = Arc::new(UpstreamBooks::new(settings.kept));
        let runtime = Builder::new_multi_thread()
            .worker_threads(settings.threads)
            .thread_name("stub-upstream")
            .enable_all()
            .build()
            .expect("the stub gets its threads");
        runtime.spawn(accept(listener, Arc::clone(&books)));
        Self { address, books, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for OpenAI's SDKs: it ends in `/v1`.
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL for Anthropic's SDKs.
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL for Google's SDKs.
    pub fn gemini_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the model's script from now on.
    pub fn script(&self, model: &str, script: Script) {
        let scripted = ScriptedModels { then: script, ..ScriptedModels::default() };
        self.books.pages().scripts.insert(model.to_owned(), scripted);
    }

    /// The model's next requests use this script, after those already queued; then its usual script applies again.
    pub fn script_next(&self, times: u64, model: &str, script: Script) {
        if times > 0 {
            let mut pages = self.books.pages();
            let then = pages.otherwise.clone();
            let scripted = pages.scripts.entry(model.to_owned());
            scripted
                .or_insert_with(|| ScriptedModels { then, ..ScriptedModels::default() })
                .first
                .push_back((times, script));
        }
    }

    /// Sets the script of all models without one of their own.
    pub fn script_others(&self, script: Script) {
        self.books.pages().otherwise = script;
    }

    /// Sets a script for each model in `catalogue.rs`.
    pub fn script_catalogue(&self) {
        for (model, script) in catalogue::models() {
            self.script(model, script);
        }
    }

    /// From now on every other credential is refused.
    pub fn accept_only(&self, key: &str) {
        self.books.pages().key = Some(key.to_owned());
    }

    /// Lets this many held responses continue, now or when they are held.
    pub fn let_go(&self, answers: usize) {
        self.books.let_go.add_permits(answers);
    }

    /// The number of responses held by a script.
    pub fn held(&self) -> u64 {
        self.books.pages().held
    }

    /// The bill, in the order of the requests.
    pub fn bill(&self) -> Vec<BillLine> {
        let mut bill: Vec<BillLine> = self.books.pages().bill.iter().cloned().collect();
        bill.sort_by_key(|line| line.number);
        bill
    }

    pub fn totals(&self) -> BillTotals {
        self.books.pages().totals
    }

    /// Every request that could be read, in order, refused ones included.
    pub fn requests(&self) -> Vec<UpstreamRequest> {
        let mut requests: Vec<UpstreamRequest> = self.books.pages().requests.iter().cloned().collect();
        requests.sort_by_key(|request| request.number);
        requests
    }

    /// Removes requests and bill. Scripts stay, and numbers continue, so that no id is used twice.
    pub fn clear(&self) {
        self.books.pages().clear();
    }

    /// Waits until `is_so`, since a bill is complete only when its responses have ended. Fails the test after ten
    /// seconds.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(waited.await.is_ok(), "the stub waited in vain: {what}; {:?}", self.totals());
    }

    /// Waits until this many requests have come and every response has ended, and returns the bill.
    pub async fn settled(&self, requests: u64) -> Vec<BillLine> {
        self.until("for the end of all answers", |stub| {
            let totals = stub.totals();
            totals.requests >= requests && totals.answering == 0
        })
        .await;
        self.bill()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Without waiting, which is forbidden when a runtime drops this value.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, books: Arc<UpstreamBooks>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime takes the listener");
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let books = Arc::clone(&books);
                tokio::spawn(async move {
                    serve(stream, &books).await;
                    drop(permit);
                });
            }
            // The process has no file descriptor left: another connection must close first.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
