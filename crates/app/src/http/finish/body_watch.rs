//! A watch on the body of a request, which tells whose fault it is when the deadline passes. Costs a box a body.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

/// Looks at a body as it comes in: whether somebody waits for more of it.
pub struct BodyWatch {
    body: Payload,
    awaited: Rc<Cell<bool>>,
}

/// The other end of a watch.
pub struct BodyState(Rc<Cell<bool>>);

impl BodyWatch {
    pub fn place(request: &mut ServiceRequest) -> BodyState {
        let awaited = Rc::new(Cell::new(false));
        let body = request.take_payload();
        if matches!(body, Payload::None) {
            return BodyState(awaited);
        }
        let watch = Self { body, awaited: Rc::clone(&awaited) };
        request.set_payload(Payload::Stream { payload: Box::pin(watch) });
        BodyState(awaited)
    }
}

impl BodyState {
    pub fn is_awaited(&self) -> bool {
        self.0.get()
    }
}

impl Stream for BodyWatch {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.body).poll_next(context);
        self.awaited.set(polled.is_pending());
        polled
    }
}
