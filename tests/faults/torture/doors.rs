//! The two processes as the clients see them: addresses that come and go.

use std::sync::Mutex;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Longer than anything that the service does; what takes longer is in doubt.
const PATIENCE: Duration = Duration::from_secs(15);

pub const DOORS: usize = 2;

pub struct Doors {
    addresses: [Mutex<Option<String>>; DOORS],
    client: Client,
}

/// A whole answer.
pub struct Heard {
    pub status: u16,
    pub body: Value,
    pub replayed: bool,
}

impl Heard {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The service is sure that nothing was done.
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

    /// Before its process goes, so that nobody knocks at a port that may soon be another program's.
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

    /// `None` where no whole answer came: the request may have been done, or not.
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

    /// Sends a request, or only so much of it in hundredths, waits, and resets the connection: no FIN, no farewell.
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
