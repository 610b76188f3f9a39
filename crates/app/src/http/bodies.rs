//! Bodies: reads them within limits, for one request and for all of them together.
//!
//! Promise: the memory of bodies that have not been answered, with the copies that a model call makes of them, never
//! exceeds `server.body_memory_bytes`; one caller has four fifths of it at most. Beyond, a request is answered with 503
//! and `Retry-After`. A declared length that is too large is refused before a byte is read. Allocated bytes are
//! counted, not declared ones. Parsing JSON into a tree takes several times its size, so requests take turns to do it
//! within `server.parse_memory_bytes`. Costs an atomic addition for a small body, and a lock for each doubling of one
//! above 64 KiB.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, Data};
use domain::users::UserId;
use futures_util::Stream;
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::settings::shape::ServerSettings;
use crate::telemetry::BODIES_REFUSED;

/// A body up to this size is not counted for its caller.
const SMALL: usize = 64 * 1_024;
/// The first allocation.
const FIRST: usize = 8 * 1_024;
/// The most that is allocated before it has arrived.
const AT_ONCE_MAX: usize = 256 * 1_024;
/// When to send the request again, in seconds, if the memory for bodies is full.
const COME_AGAIN_SECONDS: u64 = 2;
/// How long a body waits for its turn to be parsed.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// The bytes of one permit: a semaphore has fewer than 2^32 permits.
const TURN_UNIT: usize = 1_024;
/// About what a JSON value takes in a tree, besides its text.
const BYTES_A_VALUE: usize = 96;

/// How large a body a route accepts, as the route's own data.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub usize);

/// The memory of all bodies, once a process.
pub struct BodyMemory {
    all: usize,
    of_one_caller: usize,
    taken: AtomicUsize,
    by_caller: Mutex<HashMap<UserId, usize>>,
    turns: Arc<Semaphore>,
    turns_all: usize,
}

impl BodyMemory {
    pub fn new(server: &ServerSettings) -> Arc<Self> {
        let turns_all = server.parse_memory_bytes / TURN_UNIT;
        Arc::new(Self {
            all: server.body_memory_bytes,
            of_one_caller: server.body_memory_bytes / 5 * 4,
            taken: AtomicUsize::new(0),
            by_caller: Mutex::default(),
            turns: Arc::new(Semaphore::new(turns_all)),
            turns_all,
        })
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A reservation for one more body, of no bytes yet.
    pub fn of(self: &Arc<Self>, caller: Option<UserId>) -> BodyReservation {
        BodyReservation { memory: Arc::clone(self), caller, bytes: 0, of_caller: 0 }
    }

    /// A turn to parse this JSON into a tree. It ends when the permit is dropped.
    pub async fn turn(self: &Arc<Self>, json: &Bytes) -> Result<OwnedSemaphorePermit, Problem> {
        let wanted = tree_bytes(json) / TURN_UNIT + 1;
        if wanted > self.turns_all {
            let detail = "The body has more values than this service reads at once.";
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
        }
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        match tokio::time::timeout(TURN_PATIENCE, Arc::clone(&self.turns).acquire_many_owned(wanted)).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(full("parse")),
        }
    }
}

/// About what this JSON takes as a tree: each value but the first follows a comma, a colon or a bracket.
fn tree_bytes(json: &[u8]) -> usize {
    let values = json.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    json.len().saturating_add(values.saturating_mul(BYTES_A_VALUE))
}

/// Reserved memory. It is released when this is dropped.
pub struct BodyReservation {
    memory: Arc<BodyMemory>,
    caller: Option<UserId>,
    bytes: usize,
    of_caller: usize,
}

impl BodyReservation {
    /// Reserves so many bytes in all. After an error it is to be dropped.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.saturating_sub(self.bytes);
        let before = self.memory.taken.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if before.saturating_add(more) > self.memory.all {
            return Err(full("all"));
        }
        match self.caller {
            Some(caller) if self.bytes > SMALL => self.grow_of_caller(caller),
            _ => Ok(()),
        }
    }

    /// The bytes with this reservation, which is released when the last copy of them is dropped.
    pub fn around(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Accounted { bytes, _reservation: self })
    }

    fn grow_of_caller(&mut self, caller: UserId) -> Result<(), Problem> {
        let mut by_caller = self.memory.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_caller.entry(caller).or_default();
        *taken += self.bytes - self.of_caller;
        self.of_caller = self.bytes;
        if *taken > self.memory.of_one_caller { Err(full("caller")) } else { Ok(()) }
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        let (Some(caller), true) = (self.caller, self.of_caller > 0) else { return };
        let mut by_caller = self.memory.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = by_caller.get_mut(&caller) {
            *taken -= self.of_caller;
            if *taken == 0 {
                by_caller.remove(&caller);
            }
        }
    }
}

/// The bytes of a body with their reservation: both are dropped with the last copy.
struct Accounted {
    bytes: Vec<u8>,
    _reservation: BodyReservation,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How a body is read.
#[derive(Clone, Copy, Debug)]
pub struct BodyReading {
    pub limit: usize,
    pub caller: Option<UserId>,
    /// How many copies of it there are while the request is handled.
    pub copies: usize,
}

/// Reads a body to its end.
pub async fn read(request: HttpRequest, mut payload: Payload, reading: BodyReading) -> Result<Bytes, Problem> {
    let declared = declared_length(&request);
    if declared.is_some_and(|length| length > reading.limit) {
        return Err(too_large());
    }
    let Some(memory) = request.app_data::<Data<BodyMemory>>().map(|memory| Arc::clone(memory)) else {
        return Err(Problem::internal(&"no memory for bodies is set up"));
    };
    let mut reservation = memory.of(reading.caller);
    let mut bytes = Vec::new();
    while let Some(chunk) = poll_fn(|context| Pin::new(&mut payload).poll_next(context)).await {
        let chunk = chunk.map_err(|_| Problem::malformed("The body could not be read to its end."))?;
        let length = bytes.len() + chunk.len();
        if length > reading.limit {
            return Err(too_large());
        }
        if length > bytes.capacity() {
            // A declared length of some size is allocated at once: growing step by step leaves gaps in the heap.
            let first = declared.map_or(FIRST, |declared| declared.clamp(FIRST, AT_ONCE_MAX));
            let doubled = (bytes.capacity() * 2).max(first).min(declared.unwrap_or(usize::MAX)).min(reading.limit);
            let capacity = doubled.max(length);
            reservation.grow_to(capacity)?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&chunk);
    }
    reservation.grow_to(bytes.len().saturating_mul(reading.copies))?;
    Ok(reservation.around(bytes))
}

fn declared_length(request: &HttpRequest) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

pub fn not_json() -> Problem {
    let detail = "Send the body as JSON, with the header `Content-Type: application/json`.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail)
}

pub fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is larger than this route takes.")
}

fn full(bound: &'static str) -> Problem {
    counter!(BODIES_REFUSED, "bound" => bound).increment(1);
    let detail = "The service has as many bodies in memory as it takes. Send the request again.";
    Problem::unavailable("bodies_full", detail).with_retry_after(COME_AGAIN_SECONDS)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn memory(all: usize) -> Arc<BodyMemory> {
        Arc::new(BodyMemory {
            all,
            of_one_caller: all / 5 * 4,
            taken: AtomicUsize::new(0),
            by_caller: Mutex::default(),
            turns: Arc::new(Semaphore::new(4)),
            turns_all: 4,
        })
    }

    #[test]
    fn all_bodies_together_have_a_bound_and_one_caller_less() {
        let memory = memory(1_000_000);
        let (ada, bob) = (UserId(uuid::Uuid::from_u128(1)), UserId(uuid::Uuid::from_u128(2)));
        let mut first = memory.of(Some(ada));
        assert!(first.grow_to(600_000).is_ok());
        let mut second = memory.of(Some(ada));
        assert_eq!(second.grow_to(300_000).unwrap_err().code, "bodies_full", "more than four fifths");
        drop(second);
        let mut third = memory.of(Some(bob));
        assert!(third.grow_to(300_000).is_ok());
        assert!(memory.of(None).grow_to(200_000).is_err());
        assert!(memory.of(None).grow_to(60_000).is_ok());
        drop((first, third));
        assert_eq!((memory.taken(), memory.by_caller.lock().unwrap().len()), (0, 0));
    }

    #[tokio::test]
    async fn a_body_of_many_values_waits_for_its_turn_and_one_of_too_many_is_refused() {
        let memory = memory(1);
        let some = Bytes::from("[1,".repeat(10));
        let turn = memory.turn(&some).await.unwrap();
        assert!(memory.turn(&Bytes::from("[".repeat(50))).await.is_err());
        drop(turn);
        assert!(memory.turn(&Bytes::from("a".repeat(3_000))).await.is_ok());
    }
}
