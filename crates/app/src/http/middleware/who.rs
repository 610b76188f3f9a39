//! Who: the id, the user and the address of a request, for the log and for code that passes the id on.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::rc::Rc;

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use domain::users::UserId;

use crate::http::problem::Problem;
use crate::http::rate_limits::RateLimits;

/// The id, the user and the address of a request (in the request's extensions).
#[derive(Clone, Debug, Default)]
pub struct RequestActor(Rc<Known>);

#[derive(Debug, Default)]
struct Known {
    request_id: String,
    address: Option<IpAddr>,
    user: Cell<Option<UserId>>,
}

impl RequestActor {
    pub fn of(request: &ServiceRequest, request_id: String) -> Self {
        Self(Rc::new(Known { request_id, address: address_of(request), user: Cell::default() }))
    }

    pub fn is(&self, user: UserId) {
        self.0.user.set(Some(user));
    }

    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    pub fn user_text(&self) -> Option<String> {
        self.0.user.get().map(|user| user.to_string())
    }

    pub fn address_text(&self) -> Option<String> {
        self.0.address.map(|address| address.to_string())
    }
}

impl FromRequest for RequestActor {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = request.extensions().get::<Self>().cloned();
        ready(Ok(known.unwrap_or_default()))
    }
}

fn address_of(request: &ServiceRequest) -> Option<IpAddr> {
    let limits = request.app_data::<Data<RateLimits>>()?;
    Some(limits.address_of(request.request()))
}
