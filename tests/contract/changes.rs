//! The change feed: the changes that it reports, and when it confirms nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters::cache::ProcessCache;
use adapters::clock::SystemClock;
use adapters::postgres::ChangeFeed;
use domain::api_keys::{ApiKeyDraft, KeyLimits, KeyOrigin};
use domain::changes::Change;
use domain::identity::{CallerFacts, IdentityState, PermissionSet, Role};
use harness::{TestDatabase, eventually};
use ports::api_keys::MintedKey;
use ports::changes::ChangeListener;
use ports::clock::Clock;
use ports::identity::CallerCache as _;
use testkit::clock::SteppedClock;

use crate::features::draft as feature_draft;
use crate::people::{service, sign_up};

/// The time until a commit is reported, on a busy machine.
const SOON: Duration = Duration::from_millis(900);

/// The time until a feed is connected again.
const AGAIN: Duration = Duration::from_secs(5);

/// Records the calls of the feed.
#[derive(Default)]
struct Notes {
    heard: Mutex<Vec<Change>>,
    vouched: Mutex<Option<Duration>>,
    losses: AtomicU32,
}

impl ChangeListener for Notes {
    fn invalidate(&self, change: Change) {
        self.heard.lock().unwrap().push(change);
    }

    fn confirm_fresh(&self, moment: Duration) {
        *self.vouched.lock().unwrap() = Some(moment);
    }

    fn invalidate_all(&self) {
        *self.vouched.lock().unwrap() = None;
        self.losses.fetch_add(1, Ordering::SeqCst);
    }

    fn is_fed(&self) -> bool {
        self.vouched.lock().unwrap().is_some_and(|moment| SystemClock.elapsed() < moment + Duration::from_secs(1))
    }
}

impl Notes {
    /// The changes since the last call, once this one is among them.
    async fn hear(&self, change: Change) -> Vec<Change> {
        let heard = || async { self.heard.lock().unwrap().contains(&change) };
        eventually(SOON, heard, |heard| *heard).await;
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

/// A connected feed with the service's restricted login.
async fn feed(database: &TestDatabase, listener: Arc<dyn ChangeListener>, clock: Arc<dyn Clock>) -> ChangeFeed {
    let feed = ChangeFeed::start(&database.service_url(), Arc::clone(&listener), clock).unwrap();
    eventually(AGAIN, || async { listener.is_fed() }, |is_fed| *is_fed).await;
    feed
}

async fn kill_feeds(database: &TestDatabase) {
    let killed: i64 = database
        .query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'product-base changes'",
        )
        .await;
    assert_eq!(killed, 1);
}

#[tokio::test]
async fn the_restricted_login_hears_of_users_keys_and_the_catalogue() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let ada = sign_up(&*store, "ada").await;
    let notes = Arc::new(Notes::default());
    let _feed = feed(&database, notes.clone(), Arc::new(SystemClock)).await;

    let mut work = service(&*store).await;
    work.users().save_role(ada, Role::Admin).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(*notes.heard.lock().unwrap(), [], "nothing is told before the commit");
    work.commit().await.unwrap();
    assert_eq!(notes.hear(Change::User(ada)).await, [Change::User(ada)]);

    let draft = ApiKeyDraft {
        name: "key".into(),
        permissions: PermissionSet::all(),
        on_behalf: false,
        limits: KeyLimits::NONE,
        expires_at: None,
        origin: KeyOrigin::default(),
    };
    let minted = MintedKey { secret: "s".into(), prefix: "p".into(), last_four: "last".into(), hash: "a".repeat(64) };
    let mut work = service(&*store).await;
    let key = work.api_keys().insert(ada, &draft, &minted).await.unwrap();
    let locked = work.api_keys().lock(ada, key.id).await.unwrap().unwrap();
    work.api_keys().revoke(&locked, key.created_at).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(notes.hear(Change::Key(key.id)).await, [Change::Key(key.id)]);

    let mut work = service(&*store).await;
    work.features().insert(&feature_draft("scans")).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(notes.hear(Change::Catalogue).await, [Change::Catalogue]);

    database.sql("SELECT pg_notify('product_base_changes', 'of a newer schema')").await;
    assert_eq!(notes.hear(Change::Everything).await, [Change::Everything]);
    database.sql(&format!("UPDATE users SET token_balance = token_balance + 1 WHERE id = '{ada}'")).await;
    database.sql(&format!("DELETE FROM users WHERE id = '{ada}'")).await;
    assert!(!notes.hear(Change::User(ada)).await.contains(&Change::Everything));
}

#[tokio::test]
async fn a_feed_vouches_again_and_again_while_nothing_happens() {
    let database = TestDatabase::new().await;
    let notes = Arc::new(Notes::default());
    let feed = feed(&database, notes.clone(), Arc::new(SystemClock)).await;
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(notes.is_fed());
    }
    assert_eq!(notes.losses.load(Ordering::SeqCst), 1, "only what was before it began is unknown");
    drop(feed);
    eventually(AGAIN, || async { notes.is_fed() }, |is_fed| !is_fed).await;
}

/// The cached facts of a user.
const USER: CallerFacts = CallerFacts { role: Some(Role::User), state: IdentityState::Active, began_at: None };

#[tokio::test]
async fn a_killed_connection_is_noticed_and_what_was_read_before_is_forgotten() {
    let database = TestDatabase::new().await;
    let ada = sign_up(&*database.store(), "ada").await;
    let clock = Arc::new(SteppedClock::over(Arc::new(SystemClock)));
    let memory = Arc::new(ProcessCache::new(clock.clone()));
    let _feed = feed(&database, memory.clone(), clock.clone()).await;
    for _ in 0..2 {
        memory.remember_facts(ada, USER, &memory.facts_ticket(ada));
        clock.advance(Duration::from_millis(1_100));
        // The feed confirms what was read before.
        eventually(SOON, || async { memory.facts(ada) == Some(USER) }, |is_known| *is_known).await;
        memory.remember_facts(ada, USER, &memory.facts_ticket(ada));
        let asked_before = memory.facts_ticket(ada);
        kill_feeds(&database).await;
        let told = eventually(SOON, || async { memory.facts(ada).is_none() }, |gone| *gone);
        told.await;
        eventually(AGAIN, || async { memory.is_fed() }, |is_fed| *is_fed).await;
        memory.remember_facts(ada, USER, &asked_before);
        assert_eq!(memory.facts(ada), None, "it was asked for before the loss");
    }
}

#[tokio::test]
async fn a_feed_begins_without_its_database_and_finds_it_later() {
    let database = TestDatabase::new().await;
    database.take_away().await;
    let notes = Arc::new(Notes::default());
    let _feed = ChangeFeed::start(&database.service_url(), notes.clone(), Arc::new(SystemClock)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!notes.is_fed());
    database.give_back().await;
    eventually(AGAIN, || async { notes.is_fed() }, |is_fed| *is_fed).await;
    assert!(ChangeFeed::start("nonsense", notes, Arc::new(SystemClock)).is_err());
}
