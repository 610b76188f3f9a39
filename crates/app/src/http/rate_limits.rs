//! Rate limits: how often one address or one account may try log-ins, sign-ups and credentials.
//!
//! A limit on failures counts failures only: a valid credential passes, however often others failed from its address.
//!
//! Promise: a limit holds for this process; several processes allow as many times as much. Memory is bounded whatever
//! is sent: callers are counted in places that a secret hash of this process chooses, so no client can aim at another's
//! place, and `sweep` frees the places of inactive callers. Costs some hundred nanoseconds a check.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use anyhow::Context;
use domain::identity::log_in_failures::LogInRefused;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use services::identity::callers::PresentedCredential;

use super::problem::Problem;
mod client_addresses;
mod failures;

use client_addresses::client_address;
pub use client_addresses::{client_network, networks};
use failures::CredentialFailures;

use crate::settings::shape::Settings;

mod log_ins;

pub use log_ins::{LogInAttempt, LogInVerdict};

/// In how many places callers are counted. Two busy callers share one with a chance of one in a million.
const PLACES: u64 = 1 << 20;

/// How long a valid key is looked up whatever its address does; and how many such keys are stored.
const GOOD_FOR: Duration = Duration::from_hours(1);
const GOOD_MAX: usize = 65_536;

type Place = u64;
type Counter = DefaultKeyedRateLimiter<Place>;
/// A counter that also returns how much is left.
type TellingCounter = RateLimiter<Place, DefaultKeyedStateStore<Place>, DefaultClock, StateInformationMiddleware>;

pub struct RateLimits {
    proxies: Vec<IpNet>,
    hasher: RandomState,
    logins_by_address: Counter,
    log_ins: log_ins::LogIns,
    refreshes: Counter,
    signups: Counter,
    /// Credentials that were refused without the database.
    failures: CredentialFailures,
    /// Keys that were not in the database.
    lookups: CredentialFailures,
    /// When keys were found valid in the database.
    good: RwLock<HashMap<Place, Instant>>,
}

/// A credential as a hash that only this process can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialPlace(Place);

impl RateLimits {
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let limits = &settings.rate_limits;
        Ok(Self {
            proxies: networks(&settings.server.trusted_proxies)?,
            hasher: RandomState::new(),
            logins_by_address: RateLimiter::keyed(a_minute("logins_per_ip", limits.logins_per_ip)?),
            log_ins: log_ins::LogIns::new(limits)?,
            refreshes: RateLimiter::keyed(a_minute("refreshes_per_ip", limits.refreshes_per_ip)?),
            signups: RateLimiter::keyed(a_minute("signups_per_ip", limits.signups_per_ip)?),
            failures: CredentialFailures::new(limits.failures_per_ip)?,
            lookups: CredentialFailures::new(limits.failures_per_ip)?,
            good: RwLock::default(),
        })
    }

    /// The address of the client: the peer's, or the one that a trusted proxy forwards.
    pub fn address_of(&self, request: &HttpRequest) -> IpAddr {
        // Without a peer (a test without a socket) all share one address.
        let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        if self.proxies.is_empty() {
            return peer.to_canonical();
        }
        let headers = request.headers().get_all("x-forwarded-for");
        let forwarded: Vec<&str> = headers.filter_map(|value| value.to_str().ok()).collect();
        client_address(peer, &forwarded.join(","), &self.proxies)
    }

    pub fn credential(&self, presented: PresentedCredential<'_>) -> CredentialPlace {
        let (kind, text) = match presented {
            PresentedCredential::Token(token) => (0, token),
            PresentedCredential::Key(key) => (1, key),
        };
        CredentialPlace(self.hasher.hash_one((kind, text)))
    }

    /// Whether a key from this address may be looked up in the database. The check itself is not counted.
    pub fn check_lookups(&self, address: IpAddr, credential: CredentialPlace) -> Result<(), Problem> {
        let held_back = self.lookups.check(|| self.place_of(address));
        if held_back.is_err() && self.was_good(credential) { Ok(()) } else { held_back }
    }

    /// Records that a key was valid in the database.
    pub fn note_good(&self, credential: CredentialPlace) {
        let mut good = self.good.write().unwrap_or_else(PoisonError::into_inner);
        if good.len() < GOOD_MAX || good.contains_key(&credential.0) {
            good.insert(credential.0, Instant::now());
        }
    }

    fn was_good(&self, credential: CredentialPlace) -> bool {
        let good = self.good.read().unwrap_or_else(PoisonError::into_inner);
        good.get(&credential.0).is_some_and(|at| at.elapsed() < GOOD_FOR)
    }

    /// Records that a key from this address was not in the database; an error if that happened too often.
    pub fn count_lookup(&self, address: IpAddr) -> Result<(), Problem> {
        self.lookups.count(self.place_of(address))
    }

    /// Records that a credential from this address was refused; an error if that happened too often.
    pub fn count_failure(&self, address: IpAddr) -> Result<(), Problem> {
        self.failures.count(self.place_of(address))
    }

    /// Counts one log-in, or another proof by password, against the address's limit.
    pub fn check_login(&self, address: IpAddr) -> Result<(), Problem> {
        take(&self.logins_by_address, self.place_of(address), "Too many log-ins were tried from your address.")
    }

    /// Counts one refresh or log-out against the address's limit.
    pub fn check_refresh(&self, address: IpAddr) -> Result<(), Problem> {
        take(&self.refreshes, self.place_of(address), "Too many refreshes came from your address.")
    }

    /// Begins an attempt to prove that one owns an account. It counts as a failure until `end_attempt` changes that.
    pub fn begin_attempt(
        &self,
        address: IpAddr,
        account: &str,
        is_known_network: bool,
    ) -> Result<LogInAttempt, LogInRefused> {
        let account = account.trim().to_lowercase();
        let pair = self.place(&(client_network(address), account.as_str()));
        self.log_ins.begin(pair, self.place(&account), is_known_network, Instant::now())
    }

    pub fn end_attempt(&self, attempt: LogInAttempt, verdict: LogInVerdict) {
        self.log_ins.end(attempt, verdict);
    }

    /// Counts one sign-up against the address's limit.
    pub fn check_signup(&self, address: IpAddr) -> Result<(), Problem> {
        take(&self.signups, self.place_of(address), "Too many accounts were made from your address.")
    }

    /// Removes the callers whose limits are as new. A job calls it.
    pub fn sweep(&self) {
        self.log_ins.sweep(Instant::now());
        for counter in [&self.logins_by_address, &self.refreshes, &self.signups] {
            counter.retain_recent();
            counter.shrink_to_fit();
        }
        self.failures.sweep();
        self.lookups.sweep();
        let mut good = self.good.write().unwrap_or_else(PoisonError::into_inner);
        good.retain(|_, at| at.elapsed() < GOOD_FOR);
        good.shrink_to_fit();
    }

    fn place_of(&self, address: IpAddr) -> Place {
        self.place(&client_network(address))
    }

    fn place(&self, caller: &impl Hash) -> Place {
        self.hasher.hash_one(caller) % PLACES
    }
}

fn a_minute(name: &str, limit: u32) -> anyhow::Result<Quota> {
    let limit = NonZeroU32::new(limit).with_context(|| format!("rate_limits.{name} is 0; it is at least 1"))?;
    Ok(Quota::per_minute(limit))
}

fn take(counter: &Counter, place: Place, detail: &str) -> Result<(), Problem> {
    let now = DefaultClock::default().now();
    counter.check_key(&place).map_err(|not_until| too_many(detail, not_until.wait_time_from(now)))
}

/// An attempt that has to wait, as a problem.
pub fn attempt_refused(refused: LogInRefused) -> Problem {
    let (LogInRefused::Pair(wait) | LogInRefused::Account(wait)) = refused;
    too_many("Too many log-ins to this account failed.", wait)
}

fn too_many(detail: &str, wait: Duration) -> Problem {
    let seconds = whole_seconds(wait);
    Problem::too_many("too_many_attempts", format!("{detail} Try again in {seconds} s."), seconds)
}

/// Whole seconds, rounded up, and at least one: a client that waits so long has waited long enough.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use actix_web::http::header::RETRY_AFTER;

    use super::*;

    fn limits(variables: &[(&str, &str)]) -> anyhow::Result<RateLimits> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RateLimits::new(&crate::settings::load::load(&variables, Path::new("/nonexistent"))?)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn refused_for_seconds(outcome: Result<(), Problem>) -> u64 {
        let problem = outcome.unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (429, "too_many_attempts"));
        let (_, wait) = problem.headers.iter().find(|(name, _)| name == RETRY_AFTER).unwrap();
        wait.to_str().unwrap().parse().unwrap()
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let trusted = networks(&["10.0.0.0/8".into(), "2001:db8::1".into()]).unwrap();
        for (peer, forwarded, client) in [
            ("192.0.2.1", "", "192.0.2.1"),
            ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "1.1.1.1, 198.51.100.7, 10.2.3.4", "198.51.100.7"),
            ("10.0.0.1", "10.9.9.9", "10.9.9.9"),
            ("10.0.0.1", "1.1.1.1, nonsense, 10.2.3.4", "10.2.3.4"),
            ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
            ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
            ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
            ("::ffff:10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
            ("2001:db8::1", "198.51.100.7", "198.51.100.7"),
            ("2001:db8::2", "198.51.100.7", "2001:db8::2"),
        ] {
            assert_eq!(client_address(ip(peer), forwarded, &trusted), ip(client), "{peer} <- {forwarded}");
        }
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        assert!(limits(&[("PB__SERVER__TRUSTED_PROXIES", "10.0.0.0/8,proxy.local")]).is_err());
        assert!(limits(&[("PB__RATE_LIMITS__SIGNUPS_PER_IP", "0")]).is_err());
        assert!(limits(&[("PB__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1")]).is_ok());
    }

    #[test]
    fn clients_of_ipv6_are_networks() {
        assert_eq!(client_network(ip("2001:db8:1:2:3:4:5:6")), client_network(ip("2001:db8:1:2::9")));
        assert_ne!(client_network(ip("2001:db8:1:2::1")), client_network(ip("2001:db8:1:3::1")));
        assert_eq!(client_network(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn log_ins_are_limited_by_address() {
        let limits =
            limits(&[("PB__RATE_LIMITS__LOGINS_PER_IP", "3"), ("PB__RATE_LIMITS__LOGINS_PER_ACCOUNT", "2")]).unwrap();
        let one = ip("192.0.2.1");
        for _ in 0..3 {
            assert!(limits.check_login(one).is_ok());
        }
        let wait = refused_for_seconds(limits.check_login(one));
        assert!((1..=20).contains(&wait), "{wait}");
        assert!(limits.check_login(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn failed_attempts_wait_by_account_and_network_and_no_stranger_locks_a_known_network_out() {
        let variables = [
            ("PB__RATE_LIMITS__LOGIN_FAILURES_PER_ACCOUNT", "4"),
            ("PB__RATE_LIMITS__LOGIN_FAILURES_BEFORE_DELAY", "2"),
        ];
        let limits = limits(&variables).unwrap();
        let (stranger, owner) = (ip("2001:db8:1:2::1"), ip("192.0.2.1"));
        for _ in 0..2 {
            limits.begin_attempt(stranger, "ada@example.com", false).unwrap();
        }
        let same_network = limits.begin_attempt(ip("2001:db8:1:2::9"), " ADA@example.com", false);
        assert_eq!(refused_for_seconds(same_network.map(drop).map_err(attempt_refused)), 1);
        assert!(limits.begin_attempt(stranger, "bob@example.com", false).is_ok());
        for address in ["198.51.100.1", "198.51.100.2"] {
            limits.begin_attempt(ip(address), "ada@example.com", false).unwrap();
        }
        let refused = limits.begin_attempt(owner, "ada@example.com", false).map(drop);
        assert!(matches!(refused, Err(LogInRefused::Account(_))), "{refused:?}");
        let attempt = limits.begin_attempt(owner, "ada@example.com", true).unwrap();
        limits.end_attempt(attempt, LogInVerdict::Right);
        limits.sweep();
        assert!(limits.begin_attempt(ip("198.51.100.3"), "ada@example.com", false).is_err());
    }

    #[test]
    fn failures_hold_an_address_back_and_no_other() {
        let limits = limits(&[("PB__RATE_LIMITS__FAILURES_PER_IP", "3")]).unwrap();
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..3 {
            assert!(limits.count_failure(one).is_ok());
        }
        let wait = refused_for_seconds(limits.count_failure(one));
        assert!((1..=20).contains(&wait), "{wait}");
        assert!(limits.count_failure(other).is_ok());
        limits.sweep();
        assert!(limits.count_failure(one).is_err(), "a sweep forgets only those who may come again");
        assert!(
            limits.check_lookups(one, limits.credential(PresentedCredential::Key("k"))).is_ok(),
            "tokens are not keys"
        );
    }

    #[test]
    fn a_key_that_was_good_is_looked_up_whatever_its_address_does() {
        let limits = limits(&[("PB__RATE_LIMITS__FAILURES_PER_IP", "2")]).unwrap();
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let (good, guess) =
            (limits.credential(PresentedCredential::Key("good")), limits.credential(PresentedCredential::Key("guess")));
        limits.note_good(good);
        for _ in 0..2 {
            assert!(limits.check_lookups(one, guess).is_ok());
            assert!(limits.count_lookup(one).is_ok());
        }
        refused_for_seconds(limits.check_lookups(one, guess));
        assert!(limits.check_lookups(one, good).is_ok());
        assert!(limits.check_lookups(other, guess).is_ok());
        assert!(limits.check_lookups(one, limits.credential(PresentedCredential::Token("good"))).is_err());
    }

    #[test]
    fn a_wait_is_whole_seconds_and_at_least_one() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    }
}
