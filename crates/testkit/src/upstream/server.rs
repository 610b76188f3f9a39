//! The stub as a test holds it: start it, write scripts, read what it saw and what it charges.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::bill::{BillLine, Totals};
use super::books::{Books, Scripted};
use super::catalogue;
use super::http::Request;
use super::play::serve;
use super::script::Script;

/// More than a machine of tests has sockets for.
const CONNECTIONS_MAX: usize = 10_000;
/// How long `until` waits before it gives its test up.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Port 0 is any that is free.
    pub address: SocketAddr,
    pub threads: usize,
    /// How many requests and lines of the bill are kept. The totals are of all.
    pub kept: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), threads: 1, kept: 10_000 }
    }
}

/// The stub upstream. It serves on threads of its own, so the test may come from any runtime, and stops when dropped.
pub struct Upstream {
    address: SocketAddr,
    books: Arc<Books>,
    runtime: Option<Runtime>,
}

impl Upstream {
    pub fn start() -> Self {
        Self::start_with(&Settings::default())
    }

    pub fn start_with(settings: &Settings) -> Self {
        let listener = TcpListener::bind(settings.address).expect("the address of the stub is free");
        listener.set_nonblocking(true).expect("a listener can be made asynchronous");
        let address = listener.local_addr().expect("a bound listener has an address");
        let books = Arc::new(Books::new(settings.kept));
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

    /// What OpenAI's SDKs call the base URL: it ends in `/v1`.
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL as Anthropic's SDKs want it.
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL as Google's SDKs want it.
    pub fn gemini_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the model behaves so.
    pub fn script(&self, model: &str, script: Script) {
        let scripted = Scripted { then: script, ..Scripted::default() };
        self.books.pages().scripts.insert(model.to_owned(), scripted);
    }

    /// The model's next requests get this, after those that were ordered so before; then it behaves as it did.
    pub fn script_next(&self, times: u64, model: &str, script: Script) {
        if times > 0 {
            let mut pages = self.books.pages();
            let then = pages.otherwise.clone();
            let scripted = pages.scripts.entry(model.to_owned());
            scripted.or_insert_with(|| Scripted { then, ..Scripted::default() }).first.push_back((times, script));
        }
    }

    /// How models behave that have no script of their own.
    pub fn script_others(&self, script: Script) {
        self.books.pages().otherwise = script;
    }

    /// Writes a script for each of the models that `catalogue.rs` names.
    pub fn script_catalogue(&self) {
        for (model, script) in catalogue::models() {
            self.script(model, script);
        }
    }

    /// From now on every other credential is refused.
    pub fn accept_only(&self, key: &str) {
        self.books.pages().key = Some(key.to_owned());
    }

    /// Lets so many answers go on that a script holds, now or when they come to it.
    pub fn let_go(&self, answers: usize) {
        self.books.let_go.add_permits(answers);
    }

    /// How many answers a script holds.
    pub fn held(&self) -> u64 {
        self.books.pages().held
    }

    /// The bill, in the order in which the requests came.
    pub fn bill(&self) -> Vec<BillLine> {
        let mut bill: Vec<BillLine> = self.books.pages().bill.iter().cloned().collect();
        bill.sort_by_key(|line| line.number);
        bill
    }

    pub fn totals(&self) -> Totals {
        self.books.pages().totals
    }

    /// Every request that could be read, in the order in which they came, refused ones included.
    pub fn requests(&self) -> Vec<Request> {
        let mut requests: Vec<Request> = self.books.pages().requests.iter().cloned().collect();
        requests.sort_by_key(|request| request.number);
        requests
    }

    /// Forgets requests and bill. Scripts stay, and numbers go on, so that no id comes twice.
    pub fn clear(&self) {
        self.books.pages().clear();
    }

    /// Waits until it is so, as a bill is only whole when its answers have ended. Fails the test after ten seconds.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(waited.await.is_ok(), "the stub waited in vain: {what}; {:?}", self.totals());
    }

    /// Waits until so many requests have come and every answer has ended, and gives the bill.
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
        // Without waiting, which a runtime that drops us would forbid.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, books: Arc<Books>) {
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
            // The process has no descriptor left: somebody else has to give one back first.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
