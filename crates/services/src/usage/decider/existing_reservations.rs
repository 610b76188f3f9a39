//! Changing reservations that are there: settling, releasing, extending, expiring, and the progress and the end of
//! calls.

use domain::entitlements::{Decision, decide};
use domain::usage::{Hold, HoldId, HoldStatus};
use ports::randomness::Randomness;
use ports::store::LockResult;
use ports::usage::{CallRecord, CallResult, CounterKey, UsageEntry};

use super::super::call_commands::{CallEnded, EndCallCommand, MarkCallCommand, MarkCallOutcome};
use super::super::commands::{
    ChangeReservationCommand, CommandResult, CommitError, ExpireReservationCommand, ReservationChanged,
    ReservationError, ReservationOwner, UndecidedCommand, UsageCommand,
};
use super::super::locked_rows::{LockedRows, counter_of};
use super::super::reservations::{ReservationEffect, ReservationRule, not_grown, used_by_call};
use super::{BatchCommand, BatchDecider, DecidedBatch};

type UndecidedChange = UndecidedCommand<ReservationError>;

/// A changed reservation, and what the change came to.
struct AppliedChange<'a> {
    reservation: &'a Hold,
    decision: Decision,
    tokens_spent: i64,
    /// Whether there was nothing left to do.
    replayed: bool,
}

impl BatchCommand for ChangeReservationCommand {
    fn decide(&self, _: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self> {
        let applied = decider.change(self.reservation_id, self.owner, &self.action)?;
        let AppliedChange { reservation, decision, replayed, .. } = applied;
        Ok(ReservationChanged { reservation: reservation.clone(), decision, replayed })
    }
}

impl BatchCommand for ExpireReservationCommand {
    fn decide(&self, _: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self> {
        decider.change(self.reservation_id, ReservationOwner::User(self.user_id), self).map(drop)
    }
}

impl BatchCommand for MarkCallCommand {
    fn decide(&self, _: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self> {
        let applied = decider.change(self.reservation_id, ReservationOwner::User(self.user_id), self)?;
        Ok(if applied.decision.allowed { MarkCallOutcome::Marked } else { MarkCallOutcome::NotGrown })
    }
}

impl BatchCommand for EndCallCommand {
    fn decide(&self, _: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self> {
        if self.session_id().is_some_and(|id| decider.rows.is_session_busy(id)) {
            return Err(UndecidedCommand::Busy);
        }
        let applied = decider.change(self.reservation_id, ReservationOwner::User(self.user_id), self)?;
        Ok(CallEnded { tokens_spent: applied.tokens_spent, replayed: applied.replayed })
    }
}

impl BatchDecider<'_> {
    fn change(
        &mut self,
        id: HoldId,
        owner: ReservationOwner,
        change: &impl ReservationRule,
    ) -> Result<AppliedChange<'_>, UndecidedChange> {
        let unknown = || UndecidedCommand::Error(ReservationError::Unknown);
        let key = self.counter_of_reservation(id, owner)?;
        let user_id = key.meter.user_id;
        let place = match self.rows.counter_of_reservation(&key) {
            LockResult::Locked(place) => place,
            LockResult::Busy => return Err(UndecidedCommand::Busy),
            LockResult::Missing => {
                let fault = CommitError::Fault(format!("the counter of the reservation {} is missing", id.0));
                return Err(UndecidedCommand::Error(fault.into()));
            }
        };
        let may_move_tokens = self.may_move_tokens();
        let LockedRows { counters, reservations, key_counters, .. } = &mut self.rows;
        let counter = counters.get_mut(place).ok_or_else(unknown)?;
        let Some(LockResult::Locked(locked)) = reservations.get_mut(&id) else { return Err(unknown()) };
        if !change.fits(&locked.reservation) {
            return Err(unknown());
        }
        let balance = self.tokens.entry(user_id).or_default();
        let entitlement = &mut counter.entitlement;
        entitlement.tokens_available = *balance;
        if change.is_repeated(locked) {
            let decision = locked.outcome.clone().unwrap_or_else(|| decide(entitlement, 1));
            return Ok(AppliedChange { reservation: &locked.reservation, decision, tokens_spent: 0, replayed: true });
        }
        if !may_move_tokens && change.moves_tokens(&locked.reservation, entitlement) {
            return Err(UndecidedCommand::NeedsTokens(user_id));
        }
        if key_counters.are_busy(&locked.reservation) {
            return Err(UndecidedCommand::Busy);
        }
        let more_on_key = change.growth().map(|growth| key_counters.admit_growth(&locked.reservation, growth));
        let Ok(more_on_key) = more_on_key.transpose() else {
            let (reservation, decision) = (&locked.reservation, not_grown(entitlement));
            return Ok(AppliedChange { reservation, decision, tokens_spent: 0, replayed: false });
        };
        let (before, tally_before) = (locked.reservation.clone(), entitlement.tally);
        let applied = change.apply(&mut locked.reservation, entitlement);
        let effect = applied.map_err(|why| UndecidedCommand::Error(ReservationError::of(why, &locked.reservation)))?;
        *balance = entitlement.tokens_available;
        if let (Some(Some(more)), true, Some(call)) =
            (more_on_key, effect.decision.allowed, &mut locked.reservation.call)
        {
            call.terms.on_key = call.terms.on_key.map(|share| share.with(&more));
        }
        counter.changed |= entitlement.tally != tally_before;
        locked.changed |= locked.reservation != before;
        if matches!(locked.reservation.status, HoldStatus::Settled | HoldStatus::Released) {
            locked.outcome = Some(effect.decision.clone());
        }
        let reservation = &locked.reservation;
        key_counters.change(&before, reservation, change.call_result().map(used_by_call));
        self.decided.book_change(key, reservation, &effect, change.call_result(), self.randomness);
        let ReservationEffect { decision, tokens_spent, .. } = effect;
        Ok(AppliedChange { reservation, decision, tokens_spent, replayed: false })
    }

    /// Identifies the counter of a locked reservation of this owner.
    fn counter_of_reservation(&self, id: HoldId, owner: ReservationOwner) -> Result<CounterKey, UndecidedChange> {
        match self.rows.reservations.get(&id) {
            Some(LockResult::Locked(locked)) if owner.is(locked.reservation.user_id) => {
                Ok(counter_of(&locked.reservation))
            }
            Some(LockResult::Busy) => Err(UndecidedCommand::Busy),
            _ => Err(UndecidedCommand::Error(ReservationError::Unknown)),
        }
    }
}

impl DecidedBatch {
    /// Notes what is to be written for a changed reservation, beside its row and its counters.
    fn book_change(
        &mut self,
        counter: CounterKey,
        reservation: &Hold,
        effect: &ReservationEffect,
        call_result: Option<&CallResult>,
        randomness: &dyn Randomness,
    ) {
        let Hold { id, user_id, api_key_id, .. } = *reservation;
        if effect.tokens_reserved != 0 || effect.tokens_spent > 0 {
            self.move_tokens(&counter.meter, effect.tokens_reserved, effect.tokens_spent, Some(id));
        }
        if effect.used > 0 {
            self.entries.push(UsageEntry {
                counter,
                amount: effect.used,
                overage: effect.overage,
                api_key_id,
                reservation_id: Some(id),
                event_id: Some(randomness.new_id()),
                stored: None,
            });
        }
        if let Some(result) = call_result {
            let unpaid_tokens = effect.tokens_unpaid;
            self.calls.push(CallRecord {
                reservation_id: id,
                user_id,
                api_key_id,
                result: result.clone(),
                unpaid_tokens,
            });
        }
    }
}
