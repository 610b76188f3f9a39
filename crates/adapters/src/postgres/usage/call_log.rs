//! The call log on Postgres: what ended model calls used, the messages of their conversations, and the calls whose
//! process is gone.

use async_trait::async_trait;
use domain::ai::Speaker;
use domain::usage::{CallPhase, CallTerms, Hold, HoldId, ReservedCallState};
use domain::users::UserId;
use ports::store::{LockPatience, LockResult, StoreError};
use ports::usage::{CallLogRepository, CallRecord, CallResult, DueCall, SaidMessage};
use sea_orm::prelude::{Decimal, Json};
use sea_orm::{FromQueryResult, Value};
use serde_json::json;
use uuid::Uuid;

use super::super::rows::{inconsistent, limit};
use super::super::store::PgUnitOfWork;
use super::columns::{column, lock_result, same_number, with_patience};

#[derive(FromQueryResult)]
struct SessionRow {
    is_locked: bool,
    is_busy: bool,
}

#[derive(FromQueryResult)]
struct DueCallRow {
    id: Uuid,
    user_id: Uuid,
    phase: String,
    detail: Json,
}

#[async_trait]
impl CallLogRepository for PgUnitOfWork {
    async fn lock_sessions(&mut self, ids: &[Uuid], patience: LockPatience) -> Result<Vec<LockResult<()>>, StoreError> {
        let sql = with_patience(include_str!("../sql/lock_sessions.sql"), patience);
        let rows: Vec<SessionRow> = self.read_all(&sql, [column(ids, |id| *id)]).await?;
        same_number(rows.len(), ids.len())?;
        Ok(rows.into_iter().map(|row| lock_result(row.is_locked, row.is_busy, || ())).collect())
    }

    /// The log rows are sent with the commit; message texts are bound, in a message of their own.
    async fn record(&mut self, calls: &[CallRecord]) -> Result<(), StoreError> {
        let tokens = |call: &CallRecord| call.result.usage.tokens;
        let dollars =
            |call: &CallRecord| call.result.cost.as_ref().map_or(Decimal::ZERO, |cost| cost.amount.rounded_usd());
        let version =
            |call: &CallRecord| call.result.cost.as_ref().map_or_else(String::new, |cost| cost.version.clone());
        let values: [Value; 17] = [
            column(calls, |call| call.reservation_id.0),
            column(calls, |call| call.user_id.0),
            column(calls, |call| call.result.provider.as_str().to_owned()),
            column(calls, |call| call.result.model.clone()),
            column(calls, |call| whole(tokens(call).input())),
            column(calls, |call| whole(tokens(call).output())),
            column(calls, |call| whole(tokens(call).cache_read)),
            column(calls, |call| call.result.session_id.unwrap_or_default()),
            column(calls, |call| call.api_key_id.unwrap_or_default()),
            column(calls, |call| call.result.latency_ms.unwrap_or(-1)),
            column(calls, |call| call.result.outcome.as_str().to_owned()),
            column(calls, nano_usd),
            column(calls, version),
            column(calls, |call| usage_json(&call.result).to_string()),
            column(calls, |call| call.result.usage.source.as_str().to_owned()),
            column(calls, |call| call.unpaid_tokens),
            column(calls, |call| dollars(call).to_string()),
        ];
        self.run_last(include_str!("../sql/record_calls.sql"), values).await?;
        let of_sessions: Vec<(&CallRecord, Uuid)> =
            calls.iter().filter_map(|call| Some((call, call.result.session_id?))).collect();
        if of_sessions.is_empty() { Ok(()) } else { record_messages(self, &of_sessions).await }
    }

    async fn list_due(&mut self, excluded: &[HoldId], rows_max: u64) -> Result<Vec<DueCall>, StoreError> {
        let sql = "SELECT id, user_id, phase, detail FROM usage_reservations \
            WHERE status = 'pending' AND expires_at <= now() AND phase IN ('dispatched', 'first_byte') AND detail IS NOT NULL \
                AND id <> ALL ($1) \
            ORDER BY expires_at, id LIMIT $2";
        let due: Vec<DueCallRow> = self.read_all(sql, [column(excluded, |id| id.0), limit(rows_max)]).await?;
        let call = |row: DueCallRow| {
            let reservation_id = HoldId(row.id);
            let call = reserved_call(reservation_id, &row.phase, row.detail).ok();
            DueCall { reservation_id, user_id: UserId(row.user_id), call }
        };
        Ok(due.into_iter().map(call).collect())
    }
}

/// The call of a reservation, as stored in its row.
pub(super) fn reserved_call(id: HoldId, phase: &str, detail: Json) -> Result<ReservedCallState, StoreError> {
    let unfit = || inconsistent("usage_reservations", id.0);
    let phase = phase.parse().map_err(|_| unfit())?;
    Ok(ReservedCallState { phase, terms: serde_json::from_value(detail).map_err(|_| unfit())? })
}

pub(super) fn phase_of(reservation: &Hold) -> &'static str {
    reservation.call.as_ref().map_or(CallPhase::Reserved, |call| call.phase).as_str()
}

/// The terms as JSON; '' where it is no call.
pub(super) fn terms_of(reservation: &Hold) -> String {
    let written = |terms: &CallTerms| serde_json::to_string(terms).ok();
    // Text, numbers and times: JSON can express all of them.
    reservation.call.as_ref().and_then(|call| written(&call.terms)).unwrap_or_default()
}

async fn record_messages(work: &PgUnitOfWork, calls: &[(&CallRecord, Uuid)]) -> Result<(), StoreError> {
    let said = calls.iter().enumerate().flat_map(|(place, (call, _))| {
        // Places are counted from 1 in SQL.
        call.result.messages.iter().map(move |message| (whole(place as u64 + 1), message))
    });
    let said: Vec<(i64, &SaidMessage)> = said.collect();
    let tokens = |call: &CallRecord| call.result.usage.tokens;
    let values: [Value; 11] = [
        column(calls, |(call, _)| call.reservation_id.0),
        column(calls, |(call, _)| call.user_id.0),
        column(calls, |(_, session_id)| *session_id),
        column(calls, |(call, _)| call.result.model.clone()),
        column(calls, |(call, _)| whole(tokens(call).input() + tokens(call).output())),
        column(calls, |(call, _)| nano_usd(call)),
        column(&said, |(place, _)| *place),
        column(&said, |(_, message)| role(message.speaker).to_owned()),
        column(&said, |(_, message)| message.content.replace('\0', "\u{fffd}")),
        column(&said, |(_, message)| message.tokens),
        column(&said, |(_, message)| message.cost.0),
    ];
    work.run_bound(include_str!("../sql/record_messages.sql"), values).await
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn nano_usd(call: &CallRecord) -> i64 {
    call.result.cost.as_ref().map_or(0, |cost| cost.amount.0)
}

const fn role(speaker: Speaker) -> &'static str {
    match speaker {
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
    }
}

/// The priced parts with the provider's own report; where present also the kinds priced as others, and the use beyond
/// the reservation.
fn usage_json(result: &CallResult) -> Json {
    let CallResult { usage, reported, cost, beyond, .. } = result;
    let tokens = &usage.tokens;
    let calls = tokens.tool_calls;
    let mut json = json!({
        "uncached_input": tokens.uncached_input,
        "cache_read": tokens.cache_read,
        "cache_write_short": tokens.cache_write_short,
        "cache_write_long": tokens.cache_write_long,
        "audio_input": tokens.audio_input,
        "image_input": tokens.image_input,
        "visible_output": tokens.visible_output,
        "reasoning_output": tokens.reasoning_output,
        "audio_output": tokens.audio_output,
        "image_output": tokens.image_output,
        "tool_calls": {
            "web_search": calls.web_search, "web_fetch": calls.web_fetch, "code_execution": calls.code_execution,
        },
        "tier": usage.tier,
        "geo": usage.geo.as_str(),
        "reported": reported,
    });
    let assumed = cost.as_ref().map_or(&[][..], |cost| cost.assumed.as_slice());
    if let Json::Object(fields) = &mut json {
        if !assumed.is_empty() {
            fields.insert("assumed_prices".to_owned(), json!(assumed));
        }
        if !beyond.is_nothing() {
            let beyond = json!({ "tokens": beyond.tokens, "cost_nano_usd": beyond.cost_nano_usd });
            fields.insert("beyond_hold".to_owned(), beyond);
        }
    }
    json
}
