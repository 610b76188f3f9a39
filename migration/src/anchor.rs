//! A line with digests of the end of every ledger, for the operator to store outside the database.
//!
//! Promise: a ledger that was truncated or rewritten, even together with all that the database stores about it
//! (`ledger_heads` included), is detected by a line that was printed before. The finding names one of sixteen slices of
//! the users. If a profile was deleted since, its ledger is gone too: the slice is then a warning. Cost: the last row
//! of each ledger is read.

use sea_orm_migration::sea_orm::DatabaseConnection;

use anyhow::{Context, bail};

use crate::connection::{connect, query_all, query_one};
use crate::verify::{FindingSeverity, VerifyFinding};

/// Transactions that write ledgers end within this time.
const SETTLED: &str = "10 minutes";
const MARK: &str = "ledgers-at";
const SLICES: usize = 16;

/// The line for all rows written until ten minutes ago.
pub async fn ledger_line(database_url: &str) -> anyhow::Result<String> {
    let connection = connect(database_url).await?;
    let outcome = line(&connection).await;
    connection.close().await?;
    outcome
}

async fn line(connection: &DatabaseConnection) -> anyhow::Result<String> {
    let sql = format!("SELECT floor(extract(epoch FROM now() - interval '{SETTLED}'))::bigint AS at");
    let at: i64 = query_one(connection, &sql).await?.try_get("", "at")?;
    Ok(format!("{MARK}:{at}:{}", digests(connection, at).await?.join(":")))
}

/// The differences from a line that was printed before.
pub async fn compare_ledgers(database_url: &str, line: &str) -> anyhow::Result<Vec<VerifyFinding>> {
    let fields: Vec<&str> = line.trim().split(':').collect();
    let Some((&MARK, [at, kept @ ..])) = fields.split_first() else {
        bail!("--since needs a line that verify printed: it begins with {MARK}");
    };
    let at: i64 = at.parse().context("the time in the line of --since is none")?;
    if kept.len() != SLICES {
        bail!("the line of --since is not whole: it has {} digests and not {SLICES}", kept.len());
    }
    let connection = connect(database_url).await?;
    let outcome = differing(&connection, at, kept).await;
    connection.close().await?;
    outcome
}

async fn differing(connection: &DatabaseConnection, at: i64, kept: &[&str]) -> anyhow::Result<Vec<VerifyFinding>> {
    let mut findings = Vec::new();
    for (slice, (was, is)) in kept.iter().zip(digests(connection, at).await?).enumerate() {
        if **was == is {
            continue;
        }
        let sql = format!(
            "SELECT EXISTS (SELECT FROM public.deleted_profiles d WHERE left(d.user_id::text, 1) = '{slice:x}' \
             AND d.deleted_at >= to_timestamp({at})) AS it"
        );
        let was_deleted: bool = query_one(connection, &sql).await?.try_get("", "it")?;
        findings.push(VerifyFinding {
            severity: if was_deleted { FindingSeverity::Warning } else { FindingSeverity::Error },
            finding: "LEDGER_SINCE_MISMATCH".to_owned(),
            subject: format!("users/{slice:x}"),
            detail: if was_deleted {
                "ledgers of these users are others than the line says; a profile among them was deleted since"
                    .to_owned()
            } else {
                "ledgers of these users are others than the line says: rows were cut off or written anew".to_owned()
            },
        });
    }
    Ok(findings)
}

/// One digest per slice of the users (by the first digit of their ids), over the last row of each ledger before a time.
async fn digests(connection: &DatabaseConnection, at: i64) -> anyhow::Result<Vec<String>> {
    let sql = format!(
        "SELECT coalesce((SELECT left(encode(sha256(convert_to(string_agg(t.user_id || ' ' || t.seq || ' ' || encode(t.hash, 'hex'), ',' ORDER BY t.user_id), 'UTF8')), 'hex'), 32) \
           FROM (SELECT DISTINCT ON (l.user_id) l.user_id, l.seq, l.hash FROM public.token_transactions l \
             WHERE l.created_at < to_timestamp({at}) AND l.user_id BETWEEN rpad(to_hex(n), 32, '0')::uuid AND rpad(to_hex(n), 32, 'f')::uuid \
             ORDER BY l.user_id, l.seq DESC) t), '-') AS digest \
         FROM generate_series(0, {}) n ORDER BY n",
        SLICES - 1
    );
    query_all(connection, &sql).await?.iter().map(|row| Ok(row.try_get::<String>("", "digest")?)).collect()
}
