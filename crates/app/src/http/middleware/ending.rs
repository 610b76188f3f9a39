//! Ending: the body of a response that keeps a value until it is sent, such as the request whose end restarts the
//! connection's time limits.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::ServiceRequest;
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;

use crate::http::connections::{BodyLength, ClientConnection, RequestInProgress};

pin_project! {
    pub struct EndingBody<B, H> {
        #[pin]
        body: B,
        held: H,
    }
}

impl<B, H> EndingBody<B, H> {
    pub fn new(body: B, held: H) -> Self {
        Self { body, held }
    }
}

impl<B: MessageBody, H> MessageBody for EndingBody<B, H> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.project().body.poll_next(context)
    }
}

/// Reports to the connection that its request has begun; `None` without a connection, as in a test without a socket.
pub fn begin(request: &ServiceRequest) -> Option<RequestInProgress> {
    let connection = request.request().conn_data::<Rc<ClientConnection>>()?;
    let headers = request.headers();
    let body = if headers.contains_key(TRANSFER_ENCODING) {
        BodyLength::Chunked
    } else {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok());
        length.filter(|length| *length > 0).map_or(BodyLength::None, BodyLength::Known)
    };
    Some(connection.begin(body))
}
