//! Which steps stand in a database. Needs no right to change anything: the service's own login may ask.

use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use crate::connection::{connect, query_all, query_one, table_exists};
use crate::objects::RECORD;
use crate::steps::STEPS;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStatus {
    pub name: String,
    pub applied: bool,
}

pub async fn status(database_url: &str) -> anyhow::Result<Vec<StepStatus>> {
    let connection = connect(database_url).await?;
    let applied = applied(&connection).await?;
    connection.close().await?;
    Ok(STEPS
        .iter()
        .map(|step| StepStatus { name: step.name.to_owned(), applied: applied.iter().any(|name| name == step.name) })
        .collect())
}

/// The recorded steps in their order. The service's login reads nothing by itself, so it takes its role on first.
pub async fn applied(connection: &DatabaseConnection) -> anyhow::Result<Vec<String>> {
    if !table_exists(connection, RECORD).await? {
        return Ok(Vec::new());
    }
    let transaction = connection.begin().await?;
    let may_read = query_one(
        &transaction,
        &format!("SELECT has_table_privilege('public.{RECORD}', 'SELECT') AND NOT row_security_active('public.{RECORD}') AS it"),
    )
    .await?
    .try_get::<bool>("", "it")?;
    if !may_read {
        transaction.execute_unprepared("SET LOCAL ROLE app_service").await?;
    }
    let mut names = Vec::new();
    for row in query_all(&transaction, &format!("SELECT version FROM public.{RECORD} ORDER BY version")).await? {
        names.push(row.try_get::<String>("", "version")?);
    }
    transaction.commit().await?;
    Ok(names)
}
