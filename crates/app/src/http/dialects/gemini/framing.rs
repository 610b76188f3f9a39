//! The two ways in which a stream of responses is framed: as events, or as one JSON array.

use ports::ai::StreamFraming;

pub struct GeminiFrames {
    framing: StreamFraming,
    is_empty: bool,
    /// Whether the array is open, though it may have no element.
    is_open: bool,
}

impl GeminiFrames {
    pub const fn new(framing: StreamFraming) -> Self {
        Self { framing, is_empty: true, is_open: false }
    }

    /// Frames one response, or one error.
    pub fn frame(&mut self, response: &str) -> String {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        match (self.framing, is_first) {
            (StreamFraming::ServerSentEvents, _) => format!("data: {response}\r\n\r\n"),
            (StreamFraming::JsonArray, true) if self.is_open => response.to_owned(),
            (StreamFraming::JsonArray, true) => format!("[{response}"),
            (StreamFraming::JsonArray, false) => format!(",\r\n{response}"),
        }
    }

    /// What precedes the bytes of an element of an array.
    pub fn joint(&mut self) -> &'static [u8] {
        match (std::mem::replace(&mut self.is_empty, false), self.is_open) {
            (true, false) => b"[",
            (true, true) => b"",
            (false, _) => b",\r\n",
        }
    }

    pub const fn end(&self) -> &'static str {
        match (self.framing, self.is_empty) {
            (StreamFraming::ServerSentEvents, _) => "",
            (StreamFraming::JsonArray, true) if !self.is_open => "[]",
            (StreamFraming::JsonArray, _) => "]",
        }
    }

    /// White space, which every parser of events and of JSON skips; Google's Python SDK takes a comment for an answer.
    /// An array is opened first, since some parsers expect its bracket as the first byte.
    pub fn ping(&mut self) -> Vec<u8> {
        match self.framing {
            StreamFraming::ServerSentEvents => b"\r\n\r\n".to_vec(),
            StreamFraming::JsonArray if self.is_empty && !std::mem::replace(&mut self.is_open, true) => {
                b"[\r\n".to_vec()
            }
            StreamFraming::JsonArray => b"\r\n".to_vec(),
        }
    }

    pub const fn is_array(&self) -> bool {
        matches!(self.framing, StreamFraming::JsonArray)
    }

    pub fn content_type(&self) -> String {
        if self.is_array() { "application/json; charset=UTF-8" } else { "text/event-stream" }.to_owned()
    }
}
