//! Calls that are cut short: by a disconnected client, a revoked API key, or a stop of the service. The use is billed
//! once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::upstream::{AnswerPace, Fault, Script, UpstreamDialect};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::stage::{MODELS, Stage, events, hello, prices, words};

const WORDS: usize = 6;

/// The number of events in a response of `WORDS` words.
fn events_of(dialect: UpstreamDialect) -> usize {
    match dialect {
        // The role, the words, the finish reason, the usage, the end.
        UpstreamDialect::OpenAi => WORDS + 4,
        // The start, the opened block and a ping, the words, the closed block, the usage, the stop.
        UpstreamDialect::Anthropic => WORDS + 6,
        UpstreamDialect::Gemini => WORDS,
    }
}

fn held_after(events: usize) -> Script {
    Script::says(&words(WORDS)).priced(prices()).with_fault(Fault::HoldAfter { events })
}

/// A streamed call whose client disconnects after the provider has sent this many events.
async fn leave_after(stage: &Stage, model: &str, events: usize) {
    stage.upstream.script(model, held_after(events));
    let request = stage.begin(&stage.ada, hello(model));
    tokio::pin!(request);
    let mut response = None;
    let held = async {
        while stage.upstream.held() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::pin!(held);
    loop {
        tokio::select! {
            begun = &mut request, if response.is_none() => response = Some(begun),
            () = &mut held => break,
        }
    }
    // Once the response has begun, its head is available at once; before that, the request itself is abandoned.
    if response.is_none() {
        response = tokio::time::timeout(Duration::from_millis(100), &mut request).await.ok();
    }
    drop(response);
}

#[tokio::test]
async fn a_client_that_leaves_at_any_chunk_is_billed_what_the_provider_bills() {
    let stage = Stage::set().await;
    let mut calls = 0;
    for ((_, model), dialect) in
        MODELS.into_iter().zip([UpstreamDialect::OpenAi, UpstreamDialect::Anthropic, UpstreamDialect::Gemini])
    {
        for events in 0..=events_of(dialect) {
            leave_after(&stage, model, events).await;
            // The service detects the disconnect before the provider continues.
            tokio::time::sleep(Duration::from_millis(20)).await;
            stage.upstream.let_go(1);
            calls += 1;
            stage.settled(calls).await;
        }
    }
    let bill = stage.expect_bill(usize::try_from(calls).unwrap()).await;
    assert!(bill.iter().all(|line| line.usage.out_visible == WORDS as u64));
    assert!(stage.books().await.iter().all(|(.., source, _)| source == "provider"), "{:?}", stage.books().await);
}

/// Meanwhile there is no write that could fail.
#[tokio::test]
async fn a_client_that_leaves_while_nothing_is_said_is_noticed_all_the_same() {
    let stage = Stage::with(|settings| settings.ai.calls.drain_seconds = 1).await;
    for (number, (_, model)) in (1..).zip(MODELS) {
        stage.upstream.script(model, held_after(4));
        let mut response = stage.begin(&stage.ada, hello(model)).await;
        response.chunk().await.unwrap();
        drop(response);
        stage.upstream.until("the cancelled call", |stub| stub.totals().clients_left == number).await;
    }
    stage.settled(3).await;
    assert!(stage.books().await.iter().all(|(.., outcome)| outcome == "left"), "{:?}", stage.books().await);
}

/// Otherwise a client that disconnects before a reasoning model's first output would cause use that no limit counts.
#[tokio::test]
async fn silence_before_a_client_leaves_is_billed_as_thinking_that_nobody_saw() {
    let stage = Stage::with(|settings| settings.ai.calls.drain_seconds = 2).await;
    for (_, model) in MODELS {
        // The head, and no event with output.
        stage.upstream.script(model, held_after(1));
        let response = stage.begin(&stage.ada, hello(model)).await;
        drop(response);
    }
    stage.settled(3).await;
    for (input, output, cost, source, outcome) in stage.books().await {
        assert_eq!((source.as_str(), outcome.as_str()), ("partial", "left"));
        assert!(input > 0 && (200..=400).contains(&output) && cost > 0, "{input} {output} {cost}");
    }
    stage.expect_in_order().await;
}

#[tokio::test]
async fn an_answer_that_nobody_drains_in_time_is_cancelled_and_billed_as_far_as_it_came() {
    let stage = Stage::with(|settings| settings.ai.calls.drain_seconds = 1).await;
    let pace = AnswerPace { between: Duration::from_millis(50), ..AnswerPace::default() };
    for (number, (_, model)) in (1..).zip(MODELS) {
        stage.upstream.script(model, Script::says(&words(990)).priced(prices()).paced(pace.clone()));
        let mut response = stage.begin(&stage.ada, hello(model)).await;
        response.chunk().await.unwrap();
        drop(response);
        stage.upstream.until("the cancelled call", |stub| stub.totals().clients_left == number).await;
    }
    stage.settled(3).await;
    let bill = stage.upstream.settled(3).await;
    for ((input, output, cost, source, outcome), line) in stage.books().await.into_iter().zip(bill) {
        assert_eq!((source.as_str(), outcome.as_str(), cost > 0), ("partial", "left", true));
        let (input, output) = (u64::try_from(input).unwrap(), u64::try_from(output).unwrap());
        let unread = line.usage.output().saturating_sub(output);
        assert!(unread <= 1, "but for a piece that was under way: {output} {line:?}");
        assert!(input >= line.usage.input(), "never less than went in: {line:?}");
    }
    stage.expect_in_order().await;
}

/// The task of a whole response continues too: nothing of it is known before its end.
#[tokio::test]
async fn a_whole_answer_is_settled_though_nobody_waits_for_it() {
    let stage = Stage::set().await;
    for (_, model) in MODELS {
        stage.upstream.script(model, held_after(0));
        let asked = stage.chat(hello(model));
        let waits = stage.upstream.until("the call", |stub| stub.held() == 1);
        tokio::select! {
            _ = asked => panic!("it is held"),
            () = waits => {}
        }
        stage.upstream.let_go(1);
        stage.upstream.until("the end", |stub| stub.totals().answering == 0).await;
    }
    stage.expect_bill(3).await;
}

/// A stream that was started with an access token ends when the token's session or account ends, as with an API key.
#[tokio::test]
async fn what_ends_a_token_ends_its_streams() {
    for end in ["log-out", "deletion", "end of the session"] {
        let stage = Stage::set().await;
        let ada = stage.app.login("ada@example.com").await;
        stage.upstream.script("gpt-one", held_after(5));
        let mut response = stage.begin(&ada, hello("gpt-one")).await;
        let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
        stage.upstream.until("the hold", |stub| stub.held() == 1).await;
        match end {
            "log-out" => {
                let body = json!({ "refresh_token": ada.refresh_token });
                stage.app.post("/api/auth/logout").json(body).send().await.expect_status(204);
            }
            "deletion" => {
                stage.app.delete("/api/users/me").bearer(&ada).send().await.expect_status(204);
            }
            _ => stage.app.database().sql("UPDATE sessions SET expires_at = now()").await,
        }
        let ended = Instant::now();
        while let Some(chunk) = response.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(ended.elapsed() < Duration::from_secs(3), "{end}: {:?}", ended.elapsed());
        let told = events(&text);
        let error = told.last().unwrap();
        assert_eq!((error.name.as_str(), &error.data["code"]), ("error", &json!("unauthorized")), "{end}");
        stage.settled(1).await;
        stage.expect_in_order().await;
    }
}

#[tokio::test]
async fn a_revoked_key_ends_its_streams_within_two_seconds() {
    let stage = Stage::set().await;
    for (provider, model) in MODELS {
        let key = stage.key(json!({ "tokens_per_minute": 1_000_000 })).await;
        stage.upstream.script(model, held_after(5));
        let mut response = stage.begin(key.text_at("/key"), hello(model)).await;
        let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
        stage.upstream.until("the hold", |stub| stub.held() == 1).await;
        let path = format!("/api/keys/{}", key.text_at("/id"));
        stage.app.delete(&path).bearer(&stage.ada).send().await.expect_status(204);
        let revoked = Instant::now();
        while let Some(chunk) = response.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(revoked.elapsed() < Duration::from_secs(2), "{provider}: {:?}", revoked.elapsed());
        let told = events(&text);
        let error = told.last().unwrap();
        assert_eq!(
            (error.name.as_str(), &error.data["code"], &error.data["status"]),
            ("error", &json!("unauthorized"), &json!(401))
        );
        stage.upstream.until("the cancelled call", |stub| stub.held() == 0).await;
    }
    stage.settled(3).await;
    let bill = stage.upstream.settled(3).await;
    for ((_, output, _, source, outcome), line) in stage.books().await.into_iter().zip(bill) {
        assert_eq!((source.as_str(), outcome.as_str()), ("partial", "broken"));
        // The revocation is detected within two seconds, in which no events arrive.
        let of_silence = u64::try_from(output).unwrap() - line.usage.output();
        assert!(of_silence == 0 || of_silence == 100, "{output} {line:?}");
    }
    stage.expect_in_order().await;
}

#[tokio::test]
async fn a_stop_ends_what_runs_and_settles_it() {
    let stage = Stage::set().await;
    let mut responses = Vec::new();
    for (_, model) in MODELS {
        stage.upstream.script(model, held_after(5));
        let mut response = stage.begin(&stage.ada, hello(model)).await;
        let text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
        responses.push((response, text));
    }
    stage.upstream.until("all three", |stub| stub.held() == 3).await;
    let Stage { app, upstream, .. } = stage;
    let database = Arc::clone(app.database());
    let begun = Instant::now();
    app.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    for (mut response, mut text) in responses {
        while let Ok(Some(chunk)) = response.chunk().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let told = events(&text);
        assert_eq!((&*told.last().unwrap().name, &told.last().unwrap().data["code"]), ("error", &json!("stopping")));
    }
    let booked: Vec<(i64, String)> =
        database.query_all("SELECT output_tokens, source::text FROM ai_usage_logs ORDER BY created_at").await;
    let bill = upstream.settled(3).await;
    assert_eq!(booked.len(), 3);
    let charged: u64 = bill.iter().map(|line| line.usage.output()).sum();
    assert_eq!(booked.iter().map(|(output, _)| output).sum::<i64>(), i64::try_from(charged).unwrap());
    let pending = "SELECT count(*) FROM usage_reservations WHERE status = 'pending'";
    assert_eq!(database.query_scalar::<i64>(pending).await, 0);
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM integrity_findings").await, 0);
}

/// Requests a stream over a connection with a small receive buffer, and reads nothing.
async fn ask_and_read_nothing(stage: &Stage, key: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut connection = socket.connect(stage.app.address()).await.unwrap();
    let mut body = hello("gpt-one");
    body["stream"] = json!(true);
    let (body, host) = (body.to_string(), stage.app.address());
    let request = format!(
        "POST /api/ai/chat HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

/// A client that stays connected without reading delays the provider, but neither the reservation nor the revocation.
#[tokio::test]
async fn a_reader_who_does_not_read_keeps_neither_the_hold_nor_the_key_alive() {
    let stage = Stage::with(|settings| settings.ai.calls.hold_seconds = 3).await;
    let key = stage.key(json!({})).await;
    // More than the sockets and the channels between them can buffer; each word is counted quickly.
    let text = vec!["hello,".repeat(5_000); 300].join(" ");
    stage.upstream.script("gpt-one", Script::says(&text).priced(prices()));
    let connection = ask_and_read_nothing(&stage, key.text_at("/key")).await;
    let pending = "SELECT count(*) FROM usage_reservations WHERE status = 'pending' AND expires_at > now()";
    stage.upstream.until("the call", |stub| stub.totals().requests == 1).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(stage.number(pending).await, 1, "the call goes on, and its hold says so: {:?}", stage.books().await);
    let path = format!("/api/keys/{}", key.text_at("/id"));
    stage.app.delete(&path).bearer(&stage.ada).send().await.expect_status(204);
    let revoked = Instant::now();
    stage.settled(1).await;
    assert!(revoked.elapsed() < Duration::from_secs(3), "{:?}", revoked.elapsed());
    drop(connection);
    assert_eq!(stage.books().await[0].4, "broken");
    stage.expect_in_order().await;
}

/// The provider bills the call; otherwise keys that are created and revoked could exceed the budget of their creator.
#[tokio::test]
async fn a_call_whose_key_is_revoked_before_anything_came_is_charged_what_went_in() {
    let stage = Stage::set().await;
    let key = stage.key(json!({})).await;
    stage.upstream.script("gpt-one", held_after(0));
    let waits = async {
        stage.upstream.until("the call", |stub| stub.held() == 1).await;
        let path = format!("/api/keys/{}", key.text_at("/id"));
        stage.app.delete(&path).bearer(&stage.ada).send().await.expect_status(204);
    };
    let (answer, ()) = tokio::join!(stage.ask(key.text_at("/key"), hello("gpt-one")), waits);
    answer.expect_problem(401, "unauthorized");
    stage.settled(1).await;
    let (input, _, cost, source, outcome) = stage.books().await.remove(0);
    assert!(input > 0 && cost > 0, "{input} {cost}");
    assert_eq!((source.as_str(), outcome.as_str()), ("partial", "broken"));
    let body: Value = hello("gpt-one");
    stage.ask(key.text_at("/key"), body).await.expect_problem(401, "unauthorized");
    stage.expect_in_order().await;
}
