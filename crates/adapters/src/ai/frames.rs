//! Splits a streamed body into the provider's frames, wherever the network cut it.
//!
//! The bytes of a frame are kept as they came, so that it can be passed on unchanged. A frame has at most
//! `FRAME_BYTES_MAX` bytes. Each byte is examined once.

use ports::ai::StreamFraming;

/// The largest frame is a picture in a reply.
pub(super) const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// With its line ends. Of a JSON array, the element alone.
    pub raw: Vec<u8>,
    /// The event's data. `None` for a comment or an event without data.
    pub data: Option<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Frame(Frame),
    /// The provider's mark that nothing follows. Only a JSON array has one.
    End,
    /// More bytes are needed.
    More,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum CutRefused {
    TooLong,
    NotAnArray,
}

impl CutRefused {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::TooLong => "one frame of it is larger than 8 MiB",
            Self::NotAnArray => "it is no JSON array",
        }
    }
}

pub(super) struct Splitter {
    form: Form,
    bytes: Vec<u8>,
    /// Where the current frame begins.
    start: usize,
    /// How far it was examined.
    seen: usize,
}

enum Form {
    Events {
        /// Where the current line begins.
        line: usize,
        has_lines: bool,
        /// The data lines of this frame, joined.
        data: Option<Vec<u8>>,
        /// Whether a lone CR has ended a line: then a CR at the end of the buffer ends its line at once.
        ends_with_cr: bool,
    },
    Array {
        place: Place,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeArray,
    /// `may_end` before the first element and after each one.
    BetweenElements {
        may_end: bool,
        needs_comma: bool,
    },
    InElement {
        depth: u32,
        in_text: bool,
        escaped: bool,
    },
    AfterArray,
}

impl Splitter {
    pub(super) fn new(framing: StreamFraming) -> Self {
        let form = match framing {
            StreamFraming::ServerSentEvents => {
                Form::Events { line: 0, has_lines: false, data: None, ends_with_cr: false }
            }
            StreamFraming::JsonArray => Form::Array { place: Place::BeforeArray },
        };
        Self { form, bytes: Vec::new(), start: 0, seen: 0 }
    }

    /// Appends the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.seen -= self.start;
            if let Form::Events { line, .. } = &mut self.form {
                *line -= self.start;
            }
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Cut, CutRefused> {
        let cut = match self.form {
            Form::Events { .. } => self.next_event(),
            Form::Array { place } => self.next_element(place)?,
        };
        if cut == Cut::More && self.bytes.len() - self.start > FRAME_BYTES_MAX {
            return Err(CutRefused::TooLong);
        }
        Ok(cut)
    }

    /// Whether it splits a stream of events.
    pub(super) const fn cuts_events(&self) -> bool {
        matches!(self.form, Form::Events { .. })
    }

    /// Returns all buffered bytes of an event stream, for a frame that is too long to parse. The rest of that frame is
    /// read as further lines.
    pub(super) fn surrender(&mut self) -> Vec<u8> {
        let raw = self.bytes.split_off(self.start);
        self.bytes.clear();
        (self.start, self.seen) = (0, 0);
        if let Form::Events { line, has_lines, data, .. } = &mut self.form {
            (*line, *has_lines, *data) = (0, true, None);
        }
        raw
    }

    /// What remains when the body has ended: an event without its last line end.
    pub(super) fn rest(&mut self) -> Option<Frame> {
        let Form::Events { line, data, .. } = &mut self.form else { return None };
        let last = self.bytes.get(*line..).unwrap_or_default();
        take_line(last.strip_suffix(b"\r").unwrap_or(last), data);
        let raw = self.bytes.get(self.start..).unwrap_or_default().to_vec();
        let frame = Frame { raw, data: data.take() };
        (self.start, self.seen) = (self.bytes.len(), self.bytes.len());
        *line = self.bytes.len();
        frame.data.is_some().then_some(frame)
    }

    /// Lines end with LF, CRLF or CR.
    fn next_event(&mut self) -> Cut {
        let Form::Events { line, has_lines, data, ends_with_cr } = &mut self.form else { return Cut::More };
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        while let Some(length) = self.bytes.get(self.seen..).and_then(|rest| rest.iter().position(is_end)) {
            let end = self.seen + length;
            let next = match (self.bytes.get(end), self.bytes.get(end + 1)) {
                (Some(b'\n'), _) => end + 1,
                (_, Some(b'\n')) => end + 2,
                // Perhaps half of a CRLF.
                (_, None) if !*ends_with_cr => {
                    self.seen = end;
                    return Cut::More;
                }
                (_, _) => {
                    *ends_with_cr = true;
                    end + 1
                }
            };
            let text = self.bytes.get(*line..end).unwrap_or_default();
            let is_blank = text.is_empty();
            take_line(text, data);
            (self.seen, *line) = (next, next);
            // Blank lines before the first line belong to the frame that follows.
            if is_blank && *has_lines {
                let raw = self.bytes.get(self.start..self.seen).unwrap_or_default().to_vec();
                (self.start, *has_lines) = (self.seen, false);
                return Cut::Frame(Frame { raw, data: data.take() });
            }
            *has_lines |= !is_blank;
        }
        self.seen = self.bytes.len();
        Cut::More
    }

    fn next_element(&mut self, mut place: Place) -> Result<Cut, CutRefused> {
        while let Some(byte) = self.bytes.get(self.seen).copied() {
            let before = place;
            place = place.after(byte).ok_or(CutRefused::NotAnArray)?;
            if !matches!(before, Place::InElement { .. }) {
                self.start = self.seen;
            }
            self.seen += 1;
            if matches!(before, Place::InElement { .. }) && !matches!(place, Place::InElement { .. }) {
                let raw = self.bytes.get(self.start..self.seen).unwrap_or_default().to_vec();
                self.start = self.seen;
                self.form = Form::Array { place };
                return Ok(Cut::Frame(Frame { data: Some(raw.clone()), raw }));
            }
            if place == Place::AfterArray && before != place {
                self.form = Form::Array { place };
                return Ok(Cut::End);
            }
        }
        if !matches!(place, Place::InElement { .. }) {
            self.start = self.seen;
        }
        self.form = Form::Array { place };
        Ok(Cut::More)
    }
}

impl Place {
    /// The place after this byte. `None` where the byte is not allowed. Elements are objects.
    fn after(self, byte: u8) -> Option<Self> {
        if let Self::InElement { depth, in_text, escaped } = self {
            return Some(Self::in_element(depth, in_text, escaped, byte));
        }
        if byte.is_ascii_whitespace() {
            return Some(self);
        }
        match (self, byte) {
            (Self::BeforeArray, b'[') => Some(Self::BetweenElements { may_end: true, needs_comma: false }),
            (Self::BetweenElements { needs_comma: false, .. }, b'{') => {
                Some(Self::InElement { depth: 1, in_text: false, escaped: false })
            }
            (Self::BetweenElements { needs_comma: true, .. }, b',') => {
                Some(Self::BetweenElements { may_end: false, needs_comma: false })
            }
            (Self::BetweenElements { may_end: true, .. }, b']') => Some(Self::AfterArray),
            _ => None,
        }
    }

    fn in_element(depth: u32, in_text: bool, escaped: bool, byte: u8) -> Self {
        let (depth, in_text, escaped) = match (in_text, byte) {
            (true, _) if escaped => (depth, true, false),
            (true, b'\\') => (depth, true, true),
            (true, b'"') => (depth, false, false),
            (true, _) | (false, b'"') => (depth, true, false),
            (false, b'{' | b'[') => (depth.saturating_add(1), false, false),
            (false, b'}' | b']') => (depth - 1, false, false),
            (false, _) => (depth, false, false),
        };
        if depth == 0 {
            Self::BetweenElements { may_end: true, needs_comma: true }
        } else {
            Self::InElement { depth, in_text, escaped }
        }
    }
}

/// Adds the data of a line, if any. As the standard of server-sent events says, data lines are joined by a line end.
fn take_line(line: &[u8], data: &mut Option<Vec<u8>>) {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let Some(value) = line.strip_prefix(b"data") else { return };
    let value = match value.split_first() {
        None => value,
        Some((b':', value)) => value.strip_prefix(b" ").unwrap_or(value),
        // Another field whose name begins with `data`.
        Some(_) => return,
    };
    match data {
        Some(data) => {
            data.push(b'\n');
            data.extend_from_slice(value);
        }
        None => *data = Some(value.to_vec()),
    }
}

#[cfg(test)]
mod tests;
