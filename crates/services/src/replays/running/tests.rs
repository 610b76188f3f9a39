use std::time::Duration;

use super::*;

fn heading() -> AnswerHeading {
    AnswerHeading {
        status: 200,
        content_type: "text/event-stream".to_owned(),
        headers: vec![("x".to_owned(), "y".to_owned())],
    }
}

fn answer(room: usize) -> Arc<RunningAnswer> {
    Arc::new(RunningAnswer::new(vec![1], CallerRights::default(), None, Arc::new(Room::of(room))))
}

async fn read(mut listener: AnswerListener) -> Result<Vec<u8>, NotReplayable> {
    let mut read = Vec::new();
    while let Some(chunk) = listener.chunk().await {
        read.extend_from_slice(&chunk?);
    }
    Ok(read)
}

#[tokio::test]
async fn everybody_gets_everything_early_late_and_after_the_end() {
    let running = answer(100);
    let mut early = running.listen();
    let waiting = tokio::spawn(async move { (early.start_state().await, early.whole(), read(early).await) });
    tokio::task::yield_now().await;
    running.begin(heading());
    running.write(b"one ");
    let mut late = running.listen();
    assert_eq!((late.start_state().await, late.heading()), (StartState::Begun, Some(heading())));
    let late = tokio::spawn(read(late));
    tokio::task::yield_now().await;
    running.write(b"two ");
    running.write(b"");
    running.write(b"three");
    running.end();
    running.write(b"nothing after the end");
    let after = running.listen();
    let all = b"one two three".to_vec();
    let AnswerHeading { status, content_type, headers } = heading();
    assert_eq!(after.whole(), Some(KeptAnswer { status, content_type, headers, body: all.clone() }));
    assert_eq!(read(after).await, Ok(all.clone()));
    assert_eq!(late.await.unwrap(), Ok(all.clone()));
    assert_eq!(waiting.await.unwrap(), (StartState::Begun, None, Ok(all)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_holds_nobody_up_and_misses_nothing() {
    let running = answer(10_000);
    running.begin(heading());
    let mut slow = running.listen();
    for _ in 0..100 {
        running.write(b"0123456789");
    }
    running.end();
    let mut read = Vec::new();
    while let Some(chunk) = slow.chunk().await {
        read.extend_from_slice(&chunk.unwrap());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(read, b"0123456789".repeat(100));
}

#[tokio::test]
async fn what_is_too_long_is_not_kept_and_said_so_to_who_follows_it() {
    let running = answer(usize::MAX);
    running.begin(heading());
    running.write(&vec![0; KEPT_BODY_MAX]);
    let mut follows = running.listen();
    assert_eq!(follows.chunk().await.unwrap().unwrap().len(), KEPT_BODY_MAX);
    assert_eq!(running.unkept(), None, "so much is kept");
    running.write(b"x");
    assert_eq!(running.unkept(), Some(NotReplayable::TooLong));
    assert_eq!(follows.chunk().await, Some(Err(NotReplayable::TooLong)));
    running.write(b"y");
    running.end();
    assert_eq!(running.listen().start_state().await, StartState::NotReplayable(NotReplayable::TooLong));
}

#[tokio::test]
async fn all_answers_share_one_room_and_give_it_back() {
    let room = Arc::new(Room::of(10));
    let begun = || {
        let running = Arc::new(RunningAnswer::new(vec![1], CallerRights::default(), None, Arc::clone(&room)));
        running.begin(heading());
        running
    };
    let (one, other) = (begun(), begun());
    one.write(b"123456");
    other.write(b"12345");
    assert_eq!((one.unkept(), other.unkept()), (None, Some(NotReplayable::TooLong)));
    let last = one.listen();
    drop(one);
    let third = begun();
    third.write(b"12345");
    assert_eq!(third.unkept(), Some(NotReplayable::TooLong), "somebody still reads the first");
    drop((last, third));
    let fourth = begun();
    fourth.write(b"1234567890");
    assert_eq!(fourth.unkept(), None);
}

#[tokio::test]
async fn an_answer_that_will_not_come_lets_those_go_who_wait() {
    let running = answer(10);
    let mut waits = running.listen();
    assert!(running.has_listeners());
    running.vacate();
    assert_eq!(waits.start_state().await, StartState::Vacated);
    drop(waits);
    assert!(!running.has_listeners());
}
