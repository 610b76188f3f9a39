//! Which steps are applied in a database. Needs no right to change anything: the service's own login may run it.

use crate::connection::connect;
use crate::record;
use crate::steps::STEPS;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStatus {
    pub name: String,
    pub applied: bool,
}

pub async fn status(database_url: &str) -> anyhow::Result<Vec<StepStatus>> {
    let connection = connect(database_url).await?;
    let recorded = record::read(&connection).await?;
    connection.close().await?;
    Ok(STEPS.iter().map(|step| StepStatus { name: step.name.to_owned(), applied: recorded.has(step.name) }).collect())
}
