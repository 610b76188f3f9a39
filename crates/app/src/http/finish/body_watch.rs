//! A watch on the body of a request: it tells whose fault it is when the deadline passes, and sees to it that a client
//! which never ends its body does not hold its connection. Costs a box a body.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpResponse};
use futures_util::Stream;

/// Looks at a body as it comes in: whether somebody waits for more of it.
pub struct BodyWatch {
    body: Rc<RefCell<Payload>>,
    awaited: Rc<Cell<bool>>,
}

/// The other end of a watch.
pub struct WatchedBody {
    body: Option<Rc<RefCell<Payload>>>,
    awaited: Rc<Cell<bool>>,
}

impl BodyWatch {
    pub fn place(request: &mut ServiceRequest) -> WatchedBody {
        let awaited = Rc::new(Cell::new(false));
        let body = request.take_payload();
        if matches!(body, Payload::None) {
            return WatchedBody { body: None, awaited };
        }
        let body = Rc::new(RefCell::new(body));
        let watch = Self { body: Rc::clone(&body), awaited: Rc::clone(&awaited) };
        request.set_payload(Payload::Stream { payload: Box::pin(watch) });
        WatchedBody { body: Some(body), awaited }
    }
}

impl WatchedBody {
    /// Whether somebody asked for more and has not got it.
    pub fn is_awaited(&self) -> bool {
        self.awaited.get()
    }

    /// Keeps the body until the answer is on its way: a body that is not whole then closes the connection. Were it
    /// dropped before, the server would read a chunked one to its end, for as long as the client likes.
    pub fn keep_beside<B>(self, response: &mut HttpResponse<B>) {
        if let Some(body) = self.body {
            response.extensions_mut().insert(body);
        }
    }
}

impl Stream for BodyWatch {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut *self.body.borrow_mut()).poll_next(context);
        self.awaited.set(polled.is_pending());
        polled
    }
}
