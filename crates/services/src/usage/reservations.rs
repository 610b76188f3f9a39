//! What commands do to a reservation, by the rules of `domain::usage`.

use domain::ai::CallUsage;
use domain::entitlements::{Decision, Entitlement, Reason, decide};
use domain::usage::{
    CallEnding, Hold, HoldEnding, HoldOutcome, HoldRefusal, HoldStatus, expire, extend, extend_call,
    extending_needs_tokens, release, settle, settle_call,
};
use ports::usage::{CallOutcome, CallResult};

use super::call_commands::{CallGrowth, EndCallCommand, MarkCallCommand, ReservedCallEnd};
use super::commands::{ExpireReservationCommand, ReservationAction, ends_at};
use super::key_counters::UsedByCall;
use super::locked_rows::LockedReservation;

/// What a command does to a reservation.
pub trait ReservationRule {
    /// Whether it is for such a reservation. If not, the reservation is unknown to the caller.
    fn fits(&self, reservation: &Hold) -> bool;

    /// Whether there is nothing left to do, so that the first outcome is returned again.
    fn is_repeated(&self, locked: &LockedReservation) -> bool;

    /// Whether it would move the user's tokens, so that the balance must be locked.
    fn moves_tokens(&self, reservation: &Hold, entitlement: &Entitlement) -> bool;

    fn apply(&self, reservation: &mut Hold, entitlement: &mut Entitlement) -> Result<ReservationEffect, HoldRefusal>;

    /// The growth of a call, which its key's limits must admit.
    fn growth(&self) -> Option<&CallGrowth> {
        None
    }

    /// The result of the call that it ends.
    fn call_result(&self) -> Option<&CallResult> {
        None
    }
}

/// The effect of a change, beside the reservation and its counter.
pub struct ReservationEffect {
    pub decision: Decision,
    pub used: i64,
    pub overage: i64,
    /// What is added to the reserved tokens; negative where they are released.
    pub tokens_reserved: i64,
    pub tokens_spent: i64,
    pub tokens_unpaid: i64,
}

impl ReservationEffect {
    /// Tokens that are reserved, and nothing else.
    const fn reserving(decision: Decision, tokens_reserved: i64) -> Self {
        Self { decision, used: 0, overage: 0, tokens_reserved, tokens_spent: 0, tokens_unpaid: 0 }
    }
}

impl From<HoldEnding> for ReservationEffect {
    fn from(ending: HoldEnding) -> Self {
        let HoldEnding { decision, used, overage, tokens_freed, tokens_spent } = ending;
        Self { decision, used, overage, tokens_reserved: -tokens_freed, tokens_spent, tokens_unpaid: 0 }
    }
}

/// The decision for a call that would grow and cannot.
pub fn not_grown(entitlement: &Entitlement) -> Decision {
    Decision { allowed: false, reason: Reason::InsufficientTokens, ..decide(entitlement, 1) }
}

/// The model tokens and the cost that the settlement of a call reports.
pub fn used_by_call(result: &CallResult) -> UsedByCall {
    UsedByCall { tokens: total_tokens(&result.usage), cost: result.cost.as_ref().map_or(0, |cost| cost.amount.0) }
}

fn total_tokens(usage: &CallUsage) -> i64 {
    i64::try_from(usage.tokens.total()).unwrap_or(i64::MAX)
}

impl ReservationRule for ReservationAction {
    fn fits(&self, reservation: &Hold) -> bool {
        reservation.call.is_none()
    }

    fn is_repeated(&self, locked: &LockedReservation) -> bool {
        let reservation = &locked.reservation;
        match self {
            Self::Settle(used) => reservation.status == HoldStatus::Settled && reservation.settled == Some(*used),
            Self::Release => reservation.status == HoldStatus::Released,
            Self::Extend { .. } => false,
        }
    }

    fn moves_tokens(&self, reservation: &Hold, entitlement: &Entitlement) -> bool {
        match self {
            Self::Settle(used) => reservation.moves_tokens(entitlement, *used),
            Self::Release => reservation.moves_tokens(entitlement, 0),
            Self::Extend { amount, .. } => {
                amount.is_some_and(|amount| extending_needs_tokens(reservation, entitlement, amount))
            }
        }
    }

    fn apply(&self, reservation: &mut Hold, entitlement: &mut Entitlement) -> Result<ReservationEffect, HoldRefusal> {
        match self {
            Self::Settle(used) => Ok(settle(reservation, entitlement, *used)?.into()),
            Self::Release => Ok(release(reservation, entitlement)?.into()),
            Self::Extend { amount, ttl } => {
                let total = amount.unwrap_or(reservation.amount);
                let HoldOutcome { decision, tokens, .. } = extend(reservation, entitlement, total)?;
                if decision.allowed {
                    reservation.expires_at = reservation.expires_at.max(ends_at(entitlement.as_of, *ttl));
                }
                Ok(ReservationEffect::reserving(decision, tokens))
            }
        }
    }
}

impl ReservationRule for ExpireReservationCommand {
    fn fits(&self, _: &Hold) -> bool {
        true
    }

    fn is_repeated(&self, locked: &LockedReservation) -> bool {
        locked.reservation.status != HoldStatus::Pending || !locked.is_due
    }

    fn moves_tokens(&self, reservation: &Hold, entitlement: &Entitlement) -> bool {
        reservation.moves_tokens(entitlement, 0)
    }

    fn apply(&self, reservation: &mut Hold, entitlement: &mut Entitlement) -> Result<ReservationEffect, HoldRefusal> {
        Ok(expire(reservation, entitlement)?.into())
    }
}

impl ReservationRule for MarkCallCommand {
    fn fits(&self, reservation: &Hold) -> bool {
        reservation.call.is_some()
    }

    fn is_repeated(&self, _: &LockedReservation) -> bool {
        false
    }

    fn moves_tokens(&self, reservation: &Hold, _: &Entitlement) -> bool {
        reservation.beyond > 0 && self.growth.as_ref().is_some_and(|growth| growth.tokens > reservation.tokens)
    }

    fn apply(&self, reservation: &mut Hold, entitlement: &mut Entitlement) -> Result<ReservationEffect, HoldRefusal> {
        let total = self.growth.as_ref().map_or(reservation.tokens, |growth| growth.tokens);
        let more = extend_call(reservation, entitlement, total)?;
        reservation.expires_at = reservation.expires_at.max(ends_at(entitlement.as_of, self.ttl));
        if let Some(call) = &mut reservation.call {
            // Marks are not waited for, so an earlier one may arrive later; it adds nothing.
            if self.phase >= call.phase {
                (call.terms.provider, call.terms.model) = (self.provider, self.model.clone());
            }
            call.phase = call.phase.max(self.phase);
            call.terms.delivered_tokens = call.terms.delivered_tokens.max(self.delivered_tokens);
        }
        let Some(more) = more else { return Ok(ReservationEffect::reserving(not_grown(entitlement), 0)) };
        let decision = Decision { allowed: true, reason: Reason::Ok, ..decide(entitlement, 1) };
        Ok(ReservationEffect::reserving(decision, more))
    }

    fn growth(&self) -> Option<&CallGrowth> {
        self.growth.as_ref()
    }
}

impl ReservationRule for EndCallCommand {
    fn fits(&self, reservation: &Hold) -> bool {
        reservation.call.is_some()
    }

    fn is_repeated(&self, locked: &LockedReservation) -> bool {
        let status = locked.reservation.status;
        match &self.end {
            // A call is settled once, by its process or by the sweep, whichever is first. The sweep skips a call that
            // was marked since it was listed.
            ReservedCallEnd::Settled(result) => {
                let goes_on = status == HoldStatus::Pending && !locked.is_due;
                status == HoldStatus::Settled || (result.outcome == CallOutcome::Swept && goes_on)
            }
            ReservedCallEnd::Released => status == HoldStatus::Released,
        }
    }

    fn moves_tokens(&self, reservation: &Hold, entitlement: &Entitlement) -> bool {
        match self.end {
            ReservedCallEnd::Settled(_) => reservation.moves_tokens(entitlement, 1),
            ReservedCallEnd::Released => reservation.moves_tokens(entitlement, 0),
        }
    }

    fn apply(&self, reservation: &mut Hold, entitlement: &mut Entitlement) -> Result<ReservationEffect, HoldRefusal> {
        match &self.end {
            ReservedCallEnd::Settled(result) => {
                let ending = settle_call(reservation, entitlement, total_tokens(&result.usage))?;
                let CallEnding { decision, overage, tokens_freed, tokens_spent, tokens_unpaid } = ending;
                Ok(ReservationEffect {
                    decision,
                    used: 1,
                    overage,
                    tokens_reserved: -tokens_freed,
                    tokens_spent,
                    tokens_unpaid,
                })
            }
            ReservedCallEnd::Released => Ok(release(reservation, entitlement)?.into()),
        }
    }

    fn call_result(&self) -> Option<&CallResult> {
        match &self.end {
            ReservedCallEnd::Settled(result) => Some(result),
            ReservedCallEnd::Released => None,
        }
    }
}
