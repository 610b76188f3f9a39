//! The stub over real sockets: pieces, pauses, breaks, and the bill of each.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bill::BillEnding;
use super::refusals::{Refusal, Why};
use super::script::{AnswerPace, ChargedPart, Fault, PieceSplit, Script, UsageTold};
use super::server::{Upstream, UpstreamSettings};
use super::usage::UsageParts;

/// A stream of OpenAI: the role, a chunk for each of eight words, the finish, and `[DONE]`.
const STREAM: &str =
    r#"{"model":"m","stream":true,"stream_options":{"include_obfuscation":false},"messages":[{"content":"one two"}]}"#;
const PLAIN: &str = r#"{"model":"m","messages":[{"content":"one two"}]}"#;

async fn ask(stub: &Upstream, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(stub.address()).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer k\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The bytes until the connection ended, and how it ended.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, std::io::Result<()>) {
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).await;
    (answer, end.map(|_| ()))
}

/// The HTTP chunks of a complete response.
fn chunks(answer: &[u8]) -> Vec<Vec<u8>> {
    let start = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let mut rest = &answer[start..];
    let mut chunks = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        chunks.push(rest[end + 2..end + 2 + size].to_vec());
        rest = &rest[end + 2 + size + 2..];
    }
    assert_eq!(chunks.pop(), Some(Vec::new()), "the last chunk is empty");
    chunks
}

fn usage(uncached_in: u64, out_visible: u64) -> UsageParts {
    UsageParts { uncached_in, out_visible, ..UsageParts::default() }
}

#[tokio::test]
async fn requests_are_remembered_and_charged_in_turn() {
    let stub = Upstream::start();
    stub.script("m", Script::words(3));
    stub.script_next(2, "m", Script::refuses(Refusal::too_fast(Some(7))));
    stub.script_next(1, "m", Script::fails(Fault::ErrorWith200(Refusal::of(Why::Broken))));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let (answer, end) = rest(&mut ask(&stub, PLAIN).await).await;
        end.unwrap();
        statuses.push(String::from_utf8(answer).unwrap());
    }
    assert!(
        statuses[0].starts_with("HTTP/1.1 429 Too Many Requests\r\n") && statuses[1].contains("\r\nretry-after: 7\r\n")
    );
    assert!(statuses[2].starts_with("HTTP/1.1 200 OK\r\n") && statuses[2].contains("server_error"));
    assert!(statuses[3].contains("\"completion_tokens\":3"));
    let bill = stub.settled(4).await;
    assert_eq!(bill.iter().map(|line| line.usage.output()).collect::<Vec<_>>(), [0, 0, 0, 3]);
    assert_eq!(
        (bill[3].number, bill[3].status, bill[3].usage, bill[3].ending),
        (4, 200, usage(2, 3), BillEnding::Finished)
    );
    // Two words in at 2,000.000001 nano-dollars and three out at 10,000.000029.
    assert_eq!((bill[3].nano_dollars, stub.totals().nano_dollars), (34_000, 34_000));
    let requests = stub.requests();
    assert_eq!((requests.len(), requests[3].body.as_slice()), (4, PLAIN.as_bytes()));
    assert_eq!(requests[3].header("authorization"), Some("Bearer k"));
    stub.clear();
    assert_eq!((stub.requests().len(), stub.bill().len(), stub.totals().requests), (0, 0, 0));
    stub.accept_only("other");
    let (answer, _) = rest(&mut ask(&stub, PLAIN).await).await;
    assert!(answer.starts_with(b"HTTP/1.1 401 "));
    assert_eq!(stub.settled(1).await[0].number, 5, "no id comes twice");
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_forgets_the_oldest() {
    let stub = Upstream::start_with(&UpstreamSettings { kept: 2, ..UpstreamSettings::default() });
    let mut stream = TcpStream::connect(stub.address()).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer k\r\ncontent-length: {}\r\n\r\n{PLAIN}",
        PLAIN.len()
    );
    stream.write_all(request.repeat(3).as_bytes()).await.unwrap();
    stub.until("for three answers", |stub| stub.totals().finished == 3).await;
    stream.shutdown().await.unwrap();
    let (answer, _) = rest(&mut stream).await;
    assert_eq!(String::from_utf8(answer).unwrap().matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!((stub.requests().len(), stub.bill().len(), stub.totals().usage), (2, 2, usage(6, 24)));
}

#[tokio::test]
async fn the_totals_can_be_asked_for_from_another_process() {
    let stub = Upstream::start();
    rest(&mut ask(&stub, PLAIN).await).await.1.unwrap();
    for (request, totals) in [
        (
            "GET /stub/totals",
            r#"{"requests":1,"answering":0,"answering_at_most":1,"finished":1,"clients_left":0,"broken_off":0,"input":2,"output":8,"nano_dollars":84000}"#,
        ),
        (
            "POST /stub/clear",
            r#"{"requests":0,"answering":0,"answering_at_most":0,"finished":0,"clients_left":0,"broken_off":0,"input":0,"output":0,"nano_dollars":0}"#,
        ),
    ] {
        let mut stream = TcpStream::connect(stub.address()).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let answer = String::from_utf8(rest(&mut stream).await.0).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{totals}")), "{answer}");
    }
    assert_eq!(stub.totals().requests, 0, "nobody is charged for asking");
}

#[tokio::test]
async fn a_body_is_cut_where_the_script_says() {
    let stub = Upstream::start();
    let mut whole = None;
    for split in [
        PieceSplit::Joined,
        PieceSplit::Events,
        PieceSplit::Every(5),
        PieceSplit::InsideCharacters,
        PieceSplit::InsideLines,
    ] {
        stub.script("m", Script::words(8).split(split));
        let (answer, _) = rest(&mut ask(&stub, STREAM).await).await;
        let chunks = chunks(&answer);
        let number = format!("stub{}", stub.totals().requests);
        let body = String::from_utf8(chunks.concat()).unwrap().replace(&number, "stub");
        assert_eq!(&body, whole.get_or_insert(body.clone()), "{split:?}");
        let broken = chunks.iter().filter(|chunk| std::str::from_utf8(chunk).is_err()).count();
        match split {
            PieceSplit::Joined => assert_eq!(chunks.len(), 1),
            PieceSplit::Events => assert!(chunks.len() == 11 && chunks.iter().all(|chunk| chunk.ends_with(b"\n\n"))),
            PieceSplit::Every(bytes) => assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk.len() == bytes)),
            // The words contain ï, 東, 京, ü and 🦀: five cuts, and every piece begins or ends within one of them.
            PieceSplit::InsideCharacters => assert_eq!((chunks.len(), broken), (6, 6)),
            PieceSplit::InsideLines => {
                // No piece contains both ends of an event, and every line is split.
                assert_eq!(chunks.len(), 23);
                assert!(chunks.iter().all(|chunk| !chunk.windows(2).any(|two| two == b"\n\n")));
            }
        }
    }
}

#[tokio::test]
async fn pauses_stand_where_the_script_says() {
    let stub = Upstream::start();
    let pause = Duration::from_millis(30);
    let pace = AnswerPace { before_head: pause, first_token: pause, between: pause, split: PieceSplit::Events };
    stub.script("m", Script::words(1).paced(pace).telling(UsageTold::Late(pause)));
    let started = Instant::now();
    let asked = STREAM.replace("\"include_obfuscation\"", "\"include_usage\":true,\"include_obfuscation\"");
    let mut stream = ask(&stub, &asked).await;
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert!(started.elapsed() >= pause);
    // The first chunk, four more (a word, the finish, the usage, the end), and the usage late.
    rest(&mut stream).await.1.unwrap();
    assert!(started.elapsed() >= pause * 7, "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_breaks_where_the_script_says() {
    let stub = Upstream::start();
    for (fault, is_reset, delivered) in [
        (Fault::ResetAfter { bytes: 300 }, true, 300),
        (Fault::CloseAfter { bytes: 300 }, false, 300),
        (Fault::ResetAfter { bytes: 0 }, true, 0),
        (Fault::ResetBeforeHead, true, 0),
        (Fault::CloseBeforeHead, false, 0),
    ] {
        stub.clear();
        stub.script("m", Script::words(8).with_fault(fault.clone()));
        let (answer, end) = rest(&mut ask(&stub, STREAM).await).await;
        let kind = end.err().map(|error| error.kind());
        assert_eq!(kind, is_reset.then_some(std::io::ErrorKind::ConnectionReset), "{fault:?}");
        assert!(!answer.ends_with(b"0\r\n\r\n"), "{fault:?}");
        let line = stub.settled(1).await.remove(0);
        assert_eq!((line.ending, line.delivered), (BillEnding::BrokenOff, delivered), "{fault:?}");
        // The role's chunk has 237 bytes, so byte 300 is in the first word's chunk.
        assert_eq!(line.usage, if delivered == 0 { UsageParts::default() } else { usage(2, 1) }, "{fault:?}");
    }
    stub.script("m", Script::fails(Fault::Garbage { after_events: 1 }));
    let (answer, _) = rest(&mut ask(&stub, STREAM).await).await;
    assert!(String::from_utf8(chunks(&answer).concat()).is_err());
    stub.script("m", Script::fails(Fault::WrongContentType("text/html".to_owned())));
    let (answer, _) = rest(&mut ask(&stub, PLAIN).await).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("\r\ncontent-type: text/html\r\n") && answer.contains("chat.completion"));
}

#[tokio::test]
async fn who_leaves_is_charged_for_what_was_said() {
    let stub = Upstream::start();
    for charges in [ChargedPart::Generated, ChargedPart::Whole] {
        for events in 0..=11_u64 {
            stub.clear();
            let fault = Fault::HoldAfter { events: usize::try_from(events).unwrap() };
            stub.script("m", Script::words(8).with_fault(fault).charging(charges));
            let stream = ask(&stub, STREAM).await;
            stub.until("for the hold", |stub| stub.held() == 1).await;
            assert_eq!((stub.bill()[0].ending, stub.totals().answering), (BillEnding::Answering, 1));
            drop(stream);
            let line = stub.settled(1).await.remove(0);
            let words = if charges == ChargedPart::Whole { 8 } else { events.saturating_sub(1).min(8) };
            let expected = if events == 0 { UsageParts::default() } else { usage(2, words) };
            assert_eq!((line.ending, line.usage), (BillEnding::ClientLeft, expected), "{charges:?} after {events}");
            assert_eq!(stub.totals().clients_left, 1);
        }
    }
}

#[tokio::test]
async fn what_is_held_goes_on_and_what_hangs_waits_for_the_client() {
    let stub = Upstream::start();
    stub.script("m", Script::words(2).with_fault(Fault::HoldAfter { events: 2 }));
    let mut stream = ask(&stub, STREAM).await;
    stub.until("for the hold", |stub| stub.held() == 1).await;
    stub.let_go(1);
    let (answer, end) = rest(&mut stream).await;
    end.unwrap();
    assert!(answer.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"));
    assert_eq!((stub.settled(1).await[0].ending, stub.totals().answering_at_most), (BillEnding::Finished, 1));
    for fault in [Fault::HangBeforeHead, Fault::HangAfter { bytes: 40 }] {
        stub.clear();
        stub.script("m", Script::fails(fault));
        let mut stream = ask(&stub, STREAM).await;
        let waited = tokio::time::timeout(Duration::from_millis(50), rest(&mut stream)).await;
        assert!(waited.is_err(), "nothing ends: {waited:?}");
        drop(stream);
        assert_eq!(stub.settled(1).await[0].ending, BillEnding::ClientLeft);
    }
}
