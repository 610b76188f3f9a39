//! Consuming and reserving: commands with an idempotency key.

use domain::entitlements::Decision;
use domain::features::FeatureKind;
use domain::usage::{Consumption, Hold, HoldId, HoldOutcome, HoldStatus, consume, hold, needs_tokens};
use ports::usage::{CounterKey, GrantedReservation, ReservationChange, StoredOutcome, UsageEntry};

use super::super::commands::{
    CommandResult, ConsumeCommand, ConsumeError, ConsumeOutcome, ReserveCommand, ReserveOutcome, UndecidedCommand,
    UnknownMeter, UsageRequest, ends_at,
};
use super::super::locked_rows::LockedCounter;
use super::{BatchCommand, BatchDecider};

/// What a request was granted.
struct GrantedRequest {
    decision: Decision,
    /// The part that was used beyond the limit.
    overage: i64,
    reservation: Option<GrantedReservation>,
}

impl BatchCommand for ConsumeCommand {
    fn decide(&self, place: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self> {
        let Self(request) = self;
        match decider.first_outcome(place, request) {
            Some(first) if is_same(first, request) && first.reservation.is_none() => {
                return Ok(ConsumeOutcome { decision: first.decision.clone(), replayed: true });
            }
            Some(_) => return Err(UndecidedCommand::Error(ConsumeError::KeyReused)),
            None => {}
        }
        let counter = decider.counter(request)?;
        let Consumption { decision, overage } = consume(&mut counter.entitlement, request.amount);
        if decision.allowed {
            let key = counter.key.clone();
            counter.changed = true;
            let tokens_available = counter.entitlement.tokens_available;
            decider.tokens.insert(request.user_id, tokens_available);
            if overage > 0 {
                decider.decided.move_tokens(&key.meter, 0, overage, None);
            }
            decider.book(request, key, GrantedRequest { decision: decision.clone(), overage, reservation: None });
        }
        Ok(ConsumeOutcome { decision, replayed: false })
    }
}

impl BatchCommand for ReserveCommand {
    fn decide(&self, place: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self> {
        let Self { request, ttl } = self;
        match decider.first_outcome(place, request).map(|first| (first, first.reservation)) {
            Some((first, Some(reservation)))
                if is_same(first, request) && reservation.expires_at - first.decision.as_of == *ttl =>
            {
                let decision = first.decision.clone();
                return Ok(ReserveOutcome::Reserved { reservation, decision, replayed: true });
            }
            Some(_) => return Err(UndecidedCommand::Error(ConsumeError::KeyReused)),
            None => {}
        }
        let counter = decider.counter(request)?;
        let HoldOutcome { decision, beyond, tokens } = hold(&mut counter.entitlement, request.amount);
        if !decision.allowed {
            return Ok(ReserveOutcome::Refused(decision));
        }
        let key = counter.key.clone();
        counter.changed = true;
        let tokens_available = counter.entitlement.tokens_available;
        decider.tokens.insert(request.user_id, tokens_available);
        let id = HoldId(decider.randomness.new_id());
        let reservation = GrantedReservation { id, expires_at: ends_at(decision.as_of, *ttl) };
        if tokens > 0 {
            decider.decided.move_tokens(&key.meter, tokens, 0, Some(id));
        }
        let stored = Hold {
            id,
            user_id: request.user_id,
            feature_id: request.feature_id.clone(),
            period_kind: key.period_kind,
            period_start: key.period_start,
            amount: request.amount,
            beyond,
            tokens,
            status: HoldStatus::Pending,
            settled: None,
            overage: 0,
            expires_at: reservation.expires_at,
            api_key_id: request.api_key_id,
            call: None,
        };
        let idempotency_key = Some(request.idempotency_key.clone());
        let change = ReservationChange { reservation: stored, idempotency_key, outcome: None };
        decider.decided.reservations.push(change);
        let granted = GrantedRequest { decision: decision.clone(), overage: 0, reservation: Some(reservation) };
        decider.book(request, key, granted);
        Ok(ReserveOutcome::Reserved { reservation, decision, replayed: false })
    }
}

impl BatchDecider<'_> {
    /// What was granted under the request's idempotency key before.
    fn first_outcome(&self, place: usize, request: &UsageRequest) -> Option<&StoredOutcome> {
        let key = || (request.user_id, request.idempotency_key.clone());
        self.granted_before.get(&place).or_else(|| self.granted.get(&key()))
    }

    /// The counter of a request, with the balance that the commands before it left.
    fn counter(&mut self, request: &UsageRequest) -> Result<&mut LockedCounter, UndecidedCommand<ConsumeError>> {
        let place = self.counter_in_force::<ConsumeError>(&request.meter())?;
        let may_move_tokens = self.may_move_tokens();
        let unknown = || UndecidedCommand::Error(UnknownMeter::User.into());
        let counter = self.rows.counters.get_mut(place).ok_or_else(unknown)?;
        if counter.kind == FeatureKind::Boolean && request.amount != 1 {
            return Err(UndecidedCommand::Error(ConsumeError::NotMetered(request.feature_id.clone())));
        }
        counter.entitlement.tokens_available = self.tokens.get(&request.user_id).copied().unwrap_or_default();
        if !may_move_tokens && needs_tokens(&counter.entitlement, request.amount) {
            return Err(UndecidedCommand::NeedsTokens(request.user_id));
        }
        Ok(counter)
    }

    /// Notes what is to be written for a granted request, and what a repeated one is answered.
    fn book(&mut self, request: &UsageRequest, counter: CounterKey, granted: GrantedRequest) {
        let GrantedRequest { decision, overage, reservation } = granted;
        let outcome = StoredOutcome { amount: request.amount, decision, reservation };
        self.granted.insert((request.user_id, request.idempotency_key.clone()), outcome.clone());
        self.decided.entries.push(UsageEntry {
            counter,
            amount: request.amount,
            overage,
            api_key_id: request.api_key_id,
            reservation_id: reservation.map(|reservation| reservation.id),
            event_id: reservation.is_none().then(|| self.randomness.new_id()),
            stored: Some((request.idempotency_key.clone(), outcome)),
        });
    }
}

/// Whether the request is for the same amount of the same feature as the one that was granted first.
fn is_same(first: &StoredOutcome, request: &UsageRequest) -> bool {
    first.decision.feature_id == request.feature_id && first.amount == request.amount
}
