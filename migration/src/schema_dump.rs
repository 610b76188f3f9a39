//! The schema as text, written from the catalogue: this is `docs/schema.sql`, and a test compares the two.
//!
//! Promise: the same schema gives the same text on every day and in every database: months of partitions, owners and
//! the roles of an identity provider are left out. `pg_dump` prints a random line and cannot be compared.

use std::fmt::Write;

use sea_orm_migration::sea_orm::{ConnectionTrait, TransactionTrait};

use crate::connection::{connect, name_array, query_all};
use crate::{objects, replaceable};

const QUERIES: &str = include_str!("schema_dump.sql");
const HEADER: &str = "-- The schema of Product Base, for reading. Written from the catalogue by `cargo run -p migration -- schema`:\n\
                      -- do not edit. The steps and replaceable texts in migration/src are what makes it.\n";

pub async fn schema_sql(database_url: &str) -> anyhow::Result<String> {
    let connection = connect(database_url).await?;
    let transaction = connection.begin().await?;
    // Without a search path every name is written with its schema.
    transaction.execute_unprepared("SET LOCAL search_path = ''").await?;
    let mut tables = objects::tables();
    tables.push(objects::RECORD);
    let mut text = HEADER.to_owned();
    for (title, query) in replaceable::sections(QUERIES) {
        let query = query
            .replace("{tables}", &name_array(&tables))
            .replace("{views}", &name_array(&objects::views()))
            .replace("{functions}", &name_array(&objects::functions()));
        writeln!(text, "\n-- {title}")?;
        let separator = if title == "Rights" { "" } else { "\n" };
        for row in query_all(&transaction, &query).await? {
            writeln!(text, "{separator}{}", row.try_get::<String>("", "line")?)?;
        }
    }
    transaction.rollback().await?;
    connection.close().await?;
    Ok(text)
}
