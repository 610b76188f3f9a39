//! Commands with their callers: what waits in a lane, and is decided and answered with its batch.

use domain::usage::HoldId;
use ports::entitlements::Meter;
use ports::usage::KeyOfUser;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::call_commands::{EndCallCommand, MarkCallCommand, ReserveCallCommand};
use super::commands::{
    ChangeReservationCommand, CommandResult, CommitError, ConsumeCommand, ExpireReservationCommand, LockMode,
    ReserveCommand, ReserveOutcome, UndecidedCommand, UsageCommand,
};
use super::decider::{BatchCommand, BatchDecider};

/// What a caller waits for.
pub type CommandReply<C> = Result<<C as UsageCommand>::Outcome, <C as UsageCommand>::Error>;

/// A command with the result that a batch has decided, and with the channel to its caller.
pub struct QueueEntry<C: UsageCommand> {
    command: C,
    /// `None` until it is decided. It is given to the caller after the commit.
    result: Option<CommandResult<C>>,
    /// `None` once it is answered.
    reply: Option<oneshot::Sender<CommandReply<C>>>,
}

impl<C: UsageCommand> QueueEntry<C> {
    pub fn new(command: C) -> (Self, oneshot::Receiver<CommandReply<C>>) {
        let (reply, receiver) = oneshot::channel();
        (Self { command, result: None, reply: Some(reply) }, receiver)
    }

    fn send(&mut self, answer: CommandReply<C>) {
        if let Some(reply) = self.reply.take() {
            // The caller may be gone; what was consumed is consumed.
            reply.send(answer).ok();
        }
    }
}

/// What a batch needs of an entry, whatever its command is.
pub trait BatchEntry {
    fn lane_key(&self) -> Uuid;
    fn meter(&self) -> Option<Meter>;
    fn reservation_id(&self) -> Option<HoldId>;
    fn session_id(&self) -> Option<Uuid>;
    fn idempotency_key(&self) -> Option<KeyOfUser<'_>>;
    /// Whether its caller no longer waits.
    fn is_abandoned(&self) -> bool;
    /// Decides it; the result stays with it until `answer`.
    fn decide(&mut self, place: usize, decider: &mut BatchDecider<'_>);
    /// Whether it was decided with an error; it did not leave the batch.
    fn has_error(&self) -> bool;
    /// Gives the caller the result, or returns how and for whom it is to be tried again.
    fn answer(&mut self) -> Option<(Uuid, LockMode)>;
    fn fail(&mut self, error: CommitError);
}

impl<C: BatchCommand> BatchEntry for QueueEntry<C> {
    fn lane_key(&self) -> Uuid {
        self.command.lane_key()
    }

    fn meter(&self) -> Option<Meter> {
        self.command.meter()
    }

    fn reservation_id(&self) -> Option<HoldId> {
        self.command.reservation_id()
    }

    fn session_id(&self) -> Option<Uuid> {
        self.command.session_id()
    }

    fn idempotency_key(&self) -> Option<KeyOfUser<'_>> {
        self.command.idempotency_key()
    }

    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn decide(&mut self, place: usize, decider: &mut BatchDecider<'_>) {
        self.result = Some(self.command.decide(place, decider));
    }

    fn has_error(&self) -> bool {
        matches!(self.result, Some(Err(UndecidedCommand::Error(_))))
    }

    fn answer(&mut self) -> Option<(Uuid, LockMode)> {
        match self.result.take()? {
            Ok(outcome) => self.send(Ok(outcome)),
            Err(UndecidedCommand::Error(error)) => self.send(Err(error)),
            Err(UndecidedCommand::Busy) => return Some((self.command.lane_key(), LockMode::Wait)),
            Err(UndecidedCommand::NeedsTokens(user_id)) => {
                return Some((user_id.0, LockMode::WaitAndSpend(user_id)));
            }
        }
        None
    }

    fn fail(&mut self, error: CommitError) {
        self.send(Err(error.into()));
    }
}

/// An entry of any command. An enum, so that no command costs an allocation of its own.
pub enum QueuedCommand {
    Consume(QueueEntry<ConsumeCommand>),
    Reserve(QueueEntry<ReserveCommand>),
    ChangeReservation(QueueEntry<ChangeReservationCommand>),
    ExpireReservation(QueueEntry<ExpireReservationCommand>),
    ReserveCall(QueueEntry<ReserveCallCommand>),
    MarkCall(QueueEntry<MarkCallCommand>),
    EndCall(QueueEntry<EndCallCommand>),
}

impl QueuedCommand {
    pub fn entry(&self) -> &(dyn BatchEntry + Send + Sync) {
        match self {
            Self::Consume(entry) => entry,
            Self::Reserve(entry) => entry,
            Self::ChangeReservation(entry) => entry,
            Self::ExpireReservation(entry) => entry,
            Self::ReserveCall(entry) => entry,
            Self::MarkCall(entry) => entry,
            Self::EndCall(entry) => entry,
        }
    }

    pub fn entry_mut(&mut self) -> &mut (dyn BatchEntry + Send + Sync) {
        match self {
            Self::Consume(entry) => entry,
            Self::Reserve(entry) => entry,
            Self::ChangeReservation(entry) => entry,
            Self::ExpireReservation(entry) => entry,
            Self::ReserveCall(entry) => entry,
            Self::MarkCall(entry) => entry,
            Self::EndCall(entry) => entry,
        }
    }

    pub fn lane_key(&self) -> Uuid {
        self.entry().lane_key()
    }

    pub const fn reserved_call(&self) -> Option<&ReserveCallCommand> {
        match self {
            Self::ReserveCall(entry) => Some(&entry.command),
            _ => None,
        }
    }

    /// The meter and the idempotency key of a request that the batch has decided and not granted.
    pub fn refused_request(&self) -> Option<(Meter, KeyOfUser<'_>)> {
        let is_refused = match self {
            Self::Consume(QueueEntry { result: Some(Ok(outcome)), .. }) => !outcome.decision.allowed,
            Self::Reserve(QueueEntry { result: Some(Ok(outcome)), .. }) => {
                matches!(outcome, ReserveOutcome::Refused(_))
            }
            other => other.entry().has_error(),
        };
        let entry = self.entry();
        is_refused.then(|| entry.meter().zip(entry.idempotency_key())).flatten()
    }
}

impl From<QueueEntry<ConsumeCommand>> for QueuedCommand {
    fn from(entry: QueueEntry<ConsumeCommand>) -> Self {
        Self::Consume(entry)
    }
}

impl From<QueueEntry<ReserveCommand>> for QueuedCommand {
    fn from(entry: QueueEntry<ReserveCommand>) -> Self {
        Self::Reserve(entry)
    }
}

impl From<QueueEntry<ChangeReservationCommand>> for QueuedCommand {
    fn from(entry: QueueEntry<ChangeReservationCommand>) -> Self {
        Self::ChangeReservation(entry)
    }
}

impl From<QueueEntry<ExpireReservationCommand>> for QueuedCommand {
    fn from(entry: QueueEntry<ExpireReservationCommand>) -> Self {
        Self::ExpireReservation(entry)
    }
}

impl From<QueueEntry<ReserveCallCommand>> for QueuedCommand {
    fn from(entry: QueueEntry<ReserveCallCommand>) -> Self {
        Self::ReserveCall(entry)
    }
}

impl From<QueueEntry<MarkCallCommand>> for QueuedCommand {
    fn from(entry: QueueEntry<MarkCallCommand>) -> Self {
        Self::MarkCall(entry)
    }
}

impl From<QueueEntry<EndCallCommand>> for QueuedCommand {
    fn from(entry: QueueEntry<EndCallCommand>) -> Self {
        Self::EndCall(entry)
    }
}
