//! Who: whose request it is and where it came from, for the log.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::rc::Rc;

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use domain::users::UserId;

use crate::http::limits::RateLimits;
use crate::http::problem::Problem;

/// Whose request it is and where it came from, for the log (in the request's extensions).
#[derive(Clone, Debug)]
pub struct Who {
    address: Option<IpAddr>,
    user: Rc<Cell<Option<UserId>>>,
}

impl Who {
    pub fn of(request: &ServiceRequest) -> Self {
        Self { address: address_of(request), user: Rc::default() }
    }

    pub fn is(&self, user: UserId) {
        self.user.set(Some(user));
    }

    pub fn user_text(&self) -> Option<String> {
        self.user.get().map(|user| user.to_string())
    }

    pub fn address_text(&self) -> Option<String> {
        self.address.map(|address| address.to_string())
    }
}

impl FromRequest for Who {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = request.extensions().get::<Self>().cloned();
        ready(Ok(known.unwrap_or_else(|| Self { address: None, user: Rc::default() })))
    }
}

fn address_of(request: &ServiceRequest) -> Option<IpAddr> {
    let limits = request.app_data::<Data<RateLimits>>()?;
    Some(limits.address_of(request.request()))
}
