use domain::api_keys::{ApiKey, ApiKeyDraft, ApiKeyId, KeyBudget, KeyBudgets, KeyLimits, KeyOrigin};
use domain::identity::{Permission, PermissionSet, Role};
use domain::prices::NanoUsd;
use domain::users::UserId;
use harness::TestDatabase;
use ports::api_keys::MintedKey;
use ports::store::{Page, Scope, StoreError, UnitOfWork};

use crate::people::{at, constraint, new_id, service, sign_up};

fn draft(name: &str) -> ApiKeyDraft {
    ApiKeyDraft {
        name: name.into(),
        permissions: PermissionSet::from_iter([Permission::UsageCheck, Permission::AiChat]),
        on_behalf: false,
        limits: KeyLimits { requests_per_minute: Some(60), ..KeyLimits::NONE },
        expires_at: Some(at(1_000_000_000)),
        origin: KeyOrigin::default(),
    }
}

fn minted(hash: &str) -> MintedKey {
    MintedKey {
        secret: "sk_live_secret".into(),
        prefix: "sk_live_abc".into(),
        last_four: "wxyz".into(),
        hash: hash.into(),
    }
}

#[tokio::test]
async fn a_key_is_made_found_and_revoked() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (owner, other) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut work = service(&*store).await;
    let key = work.api_keys().insert(owner, &draft("server"), &minted("hash-1")).await.unwrap();
    assert_eq!((key.user_id, key.name.as_str(), key.last_four.as_str()), (owner, "server", "wxyz"));
    assert_eq!((&key.permissions, key.expires_at), (&draft("").permissions, Some(at(1_000_000_000))));
    assert_eq!(key.limits, draft("").limits);
    assert_eq!(work.api_keys().find(owner, key.id).await.unwrap(), Some(key.clone()));
    assert_eq!(work.api_keys().find(other, key.id).await.unwrap(), None);
    let holder = work.api_keys().find_by_hash("hash-1").await.unwrap().unwrap();
    assert_eq!((&holder.key, holder.role), (&key, Role::User));
    assert_eq!(work.api_keys().find_by_hash("hash-2").await.unwrap(), None);
    assert_eq!(work.api_keys().count_usable(owner, at(0)).await.unwrap(), 1);
    assert_eq!(work.api_keys().count_usable(owner, at(1_000_000_000)).await.unwrap(), 0);
    assert!(work.api_keys().lock(other, key.id).await.unwrap().is_none());
    let locked = work.api_keys().lock(owner, key.id).await.unwrap().unwrap();
    work.api_keys().revoke(&locked, at(5)).await.unwrap();
    let revoked = work.api_keys().find(owner, key.id).await.unwrap().unwrap();
    assert_eq!((revoked.is_active, revoked.revoked_at), (false, Some(at(5))));
    assert_eq!(work.api_keys().count_usable(owner, at(0)).await.unwrap(), 0);
    let taken = work.api_keys().insert(owner, &draft("again"), &minted("hash-1")).await;
    assert_eq!(constraint(taken), "api_keys_key_hash_key");
    let unknown = service(&*store).await.api_keys().insert(UserId(new_id()), &draft("x"), &minted("hash-3")).await;
    assert_eq!(constraint(unknown), "fk_api_keys_user");
}

#[tokio::test]
async fn a_rotated_key_names_its_successor() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let owner = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let old = work.api_keys().insert(owner, &draft("server"), &minted("hash-1")).await.unwrap();
    let new = work.api_keys().insert(owner, &draft("server"), &minted("hash-2")).await.unwrap();
    let locked = work.api_keys().lock(owner, old.id).await.unwrap().unwrap();
    work.api_keys().save_rotation(&locked, new.id, at(60)).await.unwrap();
    let rotated = work.api_keys().find(owner, old.id).await.unwrap().unwrap();
    assert_eq!((rotated.rotated_to, rotated.expires_at, rotated.is_active), (Some(new.id), Some(at(60)), true));
    let nothing = work.api_keys().save_rotation(&locked, ApiKeyId(new_id()), at(60)).await;
    assert_eq!(constraint(nothing), "fk_api_keys_rotated_to");
}

#[tokio::test]
async fn keys_are_listed_newest_first_and_shown_to_their_owner_only() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (owner, other) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut made = Vec::new();
    for hash in ["1", "2", "3"] {
        let mut work = service(&*store).await;
        made.push(work.api_keys().insert(owner, &draft(hash), &minted(hash)).await.unwrap());
        work.commit().await.unwrap();
    }
    made.reverse();
    let mut own = store.begin(Scope::User(owner)).await.unwrap();
    let first = own.api_keys().list(owner, &Page { after: None, limit: 2 }).await.unwrap();
    assert_eq!(first, made[..2]);
    let after = Some((first[1].created_at, first[1].id));
    assert_eq!(own.api_keys().list(owner, &Page { after, limit: 2 }).await.unwrap(), made[2..]);
    drop(own);
    let mut foreign = store.begin(Scope::User(other)).await.unwrap();
    assert_eq!(foreign.api_keys().list(owner, &Page { after: None, limit: 10 }).await.unwrap(), []);
    // Only the service may read the column of the hashes.
    let by_hash = foreign.api_keys().find_by_hash("1").await;
    assert!(matches!(by_hash, Err(StoreError::Unexpected(_))), "{by_hash:?}");
}

#[tokio::test]
async fn uses_are_written_in_a_batch_and_never_go_back() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let owner = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let first = work.api_keys().insert(owner, &draft("a"), &minted("1")).await.unwrap().id;
    let second = work.api_keys().insert(owner, &draft("b"), &minted("2")).await.unwrap().id;
    work.api_keys().record_use(&[]).await.unwrap();
    let uses = [(first, at(5)), (second, at(7)), (first, at(9)), (ApiKeyId(new_id()), at(1))];
    work.api_keys().record_use(&uses).await.unwrap();
    work.api_keys().record_use(&[(second, at(6))]).await.unwrap();
    for (id, used_at) in [(first, at(9)), (second, at(7))] {
        let key = work.api_keys().find(owner, id).await.unwrap().unwrap();
        assert_eq!(key.last_used_at, Some(used_at));
    }
}

#[tokio::test]
async fn a_key_gets_another_name_and_other_limits() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let owner = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let key = work.api_keys().insert(owner, &draft("server"), &minted("hash-1")).await.unwrap();
    let all = KeyLimits { requests_per_minute: Some(1), tokens_per_minute: Some(2), monthly_cost: Some(NanoUsd(3)) };
    for (name, limits) in [("server", all), ("other", all), ("other", KeyLimits::NONE)] {
        let locked = work.api_keys().lock(owner, key.id).await.unwrap().unwrap();
        let changed = work.api_keys().save_changes(&locked, name, &limits).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.limits), (name, limits));
        assert_eq!((&changed.permissions, changed.expires_at), (&key.permissions, key.expires_at));
        let holder = work.api_keys().find_by_hash("hash-1").await.unwrap().unwrap();
        assert_eq!(holder.key, changed, "whoever calls with it is known with its limits");
    }
    let locked = work.api_keys().lock(owner, key.id).await.unwrap().unwrap();
    let zero = KeyLimits { tokens_per_minute: Some(0), ..KeyLimits::NONE };
    assert_eq!(constraint(work.api_keys().save_changes(&locked, "x", &zero).await), "check_api_key_limits");
}

#[tokio::test]
async fn counters_of_windows_that_are_long_over_are_deleted_a_few_at_a_time() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let owner = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let key = work.api_keys().insert(owner, &draft("server"), &minted("hash-1")).await.unwrap();
    work.commit().await.unwrap();
    let id = key.id.0;
    database
        .sql(&format!(
            "INSERT INTO api_key_counters (api_key_id, period, period_start, requests) VALUES
                ('{id}', 'minute', now() - interval '25 hours', 1), ('{id}', 'minute', now() - interval '26 hours', 1),
                ('{id}', 'minute', now() - interval '27 hours', 1), ('{id}', 'minute', now() - interval '23 hours', 2),
                ('{id}', 'minute', now(), 2), ('{id}', 'month', now() - interval '12 months', 2),
                ('{id}', 'month', now() - interval '14 months', 1)"
        ))
        .await;
    let mut swept = Vec::new();
    for _ in 0..3 {
        let mut work = service(&*store).await;
        swept.push(work.api_keys().delete_old_counters(3).await.unwrap());
        work.commit().await.unwrap();
    }
    assert_eq!(swept, [3, 1, 0]);
    let left: (i64, i64) = database.query_one("SELECT count(*), min(requests) FROM api_key_counters").await;
    assert_eq!(left, (3, 2), "what is young enough stays");
    database.sql(&format!("DELETE FROM api_keys WHERE id = '{id}'")).await;
    let outlived = database.query_scalar::<i64>("SELECT count(*) FROM api_key_counters").await;
    assert_eq!(
        outlived, 3,
        "a call under way can be settled after its key is gone; the sweep removes the rest in time"
    );
}

/// An API key with this origin.
async fn make(work: &mut dyn UnitOfWork, owner: UserId, hash: &str, origin: KeyOrigin) -> ApiKey {
    work.api_keys().insert(owner, &ApiKeyDraft { origin, ..draft(hash) }, &minted(hash)).await.unwrap()
}

fn successor_of(key: &ApiKey) -> KeyOrigin {
    KeyOrigin { lineage_id: Some(key.lineage_id), makers: key.makers.clone() }
}

fn child_of(key: &ApiKey) -> KeyOrigin {
    KeyOrigin { lineage_id: None, makers: std::iter::once(key.id).chain(key.makers.iter().copied()).collect() }
}

/// The names of the usable keys.
async fn usable(database: &TestDatabase) -> String {
    let sql = "SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM api_keys WHERE is_active";
    database.query_scalar(sql).await
}

#[tokio::test]
async fn limits_are_the_lineages_and_bind_all_that_it_made() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let owner = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let first = make(&mut *work, owner, "first", KeyOrigin::default()).await;
    assert_eq!((first.lineage_id, &first.makers), (first.id, &Vec::new()));
    let second = make(&mut *work, owner, "second", successor_of(&first)).await;
    let child = make(&mut *work, owner, "child", child_of(&second)).await;
    let grandchild = make(&mut *work, owner, "grandchild", child_of(&child)).await;
    let other = make(&mut *work, owner, "other", KeyOrigin::default()).await;
    let tighter = KeyLimits { monthly_cost: Some(NanoUsd(3)), ..KeyLimits::NONE };
    let locked = work.api_keys().lock(owner, first.id).await.unwrap().unwrap();
    let changed = work.api_keys().save_changes(&locked, "renamed", &tighter).await.unwrap();
    assert_eq!((changed.id, changed.name.as_str(), changed.limits), (first.id, "renamed", tighter));
    let after = work.api_keys().find(owner, second.id).await.unwrap().unwrap();
    assert_eq!((after.name.as_str(), after.limits), ("second", tighter), "the name is the key's own");
    for key in [&child, &other] {
        assert_eq!(work.api_keys().find(owner, key.id).await.unwrap().unwrap().limits, key.limits);
    }
    let budget = |lineage: &ApiKey, limits| KeyBudget { lineage_id: lineage.lineage_id, limits };
    let expected = KeyBudgets::new(
        budget(&grandchild, grandchild.limits),
        [budget(&child, child.limits), budget(&first, tighter)],
    );
    let found = work.api_keys().find_holder(owner, grandchild.id).await.unwrap().unwrap();
    assert_eq!((&found.key, &found.budgets), (&grandchild, &expected));
    assert_eq!(work.api_keys().find_by_hash("grandchild").await.unwrap(), Some(found));
    assert_eq!(work.api_keys().find_holder(UserId(new_id()), child.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_revoked_key_ends_with_all_that_it_and_those_before_it_made() {
    for (revoked, left) in [
        ("first", "child2 grandchild2 other second"),
        ("second", "first other"),
        ("child1", "child1b child2 first grandchild1 grandchild2 other second"),
        ("other", "child1 child1b child2 first grandchild1 grandchild2 second"),
    ] {
        let database = TestDatabase::new().await;
        let store = database.store();
        let owner = sign_up(&*store, "ann").await;
        let mut made = std::collections::HashMap::new();
        // Each in its own transaction, as in production.
        let tree: [(&str, Option<&str>, bool); 8] = [
            ("first", None, false),
            ("child1", Some("first"), true),
            ("child1b", Some("child1"), false),
            ("grandchild1", Some("child1b"), true),
            ("second", Some("first"), false),
            ("child2", Some("second"), true),
            ("grandchild2", Some("child2"), true),
            ("other", None, false),
        ];
        for (name, from, is_child) in tree {
            let origin = match from.map(|from| &made[from]) {
                None => KeyOrigin::default(),
                Some(maker) if is_child => child_of(maker),
                Some(before) => successor_of(before),
            };
            let mut work = service(&*store).await;
            made.insert(name, make(&mut *work, owner, name, origin).await);
            work.commit().await.unwrap();
        }
        let mut work = service(&*store).await;
        let locked = work.api_keys().lock(owner, made[revoked].id).await.unwrap().unwrap();
        work.api_keys().revoke(&locked, at(5)).await.unwrap();
        work.commit().await.unwrap();
        assert_eq!(usable(&database).await, left, "{revoked}");
    }
}
