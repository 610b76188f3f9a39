//! Watches the delivery of a response: a call without a key belongs to its client until the whole body was sent. If the
//! body is dropped before, a retry may take the call over.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;
use services::replays::WaitingRetry;

/// The same response; its end marks the client as served.
pub fn watched(response: HttpResponse, mut waiting: WaitingRetry) -> HttpResponse {
    // An empty body is never polled.
    if matches!(response.body().size(), BodySize::None | BodySize::Sized(0)) {
        waiting.served();
    }
    response.map_body(|_, body| BoxBody::new(Watched { body, waiting }))
}

struct Watched {
    body: BoxBody,
    waiting: WaitingRetry,
}

impl MessageBody for Watched {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let next = Pin::new(&mut this.body).poll_next(context);
        if matches!(next, Poll::Ready(None)) {
            this.waiting.served();
        }
        next
    }
}
