//! Failed log-ins of this process, by the rule of `domain::identity::log_in_failures`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::bail;
use domain::identity::log_in_failures::{self, AccountFailures, FailureRule, LogInRefused, PairFailures};

use super::Place;
use crate::settings::shape::RateLimitsSettings as Limits;

pub(super) struct LogIns {
    rule: FailureRule,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    pairs: HashMap<Place, PairFailures>,
    accounts: HashMap<Place, AccountFailures>,
}

/// An attempt that was let through. Unless it is ended, it stays a failure.
#[derive(Clone, Copy, Debug)]
pub struct LogInAttempt {
    pair: Place,
    account: Place,
    begun: Instant,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogInVerdict {
    Right,
    Wrong,
    /// It was not checked, or was right in part.
    Undecided,
}

impl LogIns {
    pub(super) fn new(limits: &Limits) -> anyhow::Result<Self> {
        if limits.login_failures_per_account == 0 {
            bail!("rate_limits.login_failures_per_account is 0; it is at least 1");
        }
        if limits.login_failures_before_delay == 0 {
            bail!("rate_limits.login_failures_before_delay is 0; it is at least 1");
        }
        let rule = FailureRule::new(limits.login_failures_before_delay, limits.login_failures_per_account);
        Ok(Self { rule, failures: Mutex::default() })
    }

    pub(super) fn begin(
        &self,
        pair: Place,
        account: Place,
        is_known: bool,
        now: Instant,
    ) -> Result<LogInAttempt, LogInRefused> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Failures { pairs, accounts } = &mut *failures;
        let (of_pair, of_account) = (pairs.entry(pair).or_default(), accounts.entry(account).or_default());
        log_in_failures::begin(&self.rule, of_pair, of_account, is_known, now)?;
        Ok(LogInAttempt { pair, account, begun: now })
    }

    pub(super) fn end(&self, attempt: LogInAttempt, verdict: LogInVerdict) {
        let LogInAttempt { pair, account, begun } = attempt;
        if verdict == LogInVerdict::Wrong {
            return;
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Failures { pairs, accounts } = &mut *failures;
        let (pair, account) = (pairs.entry(pair).or_default(), accounts.entry(account).or_default());
        log_in_failures::take_back(pair, account, begun, verdict == LogInVerdict::Right);
    }

    pub(super) fn sweep(&self, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.pairs.retain(|_, pair| !pair.is_over(&self.rule, now));
        failures.accounts.retain(|_, account| !account.is_over(now));
        failures.pairs.shrink_to_fit();
        failures.accounts.shrink_to_fit();
    }
}
