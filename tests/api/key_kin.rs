//! Keys created with keys: never more than their parent has left, and revoked with it.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Answer, Bearer, TestApp};
use serde_json::{Value, json};

use crate::key_rights::{create, fill};
use crate::{in_seconds, time_at};

fn managing(mut more: Value) -> Value {
    let mut body = json!({ "name": "m", "permissions": ["keys:manage", "users:read"] });
    body.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
    body
}

async fn rotate(app: &TestApp, by: &(impl Bearer + ?Sized), key: &Answer, overlap: i64) -> Answer {
    let path = format!("/api/keys/{}/rotate", key.text_at("/id"));
    app.post(&path).bearer(by).json(json!({ "overlap_seconds": overlap })).send().await
}

async fn revoke(app: &TestApp, by: &(impl Bearer + ?Sized), key: &Answer) {
    app.delete(&format!("/api/keys/{}", key.text_at("/id"))).bearer(by).send().await.expect_status(204);
}

async fn works(app: &TestApp, key: &Answer) -> bool {
    app.get("/api/users/me").bearer(key.text_at("/key")).send().await.status == 200
}

async fn usable(app: &TestApp) -> i64 {
    let sql = "SELECT count(*) FROM api_keys WHERE is_active AND (expires_at IS NULL OR expires_at > now())";
    app.database().query_scalar(sql).await
}

#[tokio::test]
async fn a_child_never_outlives_its_maker() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let maker = create(&app, &ada, managing(json!({ "expires_at": in_seconds(600) }))).await.expect_status(201);
    let secret = maker.text_at("/key");
    let end = time_at(&maker, "/expires_at");
    create(&app, secret, managing(json!({ "expires_at": in_seconds(900) }))).await.expect_problem(403, "forbidden");
    for more in [json!({}), json!({ "expires_at": null }), json!({ "expires_at": in_seconds(60) })] {
        let child = create(&app, secret, managing(more)).await.expect_status(201);
        assert!(time_at(&child, "/expires_at") <= end, "{child}");
        assert_eq!(child.at("/made_by"), maker.at("/id"));
        let grandchild = create(&app, child.text_at("/key"), managing(json!({}))).await.expect_status(201);
        assert!(time_at(&grandchild, "/expires_at") <= time_at(&child, "/expires_at"), "{grandchild}");
    }
    // A rotated key is valid for its overlap only.
    let lasting = create(&app, &ada, managing(json!({}))).await.expect_status(201);
    let successor = rotate(&app, lasting.text_at("/key"), &lasting, 60).await.expect_status(201);
    assert_eq!((successor.at("/lineage_id"), successor.at("/made_by")), (lasting.at("/id"), &Value::Null));
    let late = create(&app, lasting.text_at("/key"), managing(json!({}))).await.expect_status(201);
    assert!(time_at(&late, "/expires_at") <= crate::now() + chrono::TimeDelta::seconds(61), "{late}");
    rotate(&app, lasting.text_at("/key"), &successor, 0).await.expect_problem(403, "forbidden");
    let free = create(&app, &ada, json!({ "name": "f", "permissions": ["users:read"] })).await.expect_status(201);
    rotate(&app, secret, &free, 0).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn a_limited_key_takes_over_no_key_beside_it() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let limited = json!({ "limits": { "monthly_cost_usd": "5" } });
    let key = create(&app, &ada, managing(limited.clone())).await.expect_status(201);
    let sibling = create(&app, &ada, managing(limited.clone())).await.expect_status(201);
    let child = create(&app, key.text_at("/key"), managing(limited.clone())).await.expect_status(201);
    let by = key.text_at("/key");
    rotate(&app, by, &sibling, 0).await.expect_problem(403, "forbidden");
    rotate(&app, child.text_at("/key"), &key, 0).await.expect_problem(403, "forbidden");
    rotate(&app, by, &child, 60).await.expect_status(201);
    let change = async |target: &Answer, cost: Value| {
        let path = format!("/api/keys/{}", target.text_at("/id"));
        app.patch(&path).bearer(by).json(json!({ "limits": { "monthly_cost_usd": cost } })).send().await
    };
    change(&sibling, json!("4")).await.expect_status(200);
    change(&sibling, json!("5")).await.expect_problem(403, "forbidden");
    change(&child, json!("1")).await.expect_status(200);
    change(&child, json!("5")).await.expect_status(200);
    change(&child, json!("5.1")).await.expect_problem(403, "forbidden");
    change(&child, json!(null)).await.expect_problem(403, "forbidden");
    change(&key, json!("4")).await.expect_status(200);
    change(&key, json!("5")).await.expect_problem(403, "forbidden");
    let successor = rotate(&app, by, &key, 60).await.expect_status(201);
    assert_eq!(successor.at("/limits/monthly_cost_usd"), "4");
    // The limits belong to the lineage: in the overlap both keys have them.
    change(&successor, json!("3")).await.expect_status(200);
    let read = app.get(&format!("/api/keys/{}", key.text_at("/id"))).bearer(&ada).send().await.expect_status(200);
    assert_eq!(read.at("/limits/monthly_cost_usd"), "3");
}

#[tokio::test]
async fn a_maker_that_is_revoked_takes_its_children_with_it_on_every_process() {
    let app = TestApp::start().await;
    let other = TestApp::over(app.database().clone(), |_| {}).await;
    let ada = app.signup("ada@example.com").await;
    let first = create(&app, &ada, managing(json!({}))).await.expect_status(201);
    let child = create(&app, first.text_at("/key"), managing(json!({}))).await.expect_status(201);
    let renewed = rotate(&app, child.text_at("/key"), &child, 3_600).await.expect_status(201);
    let grandchild = create(&app, renewed.text_at("/key"), managing(json!({}))).await.expect_status(201);
    let second = rotate(&app, first.text_at("/key"), &first, 3_600).await.expect_status(201);
    let of_second = create(&app, second.text_at("/key"), managing(json!({}))).await.expect_status(201);
    let sibling = create(&app, &ada, managing(json!({}))).await.expect_status(201);
    let family = [&child, &renewed, &grandchild];
    for key in family {
        assert!(works(&other, key).await);
    }
    // Only the old key of a rotation is revoked: the keys that the new one created stay valid.
    revoke(&app, &ada, &first).await;
    for key in family {
        assert!(!works(&app, key).await, "{key}");
    }
    assert!(works(&app, &second).await && works(&app, &of_second).await);
    other.advance(Duration::from_millis(1_100));
    for key in family {
        assert!(!works(&other, key).await, "{key}");
    }
    revoke(&app, &ada, &second).await;
    assert!(!works(&app, &of_second).await && works(&app, &sibling).await);
    rotate(&app, &ada, &child, 0).await.expect_problem(409, "key_not_rotatable");
    create(&other, child.text_at("/key"), managing(json!({}))).await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn no_key_is_made_by_one_that_is_being_revoked() {
    let app = TestApp::start().await;
    let other = TestApp::over(app.database().clone(), |_| {}).await;
    let ada = app.signup("ada@example.com").await;
    for _ in 0..4 {
        let maker = create(&app, &ada, managing(json!({}))).await.expect_status(201);
        let secret = maker.text_at("/key");
        create(&other, secret, managing(json!({}))).await.expect_status(201);
        let attempts = join_all((0..8).map(|place| {
            let process = if place % 2 == 0 { &app } else { &other };
            create(process, secret, managing(json!({})))
        }));
        let (made, ()) = tokio::join!(attempts, revoke(&app, &ada, &maker));
        // The other process caches the key for up to a second.
        let late = create(&other, secret, managing(json!({}))).await;
        assert_eq!(late.status, 401, "{late}");
        for answer in made {
            assert!([201, 401].contains(&answer.status), "{answer}");
        }
        assert_eq!(usable(&app).await, 0, "nothing that it made is left");
    }
}

#[tokio::test]
async fn a_hundred_and_thirty_rotations_leave_a_hundred_keys_at_most() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let mut key = create(&app, &ada, managing(json!({}))).await.expect_status(201);
    let mut refused = 0;
    for _ in 0..130 {
        let answer = rotate(&app, &ada, &key, 604_800).await;
        if answer.status == 201 {
            key = answer;
        } else {
            answer.expect_problem(422, "too_many_keys");
            refused += 1;
        }
    }
    assert_eq!((usable(&app).await, refused), (100, 31));
    let last = rotate(&app, &ada, &key, 0).await.expect_status(201);
    assert_eq!(
        last.at("/lineage_id"),
        &json!(
            app.database().query_scalar::<String>("SELECT id::text FROM api_keys ORDER BY created_at LIMIT 1").await
        )
    );
    assert_eq!(usable(&app).await, 100, "without an overlap the old one ends at once");
}

#[tokio::test]
async fn sixty_four_at_once_never_pass_the_bound() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    fill(&app, &ada, 80).await;
    let maker = create(&app, &ada, managing(json!({}))).await.expect_status(201);
    let made = join_all((0..64).map(|place| {
        let (app, ada, maker) = (&app, &ada, &maker);
        async move {
            match place % 3 {
                0 => create(app, ada, managing(json!({}))).await,
                1 => create(app, maker.text_at("/key"), managing(json!({}))).await,
                _ => rotate(app, ada, maker, 3_600).await,
            }
        }
    }));
    for answer in made.await {
        let is_expected = match answer.status {
            201 => true,
            409 => answer.body["code"] == "key_not_rotatable",
            422 => answer.body["code"] == "too_many_keys",
            503 => answer.body["code"] == "busy",
            _ => false,
        };
        assert!(is_expected, "{answer}");
    }
    assert!((82..=100).contains(&usable(&app).await), "{}", usable(&app).await);
}

#[tokio::test]
async fn children_go_down_to_a_bound() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let mut key = create(&app, &ada, managing(json!({}))).await.expect_status(201);
    for _ in 0..4 {
        key = create(&app, key.text_at("/key"), managing(json!({}))).await.expect_status(201);
    }
    create(&app, key.text_at("/key"), managing(json!({}))).await.expect_problem(422, "too_many_makers");
}
