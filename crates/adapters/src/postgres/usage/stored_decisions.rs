//! Stored decisions: kept for an idempotency key or with an ended reservation, so that a retry gets the same answer.

use chrono::{DateTime, Utc};
use domain::entitlements::{Decision, Reason, Source};
use domain::features::FeatureId;
use domain::plans::PlanId;
use domain::usage::HoldId;
use domain::users::UserId;
use ports::store::StoreError;
use ports::usage::{GrantedReservation, StoredOutcome};
use sea_orm::prelude::Json;
use serde::{Deserialize, Serialize};

use super::super::rows::inconsistent;

/// The kinds of request in the `digest` of an idempotency key.
pub(super) const CONSUME: &str = "consume";
pub(super) const RESERVE: &str = "reserve";

/// The numbers of a granted decision.
#[derive(Serialize, Deserialize)]
struct Numbers {
    feature_id: FeatureId,
    current: i64,
    limit: Option<i64>,
    remaining: Option<i64>,
    reserved: i64,
    plan_id: PlanId,
    source: Source,
    period_start: DateTime<Utc>,
    resets_at: Option<DateTime<Utc>>,
    as_of: DateTime<Utc>,
}

/// A stored decision of an idempotency key, in the statement's JSON.
#[derive(Deserialize)]
struct KeyRow {
    place: usize,
    digest: String,
    amount: i64,
    hold_id: Option<HoldId>,
    hold_expires_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    numbers: Numbers,
}

impl From<Numbers> for Decision {
    fn from(numbers: Numbers) -> Self {
        Self {
            allowed: true,
            reason: Reason::Ok,
            feature_id: numbers.feature_id,
            current: numbers.current,
            limit: numbers.limit,
            remaining: numbers.remaining,
            reserved: numbers.reserved,
            plan_id: numbers.plan_id,
            source: numbers.source,
            period_start: numbers.period_start,
            resets_at: numbers.resets_at,
            as_of: numbers.as_of,
        }
    }
}

/// The decision that ended a reservation, as text; '' for none.
pub(super) fn written(decision: Option<&Decision>) -> String {
    let numbers = decision.map(|decision| Numbers {
        feature_id: decision.feature_id.clone(),
        current: decision.current,
        limit: decision.limit,
        remaining: decision.remaining,
        reserved: decision.reserved,
        plan_id: decision.plan_id.clone(),
        source: decision.source,
        period_start: decision.period_start,
        resets_at: decision.resets_at,
        as_of: decision.as_of,
    });
    // Text, numbers and times: JSON can express all of them.
    numbers.and_then(|numbers| serde_json::to_string(&numbers).ok()).unwrap_or_default()
}

pub(super) fn read(outcome: Json, id: HoldId) -> Result<Decision, StoreError> {
    let numbers: Result<Numbers, _> = serde_json::from_value(outcome);
    numbers.map(Decision::from).map_err(|_| inconsistent("usage_reservations", id.0))
}

/// The stored decisions by their places, which are counted from 1 in SQL.
pub(super) fn read_granted(outcomes: Json, user_id: UserId) -> Result<Vec<(usize, StoredOutcome)>, StoreError> {
    let unfit = || inconsistent("idempotency_keys", user_id);
    let rows: Vec<KeyRow> = serde_json::from_value(outcomes).map_err(|_| unfit())?;
    let outcomes = rows.into_iter().map(|row| {
        let reservation = match (row.digest.as_str(), row.hold_id, row.hold_expires_at) {
            (CONSUME, _, _) => None,
            (RESERVE, Some(id), Some(expires_at)) => Some(GrantedReservation { id, expires_at }),
            _ => return Err(unfit()),
        };
        Ok((
            row.place.saturating_sub(1),
            StoredOutcome { amount: row.amount, decision: row.numbers.into(), reservation },
        ))
    });
    outcomes.collect()
}
