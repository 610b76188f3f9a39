//! Admission: whether one more connection is accepted, by the total and by its address. Shared by the workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use metrics::counter;

use super::connection::ConnectionTimeouts;
use crate::http::rate_limits::client_network;
use crate::telemetry::CONNECTIONS_REFUSED;

/// File descriptors that the process needs for itself: files, listeners, the threads' pollers.
const OWN_DESCRIPTORS: usize = 64;

/// Connections beyond the limit that may be closing at once.
const MARGIN_AT_LEAST: usize = 32;

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    pub all: usize,
    pub per_address: usize,
    /// Networks whose addresses each carry many clients.
    pub exempt: Vec<IpNet>,
    pub timeouts: ConnectionTimeouts,
}

impl ConnectionLimits {
    /// At most `wanted` connections: a request may also need a descriptor for the database or a provider, so clients
    /// get half of what the process may open, less a share for connections that are closing.
    pub fn all_within(wanted: usize, descriptors: usize, of_the_database: usize) -> usize {
        let free = descriptors.saturating_sub(OWN_DESCRIPTORS).saturating_sub(of_the_database);
        wanted.min(free / 2 - free / 16).max(1)
    }
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefused {
    /// The total limit is reached, and every connection has a request.
    Full,
    /// Too many evicted connections have not closed yet: try again in the next turn.
    Closing,
    /// Its address has reached its limit.
    Address,
}

impl ConnectionRefused {
    /// Counts a connection that was refused for this reason.
    pub fn count(self) {
        let reason = if self == Self::Address { "address" } else { "full" };
        counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(1);
    }
}

pub struct ConnectionAdmission {
    bounds: ConnectionLimits,
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The slot of an admitted connection. Dropping it frees the slot.
pub struct AdmittedConnection {
    admission: Arc<ConnectionAdmission>,
    address: Option<IpAddr>,
}

impl ConnectionAdmission {
    pub fn new(bounds: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { bounds, open: AtomicUsize::new(0), by_address: Mutex::default() })
    }

    pub fn bounds(&self) -> &ConnectionLimits {
        &self.bounds
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a slot; `make_room` ends a connection without a request, if there is one.
    pub fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        make_room: impl FnOnce() -> bool,
    ) -> Result<AdmittedConnection, ConnectionRefused> {
        let address = self.take_of_address(peer)?;
        let admitted = AdmittedConnection { admission: Arc::clone(self), address };
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        // Evicted connections close in their next turn; the margin is for them.
        let margin = self.bounds.all / 4 + MARGIN_AT_LEAST;
        if open > self.bounds.all + margin {
            return Err(ConnectionRefused::Closing);
        }
        if open > self.bounds.all && !make_room() {
            return Err(ConnectionRefused::Full);
        }
        Ok(admitted)
    }

    fn take_of_address(&self, peer: IpAddr) -> Result<Option<IpAddr>, ConnectionRefused> {
        let peer = peer.to_canonical();
        // A proxy on this machine, or a trusted one, carries many clients.
        if peer.is_loopback() || self.bounds.exempt.iter().any(|network| network.contains(&peer)) {
            return Ok(None);
        }
        let address = client_network(peer);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_address.entry(address).or_default();
        if *open >= self.bounds.per_address {
            return Err(ConnectionRefused::Address);
        }
        *open += 1;
        Ok(Some(address))
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_address.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn admission(all: usize, per_address: usize) -> Arc<ConnectionAdmission> {
        let second = Duration::from_secs(1);
        let timeouts = ConnectionTimeouts { head: second, idle: second, write: second };
        ConnectionAdmission::new(ConnectionLimits {
            all,
            per_address,
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            timeouts,
        })
    }

    #[test]
    fn an_address_has_its_share_and_proxies_have_no_bound() {
        let admission = admission(100, 2);
        let admit = |peer: &str| admission.admit(peer.parse().unwrap(), || false);
        let held = [admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap()];
        assert_eq!(admit("192.0.2.1").err(), Some(ConnectionRefused::Address));
        assert_eq!(admit("::ffff:192.0.2.1").err(), Some(ConnectionRefused::Address));
        let others = ["192.0.2.2", "10.0.0.1", "10.0.0.1", "10.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "::1"];
        assert!(others.map(&admit).iter().all(Result::is_ok));
        drop(held);
        assert!(admit("192.0.2.1").is_ok());
        assert_eq!((admission.open(), admission.by_address.lock().unwrap().len()), (0, 0));
    }

    #[test]
    fn a_new_connection_takes_the_place_of_one_that_waits() {
        let admission = admission(2, 100);
        let admit = |room: bool| admission.admit("192.0.2.1".parse().unwrap(), || room);
        let held = [admit(false).unwrap(), admit(false).unwrap()];
        assert_eq!(admit(false).err(), Some(ConnectionRefused::Full));
        assert!(admit(true).is_ok());
        drop(held);
        assert!(admit(false).is_ok());
        assert_eq!(admission.open(), 0, "a refused connection gives its place back");
    }

    #[test]
    fn half_of_the_descriptors_are_the_database_s_and_the_providers() {
        assert_eq!(ConnectionLimits::all_within(10_000, 1_024, 20), 412);
        assert_eq!(ConnectionLimits::all_within(10_000, 1_048_576, 20), 10_000);
        assert_eq!(ConnectionLimits::all_within(10_000, 10, 20), 1);
    }
}
