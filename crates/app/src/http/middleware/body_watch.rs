//! A watch on the body of a request: it shows whether the client is at fault when the deadline passes, and makes sure
//! that a client which never ends its body does not keep its connection. Costs a box a body.

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

use super::ending::EndingBody;
use crate::http::connections::{ClientConnection, RequestInProgress};

/// Bytes a millisecond that a long body must bring, on average, once its first time is over.
const BYTES_A_MILLISECOND: u64 = 128;

/// Watches a body as it arrives.
pub struct BodyWatch {
    watched: Rc<Watched>,
    connection: Option<Rc<ClientConnection>>,
}

struct Watched {
    body: RefCell<Payload>,
    progress: Cell<Progress>,
    received: Cell<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The handler does not wait for more.
    Idle,
    /// The handler waits for more.
    Awaited,
    Whole,
}

/// The middleware's end of a watch.
pub struct WatchedBody(Option<Rc<Watched>>);

/// The rest of a body that was not read to its end.
pub struct BodyRest {
    _watched: Rc<Watched>,
}

impl BodyWatch {
    pub fn place(request: &mut ServiceRequest, in_progress: Option<&RequestInProgress>) -> WatchedBody {
        let body = request.take_payload();
        if matches!(body, Payload::None) {
            return WatchedBody(None);
        }
        let (body, progress) = (RefCell::new(body), Cell::new(Progress::Idle));
        let watched = Rc::new(Watched { body, progress, received: Cell::new(0) });
        let connection = in_progress.map(|request| Rc::clone(request.connection()));
        let watch = Self { watched: Rc::clone(&watched), connection };
        request.set_payload(Payload::Stream { payload: Box::pin(watch) });
        WatchedBody(Some(watched))
    }
}

impl Stream for BodyWatch {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(connection) = &self.connection {
            connection.wants_body();
        }
        let Watched { body, progress, received } = &*self.watched;
        let polled = Pin::new(&mut *body.borrow_mut()).poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            received.set(received.get() + bytes.len() as u64);
        }
        progress.set(match &polled {
            Poll::Pending => Progress::Awaited,
            Poll::Ready(Some(_)) => Progress::Idle,
            Poll::Ready(None) => Progress::Whole,
        });
        polled
    }
}

impl WatchedBody {
    pub fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.progress.get() == Progress::Awaited)
    }

    /// How much longer a body may take because of the bytes that it has brought.
    pub fn earned_time(&self) -> Duration {
        let received = self.0.as_ref().map_or(0, |watched| watched.received.get());
        Duration::from_millis(received / BYTES_A_MILLISECOND)
    }

    pub fn unfinished(self) -> Option<BodyRest> {
        self.0.filter(|watched| watched.progress.get() != Progress::Whole).map(|watched| BodyRest { _watched: watched })
    }
}

impl BodyRest {
    /// Keeps the rest until the response is sent: the server then closes the connection. If the rest were dropped
    /// before, the server would wait for the end of a chunked body, for as long as the client likes.
    pub fn keep_beside(self, answer: impl MessageBody + 'static) -> BoxBody {
        BoxBody::new(EndingBody::new(answer, self))
    }
}
