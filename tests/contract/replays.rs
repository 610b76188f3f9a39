//! Responses of paid calls: claimed by one caller, found by all, replayed, sealed, swept.

use std::sync::Arc;
use std::time::Duration;

use adapters::randomness::SystemRandomness;
use chrono::TimeDelta;
use domain::idempotency::IdempotencyKey;
use domain::identity::CallerRights;
use domain::replays::{AwaitedCall, NotReplayable};
use domain::usage::{HoldId, HoldStatus};
use domain::users::UserId;
use harness::TestDatabase;
use ports::idempotency::AnswerClaim;
use ports::replays::{CallEnd, FoundCall, KeptAnswer, LeftCall};
use ports::store::{Scope, Store, StoreError};
use services::replays::{ReplayService, ReplaySettings};

use crate::people::{constraint, new_id, service, sign_up};

const DAY: TimeDelta = TimeDelta::hours(24);

fn call(caller: UserId, key: &str) -> AnswerClaim {
    AnswerClaim {
        caller,
        route: "POST /v1/messages".into(),
        key: IdempotencyKey::parse(key).unwrap(),
        fingerprint: b"body".to_vec(),
        rights: CallerRights::default(),
    }
}

fn answer() -> CallEnd {
    CallEnd::Answered(KeptAnswer {
        status: 200,
        content_type: "text/event-stream".into(),
        headers: vec![("x-product-base-call-id".into(), "1".into())],
        body: b"data: SAID\0\n\n".to_vec(),
    })
}

fn a_hold() -> HoldId {
    HoldId(new_id())
}

async fn claim(store: &dyn Store, call: &AnswerClaim, hold_id: HoldId, keep: TimeDelta) -> bool {
    let mut work = service(store).await;
    let claimed = work.replays().claim(call, hold_id, keep).await.unwrap();
    work.commit().await.unwrap();
    claimed
}

async fn finish(store: &dyn Store, call: &AnswerClaim, hold_id: HoldId, end: &CallEnd) -> bool {
    let mut work = service(store).await;
    let finished = work.replays().finish(call, hold_id, end).await.unwrap();
    work.commit().await.unwrap();
    finished
}

async fn find(store: &dyn Store, call: &AnswerClaim) -> Option<FoundCall> {
    service(store).await.replays().find(call).await.unwrap()
}

async fn hold(database: &TestDatabase, user_id: UserId, status: &str) -> HoldId {
    let id = a_hold();
    database
        .sql(&format!(
            "INSERT INTO usage_reservations (id, user_id, feature_id, period, period_start, amount, status, expires_at)
             VALUES ('{}', '{}', 'ai_requests', 'month', now(), 1, '{status}', now())",
            id.0, user_id.0
        ))
        .await;
    id
}

#[tokio::test]
async fn a_call_is_claimed_once_and_found_as_it_ended() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let caller = sign_up(&*store, "asker").await;
    let (mine, hold_id) = (call(caller, "key-1"), a_hold());
    assert_eq!(find(&*store, &mine).await, None);
    assert!(claim(&*store, &mine, hold_id, DAY).await);
    assert!(!claim(&*store, &mine, a_hold(), DAY).await);
    match find(&*store, &mine).await {
        Some(FoundCall::Awaited { hold_id: found, awaited: AwaitedCall { age, hold: None } }) => {
            assert!(found == hold_id && age < TimeDelta::seconds(60), "{age}");
        }
        other => panic!("{other:?}"),
    }
    let other_body = AnswerClaim { fingerprint: b"other".to_vec(), ..mine.clone() };
    assert!(matches!(find(&*store, &other_body).await, Some(FoundCall::Awaited { .. })), "it may still be refused");
    let other_route = AnswerClaim { route: "POST /api/ai/chat".into(), ..mine.clone() };
    let eve = sign_up(&*store, "eve").await;
    for free in [call(caller, "key-2"), call(eve, "key-1"), other_route] {
        assert_eq!(find(&*store, &free).await, None);
        assert!(claim(&*store, &free, a_hold(), DAY).await);
    }
    assert!(!finish(&*store, &mine, a_hold(), &answer()).await, "another call's end is not this one's");
    assert!(finish(&*store, &mine, hold_id, &answer()).await);
    assert!(!finish(&*store, &mine, hold_id, &CallEnd::NotReplayable(NotReplayable::Lost)).await, "it ends once");
    assert_eq!(find(&*store, &mine).await, Some(FoundCall::Ended(answer())));
    assert_eq!(find(&*store, &other_body).await, Some(FoundCall::OtherBody));
    let shown: i64 =
        database.query_scalar("SELECT count(*) FROM ai_answers WHERE position('SAID'::bytea in sealed_body) > 0").await;
    assert_eq!(shown, 0, "the database alone reveals no answer");
    let mut own = store.begin(Scope::User(caller)).await.unwrap();
    assert!(own.replays().find(&mine).await.is_err());
    let absent = service(&*store).await.replays().claim(&call(UserId(new_id()), "k"), a_hold(), DAY).await;
    assert_eq!(constraint(absent), "fk_ai_answers_user");
}

async fn forget(store: &dyn Store, call: &AnswerClaim, hold_id: HoldId) {
    let mut work = service(store).await;
    work.replays().forget(call, hold_id).await.unwrap();
    work.commit().await.unwrap();
}

#[tokio::test]
async fn a_place_is_given_back_by_its_call_alone() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mine = call(sign_up(&*store, "asker").await, "key-1");
    let (first, second) = (a_hold(), a_hold());
    assert!(claim(&*store, &mine, first, DAY).await);
    let abandon = async |hold_id| {
        let mut work = service(&*store).await;
        let abandoned = work.replays().abandon(&mine, hold_id).await.unwrap();
        work.commit().await.unwrap();
        abandoned
    };
    assert!(!abandon(second).await);
    assert!(abandon(first).await);
    assert_eq!(find(&*store, &mine).await, None);
    assert!(claim(&*store, &mine, first, DAY).await);
    assert!(finish(&*store, &mine, first, &answer()).await);
    assert!(!abandon(first).await, "what ended stays");
    assert!(!claim(&*store, &mine, second, DAY).await);
    forget(&*store, &mine, second).await;
    assert_eq!(find(&*store, &mine).await, Some(FoundCall::Ended(answer())), "it is not the other's");
    for why in [NotReplayable::Lost, NotReplayable::TooLong] {
        let hold_id = a_hold();
        database.sql("DELETE FROM ai_answers").await;
        assert!(claim(&*store, &mine, hold_id, DAY).await);
        assert!(finish(&*store, &mine, hold_id, &CallEnd::NotReplayable(why)).await);
        assert_eq!(find(&*store, &mine).await, Some(FoundCall::Ended(CallEnd::NotReplayable(why))));
    }
}

/// A call without an idempotency key: the claim by its content, its own claim, its reservation.
fn unkeyed(caller: UserId, number: u32) -> (AnswerClaim, AnswerClaim, HoldId) {
    (call(caller, "sdk 1"), call(caller, &format!("sdk 1 {number}")), a_hold())
}

async fn leave(store: &dyn Store, (content, own, hold_id): &(AnswerClaim, AnswerClaim, HoldId), end: Option<&CallEnd>) {
    let mut work = service(store).await;
    work.replays().leave(own, content, LeftCall { hold_id: *hold_id, end, keep: DAY }).await.unwrap();
    work.commit().await.unwrap();
}

async fn adopt(store: &dyn Store, content: &AnswerClaim) -> Option<HoldId> {
    let mut work = service(store).await;
    let adopted = work.replays().adopt(content).await.unwrap();
    work.commit().await.unwrap();
    adopted
}

#[tokio::test]
async fn a_call_that_was_left_is_adopted_once_the_answered_ones_first() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let caller = sign_up(&*store, "asker").await;
    let [running, lost, answered] = [1, 2, 3].map(|number| unkeyed(caller, number));
    let content = &running.0;
    assert_eq!(adopt(&*store, content).await, None);
    leave(&*store, &running, None).await;
    leave(&*store, &lost, Some(&CallEnd::NotReplayable(NotReplayable::Lost))).await;
    leave(&*store, &answered, None).await;
    leave(&*store, &answered, Some(&answer())).await;
    leave(&*store, &answered, Some(&CallEnd::NotReplayable(NotReplayable::Lost))).await;
    assert_eq!(find(&*store, &answered.1).await, Some(FoundCall::Ended(answer())), "it ends once");
    for other in [call(caller, "sdk 2"), call(sign_up(&*store, "eve").await, "sdk 1")] {
        assert_eq!(adopt(&*store, &other).await, None);
    }
    let expected = [answered.2, running.2, lost.2].map(Some);
    for hold_id in expected {
        assert_eq!(adopt(&*store, content).await, hold_id);
    }
    assert_eq!(adopt(&*store, content).await, None, "each is somebody's now");
    // Its end does not release it from the call that adopted it.
    leave(&*store, &running, Some(&answer())).await;
    assert_eq!(
        (find(&*store, &running.1).await, adopt(&*store, content).await),
        (Some(FoundCall::Ended(answer())), None)
    );
    let mut work = service(&*store).await;
    work.replays().leave_again(&running.1, content, running.2).await.unwrap();
    work.replays().leave_again(&lost.1, content, running.2).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(adopt(&*store, content).await, Some(running.2), "it was left again");
    forget(&*store, &running.1, running.2).await;
    assert_eq!((find(&*store, &running.1).await, adopt(&*store, content).await), (None, None));
    leave(&*store, &running, None).await;
    let (one, other) = tokio::join!(adopt(&*store, content), adopt(&*store, content));
    assert!(one.is_some() != other.is_some(), "of two at once one adopts it");
}

#[tokio::test]
async fn of_two_at_once_one_claims() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mine = call(sign_up(&*store, "asker").await, "key-1");
    let (first, second) = (a_hold(), a_hold());
    let mut one = service(&*store).await;
    assert!(one.replays().claim(&mine, first, DAY).await.unwrap());
    let (waiting, waits) = (database.store(), mine.clone());
    let other = tokio::spawn(async move { claim(&*waiting, &waits, second, DAY).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    one.commit().await.unwrap();
    assert!(!other.await.unwrap());
    assert!(matches!(find(&*store, &mine).await, Some(FoundCall::Awaited { hold_id, .. }) if hold_id == first));
}

#[tokio::test]
async fn a_call_without_an_answer_is_told_with_its_hold() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let caller = sign_up(&*store, "asker").await;
    for (text, status) in [
        ("pending", HoldStatus::Pending),
        ("settled", HoldStatus::Settled),
        ("released", HoldStatus::Released),
        ("expired", HoldStatus::Expired),
    ] {
        let (mine, hold_id) = (call(caller, text), hold(&database, caller, text).await);
        assert!(claim(&*store, &mine, hold_id, DAY).await);
        assert_eq!(service(&*store).await.replays().find_hold(hold_id).await.unwrap(), Some(status));
        match find(&*store, &mine).await {
            Some(FoundCall::Awaited { awaited: AwaitedCall { hold: Some((found, since)), .. }, .. }) => {
                assert!(found == status && since < TimeDelta::seconds(60), "{since}");
            }
            other => panic!("{other:?}"),
        }
        let other_body = AnswerClaim { fingerprint: b"other".to_vec(), ..mine };
        let is_told = find(&*store, &other_body).await == Some(FoundCall::OtherBody);
        assert_eq!(is_told, status != HoldStatus::Released, "{text}");
    }
    assert_eq!(service(&*store).await.replays().find_hold(a_hold()).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_past_its_time_is_none_is_taken_over_and_swept() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let caller = sign_up(&*store, "asker").await;
    for name in ["1", "2", "3"] {
        let mine = call(caller, name);
        for _ in 0..2 {
            let hold_id = a_hold();
            assert!(claim(&*store, &mine, hold_id, TimeDelta::zero()).await);
            assert!(finish(&*store, &mine, hold_id, &answer()).await);
            assert_eq!(find(&*store, &mine).await, None);
        }
    }
    let (kept, hold_id) = (call(caller, "kept"), a_hold());
    assert!(claim(&*store, &kept, hold_id, DAY).await);
    let mut work = service(&*store).await;
    assert!(work.replays().finish(&kept, hold_id, &answer()).await.unwrap());
    assert_eq!(work.replays().delete_expired(2).await.unwrap(), 2);
    work.commit().await.unwrap();
    let settings = ReplaySettings { keep: DAY, call_time: Duration::from_secs(1), running: 1, bytes: 1 };
    let replays = ReplayService::new(database.store(), Arc::new(SystemRandomness), settings);
    assert_eq!((replays.sweep().await.unwrap(), replays.sweep().await.unwrap()), (1, 0));
    assert_eq!(find(&*store, &kept).await, Some(FoundCall::Ended(answer())));
    database.sql(&format!("DELETE FROM users WHERE id = '{}'", caller.0)).await;
    assert_eq!(find(&*store, &kept).await, None, "it goes with its user");
}

#[tokio::test]
async fn an_answer_that_was_tampered_with_is_refused() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (mine, hold_id) = (call(sign_up(&*store, "asker").await, "key-1"), a_hold());
    for change in ["status = 201", "content_type = 'text/html'", "sealed_body = 'x'", "sealed_body = NULL"] {
        database.sql("DELETE FROM ai_answers").await;
        assert!(claim(&*store, &mine, hold_id, DAY).await);
        assert!(finish(&*store, &mine, hold_id, &answer()).await);
        database.sql(&format!("UPDATE ai_answers SET {change}")).await;
        let outcome = service(&*store).await.replays().find(&mine).await;
        assert!(matches!(outcome, Err(StoreError::Inconsistent { table: "ai_answers", .. })), "{change}: {outcome:?}");
    }
}
