//! Test users, and short forms for common expectations.

use adapters::randomness::SystemRandomness;
use chrono::{DateTime, TimeDelta, Utc};
use domain::features::FeatureId;
use domain::identity::{Email, Role};
use domain::plans::PlanId;
use domain::users::{NewUser, UserId};
use ports::randomness::Randomness as _;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use uuid::Uuid;

pub fn new_id() -> Uuid {
    SystemRandomness.new_id()
}

pub fn email(name: &str) -> Email {
    Email::parse(&format!("{name}@example.com")).unwrap()
}

pub fn plan_id(text: &str) -> PlanId {
    PlanId::parse(text).unwrap()
}

pub fn feature_id(text: &str) -> FeatureId {
    FeatureId::parse(text).unwrap()
}

/// A time that Postgres stores exactly: whole seconds after a fixed day.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_600) + TimeDelta::seconds(seconds)
}

pub async fn service(store: &dyn Store) -> Box<dyn UnitOfWork> {
    store.begin(Scope::SERVICE).await.unwrap()
}

/// An identity with its profile.
pub async fn sign_up(store: &dyn Store, name: &str) -> UserId {
    let mut work = service(store).await;
    let id = UserId(new_id());
    work.identity().register(id, &email(name), "$argon2id$hash").await.unwrap();
    work.users().insert(&NewUser { id, name: name.to_owned(), role: Role::User }).await.unwrap();
    work.commit().await.unwrap();
    id
}

/// The name of the violated constraint.
pub fn constraint<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Constraint { constraint }) => constraint,
        other => panic!("not a violated constraint: {other:?}"),
    }
}
