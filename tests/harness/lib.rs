//! The test harness: a database for each test, and the real service on it.
//!
//! `TestDatabase::new().await` makes a database with schema and seeds, cloned from a template in some tens of
//! milliseconds. `TestApp::start().await` runs the service in this process, on its own port, over such a database,
//! logged in as the restricted `app_user`. Both are removed when they are dropped.
//!
//! `PB__TEST__DATABASE_URL` names the cluster (`make test` starts one and sets it); without the variable each test
//! process starts its own cluster. The variable must name a superuser of a cluster that is used for tests only: the
//! harness creates and drops databases there, and sets a password for `app_user`.

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

/// Installs ring as the TLS provider, before the first connection is opened. A second call fails and is ignored.
pub fn install_tls() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// Reports a skipped test. It writes to stderr directly, because the test runner hides what a passing test prints.
pub fn skip(what: &str, because: &str, remedy: &str) {
    let text = format!("SKIPPED: {what}, since {because}. {remedy}\n");
    std::io::stderr().write_all(text.as_bytes()).expect("standard error can be written to");
}
