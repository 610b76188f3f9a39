//! A raw upstream: it answers every request with bytes written by the test, whatever the request.
//!
//! For responses that no script of the stub can express: odd frames, wrong content types, echoed headers. It serves on
//! threads of its own and keeps the requests. Each response has its own head, and its body is sent in chunks, one write
//! per piece.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A request with a longer body ends its connection.
const REQUEST_MAX: usize = 64 * 1024 * 1024;

/// How a response ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RawEnd {
    /// With the last chunk.
    #[default]
    InOrder,
    /// The connection closes before the last chunk.
    CutOff,
}

#[derive(Clone, Debug)]
pub struct RawReply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub pieces: Vec<Vec<u8>>,
    pub end: RawEnd,
}

impl RawReply {
    /// Status 200 with this content type and these pieces.
    pub fn of(content_type: &str, pieces: &[&[u8]]) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self {
            status: 200,
            headers,
            pieces: pieces.iter().map(|piece| piece.to_vec()).collect(),
            end: RawEnd::default(),
        }
    }

    /// A stream of events, one piece each.
    pub fn events(frames: &[&str]) -> Self {
        let pieces: Vec<&[u8]> = frames.iter().map(|frame| frame.as_bytes()).collect();
        Self::of("text/event-stream", &pieces)
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self { status, ..Self::of("application/json", &[body.as_bytes()]) }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn cut_off(mut self) -> Self {
        self.end = RawEnd::CutOff;
        self
    }

    /// All bytes of the body.
    pub fn body(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let status = self.status;
        write!(
            stream,
            "HTTP/1.1 {status} Scripted\r\n{headers}transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        )?;
        for piece in self.pieces.iter().filter(|piece| !piece.is_empty()) {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            stream.write_all(&chunk)?;
        }
        if self.end == RawEnd::InOrder { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }
}

/// A request as received: the head as text, and the body.
#[derive(Clone, Debug)]
pub struct RawRequest {
    pub head: String,
    pub body: Vec<u8>,
}

impl RawRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

struct Shared {
    reply: Mutex<RawReply>,
    requests: Mutex<Vec<RawRequest>>,
}

pub struct RawUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl RawUpstream {
    pub fn start(reply: RawReply) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared { reply: Mutex::new(reply), requests: Mutex::default() });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Sets the response to the following requests.
    pub fn answer(&self, reply: RawReply) {
        *self.shared.reply.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }

    /// Without a path; `OpenAI`'s clients add `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> Vec<RawRequest> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let Some(request) = read(&mut stream) else { return };
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    let reply = shared.reply.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // A client that disconnected needs no response.
    drop(reply.write(&mut stream));
}

fn read(stream: &mut TcpStream) -> Option<RawRequest> {
    let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
            let request = RawRequest { head, body: Vec::new() };
            let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let body = bytes.get(end + 4..)?;
            if body.len() >= length {
                return Some(RawRequest { body: body.to_vec(), ..request });
            }
        }
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(part.get(..read)?);
        if bytes.len() > REQUEST_MAX {
            return None;
        }
    }
}
