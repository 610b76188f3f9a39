//! Answers whose delivery is watched: a call without a key belongs to its client until the whole body has gone out. One that
//! is dropped before leaves the call to a retry.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;
use services::replays::Waiting;

/// The same answer; its end tells that the client is served.
pub fn watched(response: HttpResponse, mut waiting: Waiting) -> HttpResponse {
    // A body of nothing is never asked for.
    if matches!(response.body().size(), BodySize::None | BodySize::Sized(0)) {
        waiting.served();
    }
    response.map_body(|_, body| BoxBody::new(Watched { body, waiting }))
}

struct Watched {
    body: BoxBody,
    waiting: Waiting,
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
