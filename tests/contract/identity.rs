use std::collections::BTreeSet;
use std::time::Duration;

use domain::users::UserId;
use harness::TestDatabase;
use ports::identity::{NewSession, RefreshToken, SecondFactor};
use ports::store::{Page, Store};
use uuid::Uuid;

use crate::people::{at, constraint, email, new_id, service, sign_up};

#[tokio::test]
async fn an_identity_is_found_by_its_address_and_its_password_changes() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let id = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let stored = work.identity().find_credentials("Ann@example.com").await.unwrap().unwrap();
    assert_eq!(
        (stored.user_id, stored.email, stored.password_hash.as_str()),
        (id, email("ann").into(), "$argon2id$hash")
    );
    work.identity().save_password(id, "$argon2id$other").await.unwrap();
    let stored = work.identity().find_credentials("Ann@example.com").await.unwrap().unwrap();
    assert_eq!(stored.password_hash, "$argon2id$other");
    assert!(work.identity().find_credentials("bob@example.com").await.unwrap().is_none());
    assert!(work.identity().exists(id).await.unwrap());
    assert!(!work.identity().exists(UserId(new_id())).await.unwrap());
    assert_eq!(work.identity().find_by_email(&email("ann")).await.unwrap(), Some(id));
    assert_eq!(work.identity().find_by_email(&email("bob")).await.unwrap(), None);
    assert_eq!(work.identity().find_email(id).await.unwrap(), Some(email("ann").into()));
    assert!(!work.identity().owns_address(id, &email("ann")).await.unwrap(), "nobody has proved it");
    assert_eq!(work.identity().find_email(UserId(new_id())).await.unwrap(), None);
    let taken = work.identity().register(UserId(new_id()), &email("ann"), "hash").await;
    assert_eq!(constraint(taken), "idx_auth_users_email");
}

#[tokio::test]
async fn an_id_is_given_once_and_an_address_brings_one_bonus() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut gone = vec![sign_up(&*store, "ann").await];
    for profile_first in [true, false] {
        let last = *gone.last().unwrap();
        let mut work = service(&*store).await;
        if profile_first {
            assert!(work.users().delete(last).await.unwrap());
        }
        work.identity().delete(last).await.unwrap();
        assert_eq!(work.users().find(last).await.unwrap(), None);
        work.commit().await.unwrap();

        for old in &gone {
            let mut work = service(&*store).await;
            let again = work.identity().register(*old, &email("another"), "hash").await;
            assert_eq!(constraint(again), "deleted_profiles_pkey");
        }
        let next = sign_up(&*store, "ann").await;
        assert!(!gone.contains(&next));
        let mut work = service(&*store).await;
        assert_eq!(work.users().find(next).await.unwrap().unwrap().token_balance, 0);
        gone.push(next);
    }
    let other = sign_up(&*store, "bob").await;
    assert_eq!(service(&*store).await.users().find(other).await.unwrap().unwrap().token_balance, 100);
}

fn token(session_id: Uuid, user_id: UserId) -> RefreshToken {
    RefreshToken { id: new_id(), session_id, user_id, expires_at: at(1000), used_at: None, revoked_at: None }
}

async fn session(store: &dyn Store, user_id: UserId) -> Uuid {
    let mut work = service(store).await;
    let session = NewSession {
        id: new_id(),
        user_id,
        user_agent: Some("a".repeat(300)),
        network_mark: Some(b"home".to_vec()),
        authenticated_at: at(1),
        expires_at: at(1000),
    };
    work.identity().insert_session(&session).await.unwrap();
    work.commit().await.unwrap();
    session.id
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_once_and_its_session_can_be_ended() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let session_id = session(&*store, user_id).await;
    let (old, new) = (token(session_id, user_id), token(session_id, user_id));
    let mut work = service(&*store).await;
    work.identity().insert_refresh_token(&old, &b"old".to_vec()).await.unwrap();
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    assert!(work.identity().lock_refresh_token(&b"unknown".to_vec()).await.unwrap().is_none());
    assert_eq!(work.identity().lock_refresh_token(&b"old".to_vec()).await.unwrap(), Some(old.clone()));
    assert_eq!(work.identity().find_refresh_token(&b"old".to_vec()).await.unwrap(), Some(old.clone()));
    // Another exchange of the same token waits, and then sees that it was used.
    let waiting = tokio::spawn({
        let store = database.store();
        async move {
            let mut work = service(&*store).await;
            work.identity().lock_refresh_token(&b"old".to_vec()).await
        }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!waiting.is_finished());
    work.identity().insert_refresh_token(&new, &b"new".to_vec()).await.unwrap();
    work.identity().replace_refresh_token(old.id, new.id, at(1)).await.unwrap();
    work.commit().await.unwrap();
    let seen = waiting.await.unwrap().unwrap().unwrap();
    assert_eq!(seen.used_at, Some(at(1)));

    let mut work = service(&*store).await;
    work.identity().revoke_session(session_id, at(2)).await.unwrap();
    let revoked = work.identity().lock_refresh_token(&b"new".to_vec()).await.unwrap().unwrap();
    assert_eq!(revoked.revoked_at, Some(at(2)));
    let again = work.identity().insert_refresh_token(&token(session_id, user_id), &b"new".to_vec()).await;
    assert_eq!(constraint(again), "refresh_tokens_token_hash_key");
}

#[tokio::test]
async fn sessions_are_listed_proven_and_ended_but_one() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let (first, second, third) =
        (session(&*store, ann).await, session(&*store, ann).await, session(&*store, ann).await);
    let of_bob = session(&*store, bob).await;
    let mut work = service(&*store).await;
    for (session_id, user_id, hash) in [(first, ann, b"1"), (second, ann, b"2"), (of_bob, bob, b"3")] {
        work.identity().insert_refresh_token(&token(session_id, user_id), &hash.to_vec()).await.unwrap();
    }
    let found = work.identity().find_session(first).await.unwrap().unwrap();
    assert_eq!((found.user_id, found.authenticated_at, found.expires_at), (ann, at(1), at(1000)));
    assert_eq!(found.user_agent.as_deref().map(str::len), Some(255));
    work.identity().save_authenticated_at(first, at(7)).await.unwrap();
    assert_eq!(work.identity().find_session(first).await.unwrap().unwrap().authenticated_at, at(7));
    assert!(work.identity().find_session(new_id()).await.unwrap().is_none());
    for (address, mark, is_known) in [
        ("Ann@example.com", b"home".as_slice(), true),
        ("ann@example.com", b"away", false),
        ("nobody@example.com", b"home", false),
    ] {
        assert_eq!(work.identity().knows_network(address, mark).await.unwrap(), is_known, "{address}");
    }
    work.identity().revoke_session(third, at(8)).await.unwrap();
    let page = |after, limit| Page { after, limit };
    let long_ago = at(-10_000_000);
    let open = work.identity().list_sessions(ann, at(10), long_ago, &page(None, 10)).await.unwrap();
    assert_eq!(open.iter().map(|session| session.id).collect::<BTreeSet<_>>(), BTreeSet::from([first, second]));
    let position = (open[0].created_at, open[0].id);
    let rest = work.identity().list_sessions(ann, at(10), long_ago, &page(Some(position), 10)).await.unwrap();
    assert_eq!(rest, open[1..]);
    assert!(work.identity().list_sessions(ann, at(1000), long_ago, &page(None, 10)).await.unwrap().is_empty());
    assert!(work.identity().list_sessions(ann, at(10), open[0].created_at, &page(None, 10)).await.unwrap().is_empty());

    assert_eq!(work.identity().revoke_other_sessions(ann, Some(first), at(20)).await.unwrap(), 1);
    for (hash, revoked_at) in [(b"1", None), (b"2", Some(at(20))), (b"3", None)] {
        let token = work.identity().find_refresh_token(&hash.to_vec()).await.unwrap().unwrap();
        assert_eq!(token.revoked_at, revoked_at);
    }
    assert_eq!(work.identity().find_session(third).await.unwrap().unwrap().revoked_at, Some(at(8)));
    assert_eq!(work.identity().revoke_other_sessions(ann, None, at(30)).await.unwrap(), 1);
    work.commit().await.unwrap();

    let mut holder = service(&*store).await;
    holder.identity().lock_credentials(ann).await.unwrap();
    let waiting = tokio::spawn({
        let store = database.store();
        async move {
            let mut work = service(&*store).await;
            work.identity().lock_credentials(bob).await.unwrap();
            work.identity().lock_credentials(ann).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!waiting.is_finished());
    holder.commit().await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_second_factor_is_offered_confirmed_used_and_taken_away() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut work = service(&*store).await;
    assert!(work.identity().find_second_factor(ann).await.unwrap().is_none());
    for sealed in [b"first".as_slice(), b"second"] {
        work.identity().offer_second_factor(ann, sealed).await.unwrap();
    }
    let offered = SecondFactor { sealed_secret: b"second".to_vec(), confirmed_at: None, last_step: None };
    assert_eq!(work.identity().find_second_factor(ann).await.unwrap(), Some(offered));
    let marks = ["one".to_owned(), "two".to_owned()];
    work.identity().confirm_second_factor(ann, at(3), 77, &marks).await.unwrap();
    work.identity().offer_second_factor(ann, b"third").await.unwrap();
    work.identity().save_totp_step(ann, 78).await.unwrap();
    let kept = SecondFactor { sealed_secret: b"second".to_vec(), confirmed_at: Some(at(3)), last_step: Some(78) };
    assert_eq!(work.identity().find_second_factor(ann).await.unwrap(), Some(kept));
    for (user_id, mark, is_taken) in [(bob, "one", false), (ann, "one", true), (ann, "one", false), (ann, "two", true)]
    {
        assert_eq!(work.identity().use_recovery_code(user_id, mark).await.unwrap(), is_taken, "{mark}");
    }
    work.identity().delete_second_factor(ann).await.unwrap();
    assert!(work.identity().find_second_factor(ann).await.unwrap().is_none());
    work.identity().offer_second_factor(bob, b"of bob").await.unwrap();
    assert!(work.users().delete(bob).await.unwrap());
    assert!(work.identity().find_second_factor(bob).await.unwrap().is_none());
}

#[tokio::test]
async fn ended_sessions_are_swept_and_living_ones_stay() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let user_id = sign_up(&*store, "ann").await;
    let (expired, revoked, lengthened) =
        (session(&*store, user_id).await, session(&*store, user_id).await, session(&*store, user_id).await);
    let mut work = service(&*store).await;
    work.identity().insert_refresh_token(&token(expired, user_id), &b"1".to_vec()).await.unwrap();
    let long = RefreshToken { expires_at: at(5000), ..token(lengthened, user_id) };
    work.identity().insert_refresh_token(&long, &b"2".to_vec()).await.unwrap();
    work.identity().revoke_session(revoked, at(10)).await.unwrap();
    assert_eq!(work.identity().delete_ended_sessions(at(5), 10).await.unwrap(), 0);
    assert_eq!(work.identity().delete_ended_sessions(at(20), 10).await.unwrap(), 1);
    assert_eq!(work.identity().delete_ended_sessions(at(2000), 10).await.unwrap(), 1);
    assert!(work.identity().lock_refresh_token(&b"1".to_vec()).await.unwrap().is_none());
    assert!(work.identity().lock_refresh_token(&b"2".to_vec()).await.unwrap().is_some());
    assert_eq!(work.identity().delete_ended_sessions(at(6000), 0).await.unwrap(), 0);
}

#[tokio::test]
async fn signing_keys_are_noted_and_one_is_kept_for_all() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    work.identity().record_signing_key("key-1", "ES256").await.unwrap();
    work.identity().record_signing_key("key-1", "ES256").await.unwrap();
    assert_eq!(work.identity().keep_signing_key(b"first").await.unwrap(), b"first");
    work.commit().await.unwrap();
    let mut work = service(&*store).await;
    assert_eq!(work.identity().keep_signing_key(b"second").await.unwrap(), b"first");
}
