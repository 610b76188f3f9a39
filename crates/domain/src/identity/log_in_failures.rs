//! Failed log-ins: how long a client must wait after failures, per account and network, and per account.
//!
//! Promise: the first failures in a row of one account from one network cost no wait, then each doubles the wait, up to
//! 15 minutes. An account accepts at most `per_hour` failures in any hour from all networks that never logged in to it;
//! a network that did is bound by its own failures alone, so an attacker cannot lock the owner out. Refused attempts do
//! not count. An attempt counts as a failure from its beginning, so concurrent attempts do not bypass the limit; if it
//! turns out to be none, it is removed. No function reads a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_hours(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRule {
    /// Failures in a row without a wait.
    pub free: u32,
    /// The first wait; it doubles with each further failure.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// After this long without a failure the pair starts anew.
    pub forgotten_after: Duration,
    /// The failures of one account in any hour.
    pub per_hour: u32,
}

impl FailureRule {
    pub const fn new(free: u32, per_hour: u32) -> Self {
        Self {
            free,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_mins(15),
            forgotten_after: Duration::from_hours(24),
            per_hour,
        }
    }

    /// How long the next attempt waits after this many failures in a row.
    pub fn wait_after(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(self.free.max(1)) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first_wait.checked_mul(factor).unwrap_or(self.longest_wait).min(self.longest_wait)
    }
}

/// Why an attempt must wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogInRefused {
    /// Too many failures of this account from this network.
    Pair(Duration),
    /// Too many failures of this account from all networks. A network that logged in to it before need not wait.
    Account(Duration),
}

/// The failures in a row of one account from one network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairFailures {
    count: u32,
    last: Option<Instant>,
}

impl PairFailures {
    fn wait(&self, rule: &FailureRule, now: Instant) -> Duration {
        let passed = self.last.map(|last| now.saturating_duration_since(last));
        passed.map_or(Duration::ZERO, |passed| rule.wait_after(self.count).saturating_sub(passed))
    }

    /// Whether the entry can be dropped.
    pub fn is_over(&self, rule: &FailureRule, now: Instant) -> bool {
        self.count == 0 || self.last.is_none_or(|last| now.saturating_duration_since(last) >= rule.forgotten_after)
    }
}

/// The failures of one account in the last hour, from all networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFailures {
    at: VecDeque<Instant>,
}

impl AccountFailures {
    fn forget_old(&mut self, now: Instant) {
        while self.at.front().is_some_and(|first| now.saturating_duration_since(*first) >= HOUR) {
            self.at.pop_front();
        }
    }

    fn wait(&self, rule: &FailureRule, now: Instant) -> Duration {
        let excess = self.at.len().checked_sub(usize::try_from(rule.per_hour).unwrap_or(usize::MAX));
        let frees = excess.and_then(|excess| self.at.get(excess));
        frees.map_or(Duration::ZERO, |at| HOUR.saturating_sub(now.saturating_duration_since(*at)))
    }

    pub fn is_over(&mut self, now: Instant) -> bool {
        self.forget_old(now);
        self.at.is_empty()
    }
}

/// Whether an attempt may begin. If so, it counts as a failure from now on.
pub fn begin(
    rule: &FailureRule,
    pair: &mut PairFailures,
    account: &mut AccountFailures,
    is_known_network: bool,
    now: Instant,
) -> Result<(), LogInRefused> {
    if pair.is_over(rule, now) {
        *pair = PairFailures::default();
    }
    account.forget_old(now);
    let wait = pair.wait(rule, now);
    if !wait.is_zero() {
        return Err(LogInRefused::Pair(wait));
    }
    let wait = account.wait(rule, now);
    if !wait.is_zero() && !is_known_network {
        return Err(LogInRefused::Account(wait));
    }
    pair.count = pair.count.saturating_add(1);
    pair.last = Some(now);
    // Failures of a known network are bounded by the pair; they do not count against the account.
    if !is_known_network {
        account.at.push_back(now);
    }
    Ok(())
}

/// Removes an attempt that was no failure. After a success the pair starts anew.
pub fn take_back(pair: &mut PairFailures, account: &mut AccountFailures, begun: Instant, succeeded: bool) {
    if succeeded {
        *pair = PairFailures::default();
    } else {
        pair.count = pair.count.saturating_sub(1);
    }
    if let Some(place) = account.at.iter().position(|at| *at == begun) {
        account.at.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const RULE: FailureRule = FailureRule::new(5, 100);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (failures, wait) in [(0, 0), (4, 0), (5, 1), (6, 2), (7, 4), (14, 512), (15, 900), (16, 900), (1_000, 900)]
        {
            assert_eq!(RULE.wait_after(failures), seconds(wait), "{failures}");
        }
        assert_eq!(RULE.wait_after(u32::MAX), seconds(900));
    }

    #[test]
    fn a_success_starts_the_pair_anew_and_a_day_without_failures_does() {
        let start = Instant::now();
        let (mut pair, mut account) = (PairFailures::default(), AccountFailures::default());
        for _ in 0..5 {
            begin(&RULE, &mut pair, &mut account, false, start).unwrap();
        }
        assert_eq!(begin(&RULE, &mut pair, &mut account, false, start), Err(LogInRefused::Pair(seconds(1))));
        let now = start + seconds(1);
        begin(&RULE, &mut pair, &mut account, false, now).unwrap();
        take_back(&mut pair, &mut account, now, true);
        assert_eq!((pair, account.at.len()), (PairFailures::default(), 5));
        for _ in 0..5 {
            begin(&RULE, &mut pair, &mut account, false, now).unwrap();
        }
        let (kept, later) = (pair, now + seconds(24 * 3_600 - 1));
        assert!(!kept.is_over(&RULE, later) && kept.is_over(&RULE, later + seconds(1)));
    }

    #[test]
    fn what_was_no_failure_costs_nothing() {
        let now = Instant::now();
        let (mut pair, mut account) = (PairFailures::default(), AccountFailures::default());
        for _ in 0..1_000 {
            begin(&RULE, &mut pair, &mut account, false, now).unwrap();
            take_back(&mut pair, &mut account, now, false);
        }
        assert!(pair.is_over(&RULE, now) && account.is_over(now));
    }

    /// An attacker with unlimited networks, and the owner.
    #[test]
    fn strangers_use_up_the_account_and_the_owners_network_is_let_in() {
        let start = Instant::now();
        let mut account = AccountFailures::default();
        for place in 0..100 {
            let mut stranger = PairFailures::default();
            begin(&RULE, &mut stranger, &mut account, false, start + seconds(place)).unwrap();
        }
        let now = start + seconds(200);
        let (mut stranger, mut owner) = (PairFailures::default(), PairFailures::default());
        assert_eq!(begin(&RULE, &mut stranger, &mut account, false, now), Err(LogInRefused::Account(seconds(3_400))));
        for _ in 0..5 {
            assert_eq!(begin(&RULE, &mut owner, &mut account, true, now), Ok(()));
        }
        assert_eq!(begin(&RULE, &mut owner, &mut account, true, now), Err(LogInRefused::Pair(seconds(1))));
        assert_eq!(begin(&RULE, &mut stranger, &mut account, false, start + seconds(3_600)), Ok(()));
        assert!(matches!(
            begin(&RULE, &mut stranger, &mut account, false, start + seconds(3_600)),
            Err(LogInRefused::Account(_))
        ));
    }

    proptest! {
        /// For any attempts at any times: no hour has more failures of the account than allowed, no pair is faster than
        /// its waits, and every refusal states the right wait.
        #[test]
        fn no_order_of_attempts_gets_around_the_bounds(
            free in 1_u32..6, per_hour in 1_u32..30,
            attempts in prop::collection::vec((0_u8..12, 0_u64..400, any::<bool>()), 1..300),
        ) {
            let rule = FailureRule::new(free, per_hour);
            let mut now = Instant::now();
            let mut account = AccountFailures::default();
            let mut pairs: HashMap<u8, PairFailures> = HashMap::new();
            let (mut failed, mut by_pair) = (Vec::new(), HashMap::<u8, Vec<Instant>>::new());
            for (network, pause, waits) in attempts {
                now += seconds(pause);
                let pair = pairs.entry(network).or_default();
                let mut outcome = begin(&rule, pair, &mut account, false, now);
                if let (Err(LogInRefused::Pair(wait) | LogInRefused::Account(wait)), true) = (outcome, waits) {
                    prop_assert!(!wait.is_zero() && wait <= HOUR);
                    now += wait;
                    outcome = begin(&rule, pair, &mut account, false, now);
                    if let Err(LogInRefused::Pair(wait)) = outcome {
                        prop_assert!(false, "waited as told, and has to wait {wait:?}");
                    }
                }
                if outcome.is_ok() {
                    failed.push(now);
                    by_pair.entry(network).or_default().push(now);
                }
            }
            for (place, first) in failed.iter().enumerate() {
                let within = failed.iter().skip(place).take_while(|at| **at - *first < HOUR).count();
                prop_assert!(within <= usize::try_from(per_hour).unwrap(), "{within} in an hour");
            }
            for times in by_pair.values() {
                let mut count = 0;
                for both in times.windows(2) {
                    let passed = both[1] - both[0];
                    count += 1;
                    prop_assert!(passed >= rule.wait_after(count), "{passed:?} after {count} failures");
                    count = if passed >= rule.forgotten_after { 0 } else { count };
                }
            }
        }
    }
}
