//! Reserving for model calls.

use domain::usage::{
    CallPhase, CallTerms, Hold, HoldId, HoldOutcome, HoldStatus, ReservedCallState, hold_call, needs_tokens,
};
use ports::usage::ReservationChange;

use super::super::call_commands::{CallGrant, ReserveCallCommand, ReserveCallOutcome};
use super::super::commands::{CommandResult, UndecidedCommand, UnknownMeter, ends_at};
use super::super::key_counters::KeyRefusal;
use super::{BatchCommand, BatchDecider};

impl BatchCommand for ReserveCallCommand {
    fn decide(&self, _: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self> {
        let place = decider.counter_in_force(&self.call_meter())?;
        let may_move_tokens = decider.may_move_tokens();
        let unknown = || UndecidedCommand::Error(UnknownMeter::User.into());
        let counter = decider.rows.counters.get_mut(place).ok_or_else(unknown)?;
        let entitlement = &mut counter.entitlement;
        let balance = decider.tokens.entry(self.user_id).or_default();
        entitlement.tokens_available = *balance;
        if !may_move_tokens && needs_tokens(entitlement, 1) {
            return Err(UndecidedCommand::NeedsTokens(self.user_id));
        }
        let as_of = entitlement.as_of;
        let share = match decider.rows.key_counters.admit(self, as_of) {
            Ok(share) => share,
            Err(KeyRefusal::Busy) => return Err(UndecidedCommand::Busy),
            Err(KeyRefusal::Reached { reached, resets_at }) => {
                return Ok(ReserveCallOutcome::KeyLimit { reached, resets_at, as_of });
            }
        };
        let HoldOutcome { decision, beyond, tokens } = hold_call(entitlement, self.tokens);
        let tokens_available = entitlement.tokens_available;
        if !decision.allowed {
            return Ok(ReserveCallOutcome::Refused { decision, tokens_available });
        }
        *balance = tokens_available;
        counter.changed = true;
        let id = self.reservation_id.unwrap_or_else(|| HoldId(decider.randomness.new_id()));
        if tokens > 0 {
            decider.decided.move_tokens(&counter.key.meter, tokens, 0, Some(id));
        }
        let key_lineages: Vec<_> = self.budgets.iter().map(|budget| budget.lineage_id).collect();
        let (key_tokens, key_cost) = match &share {
            Some(share) => {
                let room = decider.rows.key_counters.room_beside(self, share);
                decider.rows.key_counters.reserve(self.user_id, &key_lineages, share);
                room
            }
            None => (None, None),
        };
        let terms = CallTerms { began_at: as_of, on_key: share, key_lineages, ..self.terms.clone() };
        let reservation = Hold {
            id,
            user_id: self.user_id,
            feature_id: counter.key.meter.feature_id.clone(),
            period_kind: counter.key.period_kind,
            period_start: counter.key.period_start,
            amount: 1,
            beyond,
            tokens,
            status: HoldStatus::Pending,
            settled: None,
            overage: 0,
            expires_at: ends_at(as_of, self.ttl),
            api_key_id: self.api_key_id,
            call: Some(Box::new(ReservedCallState { phase: CallPhase::Reserved, terms })),
        };
        decider.decided.reservations.push(ReservationChange { reservation, idempotency_key: None, outcome: None });
        Ok(ReserveCallOutcome::Reserved(CallGrant {
            reservation_id: id,
            decision,
            tokens_reserved: tokens,
            tokens_available,
            key_tokens,
            key_cost,
        }))
    }
}
