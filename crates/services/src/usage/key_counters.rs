//! The counters of API keys in a batch: what calls reserve of their keys' limits, and what they use.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use domain::api_keys::{ApiKeyId, KeyBudget};
use domain::prices::NanoUsd;
use domain::usage::{
    ApiKeyReservation, ApiKeyUsage, ApiKeyWindows, Hold, HoldStatus, KeyLimitReached, WindowKind, admit, admit_more,
};
use domain::users::UserId;
use ports::store::LockResult;
use ports::usage::{ApiKeyUsageAddition, ApiKeyUsageChange, ApiKeyWindow};

use super::call_commands::{CallGrowth, KeyRoom, ReserveCallCommand};

/// The counter of a window, under its lock.
struct LockedKeyCounter {
    usage: ApiKeyUsage,
    changed: bool,
}

/// Model tokens and nano-dollars that a call used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedByCall {
    pub tokens: i64,
    pub cost: i64,
}

/// Why a call gets no part of its key's limits.
pub enum KeyRefusal {
    Busy,
    Reached { reached: KeyLimitReached, resets_at: DateTime<Utc> },
}

#[derive(Default)]
pub struct KeyCounters {
    /// `None` is busy.
    locked: HashMap<ApiKeyWindow, Option<LockedKeyCounter>>,
    /// What calls by keys without limits used, by window, in the order in which the rows are written.
    uses: BTreeMap<ApiKeyWindow, ApiKeyUsageAddition>,
}

impl KeyCounters {
    pub fn add(&mut self, windows: Vec<ApiKeyWindow>, states: Vec<LockResult<ApiKeyUsage>>) {
        for (window, state) in windows.into_iter().zip(states) {
            let counter = match state {
                LockResult::Locked(usage) => Some(LockedKeyCounter { usage, changed: false }),
                // A counter that was just created and cannot be locked is busy.
                LockResult::Busy | LockResult::Missing => None,
            };
            self.locked.insert(window, counter);
        }
    }

    /// What is to be written.
    pub fn into_changes(self) -> (Vec<ApiKeyUsageChange>, Vec<ApiKeyUsageAddition>) {
        let changes = self.locked.into_iter().filter_map(|(window, counter)| {
            counter.filter(|counter| counter.changed).map(|counter| ApiKeyUsageChange { window, usage: counter.usage })
        });
        (changes.collect(), self.uses.into_values().collect())
    }

    /// What a call may reserve in the windows of each of its budgets; `None` where none of them has a limit. Counts
    /// nothing.
    pub fn admit(
        &self,
        command: &ReserveCallCommand,
        as_of: DateTime<Utc>,
    ) -> Result<Option<ApiKeyReservation>, KeyRefusal> {
        if command.budgets.are_unlimited() {
            return Ok(None);
        }
        let windows = ApiKeyWindows::at(as_of);
        let cost_nano_usd = command.terms.max_cost_nano_usd.unwrap_or_default();
        let share = ApiKeyReservation { windows, tokens: command.tokens, cost_nano_usd };
        for budget in command.budgets.iter() {
            let locked = self.usage(command.user_id, budget.lineage_id, &windows);
            let [minute, month] = locked.ok_or(KeyRefusal::Busy)?;
            if let Err(reached) = admit(&budget.limits, minute, month, &share) {
                return Err(KeyRefusal::Reached { reached, resets_at: reached.resets_at(&windows) });
            }
        }
        Ok(Some(share))
    }

    /// What the limits of a key, of its lineage and of its makers leave beside what was used, what is reserved, and
    /// this share, which is not counted yet: model tokens and nano-dollars, each by the budget that leaves least.
    pub fn room_beside(
        &self,
        command: &ReserveCallCommand,
        share: &ApiKeyReservation,
    ) -> (Option<KeyRoom>, Option<KeyRoom>) {
        let room = |limit: i64, parts: [i64; 3]| {
            let left = parts.into_iter().fold(limit, i64::saturating_sub).max(0);
            KeyRoom { limit, left }
        };
        let (mut tokens, mut cost) = (None::<KeyRoom>, None::<KeyRoom>);
        let tighter = |known: Option<KeyRoom>, other: Option<KeyRoom>| {
            known.into_iter().chain(other).min_by_key(|room| room.left)
        };
        for budget in command.budgets.iter() {
            let locked = self.usage(command.user_id, budget.lineage_id, &share.windows);
            let Some([minute, month]) = locked else { continue };
            let of_tokens = |limit| room(limit, [minute.tokens, minute.tokens_held, share.tokens]);
            let of_cost = |limit: NanoUsd| room(limit.0, [month.cost, month.cost_held, share.cost_nano_usd]);
            tokens = tighter(tokens, budget.limits.tokens_per_minute.map(of_tokens));
            cost = tighter(cost, budget.limits.monthly_cost.map(of_cost));
        }
        (tokens, cost)
    }

    /// What a growing call reserves in addition of its key's limits; `None` for nothing. `Err` where one of its budgets
    /// has no room for it.
    pub fn admit_growth(
        &self,
        reservation: &Hold,
        growth: &CallGrowth,
    ) -> Result<Option<ApiKeyReservation>, KeyLimitReached> {
        let Some(share) = share_of(reservation) else { return Ok(None) };
        let more = share.up_to(growth.tokens, growth.cost);
        for budget in growth.budgets.iter() {
            // The caller has checked that none is busy.
            let locked = self.usage(reservation.user_id, budget.lineage_id, &share.windows);
            let Some([minute, month]) = locked else { continue };
            admit_more(&budget.limits, minute, month, &more)?;
        }
        Ok(Some(more))
    }

    /// Whether one of the windows that a reservation counts in is busy.
    pub fn are_busy(&self, reservation: &Hold) -> bool {
        share_of(reservation).is_some_and(|share| {
            let is_busy = |lineage_id| self.usage(reservation.user_id, lineage_id, &share.windows).is_none();
            lineages_of(reservation).into_iter().any(is_busy)
        })
    }

    /// Counts a call that was reserved.
    pub fn reserve(&mut self, user_id: UserId, lineages: &[ApiKeyId], share: &ApiKeyReservation) {
        self.count(user_id, lineages, share, ApiKeyUsage::hold);
    }

    /// Counts a changed reservation in the windows of its key's budgets. `used` is set where a call was settled.
    pub fn change(&mut self, before: &Hold, after: &Hold, used: Option<UsedByCall>) {
        let (user_id, used) = (after.user_id, used.map(|used| (used.tokens, used.cost)));
        let (Some(share_before), Some(share)) = (share_of(before), share_of(after)) else {
            if let (Some(used), Some(call)) = (used, &after.call) {
                self.use_without_limits(user_id, &lineages_of(after), call.terms.began_at, used);
            }
            return;
        };
        if share != share_before {
            let more = share_before.up_to(share.tokens, share.cost_nano_usd);
            self.count(user_id, &lineages_of(after), &more, ApiKeyUsage::hold_more);
        } else if before.status == HoldStatus::Pending && after.status != HoldStatus::Pending {
            self.count(user_id, &lineages_of(after), &share, |usage, share| usage.settle(share, used));
        } else if let Some(used) = used.filter(|_| before.status == HoldStatus::Expired) {
            // What it had reserved was released when it expired.
            self.count(user_id, &lineages_of(after), &share, |usage, _| usage.settle_late(used));
        }
    }

    /// Counts something in both windows of each lineage, which are locked.
    fn count(
        &mut self,
        user_id: UserId,
        lineages: &[ApiKeyId],
        share: &ApiKeyReservation,
        count: impl Fn(&mut ApiKeyUsage, &ApiKeyReservation),
    ) {
        let windows = lineages.iter().flat_map(|lineage_id| windows_of(user_id, *lineage_id, &share.windows));
        for window in windows {
            if let Some(Some(counter)) = self.locked.get_mut(&window) {
                count(&mut counter.usage, share);
                counter.changed = true;
            }
        }
    }

    /// Counts the use of a call without limits in the months of its lineages, so that a limit that is set later in the
    /// month includes it. Windows that are not locked are added to when the batch is written.
    fn use_without_limits(
        &mut self,
        user_id: UserId,
        lineages: &[ApiKeyId],
        began_at: DateTime<Utc>,
        used: (i64, i64),
    ) {
        for lineage_id in lineages {
            let [_, window] = windows_of(user_id, *lineage_id, &ApiKeyWindows::at(began_at));
            if let Some(Some(counter)) = self.locked.get_mut(&window) {
                counter.usage.settle_late(used);
                counter.changed = true;
                continue;
            }
            let sum =
                self.uses.entry(window).or_insert(ApiKeyUsageAddition { window, requests: 0, tokens: 0, cost: 0 });
            sum.requests += 1;
            sum.tokens = sum.tokens.saturating_add(used.0);
            sum.cost = sum.cost.saturating_add(used.1);
        }
    }

    /// The usage of the minute and the month of a lineage. `None` where one of them is busy.
    fn usage(&self, user_id: UserId, lineage_id: ApiKeyId, windows: &ApiKeyWindows) -> Option<[&ApiKeyUsage; 2]> {
        let [minute, month] = windows_of(user_id, lineage_id, windows).map(|window| self.locked.get(&window)?.as_ref());
        Some([&minute?.usage, &month?.usage])
    }
}

/// The minute and the month of a lineage in which a key's call counts.
fn windows_of(user_id: UserId, lineage_id: ApiKeyId, windows: &ApiKeyWindows) -> [ApiKeyWindow; 2] {
    let of = |kind, start| ApiKeyWindow { user_id, api_key_id: lineage_id, kind, start };
    [of(WindowKind::Minute, windows.minute), of(WindowKind::Month, windows.month)]
}

/// The lineages in whose windows a call counts: that of its key and those of the key's makers; none without a key.
fn lineages_of(reservation: &Hold) -> Vec<ApiKeyId> {
    let named = reservation.call.as_ref().map(|call| call.terms.key_lineages.clone()).unwrap_or_default();
    match reservation.api_key_id {
        // An earlier release reserved it, under the key itself.
        Some(api_key_id) if named.is_empty() => vec![ApiKeyId(api_key_id)],
        Some(_) => named,
        None => Vec::new(),
    }
}

/// The windows that a call reserves in, if its key has limits.
pub fn windows_of_call(command: &ReserveCallCommand, as_of: DateTime<Utc>) -> Vec<ApiKeyWindow> {
    if command.budgets.are_unlimited() {
        return Vec::new();
    }
    let windows = ApiKeyWindows::at(as_of);
    let of_budget = |budget: &KeyBudget| windows_of(command.user_id, budget.lineage_id, &windows);
    command.budgets.iter().flat_map(of_budget).collect()
}

/// The windows that a reservation counts in.
pub fn windows_of_reservation(reservation: &Hold) -> Vec<ApiKeyWindow> {
    let Some(share) = share_of(reservation) else { return Vec::new() };
    let of_lineage = |lineage_id| windows_of(reservation.user_id, lineage_id, &share.windows);
    lineages_of(reservation).into_iter().flat_map(of_lineage).collect()
}

/// What a reservation counts in the windows of each of its key's budgets.
fn share_of(reservation: &Hold) -> Option<ApiKeyReservation> {
    reservation.api_key_id.and(reservation.call.as_ref()).and_then(|call| call.terms.on_key)
}
