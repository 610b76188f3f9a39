//! Undoing steps: a database as an earlier release left it.

use harness::TestDatabase;

/// A new database that has the steps before this one.
pub async fn before(step: &str) -> TestDatabase {
    let database = TestDatabase::new().await;
    undo_from(&database, step).await;
    database
}

/// Undoes this step and all after it. Its name is given without the date.
pub async fn undo_from(database: &TestDatabase, step: &str) {
    let names = migration::names();
    let position = names.iter().position(|name| name.ends_with(step)).unwrap();
    migration::down(&database.owner_url(), Some((names.len() - position).try_into().unwrap())).await.unwrap();
}
