//! Responses of paid calls on Postgres, sealed like other stored responses (see `answer_sealing`).
//!
//! Costs: one round trip per method, each by the primary key; `find` also reads the reservation of a call without a
//! response. Locks only the rows that are written. A body is sealed together with the headers that are sent again.
//!
//! A row without a status is a call in progress. A row with a status but no body has no response to replay; its status
//! is the reason that a retry is given.

use async_trait::async_trait;
use chrono::TimeDelta;
use domain::idempotency::StoredAnswer;
use domain::replays::{AwaitedCall, NotReplayable};
use domain::usage::{HoldId, HoldStatus};
use ports::idempotency::AnswerClaim;
use ports::replays::{CallEnd, FoundCall, KeptAnswer, LeftCall, ReplayRepository};
use ports::store::StoreError;
use sea_orm::prelude::Json;
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::answer_sealing::AnswerSealing;
use super::idempotency::{may_have, rights_json};
use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// Status of a call whose response was lost.
const LOST: i16 = 409;
/// Status of a call whose response was too long.
const TOO_LONG: i16 = 413;

#[derive(FromQueryResult)]
struct CallRow {
    fingerprint: Vec<u8>,
    status: Option<i16>,
    content_type: Option<String>,
    sealed_body: Option<Vec<u8>>,
    reservation_id: Option<Uuid>,
    rights: Option<Json>,
    age: f64,
    hold_status: Option<String>,
    hold_since: Option<f64>,
}

#[async_trait]
impl ReplayRepository for PgUnitOfWork {
    async fn claim(&mut self, claim: &AnswerClaim, hold_id: HoldId, keep: TimeDelta) -> Result<bool, StoreError> {
        let [user, route, digest] = place(claim);
        let values = [
            user,
            route,
            digest,
            claim.fingerprint.clone().into(),
            hold_id.0.into(),
            seconds(keep).into(),
            rights_json(claim)?.into(),
        ];
        if self.run(include_str!("sql/claim_call.sql"), values).await? > 0 {
            return Ok(true);
        }
        // The statement returns no row for a missing and for a locked user; only the first is an error.
        let is_known = "SELECT EXISTS (SELECT FROM users WHERE id = $1)";
        let is_known: Option<bool> = self.read_value(is_known, [claim.caller.0.into()]).await?;
        if is_known == Some(true) {
            return Ok(false);
        }
        Err(StoreError::Constraint { constraint: "fk_ai_answers_user".to_owned() })
    }

    async fn find(&mut self, claim: &AnswerClaim) -> Result<Option<FoundCall>, StoreError> {
        let row: Option<CallRow> = self.read_one(include_str!("sql/find_call.sql"), place(claim)).await?;
        row.map(|row| self.found(claim, row)).transpose()
    }

    async fn finish(&mut self, claim: &AnswerClaim, hold_id: HoldId, end: &CallEnd) -> Result<bool, StoreError> {
        let (status, content_type, sealed) = self.written_end(claim, end)?;
        let [user, route, digest] = place(claim);
        let values = [user, route, digest, hold_id.0.into(), status.into(), content_type.into(), sealed.into()];
        Ok(self.run(include_str!("sql/finish_call.sql"), values).await? > 0)
    }

    async fn abandon(&mut self, claim: &AnswerClaim, hold_id: HoldId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM ai_answers WHERE user_id = $1 AND route = $2 AND key_digest = $3 AND reservation_id = $4 \
            AND status IS NULL";
        let [user, route, digest] = place(claim);
        Ok(self.run(sql, [user, route, digest, hold_id.0.into()]).await? > 0)
    }

    async fn leave(
        &mut self,
        claim: &AnswerClaim,
        content: &AnswerClaim,
        call: LeftCall<'_>,
    ) -> Result<(), StoreError> {
        let (status, content_type, sealed) = match call.end.map(|end| self.written_end(claim, end)).transpose()? {
            Some((status, content_type, sealed)) => (Some(status), content_type, sealed),
            None => (None, None, None),
        };
        let [user, route, digest] = place(claim);
        let values = [
            user,
            route,
            digest,
            claim.fingerprint.clone().into(),
            call.hold_id.0.into(),
            seconds(call.keep).into(),
            AnswerSealing::digest(content).into(),
            status.into(),
            content_type.into(),
            sealed.into(),
            rights_json(claim)?.into(),
        ];
        self.run(include_str!("sql/leave_call.sql"), values).await?;
        Ok(())
    }

    async fn leave_again(
        &mut self,
        claim: &AnswerClaim,
        content: &AnswerClaim,
        hold_id: HoldId,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE ai_answers SET content_digest = $5 WHERE user_id = $1 AND route = $2 AND key_digest = $3 \
            AND reservation_id = $4";
        let [user, route, digest] = place(claim);
        self.run(sql, [user, route, digest, hold_id.0.into(), AnswerSealing::digest(content).into()]).await?;
        Ok(())
    }

    async fn adopt(&mut self, content: &AnswerClaim) -> Result<Option<HoldId>, StoreError> {
        let hold: Option<Uuid> = self.read_value(include_str!("sql/adopt_call.sql"), place(content)).await?;
        Ok(hold.map(HoldId))
    }

    async fn forget(&mut self, claim: &AnswerClaim, hold_id: HoldId) -> Result<(), StoreError> {
        let sql =
            "DELETE FROM ai_answers WHERE user_id = $1 AND route = $2 AND key_digest = $3 AND reservation_id = $4";
        let [user, route, digest] = place(claim);
        self.run(sql, [user, route, digest, hold_id.0.into()]).await?;
        Ok(())
    }

    async fn find_hold(&mut self, hold_id: HoldId) -> Result<Option<HoldStatus>, StoreError> {
        let status: Option<String> =
            self.read_value("SELECT status FROM usage_reservations WHERE id = $1", [hold_id.0.into()]).await?;
        status.map(|status| hold_status(&status, hold_id.0)).transpose()
    }

    async fn delete_expired(&mut self, rows_max: u64) -> Result<u64, StoreError> {
        self.run(include_str!("sql/delete_expired_calls.sql"), [limit(rows_max)]).await
    }
}

/// Status, content type and sealed body, as stored in a row.
type WrittenEnd<'a> = (i16, Option<&'a str>, Option<Vec<u8>>);

impl PgUnitOfWork {
    fn written_end<'a>(&self, claim: &AnswerClaim, end: &'a CallEnd) -> Result<WrittenEnd<'a>, StoreError> {
        match end {
            CallEnd::NotReplayable(NotReplayable::Lost) => Ok((LOST, None, None)),
            CallEnd::NotReplayable(NotReplayable::TooLong) => Ok((TOO_LONG, None, None)),
            CallEnd::Answered(answer) => {
                let status = i16::try_from(answer.status)
                    .map_err(|_| StoreError::Unexpected("an answer has a status that HTTP does not know".into()))?;
                let sealed = self.sealing.seal(claim, &with_headers(answer)?)?;
                Ok((status, Some(answer.content_type.as_str()), Some(sealed)))
            }
        }
    }

    fn found(&self, claim: &AnswerClaim, row: CallRow) -> Result<FoundCall, StoreError> {
        // The idempotency key stays out of errors, so the route and the caller identify the row.
        let unfit = || inconsistent("ai_answers", format_args!("{} {}", claim.caller, claim.route));
        let may_go = row.status.is_none() && matches!(row.hold_status.as_deref(), None | Some("released"));
        if row.fingerprint != claim.fingerprint && !may_go {
            return Ok(FoundCall::OtherBody);
        }
        if !may_go && !may_have(claim, row.rights.as_ref()) {
            return Ok(FoundCall::BeyondRights);
        }
        let Some(status) = row.status else {
            let hold_id = HoldId(row.reservation_id.ok_or_else(unfit)?);
            let hold = match (row.hold_status, row.hold_since) {
                (Some(status), Some(since)) => Some((hold_status(&status, hold_id.0)?, since_seconds(since))),
                _ => None,
            };
            let awaited = AwaitedCall { age: since_seconds(row.age), hold };
            return Ok(FoundCall::Awaited { hold_id, awaited });
        };
        let end = match (status, row.content_type, row.sealed_body) {
            (LOST, None, None) => CallEnd::NotReplayable(NotReplayable::Lost),
            (TOO_LONG, None, None) => CallEnd::NotReplayable(NotReplayable::TooLong),
            (status, Some(content_type), Some(sealed)) => {
                let status = u16::try_from(status).map_err(|_| unfit())?;
                let opened = self.sealing.open(claim, status, &content_type, &sealed).ok_or_else(unfit)?;
                CallEnd::Answered(apart(status, content_type, &opened).ok_or_else(unfit)?)
            }
            _ => return Err(unfit()),
        };
        Ok(FoundCall::Ended(end))
    }
}

fn place(claim: &AnswerClaim) -> [Value; 3] {
    [claim.caller.0.into(), claim.route.as_str().into(), AnswerSealing::digest(claim).into()]
}

/// The headers as JSON, which contains no zero byte, then a zero byte and the body.
fn with_headers(answer: &KeptAnswer) -> Result<StoredAnswer, StoreError> {
    let mut body = serde_json::to_vec(&answer.headers)
        .map_err(|_| StoreError::Unexpected("the headers of an answer could not be written".into()))?;
    body.push(0);
    body.extend_from_slice(&answer.body);
    Ok(StoredAnswer { status: answer.status, content_type: answer.content_type.clone(), body })
}

fn apart(status: u16, content_type: String, opened: &[u8]) -> Option<KeptAnswer> {
    let end = opened.iter().position(|byte| *byte == 0)?;
    let (headers, body) = opened.split_at_checked(end)?;
    let headers = serde_json::from_slice(headers).ok()?;
    Some(KeptAnswer { status, content_type, headers, body: body.get(1..)?.to_vec() })
}

fn hold_status(text: &str, hold: Uuid) -> Result<HoldStatus, StoreError> {
    text.parse().map_err(|_| inconsistent("usage_reservations", hold))
}

fn seconds(time: TimeDelta) -> f64 {
    time.to_std().unwrap_or_default().as_secs_f64()
}

fn since_seconds(seconds: f64) -> TimeDelta {
    let time = std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX)
}
