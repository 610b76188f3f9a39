//! The harness of the tests: a database for each test, and the real service on it.
//!
//! `TestDatabase::new().await` is a database of its own, with schema and seeds, cloned from a template in some tens of
//! milliseconds. `TestApp::start().await` is the service in this process, on a port of its own, over such a database,
//! logged in as the restricted `app_user`. Both are gone when they are dropped.
//!
//! The cluster is named by `PB__TEST__DATABASE_URL` (`make test` starts one and sets it); without the variable each
//! test process starts one of its own. The variable must name a superuser of a cluster for tests and nothing else:
//! the harness makes databases there, drops them, and gives `app_user` a password.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is how the harness fails the test that called it, with its own words"
)]

mod answers;
mod app;
mod cluster;
mod databases;
mod eventually;
mod issuer;
mod lone_cluster;
mod requests;
mod template;

use std::io::Write as _;

pub use answers::Answer;
pub use app::{PASSWORD, SIGNING_KEY, TestApp, TestUser, test_settings};
pub use databases::{TestDatabase, pool_settings};
pub use eventually::eventually;
pub use issuer::IssuerKey;
pub use requests::{Bearer, Request};
pub use sea_orm::sqlx;

/// TLS is by ring, and whoever opens the first connection must have said so. Not twice: the second time is refused.
pub fn install_tls() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// Says which test was skipped. It is written past the test runner, which hides what a passing test prints.
pub fn skip(what: &str, because: &str, remedy: &str) {
    let text = format!("SKIPPED: {what}, since {because}. {remedy}\n");
    std::io::stderr().write_all(text.as_bytes()).expect("standard error can be written to");
}
