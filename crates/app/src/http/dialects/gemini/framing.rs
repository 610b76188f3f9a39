//! The two ways in which a stream of responses is framed: as events, or as one JSON array.

use ports::ai::Framing;

pub struct Frames {
    framing: Framing,
    is_empty: bool,
}

impl Frames {
    pub const fn new(framing: Framing) -> Self {
        Self { framing, is_empty: true }
    }

    /// One response, or one error.
    pub fn frame(&mut self, response: &str) -> String {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        match (self.framing, is_first) {
            (Framing::ServerSentEvents, _) => format!("data: {response}\r\n\r\n"),
            (Framing::JsonArray, true) => format!("[{response}"),
            (Framing::JsonArray, false) => format!(",\r\n{response}"),
        }
    }

    /// What comes before the bytes of an element of an array.
    pub fn joint(&mut self) -> &'static [u8] {
        if std::mem::replace(&mut self.is_empty, false) { b"[" } else { b",\r\n" }
    }

    pub const fn end(&self) -> &'static str {
        match (self.framing, self.is_empty) {
            (Framing::ServerSentEvents, _) => "",
            (Framing::JsonArray, true) => "[]",
            (Framing::JsonArray, false) => "]",
        }
    }

    pub const fn is_array(&self) -> bool {
        matches!(self.framing, Framing::JsonArray)
    }

    pub fn content_type(&self) -> String {
        if self.is_array() { "application/json; charset=UTF-8" } else { "text/event-stream" }.to_owned()
    }
}
