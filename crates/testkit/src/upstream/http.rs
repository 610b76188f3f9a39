//! Reads HTTP/1.1, as far as clients of the three providers use it. A head has at most 64 KiB, a body at most 32 MiB;
//! larger ones get 431 or 413, and the connection is closed.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A request as received: header names in lower case, values and body unchanged.
#[derive(Clone, Debug)]
pub struct UpstreamRequest {
    /// Counted from 1, over all connections.
    pub number: u64,
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl UpstreamRequest {
    /// The first header with that name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A query parameter, not decoded.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the client keeps the connection for another request.
    pub fn stays(&self) -> bool {
        !self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Why no request could be read.
#[derive(Debug, PartialEq, Eq)]
pub enum UnreadRequest {
    /// The client left.
    Left,
    /// The client gets this status, and the connection is closed.
    Refused(&'static str),
}

/// Received bytes of a connection that are not yet parsed.
pub struct RequestInbox {
    bytes: Vec<u8>,
}

impl RequestInbox {
    pub fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Appends bytes of the next request that came while a response was in progress.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() > HEAD_BYTES_MAX
    }

    /// The next request, without its number.
    pub async fn request(&mut self, stream: &mut TcpStream) -> Result<UpstreamRequest, UnreadRequest> {
        let head = loop {
            if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.take(end + 4);
            }
            if self.is_full() {
                return Err(UnreadRequest::Refused("431 UpstreamRequest Header Fields Too Large"));
            }
            self.more(stream).await?;
        };
        let mut request = parsed(&head).ok_or(UnreadRequest::Refused("400 Bad UpstreamRequest"))?;
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| UnreadRequest::Left)?;
        }
        request.body = if request.header("transfer-encoding").is_some() {
            self.chunks(stream).await?
        } else {
            let length = request.header("content-length").unwrap_or("0").parse();
            let length: usize = length.map_err(|_| UnreadRequest::Refused("400 Bad UpstreamRequest"))?;
            self.exactly(stream, length).await?
        };
        Ok(request)
    }

    async fn chunks(&mut self, stream: &mut TcpStream) -> Result<Vec<u8>, UnreadRequest> {
        let mut body = Vec::new();
        loop {
            let line = self.line(stream).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| UnreadRequest::Refused("400 Bad UpstreamRequest"))?;
            if size == 0 {
                // Trailers may follow, ended by an empty line.
                while !self.line(stream).await?.is_empty() {}
                return Ok(body);
            }
            if size.saturating_add(body.len()) > BODY_BYTES_MAX {
                return Err(UnreadRequest::Refused("413 Content Too Large"));
            }
            body.extend(self.exactly(stream, size).await?);
            self.line(stream).await?;
        }
    }

    async fn line(&mut self, stream: &mut TcpStream) -> Result<String, UnreadRequest> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.is_full() {
                return Err(UnreadRequest::Refused("400 Bad UpstreamRequest"));
            }
            self.more(stream).await?;
        }
    }

    async fn exactly(&mut self, stream: &mut TcpStream, length: usize) -> Result<Vec<u8>, UnreadRequest> {
        if length > BODY_BYTES_MAX {
            return Err(UnreadRequest::Refused("413 Content Too Large"));
        }
        while self.bytes.len() < length {
            self.more(stream).await?;
        }
        Ok(self.take(length))
    }

    async fn more(&mut self, stream: &mut TcpStream) -> Result<(), UnreadRequest> {
        match stream.read_buf(&mut self.bytes).await {
            Ok(0) | Err(_) => Err(UnreadRequest::Left),
            Ok(_) => Ok(()),
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(length);
        std::mem::replace(&mut self.bytes, rest)
    }
}

fn parsed(head: &[u8]) -> Option<UpstreamRequest> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let version = first.next()?;
    if version != "HTTP/1.1" || first.next().is_some() {
        return None;
    }
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(UpstreamRequest { number: 0, method, target, headers, body: Vec::new() })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn read(sent: &'static str) -> Vec<Result<UpstreamRequest, UnreadRequest>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let write = tokio::spawn(async move { client.write_all(sent.as_bytes()).await.unwrap() });
        let mut inbox = RequestInbox::new();
        let mut requests = Vec::new();
        while !matches!(requests.last(), Some(Err(_))) {
            requests.push(inbox.request(&mut stream).await);
        }
        write.await.unwrap();
        requests
    }

    #[tokio::test]
    async fn requests_follow_each_other_in_both_framings() {
        let sent = "POST /a?x=1&y=2 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nfourPOST /b HTTP/1.1\r\n\
                    Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4;ext\r\nfour\r\n3\r\nsix\r\n0\r\nT: 1\r\n\r\n";
        let requests = read(sent).await;
        let [Ok(first), Ok(second), Err(UnreadRequest::Left)] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!((first.path(), first.parameter("y"), first.body.as_slice()), ("/a", Some("2"), &b"four"[..]));
        assert_eq!((first.header("host"), first.stays()), (Some("h"), true));
        assert_eq!((second.path(), second.body.as_slice(), second.stays()), ("/b", &b"foursix"[..], false));
    }

    #[tokio::test]
    async fn what_is_too_long_or_no_http_is_refused() {
        let long: &'static str = format!("GET / HTTP/1.1\r\na: {}", "x".repeat(HEAD_BYTES_MAX)).leak();
        let refused = [
            (long, "431 UpstreamRequest Header Fields Too Large"),
            ("POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", "413 Content Too Large"),
            ("POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n", "400 Bad UpstreamRequest"),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "400 Bad UpstreamRequest"),
            ("GET / HTTP/1.0\r\n\r\n", "400 Bad UpstreamRequest"),
        ];
        for (sent, status) in refused {
            assert_eq!(read(sent).await.pop().unwrap().unwrap_err(), UnreadRequest::Refused(status), "{sent:.40}");
        }
    }
}
