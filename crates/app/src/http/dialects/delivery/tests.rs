use std::sync::Mutex;
use std::time::Duration;

use domain::ai::Dialect;
use ports::ai::{ProviderFault, ProviderWait, ReplyPiece};
use services::ai::StreamPace;
use services::ai::answers::{BreakOff, StartedCall};
use services::ai::errors::CallError;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::http::dialects::request_summary::OutputForm;
use crate::http::dialects::samples::{ARRAY, EVENTS, frame, head, piece, receipt, text};

/// Keeps what it receives, for the test to check.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<KeptAnswer>>);

#[derive(Default)]
struct KeptAnswer {
    heading: Option<DeliveryHeading>,
    bytes: Vec<u8>,
    is_whole: Option<bool>,
    wants_the_rest: bool,
}

impl RenderedSink for Kept {
    fn begin(&mut self, heading: &DeliveryHeading) {
        self.0.lock().unwrap().heading = Some(heading.clone());
    }

    fn write(&mut self, bytes: &Bytes) {
        self.0.lock().unwrap().bytes.extend_from_slice(bytes);
    }

    fn end(&mut self, is_whole: bool) {
        let before = self.0.lock().unwrap().is_whole.replace(is_whole);
        assert_eq!(before, None, "it ends once");
    }

    fn wants_the_rest(&self) -> bool {
        self.0.lock().unwrap().wants_the_rest
    }
}

impl Kept {
    fn is_whole(&self) -> Option<bool> {
        self.0.lock().unwrap().is_whole
    }

    async fn ended(&self) -> bool {
        loop {
            if let Some(is_whole) = self.is_whole() {
                return is_whole;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn writing(form: OutputForm, sink: &Kept) -> AnswerWriting {
    let renderer = frame(Dialect::OpenAiChat, form, false).renderer();
    AnswerWriting { renderer, is_streamed: form != OutputForm::Whole, native: Vec::new(), sink: Box::new(sink.clone()) }
}

fn says(said: &str) -> AnswerPiece {
    AnswerPiece::Piece(piece(&[text(said)]))
}

const PACE: StreamPace = StreamPace { head_wait: Duration::from_secs(5), ping_every: Duration::from_secs(10) };

/// A stream whose head is there at once.
async fn stream(
    answer: CallAnswer,
    writing: AnswerWriting,
    place: SemaphorePermit<'static>,
) -> Result<Begun, UnansweredCall> {
    let (tell, told) = oneshot::channel();
    tell.send(Ok(answer.head.clone())).unwrap();
    let (_, comments) = mpsc::channel(1);
    let started = StartedCall { expected: answer.head, head: told, comments, pieces: answer.pieces };
    streams::begin(started, writing, PACE, place).await
}

async fn place() -> SemaphorePermit<'static> {
    PLACES.acquire().await.unwrap()
}

/// An answer whose pieces are all there.
fn answer(pieces: Vec<AnswerPiece>) -> CallAnswer {
    let (sender, receiver) = mpsc::channel(pieces.len().max(1));
    for piece in pieces {
        sender.try_send(piece).unwrap();
    }
    CallAnswer { head: AnswerHead { lowered_to: Some(77), ..head() }, pieces: receiver }
}

fn header<'a>(heading: &'a DeliveryHeading, name: &str) -> Option<&'a str> {
    heading.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_str().unwrap())
}

async fn read(body: Body) -> String {
    let bytes = match body {
        Body::Whole(bytes) => bytes.to_vec(),
        Body::Stream(mut pieces) => {
            let mut all = Vec::new();
            while let Some(bytes) = pieces.next().await {
                all.extend_from_slice(&bytes.unwrap());
            }
            all
        }
    };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_whole_answer_is_collected_and_tells_its_cost() {
    let kept = Kept::default();
    let pieces = vec![says("one "), says("two"), AnswerPiece::Settled(receipt())];
    let begun = whole(answer(pieces), writing(OutputForm::Whole, &kept)).await.unwrap();
    assert_eq!(header(&begun.heading, "x-product-base-cost-usd"), Some("0.0015"));
    assert_eq!(header(&begun.heading, "x-product-base-max-tokens"), Some("77"));
    assert_eq!(header(&begun.heading, "x-product-base-call-id"), Some("00000000-0000-0000-0000-00000000ca11"));
    assert_eq!(header(&begun.heading, "cache-control"), Some("no-store"));
    assert_eq!(header(&begun.heading, "content-type"), Some("application/json"));
    let body = read(begun.body).await;
    assert!(body.contains("one two"), "{body}");
    let kept = kept.0.lock().unwrap();
    assert_eq!((kept.heading.as_ref(), kept.is_whole), (Some(&begun.heading), Some(true)));
    assert_eq!(String::from_utf8_lossy(&kept.bytes), body);
}

#[tokio::test]
async fn a_whole_answer_that_breaks_is_an_error_with_its_status() {
    let broken = AnswerPiece::Broken(BreakOff::Provider(ProviderFault::TimedOut(ProviderWait::Rest)));
    for (pieces, status) in [
        (vec![says("one"), broken.clone(), AnswerPiece::Settled(receipt())], 504),
        (vec![says("one")], 503),
        (vec![AnswerPiece::Broken(BreakOff::KeyRevoked)], 401),
    ] {
        let kept = Kept::default();
        let Err(UnansweredCall::Problem(problem)) = whole(answer(pieces), writing(OutputForm::Whole, &kept)).await
        else {
            panic!("it is a problem")
        };
        assert_eq!((problem.status.as_u16(), kept.is_whole()), (status, None));
    }
    // A stream that breaks before its first piece has no head yet.
    let pieces = vec![broken, AnswerPiece::Settled(receipt())];
    let Err(UnansweredCall::Problem(problem)) =
        stream(answer(pieces), writing(EVENTS, &Kept::default()), place().await).await
    else {
        panic!("it is a problem")
    };
    assert_eq!(problem.status.as_u16(), 504);
}

#[tokio::test]
async fn a_stream_is_written_piece_by_piece() {
    let kept = Kept::default();
    let (sender, pieces) = mpsc::channel(8);
    sender.send(says("one")).await.unwrap();
    let begun = stream(CallAnswer { head: head(), pieces }, writing(EVENTS, &kept), place().await).await.unwrap();
    assert_eq!(header(&begun.heading, "content-type"), Some("text/event-stream"));
    assert_eq!(header(&begun.heading, "x-product-base-cost-usd"), None, "it is not known yet");
    let Body::Stream(mut body) = begun.body else { panic!("it is a stream") };
    let first = String::from_utf8(body.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(first.contains("\"role\"") && first.contains("\"one\""), "{first}");
    sender.send(AnswerPiece::Cut).await.unwrap();
    sender.send(AnswerPiece::Settled(receipt())).await.unwrap();
    drop(sender);
    let rest = read(Body::Stream(body)).await;
    assert!(rest.contains("\"length\"") && rest.ends_with("[DONE]\n\n"), "{rest}");
    assert!(kept.ended().await, "an answer that was cut is whole: it ended as the gateway wanted");
}

#[tokio::test]
async fn a_stream_that_breaks_or_is_in_no_book_ends_with_an_error() {
    let broken = AnswerPiece::Broken(BreakOff::KeyRevoked);
    for (after, word) in
        [(vec![broken, AnswerPiece::Settled(receipt())], "invalid_api_key"), (vec![], "outcome_unknown")]
    {
        let kept = Kept::default();
        let pieces = std::iter::once(says("one")).chain(after).collect();
        let begun = stream(answer(pieces), writing(EVENTS, &kept), place().await).await.unwrap();
        let body = read(begun.body).await;
        assert!(body.contains("\"one\"") && body.contains(word) && !body.contains("[DONE]"), "{body}");
        assert!(!kept.ended().await);
    }
}

#[tokio::test]
async fn who_hangs_up_lets_the_answer_go_unless_it_is_kept() {
    for wants_the_rest in [false, true] {
        let kept = Kept::default();
        kept.0.lock().unwrap().wants_the_rest = wants_the_rest;
        let (sender, pieces) = mpsc::channel::<AnswerPiece>(1);
        sender.send(says("one")).await.unwrap();
        let begun = stream(CallAnswer { head: head(), pieces }, writing(EVENTS, &kept), place().await).await.unwrap();
        drop(begun);
        if wants_the_rest {
            sender.send(says("two")).await.unwrap();
            sender.send(AnswerPiece::Settled(receipt())).await.unwrap();
            drop(sender);
            assert!(kept.ended().await);
            let bytes = String::from_utf8(kept.0.lock().unwrap().bytes.clone()).unwrap();
            assert!(bytes.contains("\"two\"") && bytes.ends_with("[DONE]\n\n"), "{bytes}");
        } else {
            // The service notices that the client has gone, though no more pieces arrive.
            sender.closed().await;
            assert!(!kept.ended().await);
        }
    }
}

#[tokio::test]
async fn a_piece_that_says_nothing_is_not_written() {
    let (pieces, kept) =
        (vec![AnswerPiece::Piece(ReplyPiece::default()), AnswerPiece::Settled(receipt())], Kept::default());
    let begun = stream(answer(pieces), writing(EVENTS, &kept), place().await).await.unwrap();
    let body = read(begun.body).await;
    assert_eq!(body.matches("data: ").count(), 4, "the role, the end, the usage, and [DONE]: {body}");
}

/// A call of which nothing has arrived yet, and the senders that feed it.
struct Feeding {
    head: oneshot::Sender<Result<AnswerHead, CallError>>,
    comments: mpsc::Sender<Vec<u8>>,
    pieces: mpsc::Sender<AnswerPiece>,
}

fn nothing_yet() -> (StartedCall, Feeding) {
    let ((head_in, head_out), (comments_in, comments_out), (pieces_in, pieces_out)) =
        (oneshot::channel(), mpsc::channel(8), mpsc::channel(8));
    let started = StartedCall { expected: head(), head: head_out, comments: comments_out, pieces: pieces_out };
    (started, Feeding { head: head_in, comments: comments_in, pieces: pieces_in })
}

fn of(dialect: Dialect, form: OutputForm, sink: &Kept) -> AnswerWriting {
    AnswerWriting { renderer: frame(dialect, form, false).renderer(), ..writing(form, sink) }
}

/// So short that a test need not wait.
const HURRIED: StreamPace = StreamPace { head_wait: Duration::from_millis(20), ping_every: Duration::from_millis(10) };

/// Reads until `needle` has appeared so many times.
async fn until(body: &mut ClientReader, text: &mut String, needle: &str, times: usize) {
    while text.matches(needle).count() < times {
        let bytes = body.next().await.unwrap_or_else(|| panic!("it ended without {needle:?}: {text}"));
        text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
    }
}

#[tokio::test]
async fn a_silent_stream_begins_in_time_and_is_pinged_in_each_dialect() {
    let of_anthropic = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    for (dialect, form, first, ping) in [
        (Dialect::OpenAiChat, EVENTS, ": ping\n\n", ": ping\n\n"),
        (Dialect::Anthropic, EVENTS, of_anthropic, of_anthropic),
        (Dialect::Gemini, EVENTS, "\r\n\r\n", "\r\n\r\n"),
        (Dialect::Gemini, ARRAY, "[\r\n", "\r\n"),
    ] {
        let (kept, (started, feed)) = (Kept::default(), nothing_yet());
        let begun = streams::begin(started, of(dialect, form, &kept), HURRIED, place().await).await.unwrap();
        assert_eq!(begun.heading.status, 200);
        assert_eq!(header(&begun.heading, "x-product-base-call-id"), Some("00000000-0000-0000-0000-00000000ca11"));
        let Body::Stream(mut body) = begun.body else { panic!("it is a stream") };
        let mut text = String::new();
        until(&mut body, &mut text, ping, 4).await;
        assert_eq!(text, format!("{first}{}", ping.repeat(text.matches(ping).count() - 1)), "{dialect:?}");
        feed.head.send(Ok(head())).unwrap();
        feed.pieces.send(says("one")).await.unwrap();
        until(&mut body, &mut text, "one", 1).await;
        let mut after = String::new();
        until(&mut body, &mut after, ping, 2).await;
        assert!(after.starts_with(ping), "also between the pieces: {after}");
        feed.pieces.send(says("two")).await.unwrap();
        feed.pieces.send(AnswerPiece::Settled(receipt())).await.unwrap();
        drop(feed.pieces);
        let whole = text + &after + &read(Body::Stream(body)).await;
        if form == ARRAY {
            let array: serde_json::Value = serde_json::from_str(&whole).unwrap_or_else(|_| panic!("{whole}"));
            assert!(array.as_array().unwrap().len() > 1, "{whole}");
        }
        assert!(whole.contains("two") && kept.ended().await);
        let bytes = String::from_utf8(kept.0.lock().unwrap().bytes.clone()).unwrap();
        assert!(bytes.contains("one") && bytes.contains("two"), "{bytes}");
        assert!(!bytes.contains("ping") && !bytes.starts_with("\r\n"), "pings are the client's alone: {bytes}");
    }
}

#[tokio::test]
async fn what_fails_early_has_a_status_and_what_fails_late_is_an_event() {
    let late = || CallError::BrokenOff(BreakOff::Provider(ProviderFault::TimedOut(ProviderWait::FirstByte)));
    for (dialect, form) in [
        (Dialect::OpenAiChat, EVENTS),
        (Dialect::Anthropic, EVENTS),
        (Dialect::Gemini, EVENTS),
        (Dialect::Gemini, ARRAY),
    ] {
        let (kept, (started, feed)) = (Kept::default(), nothing_yet());
        feed.head.send(Err(late())).unwrap();
        let failed = streams::begin(started, of(dialect, form, &kept), PACE, place().await).await;
        let Err(UnansweredCall::Problem(problem)) = failed else { panic!("it is a problem") };
        assert_eq!((problem.status.as_u16(), kept.is_whole()), (504, None));

        let (started, feed) = nothing_yet();
        let begun = streams::begin(started, of(dialect, form, &kept), HURRIED, place().await).await.unwrap();
        feed.head.send(Err(late())).unwrap();
        let body = read(begun.body).await;
        assert!(body.contains("\"error\"") && body.contains("did not send the first byte"), "{dialect:?}: {body}");
        assert!(!body.contains("message_start") && !body.contains("[DONE]"), "{body}");
        if form == ARRAY {
            serde_json::from_str::<serde_json::Value>(&body).unwrap();
        }
        assert!(!kept.ended().await);
    }
}

#[tokio::test]
async fn comments_pass_before_the_answer_as_they_come() {
    let (kept, (started, feed)) = (Kept::default(), nothing_yet());
    feed.comments.send(b": early\n\n".to_vec()).await.unwrap();
    let begun = streams::begin(started, writing(EVENTS, &kept), HURRIED, place().await).await.unwrap();
    let Body::Stream(mut body) = begun.body else { panic!("it is a stream") };
    let mut text = String::new();
    until(&mut body, &mut text, ": early\n\n", 1).await;
    feed.comments.send(b": later\n\n".to_vec()).await.unwrap();
    until(&mut body, &mut text, ": later\n\n", 1).await;
    feed.comments.send(b": last\n\n".to_vec()).await.unwrap();
    feed.head.send(Ok(head())).unwrap();
    feed.pieces.send(says("one")).await.unwrap();
    until(&mut body, &mut text, "one", 1).await;
    assert!(text.find(": last").unwrap() < text.find("one").unwrap(), "{text}");
}

/// A client must not take a part for the whole: the connection is cut.
#[tokio::test]
async fn a_stream_that_was_not_written_to_its_end_ends_with_a_fault() {
    for is_whole in [true, false] {
        let (writer, reader) = client::channel(2);
        writer.send(Bytes::from_static(b"one"), Duration::from_secs(1)).await.unwrap();
        if is_whole {
            writer.finish();
        } else {
            drop(writer);
        }
        let begun = Begun { heading: DeliveryHeading { status: 200, headers: Vec::new() }, body: Body::Stream(reader) };
        let read = actix_web::body::to_bytes(begun.answer().into_body()).await;
        assert_eq!(read.is_ok(), is_whole);
    }
}
