//! A watch on the body of a request: it tells whose fault it is when the deadline passes, and sees to it that a client
//! which never ends its body does not hold its connection. Costs a box a body.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpMessage;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

use super::ending::Ending;
use crate::http::connections::{Connection, RequestInProgress};

/// So many bytes a millisecond a long body has to bring, on the average, once its first time is over.
const BYTES_A_MILLISECOND: u64 = 128;

/// Looks at a body as it comes in.
pub struct BodyWatch {
    body: Rc<RefCell<Payload>>,
    progress: Rc<Cell<Progress>>,
    received: Rc<Cell<u64>>,
    connection: Option<Rc<Connection>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nobody waits for more.
    Idle,
    /// Somebody asked for more and has not got it.
    Awaited,
    Whole,
}

/// The other end of a watch.
pub struct WatchedBody {
    body: Option<Rc<RefCell<Payload>>>,
    progress: Rc<Cell<Progress>>,
    received: Rc<Cell<u64>>,
}

/// A body that is not read to its end.
pub struct Rest {
    _body: Rc<RefCell<Payload>>,
}

impl BodyWatch {
    pub fn place(request: &mut ServiceRequest, in_progress: Option<&RequestInProgress>) -> WatchedBody {
        let progress = Rc::new(Cell::new(Progress::Idle));
        let received = Rc::new(Cell::new(0));
        let body = request.take_payload();
        if matches!(body, Payload::None) {
            return WatchedBody { body: None, progress, received };
        }
        let body = Rc::new(RefCell::new(body));
        let connection = in_progress.map(|request| Rc::clone(request.connection()));
        let watch =
            Self { body: Rc::clone(&body), progress: Rc::clone(&progress), received: Rc::clone(&received), connection };
        request.set_payload(Payload::Stream { payload: Box::pin(watch) });
        WatchedBody { body: Some(body), progress, received }
    }
}

impl Stream for BodyWatch {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(connection) = &self.connection {
            connection.wants_body();
        }
        let polled = Pin::new(&mut *self.body.borrow_mut()).poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.received.set(self.received.get() + bytes.len() as u64);
        }
        self.progress.set(match &polled {
            Poll::Pending => Progress::Awaited,
            Poll::Ready(Some(_)) => Progress::Idle,
            Poll::Ready(None) => Progress::Whole,
        });
        polled
    }
}

impl WatchedBody {
    pub fn is_awaited(&self) -> bool {
        self.progress.get() == Progress::Awaited
    }

    /// How much longer than another a body may take for what it has brought.
    pub fn earned_time(&self) -> Duration {
        Duration::from_millis(self.received.get() / BYTES_A_MILLISECOND)
    }

    pub fn unfinished(self) -> Option<Rest> {
        self.body.filter(|_| self.progress.get() != Progress::Whole).map(|body| Rest { _body: body })
    }
}

impl Rest {
    /// Keeps the rest until the answer is sent: the server then closes the connection. Were the rest dropped before,
    /// the server would wait for the end of a chunked one, for as long as the client likes.
    pub fn keep_beside(self, answer: impl MessageBody + 'static) -> BoxBody {
        BoxBody::new(Ending::new(answer, self))
    }
}
