//! Growing: a streamed answer that nears what is held for it has more held, until the limits leave nothing or its bound is reached.
//!
//! Promises: an answer is cut only where it has used up what is held, as far as that was delivered or told, and no more is to be
//! had. What nobody sees of an answer is assumed to go on at a steady pace while it is silent: that much more is held, where there
//! is any, but no answer is cut for an assumption.
//!
//! Costs: one command for each step. The steps double; where one is too much, half of it is tried, until it is of no use.

use std::time::Duration;

use domain::usage::CallPhase;
use tokio::time::Instant;

use super::bounds::{Bounds, OUTPUT_LEAST, whole};
use super::course::Course;
use crate::usage::commands::Growth;

/// How many tokens before the end of what is held more is asked for.
const GROW_BEFORE: u64 = 64;

/// How many tokens a model is assumed to think in a second without showing them.
const UNSEEN_A_SECOND: u64 = 200;

/// How often a silent answer is looked at.
const LOOK_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Growing {
    /// How much more output is held when what is held is used up; it doubles until it is refused.
    step: u64,
    was_refused: bool,
    /// When something last came of the answer.
    heard: Instant,
    /// When the answer is looked at again, if it is silent until then.
    pub next_look: Instant,
}

impl Growing {
    pub fn of(bounds: &Bounds) -> Self {
        let now = Instant::now();
        Self { step: bounds.output, was_refused: false, heard: now, next_look: now + LOOK_AFTER }
    }

    pub fn heard_at(&mut self, now: Instant) {
        (self.heard, self.next_look) = (now, now + LOOK_AFTER);
    }
}

impl Course {
    /// Whether a limit of tokens or of costs stands in its way.
    pub(super) fn is_limited(&self) -> bool {
        self.lies_on_tokens || self.call.asking.budgets.limit_growth()
    }

    fn may_grow(&self) -> bool {
        self.is_limited() && self.bounds.output < self.bounds.output_most
    }

    /// What has come out, as far as it was delivered or the provider has told.
    fn came_out(&self) -> u64 {
        let told = self.delivery.reported.as_ref().map_or(0, |reported| reported.read().usage.tokens.output());
        self.delivery.output_tokens.max(told)
    }

    /// Whether what is held is used up and no more can be held. Only a stream that holds less than its bound gets here: any other
    /// answer ends by itself, and so does one that has said why it ends.
    pub(super) async fn is_used_up(&mut self) -> bool {
        if !self.may_grow() || self.delivery.finish.is_some() {
            return false;
        }
        let came_out = self.came_out();
        if came_out + GROW_BEFORE < self.bounds.output {
            return false;
        }
        while self.growing.step >= OUTPUT_LEAST {
            match self.grow(CallPhase::FirstByte, came_out).await {
                Some(true) => return false,
                Some(false) => (self.growing.step, self.growing.was_refused) = (self.growing.step / 2, true),
                // Nobody can say. What is held still covers what comes until then, and the next piece asks again.
                None => break,
            }
        }
        came_out >= self.bounds.output
    }

    /// Holds more for an answer of which nothing was seen for a while. Where there is no more, it goes on.
    pub(super) async fn grow_in_silence(&mut self, phase: CallPhase) {
        let now = Instant::now();
        self.growing.next_look = now + LOOK_AFTER;
        let unseen = now.duration_since(self.growing.heard).as_secs().saturating_mul(UNSEEN_A_SECOND);
        let came_out = self.came_out().saturating_add(unseen);
        if self.may_grow() && came_out + GROW_BEFORE >= self.bounds.output {
            self.grow(phase, came_out).await;
        }
    }

    /// One step, or up to what came out where that is more. `None` where nobody can say.
    async fn grow(&mut self, phase: CallPhase, came_out: u64) -> Option<bool> {
        let Bounds { output, output_most, input, .. } = self.bounds;
        let grown = output.saturating_add(self.growing.step).max(came_out).min(output_most);
        let tokens = whole(input.saturating_add(grown));
        let growth = Growth { tokens, cost: self.cost_of(grown), budgets: self.call.asking.budgets.clone() };
        let action = self.marked(phase, Some(growth));
        let changed = self.service.change(self.hold_id, self.call.asking.user_id, action).await.ok()?;
        if changed.decision.allowed {
            self.bounds.output = grown;
            self.growing.step = if self.growing.was_refused { self.growing.step } else { grown };
        }
        Some(changed.decision.allowed)
    }
}
