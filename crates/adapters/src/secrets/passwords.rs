//! Passwords: argon2id with OWASP's parameters, each hash in PHC form with its own salt.
//!
//! Promises: at most `concurrency` hashes run at once and 64 more wait; further calls fail with `BUSY` at once. A check
//! takes the same work whether there is a stored hash or not. One hash costs 19 MiB and tens of milliseconds of a core,
//! on a blocking thread; a caller that disconnects does not free its place before the hash is done.

use std::fmt;
use std::sync::{Arc, LazyLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use ports::identity::{PasswordHasher, SecretError};
use tokio::sync::Semaphore;

/// The text of the `SecretError` for too many waiting calls. The app answers 503 to it.
pub const BUSY: &str = "busy";

/// How many hashes run at once by default: more would starve two cores.
pub const CONCURRENCY: usize = 2;

/// How many may wait. At 25 ms per hash and two at once, the last waits less than a second.
const WAITING_MAX: usize = 64;

/// OWASP's second choice for argon2id (Password Storage Cheat Sheet): 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Replaces the hash of an unknown e-mail. Its password is unknown, and even a match would be refused.
static DUMMY: LazyLock<Result<String, SecretError>> = LazyLock::new(|| hash_now(&super::base62::random(32)));

pub struct Argon2Passwords {
    /// The permits of all calls that hash or wait.
    places: Arc<Semaphore>,
    /// The permits of the calls that hash.
    turns: Arc<Semaphore>,
}

impl Argon2Passwords {
    pub fn new(concurrency: usize) -> Self {
        let concurrency = concurrency.clamp(1, WAITING_MAX);
        Self {
            places: Arc::new(Semaphore::new(concurrency + WAITING_MAX)),
            turns: Arc::new(Semaphore::new(concurrency)),
        }
    }

    /// Runs `work` in its turn. The permits move with the work, so that a dropped caller cannot admit more calls.
    async fn in_turn<T, F>(&self, work: F) -> Result<T, SecretError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, SecretError> + Send + 'static,
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| SecretError(BUSY.to_owned()))?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|error| SecretError(error.to_string()))?;
        let worked = tokio::task::spawn_blocking(move || {
            // The first caller pays for the dummy, with a known e-mail or not, so the time reveals nothing.
            LazyLock::force(&DUMMY);
            let done = work();
            drop((turn, place));
            done
        });
        worked.await.map_err(|error| SecretError(error.to_string()))?
    }
}

impl Default for Argon2Passwords {
    fn default() -> Self {
        Self::new(CONCURRENCY)
    }
}

impl fmt::Debug for Argon2Passwords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Argon2Passwords").field("free", &self.turns.available_permits()).finish_non_exhaustive()
    }
}

#[async_trait]
impl PasswordHasher for Argon2Passwords {
    async fn hash(&self, password: String) -> Result<String, SecretError> {
        self.in_turn(move || hash_now(&password)).await
    }

    async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, SecretError> {
        self.in_turn(move || verify_now(&password, stored.as_deref())).await
    }
}

fn argon2id() -> Result<Argon2<'static>, SecretError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| SecretError(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(password: &str) -> Result<String, SecretError> {
    let hash = argon2id()?.hash_password(password.as_bytes()).map_err(|error| SecretError(error.to_string()))?;
    Ok(hash.to_string())
}

fn verify_now(password: &str, stored: Option<&str>) -> Result<bool, SecretError> {
    let parsed = stored.and_then(|stored| {
        let parsed = PasswordHash::new(stored).ok().filter(|hash| hash.algorithm.as_str() == "argon2id");
        if parsed.is_none() {
            // An error would reveal to the caller that the account exists; the operator gets a log line instead.
            tracing::warn!("a stored password hash is not argon2id, so its account cannot log in");
        }
        parsed
    });
    if let Some(hash) = parsed {
        return matches(password, &hash);
    }
    let dummy = DUMMY.as_ref().map_err(|error| SecretError(error.0.clone()))?;
    let hash = PasswordHash::new(dummy).map_err(|error| SecretError(error.to_string()))?;
    matches(password, &hash)?;
    Ok(false)
}

fn matches(password: &str, hash: &PasswordHash) -> Result<bool, SecretError> {
    match argon2id()?.verify_password(password.as_bytes(), hash) {
        Ok(()) => Ok(true),
        Err(Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(SecretError(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    const PASSWORD: &str = "correct horse battery staple";

    #[tokio::test]
    async fn a_password_is_accepted_by_its_own_hash_only() {
        let passwords = Argon2Passwords::default();
        let hash = passwords.hash(PASSWORD.to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash(PASSWORD.to_owned()).await.unwrap(), "each hash has its own salt");
        assert!(passwords.verify(PASSWORD.to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("Correct horse battery staple".to_owned(), Some(hash)).await.unwrap());
    }

    /// The vector of the reference implementation (phc-winner-argon2, test.c), so that accounts survive a change of the
    /// library.
    #[tokio::test]
    async fn a_hash_from_elsewhere_is_understood_with_its_own_parameters() {
        let known = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc".to_owned();
        assert!(Argon2Passwords::default().verify("password".to_owned(), Some(known)).await.unwrap());
    }

    #[tokio::test]
    async fn without_a_usable_hash_the_answer_is_no_after_the_same_work() {
        let passwords = Argon2Passwords::default();
        let stored = passwords.hash(PASSWORD.to_owned()).await.unwrap();
        let time = async |stored: Option<String>| {
            let begun = Instant::now();
            assert!(!passwords.verify("a wrong password".to_owned(), stored).await.unwrap());
            begun.elapsed()
        };
        let known = time(Some(stored)).await;
        for unusable in [None, Some("$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"), Some("")] {
            let unknown = time(unusable.map(str::to_owned)).await;
            // A wide range: the machine may be busy. Without the dummy the time would be a thousandth.
            assert!(unknown * 10 > known && unknown < known * 10, "{unusable:?}: {unknown:?} against {known:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_work_64_wait_and_the_rest_is_told_to_come_again() {
        let passwords = Arc::new(Argon2Passwords::new(2));
        let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (passwords, running, most) = (Arc::clone(&passwords), Arc::clone(&running), Arc::clone(&most));
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(20));
                        running.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    passwords.in_turn(work).await
                })
            })
            .collect();
        let mut busy = 0;
        for caller in callers {
            busy += usize::from(caller.await.unwrap().is_err_and(|error| error.0 == BUSY));
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(busy, 100 - 66);
        passwords.in_turn(|| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_who_hangs_up_keeps_the_place_until_the_work_is_done() {
        let passwords = Argon2Passwords::new(1);
        LazyLock::force(&DUMMY);
        let work = || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(())
        };
        assert!(tokio::time::timeout(Duration::from_millis(50), passwords.in_turn(work)).await.is_err());
        assert_eq!(passwords.turns.available_permits(), 0);
        passwords.in_turn(|| Ok(())).await.unwrap();
        assert_eq!(passwords.turns.available_permits(), 1);
    }
}
