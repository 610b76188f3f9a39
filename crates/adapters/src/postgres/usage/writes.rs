//! Writes of a batch, as arrays of columns.

use chrono::{DateTime, Utc};
use domain::entitlements::Source;
use domain::usage::{HoldId, Period};
use ports::entitlements::Meter;
use ports::store::StoreError;
use ports::usage::{BatchRecord, CounterKey, HoldChange, TokenChange, UsageEntry};
use sea_orm::Value;
use uuid::Uuid;

use super::super::store::PgUnitOfWork;
use super::{calls, stored_decisions};

/// The key columns of counters.
#[derive(Default)]
struct KeyColumns {
    users: Vec<Uuid>,
    features: Vec<String>,
    periods: Vec<String>,
    starts: Vec<DateTime<Utc>>,
}

impl KeyColumns {
    fn add(&mut self, key: &CounterKey) {
        self.users.push(key.meter.user_id.0);
        self.features.push(key.meter.feature_id.to_string());
        self.periods.push(key.period_kind.as_str().to_owned());
        self.starts.push(key.period_start);
    }

    fn values(self) -> [Value; 4] {
        [self.users.into(), self.features.into(), self.periods.into(), self.starts.into()]
    }
}

#[derive(Default)]
struct EntryColumns {
    keys: KeyColumns,
    amounts: Vec<i64>,
    overage: Vec<i64>,
    api_keys: Vec<Uuid>,
    events: Vec<Uuid>,
    holds: Vec<Uuid>,
    idempotency_keys: Vec<String>,
    digests: Vec<String>,
    current: Vec<i64>,
    reserved: Vec<i64>,
    remaining: Vec<i64>,
    limits: Vec<i64>,
    plans: Vec<String>,
    sources: Vec<String>,
    resets: Vec<DateTime<Utc>>,
    hold_ends: Vec<DateTime<Utc>>,
}

impl EntryColumns {
    fn add(&mut self, entry: &UsageEntry) {
        self.keys.add(&entry.counter);
        self.amounts.push(entry.amount);
        self.overage.push(entry.overage);
        self.api_keys.push(entry.api_key_id.unwrap_or_default());
        self.events.push(entry.event_id.unwrap_or_default());
        self.holds.push(id_of(entry.hold_id));
        let kept = entry.kept.as_ref();
        let decision = kept.map(|(_, outcome)| &outcome.decision);
        let hold = kept.and_then(|(_, outcome)| outcome.hold);
        self.idempotency_keys.push(kept.map(|(key, _)| key.as_str().to_owned()).unwrap_or_default());
        self.digests
            .push(if hold.is_some() { stored_decisions::RESERVE } else { stored_decisions::CONSUME }.to_owned());
        self.current.push(decision.map_or(0, |decision| decision.current));
        self.reserved.push(decision.map_or(0, |decision| decision.reserved));
        self.remaining.push(decision.and_then(|decision| decision.remaining).unwrap_or(-1));
        self.limits.push(decision.and_then(|decision| decision.limit).unwrap_or(-1));
        self.plans.push(decision.map(|decision| decision.plan_id.to_string()).unwrap_or_default());
        let is_override = decision.is_some_and(|decision| decision.source == Source::Override);
        self.sources.push(if is_override { "override" } else { "plan" }.to_owned());
        self.resets.push(decision.and_then(|decision| decision.resets_at).unwrap_or(DateTime::UNIX_EPOCH));
        self.hold_ends.push(hold.map_or(DateTime::UNIX_EPOCH, |hold| hold.expires_at));
    }

    fn values(self) -> impl Iterator<Item = Value> {
        let rest: [Value; 15] = [
            self.amounts.into(),
            self.overage.into(),
            self.api_keys.into(),
            self.events.into(),
            self.holds.into(),
            self.idempotency_keys.into(),
            self.digests.into(),
            self.current.into(),
            self.reserved.into(),
            self.remaining.into(),
            self.limits.into(),
            self.plans.into(),
            self.sources.into(),
            self.resets.into(),
            self.hold_ends.into(),
        ];
        self.keys.values().into_iter().chain(rest)
    }
}

/// All zeros mean none.
fn id_of(hold: Option<HoldId>) -> Uuid {
    hold.map(|hold| hold.0).unwrap_or_default()
}

pub(super) async fn open_counters(work: &PgUnitOfWork, counters: &[(Meter, Period)]) -> Result<(), StoreError> {
    let mut keys = KeyColumns::default();
    let mut ends = Vec::with_capacity(counters.len());
    for (meter, period) in counters {
        keys.add(&CounterKey { meter: meter.clone(), period_kind: period.kind, period_start: period.start });
        ends.push(period.end.unwrap_or(DateTime::UNIX_EPOCH));
    }
    let sql = "SELECT open_usage_counter(c.user_id, c.feature_id, c.period, c.period_start, nullif(c.period_end, 'epoch')) \
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[]) \
            AS c (user_id, feature_id, period, period_start, period_end)";
    let values: Vec<Value> = keys.values().into_iter().chain([ends.into()]).collect();
    work.run(sql, values).await.map(drop)
}

pub(super) async fn record_batch(work: &PgUnitOfWork, record: &BatchRecord) -> Result<(), StoreError> {
    if !record.counters.is_empty() || !record.entries.is_empty() {
        let mut keys = KeyColumns::default();
        let (mut used, mut reserved, mut overage) = (Vec::new(), Vec::new(), Vec::new());
        for counter in &record.counters {
            keys.add(&counter.key);
            used.push(counter.tally.used);
            reserved.push(counter.tally.reserved);
            overage.push(counter.tally.overage);
        }
        let mut entries = EntryColumns::default();
        for entry in &record.entries {
            entries.add(entry);
        }
        let tallies: [Value; 3] = [used.into(), reserved.into(), overage.into()];
        let values: Vec<Value> = keys.values().into_iter().chain(tallies).chain(entries.values()).collect();
        work.run_last(include_str!("../sql/record_usage_batch.sql"), values).await?;
    }
    if !record.holds.is_empty() {
        save_holds(work, &record.holds).await?;
    }
    if !record.keys.is_empty() {
        calls::save_keys(work, &record.keys).await?;
    }
    if !record.key_uses.is_empty() {
        calls::add_key_uses(work, &record.key_uses).await?;
    }
    if !record.calls.is_empty() {
        calls::record_calls(work, &record.calls).await?;
    }
    Ok(())
}

/// One column of all rows.
pub(super) fn column<R, T>(rows: &[R], of: impl Fn(&R) -> T) -> Value
where
    Vec<T>: Into<Value>,
{
    rows.iter().map(of).collect::<Vec<_>>().into()
}

async fn save_holds(work: &PgUnitOfWork, holds: &[HoldChange]) -> Result<(), StoreError> {
    let values: [Value; 17] = [
        column(holds, |change| change.hold.id.0),
        column(holds, |change| change.hold.user_id.0),
        column(holds, |change| change.hold.feature_id.to_string()),
        column(holds, |change| change.hold.period_kind.as_str().to_owned()),
        column(holds, |change| change.hold.period_start),
        column(holds, |change| change.hold.amount),
        column(holds, |change| change.hold.beyond),
        column(holds, |change| change.hold.tokens),
        column(holds, |change| change.hold.settled.unwrap_or(-1)),
        column(holds, |change| change.hold.overage),
        column(holds, |change| change.hold.status.as_str().to_owned()),
        column(holds, |change| change.key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default()),
        column(holds, |change| change.hold.api_key_id.unwrap_or_default()),
        column(holds, |change| change.hold.expires_at),
        column(holds, |change| stored_decisions::written(change.outcome.as_ref())),
        column(holds, |change| calls::phase_of(&change.hold).to_owned()),
        column(holds, |change| calls::terms_of(&change.hold)),
    ];
    work.run_last(include_str!("../sql/save_holds.sql"), values).await
}

pub(super) async fn move_tokens(work: &PgUnitOfWork, change: &TokenChange) -> Result<(), StoreError> {
    let sql = "WITH moved AS ( \
            UPDATE users SET token_reserved = token_reserved + $2, token_balance = token_balance - $3 WHERE id = $1 \
            RETURNING id, token_balance \
        ) \
        INSERT INTO token_transactions (user_id, amount, type, description, reference_id, balance_after) \
        SELECT id, -$3, 'usage', $4, $5, token_balance FROM moved WHERE $3 > 0";
    let description = format!("{} beyond the limit", change.feature_id);
    let hold_id = change.hold_id.map(|hold| hold.0);
    let values: [Value; 5] =
        [change.user_id.0.into(), change.held.into(), change.spent.into(), description.into(), hold_id.into()];
    work.run(sql, values).await.map(drop)
}
