//! A stub of an identity provider: it serves a JWKS document on a free port of the loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::rt::System;
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::Value;

/// Serves the given documents and counts the requests. It stops when it is dropped.
pub struct StubJwks {
    address: SocketAddr,
    state: Arc<State>,
    server: ServerHandle,
}

struct State {
    answer: Mutex<Answer>,
    requests: AtomicUsize,
}

#[derive(Clone)]
enum Answer {
    Document(Value),
    Failure(StatusCode),
}

impl StubJwks {
    /// Serves `{"keys": [..]}` with these keys, on threads of its own, so that it works with any runtime of the test.
    pub fn start(keys: &[Value]) -> Self {
        let answer = Mutex::new(Answer::Document(document(keys)));
        let state = Arc::new(State { answer, requests: AtomicUsize::new(0) });
        let (ready, started) = mpsc::channel();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            System::new().block_on(async {
                let data = web::Data::from(shared);
                let http = HttpServer::new(move || App::new().app_data(data.clone()).route(PATH, web::get().to(serve)))
                    .workers(1)
                    .disable_signals()
                    .bind(("127.0.0.1", 0))
                    .expect("the loopback has a free port");
                let address = http.addrs().into_iter().next().expect("a bound server has an address");
                let running = http.run();
                ready.send((address, running.handle())).expect("the test waits for the stub");
                running.await.expect("the stub serves until it is stopped");
            });
        });
        let (address, server) = started.recv().expect("the stub starts");
        Self { address, state, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// The URL without the path, from which a verifier derives the issuer.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of requests for the document, failures included.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Rotates the keys.
    pub fn serve_keys(&self, keys: &[Value]) {
        self.serve(document(keys));
    }

    /// Serves any JSON, also JSON that is no JWKS.
    pub fn serve(&self, document: Value) {
        *self.state.answer() = Answer::Document(document);
    }

    /// Responds with this status until it is given a document again.
    pub fn fail(&self, status: u16) {
        *self.state.answer() = Answer::Failure(StatusCode::from_u16(status).expect("an HTTP status"));
    }
}

impl Drop for StubJwks {
    fn drop(&mut self) {
        // The call itself sends the command; the future would only wait for the end.
        drop(self.server.stop(false));
    }
}

impl State {
    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// The path of Supabase's keys.
const PATH: &str = "/auth/v1/.well-known/jwks.json";

fn document(keys: &[Value]) -> Value {
    serde_json::json!({ "keys": keys })
}

async fn serve(state: web::Data<State>) -> HttpResponse {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let answer = state.answer().clone();
    match answer {
        Answer::Document(document) => HttpResponse::Ok().json(document),
        Answer::Failure(status) => HttpResponse::new(status),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(stub: &StubJwks) -> String {
        let mut stream = TcpStream::connect(stub.address).await.expect("the stub listens");
        let request = format!("GET {PATH} HTTP/1.1\r\nhost: stub\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the stub reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the stub answers");
        answer
    }

    #[tokio::test]
    async fn it_serves_fails_and_counts() {
        let stub = StubJwks::start(&[serde_json::json!({ "kid": "one" })]);
        assert!(get(&stub).await.ends_with(r#"{"keys":[{"kid":"one"}]}"#));
        stub.serve_keys(&[]);
        assert!(get(&stub).await.ends_with(r#"{"keys":[]}"#));
        stub.fail(503);
        assert!(get(&stub).await.starts_with("HTTP/1.1 503"));
        assert_eq!(stub.requests(), 3);
    }
}
