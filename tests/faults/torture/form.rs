//! The form of a run: the number of clients, the duration, and the random seed.

use std::time::Duration;

use adapters::randomness::SystemRandomness;
use ports::randomness::Randomness as _;

/// In the short form, in parallel with other tests on the same machine.
const CLIENTS_IN_SHORT: u32 = 16;
const CLIENTS: u32 = 64;

/// The pause of a client between two requests, so that the short form leaves capacity for parallel tests.
const PAUSE_IN_SHORT: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub seed: u64,
    pub clients: u32,
    /// `None` is the short form: it ends when each fault was injected once.
    pub lasts: Option<Duration>,
    pub pause: Duration,
    /// The number of each client's own users; each is used until its limits are reached, then the next.
    pub users_each: u32,
    pub hot_users: u32,
}

impl Form {
    /// Reads `TORTURE_SECONDS`, `TORTURE_CLIENTS` and `TORTURE_SEED`; without the first, the short form.
    pub fn told() -> Self {
        let seconds = number("TORTURE_SECONDS");
        let is_short = seconds.is_none();
        let clients = number("TORTURE_CLIENTS").and_then(|clients| u32::try_from(clients).ok());
        let more = seconds.map_or(0, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX).min(7_200));
        let (_, chance) = SystemRandomness.new_id().as_u64_pair();
        Self {
            seed: number("TORTURE_SEED").unwrap_or(chance),
            clients: clients.unwrap_or(if is_short { CLIENTS_IN_SHORT } else { CLIENTS }).clamp(1, 1_000),
            lasts: seconds.map(Duration::from_secs),
            pause: if is_short { PAUSE_IN_SHORT } else { PAUSE },
            users_each: 6 + more / 4,
            hot_users: 6 + more,
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the test has no settings file; the run tells its form here")]
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}
