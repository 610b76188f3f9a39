//! The calls that run in this process, so that they can be ended when their credential ends or the service stops.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::api_keys::ApiKeyId;
use domain::identity::TokenLife;
use domain::usage::HoldId;
use domain::users::UserId;
use tokio::sync::watch;

use super::answers::BreakOff;
use super::calls::CallerContext;

#[derive(Default)]
pub(super) struct Registry {
    running: Mutex<HashMap<HoldId, Running>>,
}

/// The credential by which a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunningBy {
    pub user_id: UserId,
    pub api_key_id: Option<ApiKeyId>,
    pub token: Option<TokenLife>,
}

impl RunningBy {
    pub const fn of(asking: &CallerContext) -> Self {
        Self { user_id: asking.user_id, api_key_id: asking.api_key_id, token: asking.token }
    }
}

struct Running {
    by: RunningBy,
    end: watch::Sender<Option<BreakOff>>,
}

impl Registry {
    /// Registers a call; the receiver gets the reason when the call has to end.
    pub fn enter(&self, hold_id: HoldId, by: RunningBy) -> watch::Receiver<Option<BreakOff>> {
        let (end, ending) = watch::channel(None);
        self.lock().insert(hold_id, Running { by, end });
        ending
    }

    pub fn leave(&self, hold_id: HoldId) {
        self.lock().remove(&hold_id);
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// The credentials of the running calls.
    pub fn callers(&self) -> Vec<RunningBy> {
        self.lock().values().map(|running| running.by).collect()
    }

    /// Ends the calls for which `reason` gives a reason.
    pub fn end(&self, reason: impl Fn(&RunningBy) -> Option<BreakOff>) {
        for running in self.lock().values() {
            if let Some(reason) = reason(&running.by) {
                running.end.send_replace(Some(reason));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HoldId, Running>> {
        // No step under the lock can leave the map half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
