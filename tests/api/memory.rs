//! The cache of a process, and how soon it sees changes of another process.

use std::sync::Arc;
use std::time::Duration;

use app::settings::shape::{PoolerKind, SecretText, Settings};
use harness::{Answer, TestApp, TestDatabase, TestUser, eventually};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::outages::Line;
use crate::{expect_field, in_seconds, now, time_at};

/// The time until another process sees a change through a feed: less than the second after which cached rows expire.
const TOLD: Duration = Duration::from_millis(800);

/// The time until it sees the change without a feed, with a margin for the request itself.
const AGED: Duration = Duration::from_millis(1_300);

/// The time until a feed is connected, or reported as lost.
const SOON: Duration = Duration::from_secs(5);

const PATH: &str = "/api/users/me/features/ai_requests";

/// As behind a transaction pooler without a direct URL: there is no change feed.
fn without_feed(settings: &mut Settings) {
    settings.database.pooler = PoolerKind::Transaction;
    settings.database.direct_url = SecretText::new("");
}

async fn hears(app: &TestApp, is_fed: bool) {
    let line = format!("\nchange_feed_hearing {}\n", u8::from(is_fed));
    eventually(SOON, || app.metrics().send(), |page| page.text.contains(&line)).await;
}

/// More than a second later, once the feed has confirmed what was read before.
async fn later(app: &TestApp) {
    app.advance(Duration::from_millis(1_500));
    hears(app, true).await;
}

/// Two processes over one database, with or without a connected feed.
async fn two(change: fn(&mut Settings), is_fed: bool) -> (TestApp, TestApp) {
    let database = Arc::new(TestDatabase::new().await);
    let one = TestApp::over(Arc::clone(&database), change).await;
    let other = TestApp::over(database, change).await;
    hears(&one, is_fed).await;
    hears(&other, is_fed).await;
    (one, other)
}

async fn check(app: &TestApp, user: &TestUser) -> Answer {
    app.get(PATH).bearer(user).send().await.expect_status(200)
}

async fn change_plan(app: &TestApp, user: &TestUser, plan: &str) {
    let body = json!({ "plan_id": plan });
    app.post("/api/users/me/plan").bearer(user).json(body).send().await.expect_status(200);
}

fn override_path(user: &TestUser) -> String {
    format!("/api/admin/users/{}/overrides/ai_requests", user.id)
}

/// The other process sees each change within this time, although it had cached the row just before.
async fn changes_are_seen(one: &TestApp, other: &TestApp, within: Duration) {
    let (admin, ada) = (one.admin().await, one.signup("ada@example.com").await);
    let seen = async |pointer: &str, value: Value| {
        eventually(within, || check(other, &ada), |answer| *answer.at(pointer) == value).await
    };
    assert_eq!(check(other, &ada).await.text_at("/plan_id"), "free");
    change_plan(one, &ada, "gold").await;
    seen("/plan_id", json!("gold")).await;

    let exception = json!({ "enabled": true, "limit_value": 7 });
    one.put(&override_path(&ada)).bearer(&admin).json(exception).send().await.expect_status(200);
    seen("/limit", json!(7)).await;
    one.delete(&override_path(&ada)).bearer(&admin).send().await.expect_status(204);
    seen("/source", json!("plan")).await;

    let grant = json!({ "enabled": true, "limit_value": 1234 });
    one.put("/api/plans/gold/features/ai_requests").bearer(&admin).json(grant).send().await.expect_status(200);
    seen("/limit", json!(1234)).await;

    let users = async || other.get("/api/admin/users").bearer(&ada).send().await;
    users().await.expect_status(403);
    let role = format!("/api/admin/users/{}/role", ada.id);
    one.put(&role).bearer(&admin).json(json!({ "role": "admin" })).send().await.expect_status(200);
    eventually(within, users, |answer| answer.status == 200).await;

    let body = json!({ "name": "checker", "permissions": ["usage:check"] });
    let key = one.post("/api/keys").bearer(&ada).json(body).send().await.expect_status(201);
    let by_key = async || other.get(PATH).bearer(key.text_at("/key")).send().await;
    by_key().await.expect_status(200);
    one.delete(&format!("/api/keys/{}", key.text_at("/id"))).bearer(&ada).send().await.expect_status(204);
    eventually(within, by_key, |answer| answer.status == 401).await;
}

#[tokio::test]
async fn a_feed_tells_one_process_what_another_changed() {
    let (one, other) = two(|_| {}, true).await;
    changes_are_seen(&one, &other, TOLD).await;
}

#[tokio::test]
async fn without_a_feed_a_change_is_seen_within_a_second() {
    let (one, other) = two(without_feed, false).await;
    changes_are_seen(&one, &other, AGED).await;
}

#[tokio::test]
async fn facts_are_remembered_as_long_as_a_feed_vouches_for_them() {
    let (app, deaf) = two(|_| {}, true).await;
    let ada = app.signup("ada@example.com").await;
    let first = time_at(&check(&app, &ada).await, "/as_of");
    later(&app).await;
    assert_eq!(time_at(&check(&app, &ada).await, "/as_of"), first, "the facts are those of the first time");
    let strong = app.get(&format!("{PATH}?consistency=strong")).bearer(&ada).send().await.expect_status(200);
    assert!(time_at(&strong, "/as_of") > first);
    let database = Arc::clone(deaf.database());
    drop(deaf);
    let deaf = TestApp::over(database, without_feed).await;
    let first = time_at(&check(&deaf, &ada).await, "/as_of");
    assert_eq!(time_at(&check(&deaf, &ada).await, "/as_of"), first, "for a second, without a feed too");
    deaf.advance(Duration::from_millis(1_100));
    assert!(time_at(&check(&deaf, &ada).await, "/as_of") > first);
}

#[tokio::test]
async fn who_changes_something_sees_it_at_once_with_a_feed_or_without() {
    for change in [(|_| {}) as fn(&mut Settings), without_feed] {
        let app = TestApp::with(change).await;
        let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
        for limit in 1..5 {
            let exception = json!({ "enabled": true, "limit_value": limit });
            app.put(&override_path(&ada)).bearer(&admin).json(exception).send().await.expect_status(200);
            assert_eq!(check(&app, &ada).await.at("/limit"), limit);
        }
        app.delete(&override_path(&ada)).bearer(&admin).send().await.expect_status(204);
        for plan in ["gold", "platinum", "gold"] {
            change_plan(&app, &ada, plan).await;
            assert_eq!(check(&app, &ada).await.text_at("/plan_id"), plan);
        }
        let switch = json!({ "is_active": false });
        app.patch("/api/features/ai_requests").bearer(&admin).json(switch).send().await.expect_status(200);
        assert_eq!(check(&app, &ada).await.text_at("/reason"), "feature_disabled");
    }
}

#[tokio::test]
async fn an_exception_is_not_answered_by_beyond_its_time() {
    let app = TestApp::start().await;
    hears(&app, true).await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let exception = json!({ "enabled": true, "limit_value": 7, "expires_at": in_seconds(2) });
    let set = app.put(&override_path(&ada)).bearer(&admin).json(exception).send().await.expect_status(200);
    let ends = time_at(&set, "/expires_at");
    let mut by_exception = 0;
    loop {
        let asked_at = now();
        let answer = check(&app, &ada).await;
        if asked_at > ends {
            assert_eq!(answer.text_at("/source"), "plan", "asked {} after its end", asked_at - ends);
            break;
        }
        by_exception += u32::from(answer.text_at("/source") == "override");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(by_exception > 10, "it was in force until then: {by_exception}");
}

#[tokio::test]
async fn a_use_counted_elsewhere_is_seen_within_a_second_and_strongly_at_once() {
    let (one, other) = two(|_| {}, true).await;
    let ada = one.signup("ada@example.com").await;
    change_plan(&one, &ada, "gold").await;
    eventually(TOLD, || check(&other, &ada), |answer| answer.text_at("/plan_id") == "gold").await;
    let strong_body = json!({ "feature_id": "ai_requests", "consistency": "strong" });
    let body = json!({ "feature_id": "ai_requests" });
    for count in 1..4 {
        check(&other, &ada).await;
        let consumed = json!({ "feature_id": "ai_requests", "idempotency_key": format!("use-{count}") });
        one.post("/api/usage").bearer(&ada).json(consumed).send().await.expect_status(200);
        for strong in [
            other.get(&format!("{PATH}?consistency=strong")),
            other.post("/api/entitlements/check").json(&strong_body),
            other.post("/api/entitlements/check?consistency=strong").json(&body),
        ] {
            assert_eq!(strong.bearer(&ada).send().await.expect_status(200).at("/current"), count);
        }
        eventually(AGED, || check(&other, &ada), |answer| *answer.at("/current") == count).await;
    }
    let unknown = other.get(&format!("{PATH}?consistency=eventual")).bearer(&ada).send().await;
    expect_field(unknown, "consistency");
}

#[tokio::test]
async fn a_frozen_feed_is_noticed_and_everything_it_vouched_for_lives_a_second() {
    let database = Arc::new(TestDatabase::new().await);
    let line = Line::to(&database.owner_url()).await;
    let url = line.url.clone();
    let app =
        TestApp::over(Arc::clone(&database), |settings| settings.database.direct_url = SecretText::new(url)).await;
    hears(&app, true).await;
    let ada = app.signup("ada@example.com").await;
    assert_eq!(check(&app, &ada).await.text_at("/plan_id"), "free");
    line.frozen.send_replace(true);
    database.sql(&format!("UPDATE users SET plan_id = 'gold' WHERE id = '{}'", ada.id)).await;
    eventually(AGED, || check(&app, &ada), |answer| answer.text_at("/plan_id") == "gold").await;
    hears(&app, false).await;
    database.sql(&format!("UPDATE users SET plan_id = 'platinum' WHERE id = '{}'", ada.id)).await;
    eventually(AGED, || check(&app, &ada), |answer| answer.text_at("/plan_id") == "platinum").await;
    line.frozen.send_replace(false);
    hears(&app, true).await;
    let first = time_at(&check(&app, &ada).await, "/as_of");
    later(&app).await;
    assert_eq!(time_at(&check(&app, &ada).await, "/as_of"), first);
}

#[tokio::test]
async fn a_crowd_that_asks_at_once_is_answered_each_for_themselves() {
    let app = TestApp::start().await;
    let mut people = Vec::new();
    for (number, plan) in ["gold", "platinum", "free", "gold"].into_iter().enumerate() {
        let user = app.signup(&format!("user{number}@example.com")).await;
        if plan != "free" {
            change_plan(&app, &user, plan).await;
        }
        people.push((user, plan));
    }
    app.database().sql("NOTIFY product_base_changes, 'forget everything'").await;
    let crowd = (0..200).map(|number| &people[number % people.len()]);
    let answers =
        futures_util::future::join_all(crowd.map(async |(user, plan)| (check(&app, user).await, *plan))).await;
    for (answer, plan) in answers {
        assert_eq!(answer.text_at("/plan_id"), plan);
    }
}
