//! The endpoints of the two processes as the clients see them: addresses that open and close.

use std::sync::Mutex;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Longer than any request takes in the service; the outcome of a slower one is in doubt.
const PATIENCE: Duration = Duration::from_secs(15);

pub const DOORS: usize = 2;

pub struct Doors {
    addresses: [Mutex<Option<String>>; DOORS],
    client: Client,
}

/// A complete response.
pub struct Heard {
    pub status: u16,
    pub body: Value,
    pub replayed: bool,
}

impl Heard {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The service reports with certainty that the request had no effect.
    pub fn says_that_nothing_happened(&self) -> bool {
        self.status == 503 && ["busy", "database_away"].contains(&self.code())
    }
}

impl Doors {
    pub fn new() -> Self {
        harness::install_tls();
        let client = Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).timeout(PATIENCE);
        Self { addresses: Default::default(), client: client.build().unwrap() }
    }

    pub fn open(&self, door: usize, address: &str) {
        *self.addresses[door].lock().unwrap() = Some(address.to_owned());
    }

    /// Called before its process ends, so that no client connects to a port that another program may get soon.
    pub fn close(&self, door: usize) {
        *self.addresses[door].lock().unwrap() = None;
    }

    pub fn is_open(&self, door: usize) -> bool {
        self.address(door).is_some()
    }

    pub fn is_any_open(&self) -> bool {
        (0..DOORS).any(|door| self.is_open(door))
    }

    fn address(&self, door: usize) -> Option<String> {
        self.addresses[door].lock().unwrap().clone()
    }

    pub async fn is_ready(&self, door: usize) -> bool {
        let Some(address) = self.address(door) else { return false };
        let answer = self.client.get(format!("{address}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// `None` without a complete response: the request may have been executed, or not.
    pub async fn post(&self, door: usize, path: &str, token: &str, body: Option<&Value>) -> Option<Heard> {
        let address = self.address(door)?;
        let mut request = self.client.post(format!("{address}{path}")).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let replayed = answer.headers().get("idempotency-replayed").is_some_and(|told| told == "true");
        let text = answer.text().await.ok()?;
        Some(Heard { status, body: serde_json::from_str(&text).unwrap_or(Value::Null), replayed })
    }

    /// Sends `percent` of a request, waits, and resets the connection without a FIN.
    pub async fn cut(&self, door: usize, path: &str, token: &str, body: &Value, percent: usize, wait: Duration) {
        let Some(address) = self.address(door) else { return };
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: torture\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let Ok(mut stream) = TcpStream::connect(address.trim_start_matches("http://")).await else { return };
        let sent = request.len() * percent.min(100) / 100;
        if stream.write_all(&request.as_bytes()[..sent]).await.is_ok() {
            tokio::time::sleep(wait).await;
        }
        stream.set_zero_linger().ok();
    }
}
