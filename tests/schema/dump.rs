//! `docs/schema.sql` equals the schema.

use std::fs;
use std::path::Path;

use harness::TestDatabase;

use crate::catalogue::assert_same;

#[tokio::test]
async fn the_schema_in_the_docs_is_the_one_that_the_steps_make() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema.sql");
    let written = fs::read_to_string(&file).expect("docs/schema.sql is written by `make docs`");
    let database = TestDatabase::empty().await;
    migration::up(&database.owner_url()).await.unwrap();
    let made = migration::schema_sql(&database.owner_url()).await.unwrap();
    let of = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_same("docs/schema.sql (before) and a fresh database (after): run `make docs`", &of(&written), &of(&made));
    assert!(!made.contains("_2026_") && !made.contains("\\restrict"), "the text does not depend on the day");
}
