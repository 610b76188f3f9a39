//! The body of a request in a dialect: JSON, packed or not.

use actix_web::dev::Payload;
use actix_web::web::Bytes;
use actix_web::{Error, FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;

use super::decoding;
use super::doors::BODY_LIMIT;

pub struct DialectBody {
    pub bytes: Bytes,
}

impl FromRequest for DialectBody {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let declared = decoding::declared(request.headers());
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            let declared = declared?;
            let bytes = declared.unpack(bytes.await?, BODY_LIMIT).await?;
            Ok(Self { bytes })
        })
    }
}
