//! Test users, created by SQL as the owner.

use domain::users::UserId;
use harness::TestDatabase;

/// An identity with its profile: on `free`, with the starting balance.
pub async fn sign_up(database: &TestDatabase, name: &str) -> UserId {
    let id: uuid::Uuid = database
        .query_scalar(&format!(
            "WITH identity AS (INSERT INTO auth.users (email) VALUES ('{name}@example.com') RETURNING id)
             SELECT id FROM identity"
        ))
        .await;
    database.sql(&format!("INSERT INTO users (id, name) VALUES ('{id}', '{name}')")).await;
    UserId(id)
}
