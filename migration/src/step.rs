//! One step: its name and the SQL of both directions.
//!
//! Promise: a step is one transaction, its record in `seaql_migrations` included, so that a run killed half-way
//! is finished by the next. In the same transaction every table that it makes is closed: row-level security is
//! on and the rights that Supabase gives by default are taken away, before anybody could use them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

use crate::connection::name_array;
use crate::objects;

#[derive(Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

impl Step {
    pub fn tables(&self) -> Vec<&'static str> {
        objects::created(self.up, "CREATE TABLE public.", " (")
    }
}

impl MigrationName for Step {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        connection.execute_unprepared(self.up).await?;
        connection.execute_unprepared(&close(&self.tables())).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.down).await?;
        Ok(())
    }
}

/// Closes tables and their partitions: rows are nobody's until policies and grants say whose.
pub fn close(tables: &[&str]) -> String {
    format!(
        "{}; {}",
        for_each(tables, "ALTER TABLE %s ENABLE ROW LEVEL SECURITY"),
        for_each(tables, "REVOKE ALL ON TABLE %s FROM PUBLIC, anon, authenticated")
    )
}

/// Row-level security alone, where it is off: rights in use stay, and no table is locked without need.
pub fn protect(tables: &[&str]) -> String {
    for_each(tables, "ALTER TABLE %s ENABLE ROW LEVEL SECURITY")
}

fn for_each(tables: &[&str], statement: &str) -> String {
    let names = name_array(tables);
    let condition = if statement.ends_with("ROW LEVEL SECURITY") { "NOT c.relrowsecurity" } else { "true" };
    format!(
        "DO $close$ DECLARE target regclass; BEGIN FOR target IN \
           SELECT c.oid::regclass FROM pg_catalog.pg_class c \
           LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid \
           LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
           WHERE coalesce(p.relnamespace, c.relnamespace) = 'public'::regnamespace \
             AND c.relkind IN ('r', 'p') AND {condition} AND coalesce(p.relname, c.relname) = ANY ({names}) \
         LOOP EXECUTE format('{statement}', target); END LOOP; END $close$"
    )
}
