//! Streams: a response that is sent while its answer arrives.
//!
//! Promises: the head of a stream waits for the answer to begin, so that an early failure has a status of its own, but
//! only for `head_wait`; then it is sent with a ping, and a later failure is reported as the dialect's error. While
//! nothing arrives, a ping is sent every `ping_every`; comments of a provider are passed on. Pings go to the client
//! only: a sink keeps none. Nothing bounds how long a stream lasts, except the provider's silence.
//!
//! Costs: a task, a channel and a timer a stream.

use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::Bytes;
use services::ai::StreamPace;
use services::ai::answers::{AnswerHead, AnswerPiece, CallReceipt, StartedCall};
use services::ai::errors::CallError;
use tokio::sync::{SemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument;

use super::super::refusals::{UnansweredCall, not_in_the_books, of_break_off, unanswered};
use super::super::rendering::{AnswerEnd, AnswerRenderer};
use super::client::{self, ClientWriter};
use super::{AnswerWriting, Begun, Body, RenderedSink, heading};
use crate::http::problem::Problem;

/// How many pieces may wait for a client to read them.
const UNREAD_AT_MOST: usize = 64;
/// How long a client may leave them unread before it counts as gone.
const UNREAD_PATIENCE: Duration = Duration::from_secs(20);

/// Tells a proxy not to buffer a stream.
static BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a stream is rendered from.
struct Source {
    /// `None` once the answer has begun.
    head: Option<oneshot::Receiver<Result<AnswerHead, CallError>>>,
    comments: mpsc::Receiver<Vec<u8>>,
    pieces: mpsc::Receiver<AnswerPiece>,
    /// What arrived while the head was awaited.
    first: Option<AnswerPiece>,
}

/// What arrives next.
enum Heard {
    Head(Result<AnswerHead, CallError>),
    Comment(Vec<u8>),
    /// `None` after the last one.
    Piece(Option<AnswerPiece>),
    Silence,
    ClientLeft,
}

/// Waits for the answer to begin, for `head_wait` at most, and leaves the rest to a task that renders it.
pub(super) async fn begin(
    started: StartedCall,
    writing: AnswerWriting,
    pace: StreamPace,
    permit: SemaphorePermit<'static>,
) -> Result<Begun, UnansweredCall> {
    let StartedCall { expected, mut head, comments, mut pieces } = started;
    let AnswerWriting { renderer, mut sink, native, .. } = writing;
    let until = Instant::now() + pace.head_wait;
    let known = match timeout_at(until, &mut head).await {
        Ok(Ok(Ok(head))) => Some(head),
        Ok(Ok(Err(error))) => return Err(unanswered(error, &native)),
        Ok(Err(_)) => return Err(Problem::from(CallError::lost()).into()),
        Err(_) => None,
    };
    let mut first = None;
    if let Some(head) = &known {
        first = match timeout_at(until, pieces.recv()).await {
            Ok(Some(AnswerPiece::Broken(why))) => return Err(of_break_off(head.provider.id.as_str(), &why).into()),
            Ok(None) => return Err(not_in_the_books().into()),
            Ok(first) => first,
            Err(_) => None,
        };
    }
    let shown = known.as_ref().unwrap_or(&expected);
    let mut heading = heading(shown, &renderer.content_type(shown));
    heading.headers.push((BUFFERING.clone(), HeaderValue::from_static("no")));
    sink.begin(&heading);
    let (writer, reader) = client::channel(UNREAD_AT_MOST);
    let source = Source { head: known.is_none().then_some(head), comments, pieces, first };
    let rendering = Rendering {
        head: known.unwrap_or(expected),
        renderer,
        output: Output { client: Some(writer), sink },
        ping_every: pace.ping_every,
        next_ping: Instant::now() + pace.ping_every,
        unwritten: Vec::new(),
    };
    let work = async move {
        let _permit = permit;
        rendering.run(source).await;
    };
    tokio::spawn(work.in_current_span());
    Ok(Begun { heading, body: Body::Stream(reader) })
}

/// Where rendered bytes go.
struct Output {
    client: Option<ClientWriter>,
    sink: Box<dyn RenderedSink>,
}

impl Output {
    /// Returns whether the client or the sink wants more.
    async fn write(&mut self, bytes: Vec<u8>) -> bool {
        let bytes = Bytes::from(bytes);
        if !bytes.is_empty() {
            self.sink.write(&bytes);
            if let Some(client) = &self.client
                && client.send(bytes, UNREAD_PATIENCE).await.is_err()
            {
                self.client = None;
            }
        }
        self.client.is_some() || self.sink.wants_the_rest()
    }

    /// To the client only. It is dropped if the channel is full: a client with pieces to read needs no ping.
    fn ping(&self, bytes: Vec<u8>) {
        if let Some(client) = &self.client {
            client.try_send(Bytes::from(bytes));
        }
    }

    /// The client has everything: its stream ends in order.
    fn finish(&mut self) {
        if let Some(client) = self.client.take() {
            client.finish();
        }
    }

    /// Returns once the client has gone, if the sink does not want the rest.
    async fn left(&self) {
        match &self.client {
            Some(client) if !self.sink.wants_the_rest() => client.closed().await,
            _ => std::future::pending().await,
        }
    }
}

/// The task that renders a stream.
struct Rendering {
    /// The expected one, until the answer begins.
    head: AnswerHead,
    renderer: Box<dyn AnswerRenderer>,
    output: Output,
    ping_every: Duration,
    next_ping: Instant,
    /// The opening of the answer, until something follows it.
    unwritten: Vec<u8>,
}

impl Rendering {
    async fn run(mut self, mut source: Source) {
        if source.head.is_some() {
            self.ping();
        } else {
            self.open(&mut source);
        }
        let (mut is_cut, mut receipt) = (false, None::<CallReceipt>);
        loop {
            match self.next(&mut source).await {
                Heard::Silence => self.ping(),
                Heard::ClientLeft => return self.output.sink.end(false),
                Heard::Comment(bytes) => {
                    if !self.write(bytes).await {
                        return self.output.sink.end(false);
                    }
                }
                Heard::Head(Ok(head)) => {
                    (self.head, source.head) = (head, None);
                    self.open(&mut source);
                }
                Heard::Head(Err(error)) => match unanswered(error, &[]) {
                    UnansweredCall::Problem(problem) => return self.break_off(&problem).await,
                    // Never without `native`, which is not passed since the status has been sent.
                    UnansweredCall::InItsWords(_) => return self.break_off(&not_in_the_books()).await,
                },
                Heard::Piece(Some(AnswerPiece::Piece(piece))) => {
                    let bytes = self.renderer.piece(&piece);
                    if !self.write(bytes).await {
                        return self.output.sink.end(false);
                    }
                }
                Heard::Piece(Some(AnswerPiece::Cut)) => is_cut = true,
                Heard::Piece(Some(AnswerPiece::Broken(why))) => {
                    let problem = of_break_off(self.head.provider.id.as_str(), &why);
                    return self.break_off(&problem).await;
                }
                Heard::Piece(Some(AnswerPiece::Settled(settled))) => receipt = Some(settled),
                Heard::Piece(None) => break,
            }
        }
        let not_written = not_in_the_books();
        let end = match (is_cut, &receipt) {
            (true, receipt) => AnswerEnd::Cut(receipt.as_ref()),
            (false, Some(receipt)) => AnswerEnd::Settled(receipt),
            (false, None) => AnswerEnd::Broken(&not_written),
        };
        let bytes = [std::mem::take(&mut self.unwritten), self.renderer.end(end)].concat();
        self.write(bytes).await;
        self.output.finish();
        self.output.sink.end(receipt.is_some());
    }

    /// The answer begins: comments that its provider sent before go first.
    fn open(&mut self, source: &mut Source) {
        while let Ok(comment) = source.comments.try_recv() {
            self.unwritten.extend(comment);
        }
        let opening = self.renderer.begin(&self.head);
        self.unwritten.extend(opening);
    }

    async fn next(&mut self, source: &mut Source) -> Heard {
        if let Some(first) = source.first.take() {
            return Heard::Piece(Some(first));
        }
        let Source { head, comments, pieces, .. } = source;
        tokio::select! {
            biased;
            Some(comment) = comments.recv(), if head.is_some() => Heard::Comment(comment),
            known = began(head), if head.is_some() => Heard::Head(known),
            piece = pieces.recv(), if head.is_none() => Heard::Piece(piece),
            () = self.output.left() => Heard::ClientLeft,
            () = sleep_until(self.next_ping) => Heard::Silence,
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> bool {
        if bytes.is_empty() {
            return self.output.write(bytes).await;
        }
        let bytes =
            if self.unwritten.is_empty() { bytes } else { [std::mem::take(&mut self.unwritten), bytes].concat() };
        let is_wanted = self.output.write(bytes).await;
        self.next_ping = Instant::now() + self.ping_every;
        is_wanted
    }

    fn ping(&mut self) {
        self.output.ping(self.renderer.ping());
        self.next_ping = Instant::now() + self.ping_every;
    }

    async fn break_off(mut self, problem: &Problem) {
        let bytes = self.renderer.end(AnswerEnd::Broken(problem));
        self.write(bytes).await;
        self.output.finish();
        self.output.sink.end(false);
    }
}

/// Returns the head once the answer begins.
async fn began(head: &mut Option<oneshot::Receiver<Result<AnswerHead, CallError>>>) -> Result<AnswerHead, CallError> {
    match head {
        Some(head) => head.await.unwrap_or_else(|_| Err(CallError::lost())),
        None => std::future::pending().await,
    }
}
