use std::time::Duration;

use adapters::postgres::PgStore;
use domain::idempotency::{IdempotencyKey, StoredAnswer};
use domain::identity::CallerRights;
use domain::users::UserId;
use harness::TestDatabase;
use ports::idempotency::{AnswerClaim, AnswerClaimed};
use ports::store::{Scope, StoreError};

use crate::people::{constraint, new_id, service};

fn claim(caller: UserId, key: &str) -> AnswerClaim {
    AnswerClaim {
        caller,
        route: "POST /api/keys".into(),
        key: IdempotencyKey::parse(key).unwrap(),
        fingerprint: b"body".to_vec(),
        rights: CallerRights::default(),
    }
}

fn answer() -> StoredAnswer {
    StoredAnswer {
        status: 201,
        content_type: "application/json".into(),
        body: b"{\"key\":\"sk_live_SECRET\"}".to_vec(),
    }
}

#[tokio::test]
async fn an_answer_is_given_again_byte_for_byte() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let caller = UserId(new_id());
    let mine = claim(caller, "key-1");
    let mut work = service(&*store).await;
    assert_eq!(work.answers().claim(&mine).await.unwrap(), AnswerClaimed::Fresh);
    work.answers().record(&mine, &answer()).await.unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    assert_eq!(work.answers().claim(&mine).await.unwrap(), AnswerClaimed::Answered(answer()));
    let other_body = AnswerClaim { fingerprint: b"other".to_vec(), ..mine.clone() };
    assert_eq!(work.answers().claim(&other_body).await.unwrap(), AnswerClaimed::OtherBody);
    let other_route = AnswerClaim { route: "POST /api/usage".into(), ..mine.clone() };
    for fresh in [claim(UserId(new_id()), "key-1"), claim(caller, "key-2"), other_route] {
        assert_eq!(work.answers().claim(&fresh).await.unwrap(), AnswerClaimed::Fresh);
    }
    assert_eq!(constraint(work.answers().record(&mine, &answer()).await), "idempotent_answers_pkey");
    drop(work);
    let shown: bool = database
        .query_scalar("SELECT count(*) > 0 FROM idempotent_answers WHERE position('SECRET'::bytea in sealed_body) > 0")
        .await;
    assert!(!shown, "the database alone reveals no answer");
    let mut own = store.begin(Scope::User(caller)).await.unwrap();
    assert!(own.answers().claim(&mine).await.is_err());
}

#[tokio::test]
async fn a_claim_is_one_transactions_until_it_ends() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mine = claim(UserId(new_id()), "key-1");
    let mut first = service(&*store).await;
    let mut second = service(&*store).await;
    assert_eq!(first.answers().claim(&mine).await.unwrap(), AnswerClaimed::Fresh);
    assert_eq!(first.answers().claim(&mine).await.unwrap(), AnswerClaimed::Fresh);
    assert_eq!(second.answers().claim(&mine).await.unwrap(), AnswerClaimed::InFlight);
    first.answers().record(&mine, &answer()).await.unwrap();
    assert_eq!(second.answers().claim(&mine).await.unwrap(), AnswerClaimed::InFlight);
    first.commit().await.unwrap();
    assert_eq!(second.answers().claim(&mine).await.unwrap(), AnswerClaimed::Answered(answer()));
    drop(second);

    let next = claim(UserId(new_id()), "key-2");
    let mut failed = service(&*store).await;
    assert_eq!(failed.answers().claim(&next).await.unwrap(), AnswerClaimed::Fresh);
    failed.answers().record(&next, &answer()).await.unwrap();
    drop(failed);
    let mut again = service(&*store).await;
    while again.answers().claim(&next).await.unwrap() == AnswerClaimed::InFlight {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(again.answers().claim(&next).await.unwrap(), AnswerClaimed::Fresh);
}

#[tokio::test]
async fn an_expired_answer_is_none_and_is_swept() {
    let database = TestDatabase::new().await;
    let mut settings = database.pool_settings();
    settings.answers_ttl = Duration::ZERO;
    let store = PgStore::connect(settings).unwrap();
    for name in ["1", "2", "3"] {
        let mine = claim(UserId(new_id()), name);
        for _ in 0..2 {
            let mut work = service(&store).await;
            assert_eq!(work.answers().claim(&mine).await.unwrap(), AnswerClaimed::Fresh);
            work.answers().record(&mine, &answer()).await.unwrap();
            work.commit().await.unwrap();
        }
    }
    let mut work = service(&store).await;
    assert_eq!(work.answers().delete_expired(2).await.unwrap(), 2);
    assert_eq!(work.answers().delete_expired(2).await.unwrap(), 1);
    assert_eq!(work.answers().delete_expired(2).await.unwrap(), 0);
}

#[tokio::test]
async fn an_answer_that_was_tampered_with_is_refused() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mine = claim(UserId(new_id()), "key-1");
    let mut work = service(&*store).await;
    work.answers().claim(&mine).await.unwrap();
    work.answers().record(&mine, &answer()).await.unwrap();
    work.commit().await.unwrap();
    database.sql("UPDATE idempotent_answers SET status = 200").await;
    let outcome = service(&*store).await.answers().claim(&mine).await;
    assert!(matches!(outcome, Err(StoreError::Inconsistent { table: "idempotent_answers", .. })), "{outcome:?}");
}
