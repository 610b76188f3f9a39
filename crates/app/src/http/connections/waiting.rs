//! Waiting: the connections of a worker that have no request, the longest waiting first.
//!
//! A note is made whenever a connection begins to wait, and is stale once the connection does something else. Stale
//! notes are skipped, and removed when they outnumber the connections. Costs an entry in a queue a request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use super::connection::{ClientConnection, ConnectionPhase};

/// Up to so many stale notes are not removed.
const STALE_AT_LEAST: usize = 64;

#[derive(Default)]
pub struct WaitingConnections {
    notes: RefCell<VecDeque<Note>>,
    open: Cell<usize>,
}

struct Note {
    connection: Weak<ClientConnection>,
    turn: u64,
}

impl Note {
    fn waiting(&self) -> Option<Rc<ClientConnection>> {
        let connection = self.connection.upgrade()?;
        let waits = connection.turn.get() == self.turn && connection.phase() != ConnectionPhase::Request;
        (waits && !connection.is_evicted()).then_some(connection)
    }
}

impl WaitingConnections {
    /// The connection is new, or its request has ended.
    pub(super) fn begins(&self, connection: &Rc<ClientConnection>) {
        if connection.turn.get() == 0 {
            self.open.set(self.open.get() + 1);
        }
        let mut notes = self.notes.borrow_mut();
        if notes.len() > 2 * self.open.get() + STALE_AT_LEAST {
            notes.retain(|note| note.waiting().is_some());
        }
        notes.push_back(Note { connection: Rc::downgrade(connection), turn: connection.turn.get() });
    }

    pub(super) fn ended(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    /// Ends the connection that has waited longest. Returns whether there was one.
    pub fn evict_longest(&self) -> bool {
        loop {
            let note = self.notes.borrow_mut().pop_front();
            let Some(note) = note else { return false };
            if let Some(connection) = note.waiting() {
                connection.evict();
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::connection::{BodyLength, ConnectionTimeouts};
    use super::*;

    #[test]
    fn the_longest_waiting_goes_first_and_none_with_a_request() {
        let waiting = Rc::new(WaitingConnections::default());
        let second = Duration::from_secs(1);
        let timeouts = ConnectionTimeouts { head: second, idle: second, write: second };
        let open = || ClientConnection::new(timeouts, &waiting);
        let (first, second, third) = (open(), open(), open());
        let request = second.begin(BodyLength::None);
        drop(first.begin(BodyLength::None));
        assert!(waiting.evict_longest() && third.is_evicted());
        assert!(waiting.evict_longest() && first.is_evicted());
        assert!(!waiting.evict_longest() && !second.is_evicted());
        drop(request);
        assert!(waiting.evict_longest() && second.is_evicted());
        for _ in 0..10_000 {
            let connection = open();
            drop(connection.begin(BodyLength::None));
        }
        assert!(waiting.notes.borrow().len() < 100);
    }
}
