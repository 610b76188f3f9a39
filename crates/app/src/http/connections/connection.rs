//! Connection: the state of one connection, as far as its time limits need it.
//!
//! The stream (`guarded`) reports what arrives; `middleware` reports when a request begins and when its response has
//! ended. Both run on the thread of the connection's worker, so cells are enough.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::waiting::WaitingConnections;

/// The end of a request's head.
const HEAD_END: [u8; 4] = *b"\r\n\r\n";

/// What the connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionPhase {
    /// It waits for a request's head or receives it.
    Head,
    /// A request is being read or answered.
    Request,
    /// All requests are answered and no more bytes have arrived.
    Idle,
}

/// How the end of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Known(u64),
    /// The body ends with its last chunk.
    Chunked,
}

/// The state of `Expect: 100-continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContinueState {
    /// There is none to send.
    None,
    /// The framework's next output begins with it.
    Next { wanted: bool },
    /// It was held back, since the body has not been read yet.
    Held,
    /// So many bytes of it are still to be sent.
    Owed(usize),
}

#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    pub head: Duration,
    pub idle: Duration,
    pub write: Duration,
}

pub struct ClientConnection {
    timeouts: ConnectionTimeouts,
    waiting: Rc<WaitingConnections>,
    phase: Cell<ConnectionPhase>,
    /// When the phase ends at the latest; not checked during a request.
    deadline: Cell<Instant>,
    /// Changes with every request, so that an old note in `waiting` is recognized as stale.
    pub(super) turn: Cell<u64>,
    /// The last four bytes that arrived.
    tail: Cell<[u8; 4]>,
    head_ended: Cell<bool>,
    /// Bytes that arrived after the head.
    behind_head: Cell<u64>,
    body: Cell<Option<BodyLength>>,
    /// Whether the framework has unsent output.
    pub(super) unsent: Cell<bool>,
    pub(super) expectation: Cell<ContinueState>,
    evicted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl ClientConnection {
    pub fn new(timeouts: ConnectionTimeouts, waiting: &Rc<WaitingConnections>) -> Rc<Self> {
        let connection = Rc::new(Self {
            timeouts,
            waiting: Rc::clone(waiting),
            phase: Cell::new(ConnectionPhase::Head),
            deadline: Cell::new(Instant::now() + timeouts.head),
            turn: Cell::new(0),
            tail: Cell::new([0; 4]),
            head_ended: Cell::new(false),
            behind_head: Cell::new(0),
            body: Cell::new(None),
            unsent: Cell::new(false),
            expectation: Cell::new(ContinueState::None),
            evicted: Cell::new(false),
            waker: RefCell::new(None),
        });
        waiting.begins(&connection);
        connection
    }

    pub fn phase(&self) -> ConnectionPhase {
        self.phase.get()
    }

    pub fn timeouts(&self) -> ConnectionTimeouts {
        self.timeouts
    }

    /// When the client must have sent something; `None` during a request.
    pub fn deadline(&self) -> Option<Instant> {
        (self.phase.get() != ConnectionPhase::Request).then(|| self.deadline.get())
    }

    /// Whether a whole head has arrived whose request has not begun yet.
    pub fn has_whole_head(&self) -> bool {
        self.phase.get() == ConnectionPhase::Head && self.head_ended.get()
    }

    pub fn is_evicted(&self) -> bool {
        self.evicted.get()
    }

    /// Ends the connection, which has no request under way, to make room for another.
    pub fn evict(&self) {
        self.evicted.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Tells whether it was kept before.
    pub fn keep_waker(&self, waker: &Waker) -> bool {
        let mut kept = self.waker.borrow_mut();
        let is_kept = kept.as_ref().is_some_and(|kept| kept.will_wake(waker));
        if !is_kept {
            *kept = Some(waker.clone());
        }
        is_kept
    }

    /// Bytes arrived.
    pub fn received(&self, bytes: &[u8]) {
        if self.phase.get() == ConnectionPhase::Idle {
            self.enter(ConnectionPhase::Head, self.timeouts.head);
        }
        if self.phase.get() == ConnectionPhase::Head && !self.head_ended.get() {
            self.look_for_end(bytes);
        } else {
            self.behind_head.set(self.behind_head.get().saturating_add(bytes.len() as u64));
        }
        self.tail.set(tail_after(self.tail.get(), bytes));
    }

    fn look_for_end(&self, bytes: &[u8]) {
        if let Some(length) = head_left(self.tail.get(), bytes) {
            self.head_ended.set(true);
            self.behind_head.set((bytes.len() - length) as u64);
        }
    }

    /// The framework is about to send `100 Continue`. It is held back until the body is read: a client that is refused
    /// by its head alone need not send the body.
    pub fn expects_continue(&self) {
        // Behind other output it is not where the stream looks for it, and is sent at once.
        if !self.unsent.get() {
            self.expectation.set(ContinueState::Next { wanted: false });
        }
    }

    /// The handler reads the body.
    pub fn wants_body(&self) {
        match self.expectation.get() {
            ContinueState::Next { wanted: false } => self.expectation.set(ContinueState::Next { wanted: true }),
            ContinueState::Held => self.expectation.set(ContinueState::Owed(super::guarded::CONTINUE.len())),
            _ => {}
        }
    }

    /// A request has begun: from here on its own deadlines apply.
    pub fn begin(self: &Rc<Self>, body: BodyLength) -> RequestInProgress {
        // If the end of its head was not seen, the framework had it in its buffer: the rest of a pipeline.
        self.body.set(self.head_ended.get().then_some(body));
        self.phase.set(ConnectionPhase::Request);
        self.turn.set(self.turn.get().wrapping_add(1));
        RequestInProgress(Rc::clone(self))
    }

    /// The response has ended. If all bytes that arrived belonged to the request, the connection is idle; otherwise the
    /// framework has the beginning of the next head, and the time limit of heads runs.
    fn end(self: &Rc<Self>) {
        let is_all = match self.body.get() {
            Some(BodyLength::None) => self.behind_head.get() == 0,
            Some(BodyLength::Known(length)) => self.behind_head.get() == length,
            Some(BodyLength::Chunked) => self.tail.get() == HEAD_END,
            None => false,
        };
        self.head_ended.set(false);
        self.behind_head.set(0);
        self.tail.set([0; 4]);
        self.body.set(None);
        self.unsent.set(true);
        if matches!(self.expectation.get(), ContinueState::Held | ContinueState::Owed(_)) {
            self.expectation.set(ContinueState::None);
        }
        if is_all {
            self.enter(ConnectionPhase::Idle, self.timeouts.idle);
        } else {
            self.enter(ConnectionPhase::Head, self.timeouts.head);
        }
        self.waiting.begins(self);
    }

    fn enter(&self, phase: ConnectionPhase, time: Duration) {
        self.phase.set(phase);
        self.deadline.set(Instant::now() + time);
    }
}

/// How many of these bytes belong to a head that ends in them; `tail` arrived before them.
fn head_left(tail: [u8; 4], bytes: &[u8]) -> Option<usize> {
    // An end that spans two arrivals lies in the last three bytes of `tail` and the first three of `bytes`.
    let over_both = (1..HEAD_END.len().min(bytes.len() + 1)).find(|length| {
        let (before, now) = HEAD_END.split_at(HEAD_END.len() - length);
        tail.ends_with(before) && bytes.starts_with(now)
    });
    over_both.or_else(|| memchr::memmem::find(bytes, &HEAD_END).map(|start| start + HEAD_END.len()))
}

/// The last four bytes after these have arrived.
fn tail_after(mut tail: [u8; 4], bytes: &[u8]) -> [u8; 4] {
    let arrived = bytes.get(bytes.len().saturating_sub(tail.len())..).unwrap_or_default();
    tail.rotate_left(arrived.len());
    let kept = tail.len() - arrived.len();
    for (place, byte) in tail.iter_mut().skip(kept).zip(arrived) {
        *place = *byte;
    }
    tail
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.waiting.ended();
    }
}

/// A request under way. It ends when this is dropped: with the last byte of its response, or with its connection.
pub struct RequestInProgress(Rc<ClientConnection>);

impl RequestInProgress {
    pub fn connection(&self) -> &Rc<ClientConnection> {
        &self.0
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection() -> Rc<ClientConnection> {
        let second = Duration::from_secs(1);
        let timeouts = ConnectionTimeouts { head: 5 * second, idle: 75 * second, write: 30 * second };
        ClientConnection::new(timeouts, &Rc::new(WaitingConnections::default()))
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn after(arrivals: &[&[u8]], body: BodyLength) -> ConnectionPhase {
        let connection = connection();
        for bytes in arrivals {
            connection.received(bytes);
        }
        drop(connection.begin(body));
        connection.phase()
    }

    proptest! {
        #[test]
        fn the_end_of_a_head_is_found_however_its_bytes_arrive(
            bytes in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..24),
            cuts in prop::collection::vec(0_usize..24, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let connection = connection();
            for cut in cuts.windows(2) {
                connection.received(&bytes[cut[0]..cut[1]]);
            }
            let end = bytes.windows(4).position(|four| four == HEAD_END).map(|start| start + 4);
            prop_assert_eq!(connection.has_whole_head(), end.is_some());
            let behind = end.map_or(0, |end| bytes.len() - end);
            prop_assert_eq!(connection.behind_head.get(), behind as u64);
            prop_assert_eq!(connection.tail.get().to_vec(), [&[0; 4], bytes.as_slice()].concat()[bytes.len()..].to_vec());
        }
    }

    #[test]
    fn a_connection_is_idle_only_if_nothing_of_a_next_head_has_come() {
        let with = |rest: &[u8]| [GET, rest].concat();
        let (head, rest) = GET.split_at(GET.len() - 2);
        for (arrivals, body, phase) in [
            (vec![GET], BodyLength::None, ConnectionPhase::Idle),
            (vec![head, rest], BodyLength::None, ConnectionPhase::Idle),
            (vec![&with(b"G")[..]], BodyLength::None, ConnectionPhase::Head),
            (vec![GET, b"G"], BodyLength::None, ConnectionPhase::Head),
            (vec![&with(b"abc")[..]], BodyLength::Known(3), ConnectionPhase::Idle),
            (vec![GET, b"ab", b"c"], BodyLength::Known(3), ConnectionPhase::Idle),
            (vec![GET, b"ab", b"cG"], BodyLength::Known(3), ConnectionPhase::Head),
            (vec![GET, b"ab"], BodyLength::Known(3), ConnectionPhase::Head),
            (vec![GET, b"1\r\na\r\n0\r\n\r\n"], BodyLength::Chunked, ConnectionPhase::Idle),
            (vec![GET, b"1\r\na\r\n0\r\n\r\nG"], BodyLength::Chunked, ConnectionPhase::Head),
        ] {
            assert_eq!(after(&arrivals, body), phase, "{arrivals:?}");
        }
    }

    #[test]
    fn the_second_of_a_pipeline_leaves_a_deadline_of_a_head() {
        let connection = connection();
        connection.received(&[GET, GET].concat());
        drop(connection.begin(BodyLength::None));
        assert_eq!(connection.phase(), ConnectionPhase::Head);
        drop(connection.begin(BodyLength::None));
        assert_eq!(connection.phase(), ConnectionPhase::Head);
        connection.received(GET);
        drop(connection.begin(BodyLength::None));
        assert_eq!(connection.phase(), ConnectionPhase::Idle);
    }

    #[test]
    fn a_head_that_trickles_has_one_deadline() {
        let connection = connection();
        connection.received(GET);
        drop(connection.begin(BodyLength::None));
        let idle = connection.deadline().unwrap();
        connection.received(b"G");
        let head = connection.deadline().unwrap();
        assert!(head < idle);
        connection.received(b"E");
        assert_eq!(connection.deadline(), Some(head));
        let request = connection.begin(BodyLength::None);
        assert_eq!(connection.deadline(), None);
        drop(request);
    }
}
