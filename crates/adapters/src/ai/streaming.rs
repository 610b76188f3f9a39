//! A streamed reply: each frame is read, parsed and passed on with its bytes as they came.
//!
//! It buffers one frame and the bytes that arrived with it. A caller that takes no pieces slows the provider down.
//!
//! Parsing never stops a native call: a frame that is not understood is passed on unchanged, counted, and billed by its
//! text where the provider reports no usage. Such a stream ends as an error only if the transport broke or the provider
//! sent an error. A translated call needs every frame and fails at one that is not understood.

use std::collections::VecDeque;
use std::sync::Arc;

use domain::ai::ReportedUsage;
use futures_util::stream::unfold;
use ports::ai::{CommentSink, ProviderFault, ReplyPiece, ReplyPieces, StreamFraming};

use super::dialect::{End, ParseError, Parsed, Passthrough, ReportedError, ResponseParser, parse};
use super::errors;
use super::frames::{Cut, CutRefused, Frame, Splitter};
use super::wire::Body;

pub(super) type Comments = Option<Arc<dyn CommentSink>>;

#[expect(clippy::struct_excessive_bools, reason = "each says one thing about where the stream is")]
pub(super) struct Streaming {
    /// `None` once nothing more is read.
    body: Option<Body>,
    splitter: Splitter,
    parser: Box<dyn ResponseParser>,
    /// Whether the caller receives the frames.
    is_native: bool,
    has_begun: bool,
    /// Receives the comments that come before the first piece. Without it they are sent with that piece.
    heard_by: Comments,
    comments: Vec<u8>,
    /// The model has finished, so the body may end here.
    has_finished: bool,
    /// From here on each piece is held until the next one, to know whether it is the last.
    waits: bool,
    held: Option<ReplyPiece>,
    ready: VecDeque<Result<ReplyPiece, ProviderFault>>,
    pub request_id: Option<String>,
    pub model: Option<String>,
}

impl Streaming {
    /// Returns a reply once its first piece has arrived.
    pub(super) async fn begin(
        mut body: Body,
        framing: StreamFraming,
        parser: Box<dyn ResponseParser>,
        is_native: bool,
        heard_by: Comments,
    ) -> Result<Self, ProviderFault> {
        let mut splitter = Splitter::new(framing);
        splitter.push(&body.take_ahead());
        let mut streaming = Self {
            body: Some(body),
            splitter,
            parser,
            is_native,
            has_begun: false,
            heard_by,
            comments: Vec::new(),
            has_finished: false,
            waits: false,
            held: None,
            ready: VecDeque::new(),
            request_id: None,
            model: None,
        };
        match streaming.next().await {
            Some(Ok(first)) => streaming.ready.push_front(Ok(first)),
            Some(Err(fault)) => return Err(fault),
            None => return Err(broken_off()),
        }
        Ok(streaming)
    }

    pub(super) fn pieces(self) -> ReplyPieces {
        Box::pin(unfold(self, |mut streaming| async move {
            let piece = streaming.next().await?;
            Some((piece, streaming))
        }))
    }

    async fn next(&mut self) -> Option<Result<ReplyPiece, ProviderFault>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            self.body.as_ref()?;
            if let Err(fault) = self.step().await {
                self.body = None;
                // Pass on what was parsed, even where the rest never came.
                self.ready.extend(self.held.take().map(Ok));
                self.ready.push_back(Err(fault));
            }
        }
    }

    async fn step(&mut self) -> Result<(), ProviderFault> {
        match self.splitter.next() {
            Ok(Cut::Frame(frame)) => self.take(frame),
            Ok(Cut::End) => self.end(),
            Ok(Cut::More) => {
                let Some(body) = &mut self.body else { return Ok(()) };
                if let Some(bytes) = body.chunk().await? {
                    self.splitter.push(bytes.as_ref());
                    return Ok(());
                }
                if let Some(frame) = self.splitter.rest() {
                    self.take(frame)?;
                }
                if self.body.is_some() { self.end() } else { Ok(()) }
            }
            Err(CutRefused::TooLong) if self.is_native && self.splitter.cuts_events() => {
                let raw = self.splitter.surrender();
                self.ready.push_back(Ok(ReplyPiece { frame: raw, unread: 1, ..ReplyPiece::default() }));
                self.has_begun = true;
                Ok(())
            }
            Err(refused) => Err(ProviderFault::NotUnderstood(refused.as_str().to_owned())),
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), ProviderFault> {
        let Some(data) = frame.data.as_deref().filter(|data| !data.is_empty()) else {
            self.take_comment(frame.raw);
            return Ok(());
        };
        let parsed = match parse(self.parser.as_mut(), data, self.is_native) {
            Ok(parsed) => parsed,
            Err(error) => return Err(self.fail(error, data)),
        };
        self.request_id = self.request_id.take().or(parsed.request_id);
        self.model = self.model.take().or(parsed.model);
        let Parsed { deltas, hidden_tokens, usage, shown, end, is_unread, .. } = parsed;
        let mut piece = ReplyPiece {
            deltas,
            hidden_tokens,
            usage,
            is_last: end == End::Last,
            unread: u64::from(is_unread),
            ..ReplyPiece::default()
        };
        if self.is_native {
            piece.frame = std::mem::take(&mut self.comments);
            piece.frame.extend(shown_of(frame, shown));
        }
        self.has_begun = true;
        self.ready.extend(self.held.take().map(Ok));
        self.has_finished |= end != End::GoesOn;
        self.waits |= end == End::Finished;
        if end == End::Last {
            self.leave();
            self.ready.push_back(Ok(piece));
        } else if self.waits {
            self.held = Some(piece);
        } else {
            self.ready.push_back(Ok(piece));
        }
        Ok(())
    }

    /// The fault of a frame. A usage that is reported beside it is a piece before it, so that it is billed.
    fn fail(&mut self, error: ParseError, data: &[u8]) -> ProviderFault {
        let ReportedError { fault, usage } = reported_error(error, data);
        self.ready.extend(self.held.take().map(Ok));
        self.ready.extend(usage.map(|usage| Ok(ReplyPiece { usage: Some(usage), ..ReplyPiece::default() })));
        fault
    }

    fn take_comment(&mut self, raw: Vec<u8>) {
        if !self.is_native {
            return;
        }
        match &mut self.held {
            Some(held) => held.frame.extend(raw),
            None if self.has_begun => self.ready.push_back(Ok(ReplyPiece { frame: raw, ..ReplyPiece::default() })),
            None => match &self.heard_by {
                Some(heard_by) => heard_by.comment(raw),
                None => self.comments.extend(raw),
            },
        }
    }

    /// The body ended in order. This is an error unless the model has finished or, in a native call, something came.
    fn end(&mut self) -> Result<(), ProviderFault> {
        match self.held.take() {
            Some(held) => self.ready.push_back(Ok(ReplyPiece { is_last: true, ..held })),
            None if self.has_finished || (self.is_native && self.has_begun) => {}
            None => return Err(broken_off()),
        }
        self.leave();
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(body) = self.body.take() {
            body.leave();
        }
    }
}

fn broken_off() -> ProviderFault {
    ProviderFault::Broken("it ended before its end".to_owned())
}

pub(super) fn reported_error(error: ParseError, data: &[u8]) -> ReportedError {
    match error {
        ParseError::Error(reported) => *reported,
        ParseError::Nonsense(why) => {
            tracing::warn!(bytes = data.len(), why, "a provider sent what is no answer");
            ReportedError { fault: ProviderFault::NotUnderstood(why.to_owned()), usage: None }
        }
    }
}

/// The bytes of a frame that the caller receives.
fn shown_of(frame: Frame, shown: Passthrough) -> Vec<u8> {
    let changed = match shown {
        Passthrough::AsItCame => return frame.raw,
        Passthrough::Nothing => return Vec::new(),
        Passthrough::Data(changed) => changed,
    };
    let data = frame.data.unwrap_or_default();
    let place = frame.raw.windows(data.len().max(1)).position(|window| window == data);
    let around = place.and_then(|place| Some((frame.raw.get(..place)?, frame.raw.get(place + data.len()..)?)));
    if let Some((before, after)) = around {
        return [before, changed.as_bytes(), after].concat();
    }
    // The data was spread over several lines.
    let lines: Vec<&str> = changed.lines().collect();
    format!("data: {}\n\n", lines.join("\ndata: ")).into_bytes()
}

/// The error for one in the middle of a reply: its fault is the same as for an error response with `status`.
pub(super) fn error_within(
    status: u16,
    details: errors::ErrorDetails,
    usage: Option<ReportedUsage>,
    data: &[u8],
) -> ParseError {
    let retry_after = details.retry_after;
    let fault = errors::fault_of(status, details, data.to_vec(), retry_after);
    // A usage of no tokens is no sign of a bill.
    let usage = usage.filter(|usage| usage.read().usage.tokens.total() > 0);
    ParseError::Error(Box::new(ReportedError { fault, usage }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_frame_keeps_what_is_around_its_data() {
        let changed = |raw: &str, data: &str| {
            let frame = Frame { raw: raw.into(), data: Some(data.into()) };
            String::from_utf8(shown_of(frame, Passthrough::Data("{\"new\":1}".into()))).unwrap()
        };
        assert_eq!(changed("id: 1\r\ndata:{}\r\n\r\n", "{}"), "id: 1\r\ndata:{\"new\":1}\r\n\r\n");
        assert_eq!(changed("data: {\ndata: }\n\n", "{\n}"), "data: {\"new\":1}\n\n");
    }
}
