//! From the events of an answer to the steps that are taken on the connection: pieces, pauses, and where it goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::script::{Charges, Fault, Pace, Split};
use super::usage::Parts;

/// What belongs together in a body: an event of a stream, or the whole of a plain answer.
pub struct Event {
    pub bytes: Vec<u8>,
    /// What has been used when it is sent.
    pub used: Parts,
    /// The pause before it, besides the pace.
    pub pause: Duration,
}

impl Event {
    pub fn of(text: impl Into<String>, used: Parts) -> Self {
        Self { bytes: text.into().into_bytes(), used, pause: Duration::ZERO }
    }

    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

#[derive(Debug)]
pub enum Step {
    Wait(Duration),
    /// Writes at once. With the write begins what has been used.
    Write {
        wire: Vec<u8>,
        /// How many of these bytes are the body's.
        body: usize,
        used: Parts,
    },
    /// Waits until the test lets go.
    Hold,
    /// Waits until the client leaves.
    Hang,
    Reset,
    Close,
}

/// How HTTP says where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
}

impl Framing {
    fn framed(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Length => bytes.to_vec(),
            Self::Chunked => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
        }
    }
}

/// The steps of a body. Faults that change the events themselves were applied before.
pub fn of_body(events: &[Event], pace: &Pace, fault: Option<&Fault>, charges: Charges, framing: Framing) -> Vec<Step> {
    let body: Vec<u8> = events.iter().flat_map(|event| event.bytes.iter().copied()).collect();
    let all = events.last().map_or_else(Parts::default, |event| event.used);
    let (end, broken) = ending(fault, body.len());
    let halts = halts(events, fault);
    let mut cuts = cuts(events, &body, pace.split);
    cuts.extend(halts.keys().copied());
    cuts.insert(end);
    let mut steps = Vec::new();
    let mut start = 0;
    for cut in cuts.into_iter().filter(|cut| (1..=end).contains(cut)) {
        let Some(bytes) = body.get(start..cut) else { break };
        steps.push(Step::Wait(if start == 0 { pace.first_token } else { pace.between }));
        steps.extend(halts.get(&start).into_iter().flatten().map(Halt::step));
        let used = if charges == Charges::Whole { all } else { used_at(events, cut) };
        steps.push(Step::Write { wire: framing.framed(bytes), body: bytes.len(), used });
        start = cut;
    }
    steps.extend(halts.get(&end).into_iter().flatten().map(Halt::step));
    match broken {
        Some(step) => steps.push(step),
        None if framing == Framing::Chunked => {
            steps.push(Step::Write { wire: b"0\r\n\r\n".to_vec(), body: 0, used: all });
        }
        None => {}
    }
    steps.retain(|step| !matches!(step, Step::Wait(pause) if pause.is_zero()));
    steps
}

/// Where the body ends, and how it ends where it breaks off.
fn ending(fault: Option<&Fault>, length: usize) -> (usize, Option<Step>) {
    match fault {
        Some(Fault::ResetAfter { bytes }) => ((*bytes).min(length), Some(Step::Reset)),
        Some(Fault::CloseAfter { bytes }) => ((*bytes).min(length), Some(Step::Close)),
        Some(Fault::HangAfter { bytes }) => ((*bytes).min(length), Some(Step::Hang)),
        _ => (length, None),
    }
}

enum Halt {
    Pause(Duration),
    Hold,
}

impl Halt {
    fn step(&self) -> Step {
        match self {
            Self::Pause(pause) => Step::Wait(*pause),
            Self::Hold => Step::Hold,
        }
    }
}

/// What happens before the byte at an offset.
fn halts(events: &[Event], fault: Option<&Fault>) -> BTreeMap<usize, Vec<Halt>> {
    let mut halts: BTreeMap<usize, Vec<Halt>> = BTreeMap::new();
    let mut offset = 0;
    for (place, event) in events.iter().enumerate() {
        if matches!(fault, Some(Fault::HoldAfter { events }) if *events == place) {
            halts.entry(offset).or_default().push(Halt::Hold);
        }
        if !event.pause.is_zero() {
            halts.entry(offset).or_default().push(Halt::Pause(event.pause));
        }
        offset += event.bytes.len();
    }
    if matches!(fault, Some(Fault::HoldAfter { events: held }) if *held >= events.len()) {
        halts.entry(offset).or_default().push(Halt::Hold);
    }
    halts
}

fn cuts(events: &[Event], body: &[u8], split: Split) -> BTreeSet<usize> {
    let offsets = || body.iter().enumerate();
    match split {
        Split::Joined => BTreeSet::new(),
        Split::Events => events
            .iter()
            .scan(0, |offset, event| {
                *offset += event.bytes.len();
                Some(*offset)
            })
            .collect(),
        Split::Every(bytes) => (0..body.len()).step_by(bytes.max(1)).collect(),
        // The first byte of a character that has several is 0xC2 or more, the others are less.
        Split::InsideCharacters => offsets().filter(|(_, byte)| **byte >= 0xC2).map(|(offset, _)| offset + 1).collect(),
        Split::InsideLines => {
            let mut cuts = BTreeSet::new();
            let mut start = 0;
            for (offset, byte) in offsets().filter(|(_, byte)| **byte == b'\n' || **byte == b'\r') {
                // Between \r and \n, and between the ends of a line and of its event.
                let next = body.get(offset + 1);
                if *byte == b'\r' || matches!(next, Some(b'\n' | b'\r')) {
                    cuts.insert(offset + 1);
                }
                if offset > start {
                    cuts.insert(start + (offset - start) / 2);
                }
                start = offset + 1;
            }
            cuts.insert(start + (body.len() - start) / 2);
            cuts
        }
    }
}

/// What was used when the byte before the offset is sent.
fn used_at(events: &[Event], offset: usize) -> Parts {
    let mut end = 0;
    let reached = events.iter().find(|event| {
        end += event.bytes.len();
        end >= offset
    });
    reached.map_or_else(Parts::default, |event| event.used)
}
