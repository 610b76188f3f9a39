//! One step: its name and the SQL of both directions.
//!
//! A step is one transaction, or several parts, each opened by a line `-- @ <kind>` (kinds: `PartKind`). The text
//! before the first such line is a transaction of its own.
//!
//! Promise: each part is applied with its row in the record or not at all, so the next run continues a killed one at
//! the part where it stopped. A table is closed in the transaction that creates it: row-level security is enabled and
//! the rights that Supabase grants by default are revoked before any session can use it.

use anyhow::{Context, bail};

use crate::connection::name_array;
use crate::runner::StepRunner;
use crate::{objects, record};

#[derive(Clone, Copy)]
pub struct MigrationStep {
    pub name: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

/// How a part is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// `-- @ transaction`: all statements in one transaction. For statements that lock one table that has rows.
    Transaction,
    /// `-- @ concurrently`: one CREATE INDEX CONCURRENTLY, outside a transaction. The rest of a killed run is dropped
    /// first.
    Concurrently,
    /// `-- @ batches`: one statement that changes some thousand rows, repeated in separate transactions until it
    /// changes none. It must exclude rows that it has changed, and must not skip locked rows.
    Batches,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPart {
    pub kind: PartKind,
    pub sql: &'static str,
}

impl MigrationStep {
    pub fn tables(&self) -> Vec<&'static str> {
        tables(self.up)
    }

    pub fn parts(&self) -> anyhow::Result<Vec<StepPart>> {
        let mut parts = Vec::new();
        let mut rest = self.up;
        let mut kind = PartKind::Transaction;
        loop {
            let end = if rest.starts_with("-- @ ") { Some(0) } else { rest.find("\n-- @ ").map(|at| at + 1) };
            let (sql, next) = rest.split_at(end.unwrap_or(rest.len()));
            if has_statement(sql) {
                parts.push(StepPart { kind, sql });
            }
            let Some((marker, body)) = next.split_once('\n') else { break };
            kind = match marker.trim_start_matches("-- @ ").trim() {
                "transaction" => PartKind::Transaction,
                "concurrently" => PartKind::Concurrently,
                "batches" => PartKind::Batches,
                other => bail!("{} has a part of the kind {other:?}, which is none", self.name),
            };
            rest = body;
        }
        Ok(parts)
    }

    /// Applies the parts that are not done yet.
    pub async fn apply(&self, runner: &StepRunner, parts_done: usize) -> anyhow::Result<()> {
        let parts = self.parts()?;
        for (position, part) in parts.iter().enumerate().skip(parts_done) {
            let note = record::note(self.name, position + 1, parts.len());
            let what = format!("part {} of {} of the step {}", position + 1, parts.len(), self.name);
            match part.kind {
                PartKind::Transaction => {
                    runner.transaction(&what, &[part.sql, &close(&tables(part.sql)), &note]).await?;
                }
                PartKind::Concurrently => {
                    let name = *index_names(part.sql).first().with_context(|| format!("{what} makes no index"))?;
                    // Recorded before the index exists, so that the next run knows it as ours and may drop an
                    // incomplete one.
                    runner.transaction(&what, &[&record::note(self.name, position, usize::MAX)]).await?;
                    runner.index_concurrently(name, part.sql).await?;
                    runner.transaction(&what, &[&note]).await?;
                }
                PartKind::Batches => {
                    while runner.transaction(&what, &[part.sql]).await?.iter().any(|rows| *rows > 0) {}
                    runner.transaction(&what, &[&note]).await?;
                }
            }
        }
        Ok(())
    }

    /// Undoes it, in one transaction.
    pub async fn undo(&self, runner: &StepRunner) -> anyhow::Result<()> {
        let what = format!("the step {}", self.name);
        let keep = BEFORE_UNDO.iter().find(|(name, _)| *name == self.name).map_or("", |(_, sql)| *sql);
        runner.transaction(&what, &[keep, self.down, &record::strike(self.name)]).await?;
        Ok(())
    }
}

/// What is kept of the columns that an undone step drops, in its transaction: the ledgers and counters must balance
/// without them too. What cannot be kept raises an error.
const BEFORE_UNDO: [(&str, &str); 2] = [
    // Use carried into a counter has no events. Without the column it gets one.
    (
        "m20261121_000011_carry_counters_and_settle_holds",
        "INSERT INTO public.usage_events (user_id, feature_id, period, period_start, amount) \
         SELECT user_id, feature_id, period, period_start, carried FROM public.usage_counters WHERE carried > 0",
    ),
    // Without the column each unit beyond the limit is one token.
    (
        "m20261121_000013_chat_and_key_limits",
        "DO $pending$ BEGIN IF EXISTS (SELECT FROM public.usage_reservations WHERE status = 'pending' AND beyond <> tokens_reserved) THEN \
         RAISE EXCEPTION 'there are reservations that hold tokens at another price than one a unit, which the schema before cannot hold: \
wait until they have ended'; END IF; END $pending$",
    ),
];

pub fn tables(sql: &'static str) -> Vec<&'static str> {
    objects::created(sql, "CREATE TABLE public.", " (")
}

/// The indexes that a text creates by their own statements.
pub fn index_names(sql: &str) -> Vec<&str> {
    let mut names = objects::created(sql, "INDEX ", " ON ");
    names.extend(objects::created(sql, "INDEX CONCURRENTLY ", " ON "));
    names
}

fn has_statement(sql: &str) -> bool {
    sql.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
}

/// Closes tables and their partitions: no role sees rows until policies and grants are applied.
pub fn close(tables: &[&str]) -> String {
    if tables.is_empty() {
        return String::new();
    }
    format!(
        "{}; {}",
        for_each(tables, "ALTER TABLE %s ENABLE ROW LEVEL SECURITY"),
        for_each(tables, "REVOKE ALL ON TABLE %s FROM PUBLIC, anon, authenticated")
    )
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

/// Those of the given tables, and their partitions, that have row-level security off.
pub fn unprotected(tables: &[&str]) -> String {
    format!(
        "SELECT c.oid::regclass::text AS name FROM pg_catalog.pg_class c \
         LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid \
         LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
         WHERE coalesce(p.relnamespace, c.relnamespace) = 'public'::regnamespace \
           AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND coalesce(p.relname, c.relname) = ANY ({})",
        name_array(tables)
    )
}

#[cfg(test)]
mod tests {
    use super::{MigrationStep, PartKind, StepPart, index_names};

    const PARTED: MigrationStep = MigrationStep {
        name: "m",
        up: "-- What it is for.\nCREATE TABLE public.a (x int);\n-- @ concurrently\nCREATE UNIQUE INDEX CONCURRENTLY idx_a_x ON public.a (x);\n\
             -- @ batches\n-- Old rows.\nUPDATE public.a SET x = 1 WHERE x = 0;\n",
        down: "",
    };

    #[test]
    fn parts_are_read_by_their_lines() {
        let kinds: Vec<PartKind> = PARTED.parts().unwrap().iter().map(|part| part.kind).collect();
        assert_eq!(kinds, [PartKind::Transaction, PartKind::Concurrently, PartKind::Batches]);
        let plain = MigrationStep { up: "CREATE TABLE public.a (x int);", ..PARTED };
        assert_eq!(plain.parts().unwrap(), [StepPart { kind: PartKind::Transaction, sql: plain.up }]);
        let wrong = MigrationStep { up: "-- @ swiftly\nSELECT 1;", ..PARTED };
        assert!(wrong.parts().unwrap_err().to_string().contains("swiftly"));
        let comment = MigrationStep { up: "-- Only words.\n-- @ transaction\nSELECT 1;", ..PARTED };
        assert_eq!(comment.parts().unwrap().len(), 1);
    }

    #[test]
    fn indexes_are_named() {
        assert_eq!(index_names(PARTED.up), ["idx_a_x"]);
        assert_eq!(index_names("CREATE INDEX idx_b ON public.b (y);"), ["idx_b"]);
    }
}
