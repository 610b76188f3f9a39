//! Turns the events of a response into the steps on the connection: pieces, pauses and faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::script::{AnswerPace, ChargedPart, Fault, PieceSplit};
use super::usage::UsageParts;

/// A unit of a body: an event of a stream, or the whole of a plain response.
pub struct PlayEvent {
    pub bytes: Vec<u8>,
    /// The usage when it is sent.
    pub used: UsageParts,
    /// The pause before it, in addition to the pace.
    pub pause: Duration,
}

impl PlayEvent {
    pub fn of(text: impl Into<String>, used: UsageParts) -> Self {
        Self { bytes: text.into().into_bytes(), used, pause: Duration::ZERO }
    }

    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

#[derive(Debug)]
pub enum PlayStep {
    Wait(Duration),
    /// Writes at once. `used` is charged when the write begins.
    Write {
        wire: Vec<u8>,
        /// How many of these bytes belong to the body.
        body: usize,
        used: UsageParts,
    },
    /// Waits for `let_go`.
    Hold,
    /// Waits until the client disconnects.
    Hang,
    Reset,
    Close,
}

/// How HTTP marks the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayFraming {
    Length,
    Chunked,
}

impl PlayFraming {
    fn framed(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Length => bytes.to_vec(),
            Self::Chunked => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
        }
    }
}

/// The steps of a body. Faults that change the events themselves were applied before.
pub fn of_body(
    events: &[PlayEvent],
    pace: &AnswerPace,
    fault: Option<&Fault>,
    charges: ChargedPart,
    framing: PlayFraming,
) -> Vec<PlayStep> {
    let body: Vec<u8> = events.iter().flat_map(|event| event.bytes.iter().copied()).collect();
    let all = events.last().map_or_else(UsageParts::default, |event| event.used);
    let (end, broken) = ending(fault, body.len());
    let halts = halts(events, fault);
    let mut cuts = cuts(events, &body, pace.split);
    cuts.extend(halts.keys().copied());
    cuts.insert(end);
    let mut steps = Vec::new();
    let mut start = 0;
    for cut in cuts.into_iter().filter(|cut| (1..=end).contains(cut)) {
        let Some(bytes) = body.get(start..cut) else { break };
        steps.push(PlayStep::Wait(if start == 0 { pace.first_token } else { pace.between }));
        steps.extend(halts.get(&start).into_iter().flatten().map(Halt::step));
        let used = if charges == ChargedPart::Whole { all } else { used_at(events, cut) };
        steps.push(PlayStep::Write { wire: framing.framed(bytes), body: bytes.len(), used });
        start = cut;
    }
    steps.extend(halts.get(&end).into_iter().flatten().map(Halt::step));
    match broken {
        Some(step) => steps.push(step),
        None if framing == PlayFraming::Chunked => {
            steps.push(PlayStep::Write { wire: b"0\r\n\r\n".to_vec(), body: 0, used: all });
        }
        None => {}
    }
    steps.retain(|step| !matches!(step, PlayStep::Wait(pause) if pause.is_zero()));
    steps
}

/// Where the body ends, and the step that breaks it off, if any.
fn ending(fault: Option<&Fault>, length: usize) -> (usize, Option<PlayStep>) {
    match fault {
        Some(Fault::ResetAfter { bytes }) => ((*bytes).min(length), Some(PlayStep::Reset)),
        Some(Fault::CloseAfter { bytes }) => ((*bytes).min(length), Some(PlayStep::Close)),
        Some(Fault::HangAfter { bytes }) => ((*bytes).min(length), Some(PlayStep::Hang)),
        _ => (length, None),
    }
}

enum Halt {
    Pause(Duration),
    Hold,
}

impl Halt {
    fn step(&self) -> PlayStep {
        match self {
            Self::Pause(pause) => PlayStep::Wait(*pause),
            Self::Hold => PlayStep::Hold,
        }
    }
}

/// The halts before the byte at an offset.
fn halts(events: &[PlayEvent], fault: Option<&Fault>) -> BTreeMap<usize, Vec<Halt>> {
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

fn cuts(events: &[PlayEvent], body: &[u8], split: PieceSplit) -> BTreeSet<usize> {
    let offsets = || body.iter().enumerate();
    match split {
        PieceSplit::Joined => BTreeSet::new(),
        PieceSplit::Events => events
            .iter()
            .scan(0, |offset, event| {
                *offset += event.bytes.len();
                Some(*offset)
            })
            .collect(),
        PieceSplit::Every(bytes) => (0..body.len()).step_by(bytes.max(1)).collect(),
        // The first byte of a multi-byte character is 0xC2 or more; all other bytes are less.
        PieceSplit::InsideCharacters => {
            offsets().filter(|(_, byte)| **byte >= 0xC2).map(|(offset, _)| offset + 1).collect()
        }
        PieceSplit::InsideLines => {
            let mut cuts = BTreeSet::new();
            let mut start = 0;
            for (offset, byte) in offsets().filter(|(_, byte)| **byte == b'\n' || **byte == b'\r') {
                // Between \r and \n, and between the end of a line and the end of its event.
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

/// The usage when the byte before the offset is sent.
fn used_at(events: &[PlayEvent], offset: usize) -> UsageParts {
    let mut end = 0;
    let reached = events.iter().find(|event| {
        end += event.bytes.len();
        end >= offset
    });
    reached.map_or_else(UsageParts::default, |event| event.used)
}
