//! The guarded stream: a TCP stream that ends the connection of a client that is too slow.
//!
//! A head that does not arrive in time is answered with 408. A client that reads nothing for `write` is cut off with a
//! reset: an orderly end would look like the end of the response.
//!
//! The framework reads until nothing more is there, into a buffer of up to 128 KiB that the connection keeps. A burst is
//! bounded here, so that it handles what it has first and its buffer stays small: 1,000 clients that send bodies cost
//! the counted memory of the bodies, and not as much again.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::time::Sleep;

use super::admission::AdmittedConnection;
use super::connection::{ClientConnection, ConnectionPhase, ContinueState};

/// What the framework sends to a client that expects it.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Bytes a millisecond that a client must read; a slower one uses up its time.
const READ_RATE: usize = 1;

/// The most that is read before the framework gets its turn to handle it, in bytes. The framework's buffer has 8 KiB, is
/// doubled when fewer than 1,024 bytes are left, and is never made smaller: this keeps it at 16 KiB.
const BURST_MAX: u64 = 15 * 1_024;

pub struct GuardedStream {
    /// Its limit is what is left of the burst.
    stream: Take<TcpStream>,
    connection: Rc<ClientConnection>,
    /// Wakes the task at a deadline of the connection, or before it.
    alarm: Option<Pin<Box<Sleep>>>,
    /// When the client must have read something.
    write_deadline: Option<Instant>,
    write_alarm: Option<Pin<Box<Sleep>>>,
    _place: AdmittedConnection,
}

impl GuardedStream {
    pub fn new(stream: TcpStream, connection: Rc<ClientConnection>, place: AdmittedConnection) -> Self {
        // The end of a stream is a small packet after a pause: delayed until the client's acknowledgement it arrives
        // 40 ms late. An error is ignored: the connection is closed then.
        stream.set_nodelay(true).ok();
        let stream = stream.take(BURST_MAX);
        Self { stream, connection, alarm: None, write_deadline: None, write_alarm: None, _place: place }
    }

    pub fn connection(&self) -> &Rc<ClientConnection> {
        &self.connection
    }

    /// Whether the client's time is over. If not, the task is woken when it is.
    fn is_overdue(&mut self, context: &mut Context<'_>) -> bool {
        let is_known = self.connection.keep_waker(context.waker());
        let Some(deadline) = self.connection.deadline() else { return false };
        // An alarm that is set for this task already, and for no later time, wakes it: the clock need not be read.
        let until = tokio::time::Instant::from_std(deadline);
        let is_set = |alarm: &Pin<Box<Sleep>>| !alarm.is_elapsed() && alarm.deadline() <= until;
        if is_known && self.alarm.as_ref().is_some_and(is_set) {
            return false;
        }
        if Instant::now() >= deadline {
            return true;
        }
        wake_at(&mut self.alarm, deadline, context)
    }

    /// Sends 408 to a client that has begun a head, as far as it can be sent at once.
    fn tell_too_slow(&mut self, context: &mut Context<'_>) {
        if self.connection.phase() == ConnectionPhase::Head && !self.connection.unsent.get() {
            // The connection ends either way.
            let _ = Pin::new(self.stream.get_mut()).poll_write(context, TOO_SLOW);
        }
    }

    /// Sends the rest of `100 Continue` to a client whose body is read by now.
    fn poll_owed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let ContinueState::Owed(left) = self.connection.expectation.get() {
            let rest = CONTINUE.get(CONTINUE.len() - left..).unwrap_or_default();
            let sent = ready!(Pin::new(self.stream.get_mut()).poll_write(context, rest))?;
            let left = left - sent.min(left);
            self.connection.expectation.set(if left == 0 { ContinueState::None } else { ContinueState::Owed(left) });
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let limit = self.connection.timeouts().write;
        match Pin::new(self.stream.get_mut()).poll_write(context, bytes) {
            Poll::Ready(Ok(sent)) => {
                self.connection.unsent.set(true);
                // A client that reads a little now and then uses up its time as well.
                let earned = Duration::from_millis((sent / READ_RATE) as u64);
                let latest = Instant::now() + limit;
                self.write_deadline = self.write_deadline.map(|deadline| (deadline + earned).min(latest));
                Poll::Ready(Ok(sent))
            }
            Poll::Pending => {
                let now = Instant::now();
                let deadline = *self.write_deadline.get_or_insert(now + limit);
                if now >= deadline || wake_at(&mut self.write_alarm, deadline, context) {
                    self.stream.get_ref().set_zero_linger().ok();
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer is not read")));
                }
                Poll::Pending
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

/// Makes sure that the task is woken at `deadline` at the latest. Returns whether it is past already.
fn wake_at(alarm: &mut Option<Pin<Box<Sleep>>>, deadline: Instant, context: &mut Context<'_>) -> bool {
    let until = tokio::time::Instant::from_std(deadline);
    let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
    if alarm.is_elapsed() || alarm.deadline() > until {
        alarm.as_mut().reset(until);
    }
    // An alarm for an earlier time is left: it costs a look at the clock, where a reset costs a lock.
    while alarm.as_mut().poll(context).is_ready() {
        if Instant::now() >= deadline {
            return true;
        }
        alarm.as_mut().reset(until);
    }
    false
}

impl AsyncRead for GuardedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.is_evicted() {
            return Poll::Ready(Ok(()));
        }
        if this.stream.limit() == 0 {
            this.stream.set_limit(BURST_MAX);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            let received = buffer.filled().get(before..).unwrap_or_default();
            this.connection.received(received);
            return Poll::Ready(read);
        }
        this.stream.set_limit(BURST_MAX);
        // A whole head becomes a request in this same turn, however late; if not, `poll_flush` ends the connection.
        if this.connection.has_whole_head() {
            if !this.connection.keep_waker(context.waker()) {
                this.alarm = None;
            }
            return Poll::Pending;
        }
        if this.is_overdue(context) {
            this.tell_too_slow(context);
            // To the framework it looks as if the client had closed the connection.
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.connection.is_evicted() {
            // Output that the client has not read by now is lost.
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let ContinueState::Next { wanted } = this.connection.expectation.get() {
            let is_it = bytes.starts_with(CONTINUE);
            let next = if is_it && !wanted { ContinueState::Held } else { ContinueState::None };
            this.connection.expectation.set(next);
            if next == ContinueState::Held {
                return Poll::Ready(Ok(CONTINUE.len()));
            }
        }
        ready!(this.poll_owed(context))?;
        this.poll_send(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The framework flushes once it has no output left.
        this.connection.unsent.set(false);
        this.write_deadline = None;
        ready!(this.poll_owed(context))?;
        if this.is_overdue(context) {
            this.tell_too_slow(context);
            this.connection.evict();
        }
        Pin::new(this.stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::super::admission::{ConnectionAdmission, ConnectionLimits};
    use super::super::connection::ConnectionTimeouts;
    use super::*;

    #[tokio::test]
    async fn a_burst_ends_before_a_buffer_grows_large_and_nothing_is_lost() {
        let second = Duration::from_secs(1);
        let timeouts = ConnectionTimeouts { head: 5 * second, idle: 75 * second, write: 30 * second };
        let admission =
            ConnectionAdmission::new(ConnectionLimits { all: 8, per_address: 8, exempt: Vec::new(), timeouts });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let place = admission.admit(peer.ip(), || false).unwrap();
        let mut guarded = GuardedStream::new(stream, ClientConnection::new(timeouts, &std::rc::Rc::default()), place);
        let all = 1_000_000;
        let sends = tokio::spawn(async move {
            client.write_all(&vec![b'x'; all]).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let (mut received, mut longest) = (0, 0);
        loop {
            // What the framework does in one turn: it reads until nothing more is there.
            let mut burst = 0;
            let has_ended = poll_fn(|context| {
                loop {
                    let mut space = [0; 8 * 1_024];
                    let mut buffer = ReadBuf::new(&mut space);
                    match Pin::new(&mut guarded).poll_read(context, &mut buffer) {
                        Poll::Ready(read) => read.unwrap(),
                        Poll::Pending if burst > 0 => return Poll::Ready(false),
                        Poll::Pending => return Poll::Pending,
                    }
                    if buffer.filled().is_empty() {
                        return Poll::Ready(true);
                    }
                    burst += buffer.filled().len();
                }
            })
            .await;
            (received, longest) = (received + burst, longest.max(burst));
            if has_ended {
                break;
            }
        }
        sends.await.unwrap();
        assert_eq!(received, all);
        assert_eq!(longest, usize::try_from(BURST_MAX).unwrap());
    }
}
