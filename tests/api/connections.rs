//! Connections: every wait for a client has a time limit, and the number of connections is limited.

use std::time::{Duration, Instant};

use harness::TestApp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Longer than every time limit of these tests, and short enough to detect a missing one.
const PATIENCE: Duration = Duration::from_secs(4);

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

/// With time limits of a second or two.
async fn impatient() -> TestApp {
    TestApp::with(|settings| {
        settings.server.head_timeout_seconds = 1;
        settings.server.idle_timeout_seconds = 2;
        settings.server.write_timeout_seconds = 1;
    })
    .await
}

async fn open(app: &TestApp, text: &str) -> TcpStream {
    let mut connection = TcpStream::connect(app.address()).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

/// The bytes until the connection ends, and the time that took.
async fn until_the_end(connection: &mut TcpStream, within: Duration) -> (String, Duration) {
    let (since, mut all) = (Instant::now(), Vec::new());
    let read = tokio::time::timeout(within, connection.read_to_end(&mut all)).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(read.is_ok(), "still open after {within:?}: {text}");
    (text, since.elapsed())
}

#[tokio::test]
async fn every_head_of_a_connection_has_its_deadline() {
    let app = impatient().await;
    let post = "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    let counted = format!("{post}Content-Length: 2\r\n\r\n{{}}");
    let opening = [
        String::new(),
        "G".to_owned(),
        "\r\n".to_owned(),
        "\r\n\r\n".to_owned(),
        format!("{GET}G"),
        format!("{GET}{GET}G"),
        format!("{GET}GET /healthz HTTP/1.1\r\nHost: a\r\nX: "),
        format!("{chunked}P"),
        format!("{counted}P"),
        format!("{counted}{GET}P"),
    ];
    let ends = opening.map(async |text| {
        let mut connection = open(&app, &text).await;
        let (_, took) = until_the_end(&mut connection, PATIENCE).await;
        assert!(took < Duration::from_millis(1_900), "{text:?} was kept for {took:?}");
    });
    futures_util::future::join_all(ends).await;
}

#[tokio::test]
async fn a_later_head_that_comes_apart_or_trickles_is_told_that_it_is_too_slow() {
    let app = impatient().await;
    let mut connection = open(&app, GET).await;
    let mut first = [0; 15];
    connection.read_exact(&mut first).await.unwrap();
    let (mut reader, mut writer) = connection.into_split();
    let trickle = async {
        for byte in GET.as_bytes() {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    let (since, mut rest) = (Instant::now(), String::new());
    tokio::select! {
        () = trickle => panic!("the whole head was waited for"),
        read = reader.read_to_string(&mut rest) => drop(read),
    }
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(rest.contains("HTTP/1.1 408 "), "{rest}");
}

#[tokio::test]
async fn an_idle_connection_ends_and_one_at_work_does_not() {
    let app = impatient().await;
    let mut connection = open(&app, GET).await;
    let (text, took) = until_the_end(&mut connection, PATIENCE).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && took > Duration::from_millis(1_500), "{took:?}: {text}");
    // Requests that arrive in time keep it open.
    let mut connection = TcpStream::connect(app.address()).await.unwrap();
    for _ in 0..5 {
        connection.write_all(GET.as_bytes()).await.unwrap();
        let mut answer = [0; 1_024];
        assert!(connection.read(&mut answer).await.unwrap() > 0);
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

#[tokio::test]
async fn who_reads_nothing_of_an_answer_is_cut_off() {
    let app = impatient().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut connection = socket.connect(app.address()).await.unwrap();
    let get = "GET /api/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
    // More than the buffers of both sides hold.
    connection.write_all(get.repeat(200).as_bytes()).await.ok();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut all)).await.expect("it has an end");
    let whole = String::from_utf8_lossy(&all).matches("HTTP/1.1 200 ").count();
    assert!(read.is_err() && whole < 200, "a reset, and not an end in good order: {read:?}, {whole} answers");
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_one_that_waits() {
    let app = TestApp::with(|settings| settings.server.connections_max = 40).await;
    let mut waiting = Vec::new();
    for at in 0..200 {
        waiting.push(open(&app, ["", "G", GET][at % 3]).await);
    }
    // Without the harness's client, which would reuse a connection.
    for _ in 0..20 {
        let mut connection = open(&app, &GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        let (text, took) = until_the_end(&mut connection, PATIENCE).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && took < Duration::from_secs(1), "{took:?} {text}");
    }
    let mut ended = 0;
    for connection in &mut waiting {
        let mut all = Vec::new();
        let read = tokio::time::timeout(Duration::from_millis(5), connection.read_to_end(&mut all)).await;
        ended += usize::from(read.is_ok());
    }
    assert!(ended >= 140, "{ended} of those that waited longest made room");
}

#[tokio::test]
async fn connections_with_a_request_are_not_ended_and_beyond_them_is_a_503() {
    let app = TestApp::with(|settings| {
        settings.server.connections_max = 10;
        settings.server.request_timeout_seconds = 10;
    })
    .await;
    let body = json!({ "email": "a@example.com", "password": "not the password" }).to_string();
    let (begin, rest) = body.split_at(1);
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{begin}",
        body.len()
    );
    let mut at_work = Vec::new();
    for _ in 0..10 {
        at_work.push(open(&app, &head).await);
        // It is active once its head is read.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut refused = open(&app, GET).await;
    let (text, _) = until_the_end(&mut refused, PATIENCE).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("retry-after: 2"), "{text}");
    assert!(text.contains(r#""code":"too_many_connections""#), "{text}");
    let mut first = at_work.remove(0);
    first.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1_024];
    let read = tokio::time::timeout(PATIENCE, first.read(&mut answer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 401 "), "it was answered");
}
