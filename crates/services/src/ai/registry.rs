//! The calls that are running in this process: so that they are told when their key is revoked or the service stops.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::api_keys::ApiKeyId;
use domain::usage::HoldId;
use tokio::sync::watch;

use super::answers::BreakOff;

#[derive(Default)]
pub(super) struct Registry {
    running: Mutex<HashMap<HoldId, Running>>,
}

struct Running {
    api_key_id: Option<ApiKeyId>,
    end: watch::Sender<Option<BreakOff>>,
}

impl Registry {
    /// What the call listens to until it leaves.
    pub fn enter(&self, hold_id: HoldId, api_key_id: Option<ApiKeyId>) -> watch::Receiver<Option<BreakOff>> {
        let (end, heard) = watch::channel(None);
        self.lock().insert(hold_id, Running { api_key_id, end });
        heard
    }

    pub fn leave(&self, hold_id: HoldId) {
        self.lock().remove(&hold_id);
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// The keys of the calls that run, each once.
    pub fn keys(&self) -> Vec<ApiKeyId> {
        let mut keys: Vec<_> = self.lock().values().filter_map(|running| running.api_key_id).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Ends the calls of keys that are not among `usable`, of those that were looked for.
    pub fn end_revoked(&self, looked_for: &[ApiKeyId], usable: &[ApiKeyId]) {
        for running in self.lock().values() {
            let revoked = running.api_key_id.is_some_and(|key| looked_for.contains(&key) && !usable.contains(&key));
            if revoked {
                running.end.send_replace(Some(BreakOff::KeyRevoked));
            }
        }
    }

    pub fn end_all(&self) {
        for running in self.lock().values() {
            running.end.send_replace(Some(BreakOff::Stopping));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<HoldId, Running>> {
        // Nothing is done under the lock that could leave the map half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
