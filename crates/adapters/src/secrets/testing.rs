//! Helpers shared by the tests of this folder: keys, tokens, and a JWKS server that can fail.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ports::identity::TokenRefused;
use rand::RngExt;
use rsa::pkcs1::EncodeRsaPrivateKey;
use serde_json::{Value, json};
use testkit::clock::FixedClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(super) const SECRET: &[u8] = b"a secret that is for the tests only";

pub(super) fn now() -> DateTime<Utc> {
    testkit::clock::at("2026-11-20T12:00:00Z")
}

pub(super) fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::at(now()))
}

/// The reason of a refusal; panics on any other result.
pub(super) fn refused<T>(result: Result<T, TokenRefused>) -> String {
    match result {
        Err(TokenRefused::Invalid(reason)) => reason,
        Err(TokenRefused::Unavailable(reason)) => panic!("unavailable: {reason}"),
        Ok(_) => panic!("accepted"),
    }
}

/// The value of a future that is ready at once.
pub(super) fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

pub(super) fn sign_with_secret(secret: &[u8], claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// Signed with HS256, whatever the header says.
pub(super) fn sign_raw_hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let groups = bytes.chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len()).map(move |index| char::from(ALPHABET[(bits >> (18 - 6 * index)) & 63]))
    });
    groups.collect()
}

/// A key pair of an issuer.
#[derive(Clone)]
pub(super) struct SigningKey {
    pub(super) key_id: String,
    algorithm: Algorithm,
    private: EncodingKey,
}

impl SigningKey {
    pub(super) fn es256(key_id: &str) -> Self {
        let private =
            EncodingKey::from_ec_der(&pkcs8("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"));
        Self { key_id: key_id.to_owned(), algorithm: Algorithm::ES256, private }
    }

    pub(super) fn eddsa(key_id: &str) -> Self {
        let private = EncodingKey::from_ed_der(&pkcs8("302e020100300506032b657004220420"));
        Self { key_id: key_id.to_owned(), algorithm: Algorithm::EdDSA, private }
    }

    pub(super) fn rs256(key_id: &str) -> Self {
        // Finding the primes takes some seconds without optimization, so one key serves all tests.
        static PRIVATE: LazyLock<Vec<u8>> = LazyLock::new(|| rsa_der(2048));
        let private = EncodingKey::from_rsa_der(&PRIVATE);
        Self { key_id: key_id.to_owned(), algorithm: Algorithm::RS256, private }
    }

    pub(super) fn weak_rs256(key_id: &str) -> Self {
        let private = EncodingKey::from_rsa_der(&rsa_der(1024));
        Self { key_id: key_id.to_owned(), algorithm: Algorithm::RS256, private }
    }

    /// The same key with another id.
    pub(super) fn named(self, key_id: &str) -> Self {
        Self { key_id: key_id.to_owned(), ..self }
    }

    /// The key as a JWKS publishes it.
    pub(super) fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.private, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.key_id);
        jwk["use"] = json!("sig");
        jwk
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

/// A private key in PKCS #8: the bytes before the 32 random bytes define its kind.
fn pkcs8(before: &str) -> Vec<u8> {
    let mut der = hex::decode(before).unwrap();
    der.extend(rand::rng().random::<[u8; 32]>());
    der
}

fn rsa_der(bits: usize) -> Vec<u8> {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).unwrap();
    key.to_pkcs1_der().unwrap().as_bytes().to_vec()
}

/// Serves a JWKS on the loopback, counts the requests, and is down once it is stopped.
pub(super) struct KeyServer {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl KeyServer {
    pub(super) async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(document(keys)));
        let requests = Arc::<AtomicUsize>::default();
        let serving = tokio::spawn(serve(listener, Arc::clone(&answer), Arc::clone(&requests)));
        Self { address, answer, requests, serving }
    }

    pub(super) fn url(&self) -> String {
        format!("{}/auth/v1/.well-known/jwks.json", self.origin())
    }

    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        self.answer(document(keys));
    }

    /// The whole response, with its status line. An empty one is never sent.
    pub(super) fn answer(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(super) fn stop(&self) {
        self.serving.abort();
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn document(keys: &[Value]) -> String {
    http("200 OK", &json!({ "keys": keys }).to_string())
}

async fn serve(listener: TcpListener, answer: Arc<Mutex<String>>, requests: Arc<AtomicUsize>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        requests.fetch_add(1, Ordering::SeqCst);
        let answer = answer.lock().unwrap().clone();
        tokio::spawn(respond(stream, answer));
    }
}

async fn respond(mut stream: TcpStream, answer: String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    // Long enough for all callers of a test to wait together.
    tokio::time::sleep(Duration::from_millis(if answer.is_empty() { 60_000 } else { 50 })).await;
    // A client that has read enough closes the connection.
    stream.write_all(answer.as_bytes()).await.ok();
}
