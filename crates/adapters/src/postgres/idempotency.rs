//! Stored responses on Postgres, sealed (see `answer_sealing`).
//!
//! Costs: `claim` is two round trips, or one where the response exists; `record` is one. A claim is an advisory lock
//! that lasts as long as the transaction: no process waits for it, and it cannot outlive its holder, even through a
//! pooler. The row is then read in a statement of its own, which sees what the last holder committed.

use async_trait::async_trait;
use domain::idempotency::StoredAnswer;
use domain::identity::CallerRights;
use ports::idempotency::{AnswerClaim, AnswerClaimed, AnswerRepository};
use ports::store::StoreError;
use sea_orm::FromQueryResult;
use sea_orm::prelude::Json;

use super::answer_sealing::AnswerSealing;
use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

#[derive(FromQueryResult)]
struct AnswerRow {
    fingerprint: Option<Vec<u8>>,
    is_taken: bool,
    status: Option<i16>,
    content_type: Option<String>,
    sealed_body: Option<Vec<u8>>,
    rights: Option<Json>,
}

#[async_trait]
impl AnswerRepository for PgUnitOfWork {
    async fn claim(&mut self, claim: &AnswerClaim) -> Result<AnswerClaimed, StoreError> {
        let values = || [claim.caller.0.into(), claim.route.as_str().into(), AnswerSealing::digest(claim).into()];
        let sql = include_str!("sql/claim_answer.sql");
        let mut found: Option<AnswerRow> = self.read_one(sql, values()).await?;
        if found.as_ref().is_some_and(|row| row.is_taken) {
            // The claim is ours: a second statement sees what the last holder committed.
            found = self.read_one(sql, values()).await?;
        }
        let row = found.ok_or_else(|| inconsistent("idempotent_answers", claim.caller))?;
        match &row.fingerprint {
            None if row.is_taken => Ok(AnswerClaimed::Fresh),
            None => Ok(AnswerClaimed::InFlight),
            Some(fingerprint) if *fingerprint != claim.fingerprint => Ok(AnswerClaimed::OtherBody),
            Some(_) if !may_have(claim, row.rights.as_ref()) => Ok(AnswerClaimed::BeyondRights),
            Some(_) => self.answer(claim, row).map(AnswerClaimed::Answered),
        }
    }

    async fn record(&mut self, claim: &AnswerClaim, answer: &StoredAnswer) -> Result<(), StoreError> {
        let status = i16::try_from(answer.status)
            .map_err(|_| StoreError::Unexpected("an answer has a status that HTTP does not know".into()))?;
        let values = [
            claim.caller.0.into(),
            claim.route.as_str().into(),
            AnswerSealing::digest(claim).into(),
            claim.fingerprint.clone().into(),
            status.into(),
            answer.content_type.as_str().into(),
            self.sealing.seal(claim, answer)?.into(),
            self.sealing.ttl_seconds().into(),
            rights_json(claim)?.into(),
        ];
        // There may be an expired row; a live one is not possible, since the claim would have found it.
        if self.run(include_str!("sql/record_answer.sql"), values).await? == 0 {
            return Err(StoreError::Constraint { constraint: "idempotent_answers_pkey".into() });
        }
        Ok(())
    }

    async fn delete_expired(&mut self, rows_max: u64) -> Result<u64, StoreError> {
        self.run(include_str!("sql/delete_expired_answers.sql"), [limit(rows_max)]).await
    }
}

/// Whether a response that was stored with these rights may be given to this caller. A response of an earlier release
/// has none; it is given only to callers with all rights of the account.
pub(super) fn may_have(claim: &AnswerClaim, stored: Option<&Json>) -> bool {
    let stored = stored.and_then(|rights| serde_json::from_value::<CallerRights>(rights.clone()).ok());
    stored.map_or_else(|| claim.rights.are_a_persons(), |stored| claim.rights.cover(&stored))
}

pub(super) fn rights_json(claim: &AnswerClaim) -> Result<Json, StoreError> {
    serde_json::to_value(&claim.rights)
        .map_err(|_| StoreError::Unexpected("rights could not be written as JSON".into()))
}

impl PgUnitOfWork {
    fn answer(&self, claim: &AnswerClaim, row: AnswerRow) -> Result<StoredAnswer, StoreError> {
        // The idempotency key stays out of errors, so the route and the caller identify the row.
        let unfit = || inconsistent("idempotent_answers", format_args!("{} {}", claim.caller, claim.route));
        let status = row.status.and_then(|status| u16::try_from(status).ok()).ok_or_else(unfit)?;
        let content_type = row.content_type.ok_or_else(unfit)?;
        let sealed = row.sealed_body.ok_or_else(unfit)?;
        let body = self.sealing.open(claim, status, &content_type, &sealed).ok_or_else(unfit)?;
        Ok(StoredAnswer { status, content_type, body })
    }
}
