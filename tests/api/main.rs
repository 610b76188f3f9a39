//! API tests from outside: the real service over HTTP, with a database for each test. One module for each room.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails, with its own words"
)]

mod account_lives;
mod addresses;
mod administrators;
mod ai_calls;
mod ai_usage;
mod api_keys;
mod audit;
mod bodies;
mod chat;
mod connections;
mod coverage;
mod dialects;
mod durability;
mod entitlements;
mod features;
mod heads;
mod idempotency;
mod idempotency_rights;
mod identity;
mod key_kin;
mod key_limits;
mod key_rights;
mod log_in_failures;
mod manners;
mod memory;
mod objects;
mod operators;
mod outages;
mod overrides;
mod own_account;
mod plan_changes;
mod plans;
mod prices;
mod proofs;
mod provider_states;
mod refreshes;
mod replays;
mod reservations;
mod second_factors;
mod subscriptions;
mod supabase;
mod tokens;
mod usage;
mod usage_history;
mod usage_in_sql;
mod usage_under_pressure;
mod users;

use std::time::Duration;

use adapters::clock::SystemClock;
use chrono::{DateTime, Utc};
use harness::{Answer, TestApp};
use ports::clock::Clock as _;
use serde_json::Value;

/// An id that does not exist.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// The time until the service sees changes made in SQL: its cache is at most a second old.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The current time, by the clock of the service under test.
fn now() -> DateTime<Utc> {
    SystemClock.now()
}

/// A time this many seconds from now, as JSON has it.
fn in_seconds(seconds: i64) -> String {
    (now() + chrono::TimeDelta::seconds(seconds)).to_rfc3339()
}

/// The time at a JSON pointer.
#[track_caller]
fn time_at(answer: &Answer, pointer: &str) -> DateTime<Utc> {
    answer.text_at(pointer).parse().unwrap_or_else(|error| panic!("no time at {pointer} ({error}): {answer}"))
}

/// The list element whose field has this value.
#[track_caller]
fn find<'a>(list: &'a Value, field: &str, value: &str) -> &'a Value {
    let found = list.as_array().and_then(|items| items.iter().find(|item| item[field] == value));
    found.unwrap_or_else(|| panic!("nothing with {field} = {value} in {list:#}"))
}

/// Expects a 422 that names this field.
#[track_caller]
fn expect_field(answer: Answer, field: &str) -> Answer {
    let answer = answer.expect_problem(422, "invalid");
    let named = answer.at("/errors").as_array().unwrap().iter().any(|error| error["field"] == field);
    assert!(named, "expected the field {field} to be named, got {answer}");
    answer
}

/// The body without the request id, which differs from request to request.
fn without_request_id(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    body.as_object_mut().expect("a problem is an object").remove("request_id");
    body
}

#[tokio::test]
async fn the_service_lives_and_shows_its_plans() {
    let app = TestApp::start().await;
    app.get("/healthz").send().await.expect_status(200);
    let plans = app.get("/api/plans").send().await.expect_status(200);
    let ids: Vec<&str> = plans.at("/data").as_array().unwrap().iter().filter_map(|plan| plan["id"].as_str()).collect();
    assert_eq!(ids, ["free", "gold", "platinum"]);
    app.get("/api/nothing").send().await.expect_problem(404, "not_found");
    app.get("/api/users/me").send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn users_and_the_administrator_have_tokens() {
    let app = TestApp::start().await;
    let user = app.signup("ada@example.com").await;
    let profile = app.get("/api/users/me").bearer(&user).send().await.expect_status(200);
    assert_eq!(profile.text_at("/id"), user.id.to_string());
    let admin = app.admin().await;
    app.get("/api/admin/users").bearer(&admin).send().await.expect_status(200);
    app.get("/api/admin/users").bearer(&user).send().await.expect_problem(403, "forbidden");
    app.stop().await;
}
