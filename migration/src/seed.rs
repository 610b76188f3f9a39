//! The catalogue of the seeds: three plans, five features, fifteen pairs.
//!
//! Promise: seeding twice is the same as once, and no existing price, limit or Stripe price id is overwritten. Cost:
//! one transaction of a few statements.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};

use crate::connection::{connect, table_exists};
use crate::lock::MigrationLock;
use crate::{MigrationReport, replaceable};

const SEEDS: &str = include_str!("seeds.sql");

/// Values that the seeds do not have. Keys are (plan id, interval), the interval `month` or `year`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeedSettings {
    pub stripe_price_ids: BTreeMap<(String, String), String>,
}

impl SeedSettings {
    /// Reads `STRIPE_GOLD_MONTHLY_PRICE_ID` and the three other price ids from any source of settings.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let mut stripe_price_ids = BTreeMap::new();
        for plan in ["gold", "platinum"] {
            for (interval, word) in [("month", "MONTHLY"), ("year", "YEARLY")] {
                let name = format!("STRIPE_{}_{word}_PRICE_ID", plan.to_uppercase());
                if let Some(price_id) = lookup(&name).filter(|value| !value.trim().is_empty()) {
                    stripe_price_ids.insert((plan.to_owned(), interval.to_owned()), price_id.trim().to_owned());
                }
            }
        }
        Self { stripe_price_ids }
    }
}

pub async fn seed(database_url: &str) -> anyhow::Result<MigrationReport> {
    seed_with(database_url, &SeedSettings::default()).await
}

pub async fn seed_with(database_url: &str, settings: &SeedSettings) -> anyhow::Result<MigrationReport> {
    let lock = MigrationLock::acquire(database_url).await?;
    let connection = connect(database_url).await?;
    let seeded = write(&connection, settings).await;
    let seeded = lock.end(connection, seeded).await?;
    Ok(MigrationReport { seeded, ..MigrationReport::default() })
}

async fn write(connection: &DatabaseConnection, settings: &SeedSettings) -> anyhow::Result<u64> {
    if !table_exists(connection, "plan_features").await? {
        bail!("there is no table to seed yet: run `migration up` first");
    }
    let transaction = connection.begin().await?;
    transaction.execute_unprepared("SELECT set_config('app.reason', 'seed', true)").await?;
    let mut rows = 0;
    for (table, sql) in replaceable::sections(SEEDS) {
        let outcome =
            transaction.execute_unprepared(sql).await.with_context(|| format!("{table} could not be seeded"))?;
        rows += outcome.rows_affected();
    }
    for ((plan, interval), price_id) in &settings.stripe_price_ids {
        let column = match interval.as_str() {
            "month" => "stripe_price_id_monthly",
            "year" => "stripe_price_id_yearly",
            other => bail!("a Stripe price id of {plan} is for the interval {other:?}; month or year is expected"),
        };
        let fill = format!("UPDATE public.plans SET {column} = $2 WHERE id = $1 AND {column} IS NULL");
        let outcome = transaction
            .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, fill, [plan.clone().into(), price_id.clone().into()]))
            .await
            .with_context(|| format!("the Stripe price id of {plan} by the {interval} could not be stored; each price belongs to one plan"))?;
        rows += outcome.rows_affected();
    }
    transaction.commit().await?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::{SEEDS, SeedSettings};
    use crate::replaceable::sections;

    #[test]
    fn price_ids_come_by_plan_and_interval_and_blanks_are_absent() {
        let settings = SeedSettings::from_lookup(|name| match name {
            "STRIPE_GOLD_MONTHLY_PRICE_ID" => Some(" price_1 ".to_owned()),
            "STRIPE_PLATINUM_YEARLY_PRICE_ID" => Some("  ".to_owned()),
            _ => None,
        });
        let expected = [(("gold".to_owned(), "month".to_owned()), "price_1".to_owned())];
        assert_eq!(settings.stripe_price_ids, expected.into());
    }

    #[test]
    fn no_seed_overwrites() {
        let tables: Vec<&str> = sections(SEEDS).map(|(table, _)| table).collect();
        assert_eq!(tables, ["plans", "features", "plan_features"]);
        assert!(sections(SEEDS).all(|(_, sql)| sql.ends_with("DO NOTHING")));
    }
}
