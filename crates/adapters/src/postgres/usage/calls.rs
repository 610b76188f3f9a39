//! Model calls: what their reservations store, what they reserve of API key limits, and the log of what they used.

use domain::ai::Speaker;
use domain::usage::{ApiKeyUsage, CallPhase, CallTerms, Hold, HoldId, ReservedCallState};
use domain::users::UserId;
use ports::store::StoreError;
use ports::usage::{
    ApiKeyWindow, CallRecord, CallResult, DueCall, KeyChange, KeyState, KeyUse, LockPatience, SaidMessage, SessionLock,
};
use sea_orm::prelude::{Decimal, Json};
use sea_orm::{FromQueryResult, Value};
use serde_json::json;
use uuid::Uuid;

use super::super::rows::{inconsistent, limit};
use super::super::store::PgUnitOfWork;
use super::locks::{same_number, with_patience};
use super::writes::column;

#[derive(FromQueryResult)]
struct KeyRow {
    is_locked: bool,
    is_held: bool,
    requests: i64,
    tokens: i64,
    tokens_reserved: i64,
    cost_nano_usd: i64,
    cost_reserved_nano_usd: i64,
}

#[derive(FromQueryResult)]
struct SessionRow {
    is_locked: bool,
    is_busy: bool,
}

#[derive(FromQueryResult)]
struct DueRow {
    id: Uuid,
    user_id: Uuid,
    phase: String,
    detail: Json,
}

/// The call of a reservation, as stored in its row.
pub(super) fn held_call(id: HoldId, phase: &str, detail: Json) -> Result<ReservedCallState, StoreError> {
    let unfit = || inconsistent("usage_reservations", id.0);
    let phase = phase.parse().map_err(|_| unfit())?;
    Ok(ReservedCallState { phase, terms: serde_json::from_value(detail).map_err(|_| unfit())? })
}

pub(super) fn phase_of(hold: &Hold) -> &'static str {
    hold.call.as_ref().map_or(CallPhase::Reserved, |call| call.phase).as_str()
}

/// The terms as JSON; '' where it is no call.
pub(super) fn terms_of(hold: &Hold) -> String {
    let written = |terms: &CallTerms| serde_json::to_string(terms).ok();
    // Text, numbers and times: JSON can express all of them.
    hold.call.as_ref().and_then(|call| written(&call.terms)).unwrap_or_default()
}

fn window_columns(windows: &[ApiKeyWindow]) -> [Value; 3] {
    [
        column(windows, |window| window.api_key_id.0),
        column(windows, |window| window.kind.as_str().to_owned()),
        column(windows, |window| window.start),
    ]
}

pub(super) async fn lock_keys(
    work: &PgUnitOfWork,
    windows: &[ApiKeyWindow],
    patience: LockPatience,
) -> Result<Vec<KeyState>, StoreError> {
    let sql = with_patience(include_str!("../sql/lock_keys.sql"), patience);
    let rows: Vec<KeyRow> = work.read_all(&sql, window_columns(windows)).await?;
    same_number(rows.len(), windows.len())?;
    let state = |row: KeyRow| match (row.is_locked, row.is_held) {
        (true, _) => KeyState::Locked(ApiKeyUsage {
            requests: row.requests,
            tokens: row.tokens,
            tokens_held: row.tokens_reserved,
            cost: row.cost_nano_usd,
            cost_held: row.cost_reserved_nano_usd,
        }),
        (false, true) => KeyState::Busy,
        (false, false) => KeyState::Uncounted,
    };
    Ok(rows.into_iter().map(state).collect())
}

pub(super) async fn open_keys(work: &PgUnitOfWork, windows: &[ApiKeyWindow]) -> Result<(), StoreError> {
    work.run(include_str!("../sql/open_keys.sql"), window_columns(windows)).await.map(drop)
}

/// Sent with the commit, so it costs no message of its own.
pub(super) async fn add_key_uses(work: &PgUnitOfWork, uses: &[KeyUse]) -> Result<(), StoreError> {
    let windows: Vec<ApiKeyWindow> = uses.iter().map(|used| used.window).collect();
    let sums: [Value; 3] =
        [column(uses, |used| used.requests), column(uses, |used| used.tokens), column(uses, |used| used.cost)];
    let values: Vec<Value> = window_columns(&windows).into_iter().chain(sums).collect();
    work.run_last(include_str!("../sql/add_key_use.sql"), values).await
}

pub(super) async fn save_keys(work: &PgUnitOfWork, keys: &[KeyChange]) -> Result<(), StoreError> {
    let windows: Vec<ApiKeyWindow> = keys.iter().map(|key| key.window).collect();
    let tallies: [Value; 5] = [
        column(keys, |key| key.tally.requests),
        column(keys, |key| key.tally.tokens),
        column(keys, |key| key.tally.tokens_held),
        column(keys, |key| key.tally.cost),
        column(keys, |key| key.tally.cost_held),
    ];
    let values: Vec<Value> = window_columns(&windows).into_iter().chain(tallies).collect();
    work.run_last(include_str!("../sql/save_keys.sql"), values).await
}

/// The log rows are sent with the commit; message texts are bound, in a message of their own.
pub(super) async fn record_calls(work: &PgUnitOfWork, calls: &[CallRecord]) -> Result<(), StoreError> {
    let tokens = |call: &CallRecord| call.result.usage.tokens;
    let dollars = |call: &CallRecord| call.result.cost.as_ref().map_or(Decimal::ZERO, |cost| cost.amount.rounded_usd());
    let version = |call: &CallRecord| call.result.cost.as_ref().map_or_else(String::new, |cost| cost.version.clone());
    let values: [Value; 17] = [
        column(calls, |call| call.hold_id.0),
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
    work.run_last(include_str!("../sql/record_calls.sql"), values).await?;
    let of_sessions: Vec<(&CallRecord, Uuid)> =
        calls.iter().filter_map(|call| Some((call, call.result.session_id?))).collect();
    if of_sessions.is_empty() { Ok(()) } else { record_messages(work, &of_sessions).await }
}

async fn record_messages(work: &PgUnitOfWork, calls: &[(&CallRecord, Uuid)]) -> Result<(), StoreError> {
    let said = calls.iter().enumerate().flat_map(|(place, (call, _))| {
        // Places are counted from 1 in SQL.
        call.result.messages.iter().map(move |message| (whole(place as u64 + 1), message))
    });
    let said: Vec<(i64, &SaidMessage)> = said.collect();
    let tokens = |call: &CallRecord| call.result.usage.tokens;
    let values: [Value; 11] = [
        column(calls, |(call, _)| call.hold_id.0),
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

pub(super) async fn list_due_calls(
    work: &PgUnitOfWork,
    excluded: &[HoldId],
    rows_max: u64,
) -> Result<Vec<DueCall>, StoreError> {
    let sql = "SELECT id, user_id, phase, detail FROM usage_reservations \
        WHERE status = 'pending' AND expires_at <= now() AND phase IN ('dispatched', 'first_byte') AND detail IS NOT NULL \
            AND id <> ALL ($1) \
        ORDER BY expires_at, id LIMIT $2";
    let due: Vec<DueRow> = work.read_all(sql, [column(excluded, |id| id.0), limit(rows_max)]).await?;
    let call = |row: DueRow| {
        let hold_id = HoldId(row.id);
        DueCall { hold_id, user_id: UserId(row.user_id), call: held_call(hold_id, &row.phase, row.detail).ok() }
    };
    Ok(due.into_iter().map(call).collect())
}

pub(super) async fn lock_sessions(
    work: &PgUnitOfWork,
    ids: &[Uuid],
    patience: LockPatience,
) -> Result<Vec<SessionLock>, StoreError> {
    let sql = with_patience(include_str!("../sql/lock_sessions.sql"), patience);
    let rows: Vec<SessionRow> = work.read_all(&sql, [column(ids, |id| *id)]).await?;
    same_number(rows.len(), ids.len())?;
    let state = |row: SessionRow| match (row.is_locked, row.is_busy) {
        (true, _) => SessionLock::Locked,
        (false, true) => SessionLock::Busy,
        (false, false) => SessionLock::Missing,
    };
    Ok(rows.into_iter().map(state).collect())
}
