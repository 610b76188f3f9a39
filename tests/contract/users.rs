use std::collections::HashMap;

use domain::identity::{IdentityState, Role};
use domain::plans::PlanId;
use domain::users::{NewUser, UserChanges, UserId};
use harness::TestDatabase;
use ports::store::{Page, Scope};

use crate::people::{constraint, email, new_id, service, sign_up};

#[tokio::test]
async fn a_profile_is_made_found_changed_and_deleted() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let id = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let user = work.users().find(id).await.unwrap().unwrap();
    assert_eq!((user.email, user.name.as_str(), user.role), (Some(email("ann").into()), "ann", Role::User));
    assert_eq!((user.plan_id, user.token_balance, user.wallet_address), (PlanId::free(), 100, None));
    assert_eq!(work.users().find_role(id).await.unwrap(), Some(Role::User));
    assert_eq!(work.users().find_role(UserId(new_id())).await.unwrap(), None);
    assert_eq!(work.users().lock(id).await.unwrap().unwrap().id, id);
    assert!(work.users().save_role(id, Role::Admin).await.unwrap());
    assert!(work.users().has_admin().await.unwrap());
    assert!(!work.users().save_role(UserId(new_id()), Role::Admin).await.unwrap());
    work.commit().await.unwrap();

    let mut own = store.begin(Scope::User(id)).await.unwrap();
    let changes = UserChanges { name: Some("Ann".into()), wallet_address: Some(Some("0xabc".into())) };
    let saved = own.users().save(id, &changes).await.unwrap().unwrap();
    assert_eq!((saved.name.as_str(), saved.wallet_address.as_deref()), ("Ann", Some("0xabc")));
    assert_eq!(saved.email, Some(email("ann").into()));
    let same = own.users().save(id, &UserChanges::default()).await.unwrap().unwrap();
    assert_eq!((same.name.as_str(), same.wallet_address.as_deref()), ("Ann", Some("0xabc")));
    let without = UserChanges { name: None, wallet_address: Some(None) };
    assert_eq!(own.users().save(id, &without).await.unwrap().unwrap().wallet_address, None);
    own.commit().await.unwrap();

    let mut work = service(&*store).await;
    assert!(work.users().delete(id).await.unwrap());
    assert!(!work.users().delete(id).await.unwrap());
    assert_eq!(work.users().find(id).await.unwrap(), None);
}

#[tokio::test]
async fn a_profile_needs_an_identity_and_is_made_once() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let known = sign_up(&*store, "ann").await;
    let unknown = NewUser { id: UserId(new_id()), name: "nobody".into(), role: Role::User };
    assert_eq!(constraint(service(&*store).await.users().insert(&unknown).await), "fk_users_auth");
    let again = NewUser { id: known, name: "ann".into(), role: Role::User };
    assert_eq!(constraint(service(&*store).await.users().insert(&again).await), "users_pkey");
}

#[tokio::test]
async fn a_user_sees_and_changes_nobody_else() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut work = store.begin(Scope::User(ann)).await.unwrap();
    assert!(work.users().find(ann).await.unwrap().is_some());
    assert_eq!(work.users().find(bob).await.unwrap(), None);
    assert!(work.users().lock(bob).await.unwrap().is_none());
    let changes = UserChanges { name: Some("mine".into()), wallet_address: None };
    assert_eq!(work.users().save(bob, &changes).await.unwrap(), None);
    let seen = work.users().list(&Page { after: None, limit: 10 }).await.unwrap();
    assert_eq!(seen.iter().map(|user| user.id).collect::<Vec<_>>(), [ann]);
    let of_bob = work.users().export(bob, 10).await.unwrap();
    assert!(of_bob.iter().all(|section| section.rows.is_empty()), "{of_bob:?}");
    // Users may not write the column `role`.
    assert!(work.users().save_role(ann, Role::Admin).await.is_err());
    drop(work);
    let mut absent = store.begin(Scope::Anonymous).await.unwrap();
    assert_eq!(absent.users().find(ann).await.unwrap(), None);
}

#[tokio::test]
async fn a_list_goes_page_by_page_and_misses_nobody() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut all = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        all.push(sign_up(&*store, name).await);
    }
    let mut work = service(&*store).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = work.users().list(&Page { after, limit: 2 }).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id.0));
        seen.extend(page.iter().map(|user| user.id));
    }
    all.reverse();
    assert_eq!(seen.into_iter().filter(|id| all.contains(id)).collect::<Vec<_>>(), all);
}

#[tokio::test]
async fn an_export_holds_everything_but_secrets() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let id = sign_up(&*store, "ann").await;
    let id_text = id.to_string();
    database
        .sql(&format!(
            "INSERT INTO api_keys (user_id, key_hash, key_prefix, last_four, name) VALUES ('{id_text}', 'THEHASH', 'sk', 'abcd', 'k');
             INSERT INTO sessions (user_id, kind, expires_at) VALUES ('{id_text}', 'api', now());
             INSERT INTO organizations (name, owner_id) VALUES ('acme', '{id_text}');
             INSERT INTO learning_progress (user_id, lesson_id) VALUES ('{id_text}', 'one'), ('{id_text}', 'two');
             WITH s AS (INSERT INTO chat_sessions (user_id) VALUES ('{id_text}') RETURNING id)
                 INSERT INTO chat_messages (session_id, role, content) SELECT id, 'user', 'hello' FROM s;"
        ))
        .await;
    for scope in [Scope::User(id), Scope::SERVICE] {
        let mut work = store.begin(scope).await.unwrap();
        let sections = work.users().export(id, 1).await.unwrap();
        let of = |table: &str| sections.iter().find(|section| section.table == table).unwrap();
        assert!(of("users").rows[0].contains("ann@example.com"));
        assert_eq!((of("learning_progress").rows.len(), of("learning_progress").truncated), (1, true));
        assert_eq!((of("sessions").rows.len(), of("sessions").truncated), (1, false));
        assert!(of("chat_messages").rows[0].contains("hello") && of("organizations").rows[0].contains("acme"));
        assert_eq!((of("token_transactions").rows.len(), of("api_keys").rows.len()), (1, 1));
        assert_eq!(sections.len(), 20);
        let everything = format!("{sections:?}");
        for secret in ["THEHASH", "argon2id", "token_hash", "key_hash"] {
            assert!(!everything.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn what_is_to_be_known_of_many_is_read_at_once() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob, absent) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await, UserId(new_id()));
    let gone = sign_up(&*store, "gone").await;
    let mut work = service(&*store).await;
    work.identity().delete(gone).await.unwrap();
    work.commit().await.unwrap();
    let mut work = store.begin(Scope::Counting).await.unwrap();
    work.users().save_role(bob, Role::Admin).await.unwrap();
    let known: HashMap<_, _> =
        work.users().find_callers(&[ann, absent, bob, gone]).await.unwrap().into_iter().collect();
    let told = |id: UserId| (known[&id].role, known[&id].state, known[&id].began_at.is_some());
    assert_eq!(told(ann), (Some(Role::User), IdentityState::Active, true));
    assert_eq!(told(bob), (Some(Role::Admin), IdentityState::Active, true));
    assert_eq!(told(absent), (None, IdentityState::Unknown, false));
    assert_eq!(told(gone), (None, IdentityState::Deleted, false));
    assert_eq!(work.users().find_callers(&[]).await.unwrap(), []);
}
