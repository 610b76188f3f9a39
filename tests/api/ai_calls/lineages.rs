//! Budgets of API keys belong to lineages: a rotation resets nothing, and the use of child keys also counts on their
//! parent.

use futures_util::future::join_all;
use harness::Answer;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use testkit::upstream::Script;

use super::stage::{Stage, hello, prices};

fn bounded() -> Value {
    let mut body = hello("gpt-one");
    body["max_tokens"] = json!(20);
    body
}

async fn stage() -> Stage {
    let stage = Stage::set().await;
    stage.upstream.script_others(Script::words(3).priced(prices()));
    stage
}

/// A key with these limits that may create other keys.
async fn manager(stage: &Stage, limits: Value) -> Answer {
    let body = json!({ "name": "m", "permissions": ["ai:chat", "keys:manage"], "limits": limits });
    stage.app.post("/api/keys").bearer(&stage.ada).json(body).send().await.expect_status(201)
}

async fn child(stage: &Stage, maker: &Answer, limits: Value) -> Answer {
    let body = json!({ "name": "c", "permissions": ["ai:chat", "keys:manage"], "limits": limits });
    stage.app.post("/api/keys").bearer(maker.text_at("/key")).json(body).send().await.expect_status(201)
}

async fn rotate(stage: &Stage, by: &str, key: &Answer, overlap: u64) -> Answer {
    let path = format!("/api/keys/{}/rotate", key.text_at("/id"));
    stage.app.post(&path).bearer(by).json(json!({ "overlap_seconds": overlap })).send().await
}

async fn ask(stage: &Stage, key: &Answer) -> Answer {
    stage.ask(key.text_at("/key"), bounded()).await
}

/// Calls until the key is refused; returns the number of granted calls.
async fn spend_all(stage: &Stage, key: &Answer) -> usize {
    for calls in 0..200 {
        let answer = ask(stage, key).await;
        if answer.status != 200 {
            answer.expect_problem(429, "key_cost_limit");
            return calls;
        }
    }
    panic!("the budget never ends")
}

async fn spent(stage: &Stage) -> i64 {
    stage.books().await.iter().map(|(_, _, cost, ..)| cost).sum()
}

fn nano(usd: &str) -> i64 {
    let nano = usd.parse::<Decimal>().unwrap() * Decimal::from(1_000_000_000);
    nano.try_into().unwrap()
}

#[tokio::test]
async fn ten_rotations_and_ten_children_spend_one_budget() {
    let stage = stage().await;
    let budget = "0.001";
    let first = manager(&stage, json!({ "monthly_cost_usd": budget })).await;
    assert!(spend_all(&stage, &first).await > 0);
    let mut key = first;
    for overlap in [0, 3_600, 0, 604_800, 3_600, 0, 1, 3_600, 0, 3_600] {
        let successor = rotate(&stage, key.text_at("/key"), &key, overlap).await.expect_status(201);
        ask(&stage, &successor).await.expect_problem(429, "key_cost_limit");
        if overlap > 1 {
            ask(&stage, &key).await.expect_problem(429, "key_cost_limit");
        }
        key = successor;
    }
    for _ in 0..10 {
        let child = child(&stage, &key, json!({ "monthly_cost_usd": budget })).await;
        let refused = ask(&stage, &child).await.expect_problem(429, "key_cost_limit");
        assert_eq!(nano(refused.text_at("/limit_usd")), nano(budget));
    }
    let calls = stage.books().await.len();
    stage.expect_bill(calls).await;
    assert!(spent(&stage).await <= nano(budget), "{} of {}", spent(&stage).await, nano(budget));
}

#[tokio::test]
async fn a_child_has_windows_of_its_own_and_counts_on_its_makers_too() {
    let stage = stage().await;
    let maker = manager(&stage, json!({ "monthly_cost_usd": "0.01" })).await;
    let one = child(&stage, &maker, json!({ "monthly_cost_usd": "0.001" })).await;
    let other = child(&stage, &maker, json!({ "monthly_cost_usd": "0.001" })).await;
    let grandchild = child(&stage, &one, json!({ "monthly_cost_usd": "0.001" })).await;
    assert!(spend_all(&stage, &grandchild).await > 0);
    ask(&stage, &one).await.expect_problem(429, "key_cost_limit");
    ask(&stage, &other).await.expect_status(200);
    ask(&stage, &maker).await.expect_status(200);
    let counted = format!(
        "SELECT cost_nano_usd FROM api_key_counters WHERE period = 'month' AND api_key_id = '{}'",
        maker.text_at("/id")
    );
    let calls = stage.books().await.len();
    stage.expect_bill(calls).await;
    assert_eq!(stage.number(&counted).await, spent(&stage).await, "all of it counts on the first");
    // The owner lowers the limit of the parent key; it applies at once to all descendants, in this process.
    let path = format!("/api/keys/{}", maker.text_at("/id"));
    let body = json!({ "limits": { "monthly_cost_usd": "0.000000001" } });
    stage.app.patch(&path).bearer(&stage.ada).json(body).send().await.expect_status(200);
    for key in [&maker, &other, &grandchild] {
        ask(&stage, key).await.expect_problem(429, "key_cost_limit");
    }
}

#[tokio::test]
async fn a_free_key_that_is_limited_later_binds_the_children_it_made_before() {
    let stage = stage().await;
    let maker = manager(&stage, json!({})).await;
    let child = child(&stage, &maker, json!({})).await;
    ask(&stage, &child).await.expect_status(200);
    let before = spent(&stage).await;
    let limit = Decimal::new(before + 1, 9).to_string();
    let path = format!("/api/keys/{}", maker.text_at("/id"));
    let body = json!({ "limits": { "monthly_cost_usd": limit } });
    stage.app.patch(&path).bearer(&stage.ada).json(body).send().await.expect_status(200);
    // Read from the month's counters: setting a limit does not sum the log.
    stage.app.database().sql("DELETE FROM ai_usage_logs").await;
    ask(&stage, &child).await.expect_problem(429, "key_cost_limit");
    ask(&stage, &maker).await.expect_problem(429, "key_cost_limit");
}

#[tokio::test]
async fn many_descendants_at_once_never_spend_more_than_their_first_key() {
    let stage = stage().await;
    let quote = stage.quote(bounded()).await.expect_status(200);
    let each: Decimal = quote.text_at("/max_cost_usd").parse().unwrap();
    let limit = (each * Decimal::from(6)).to_string();
    let limits = json!({ "monthly_cost_usd": limit });
    let first = manager(&stage, limits.clone()).await;
    let mut keys = vec![rotate(&stage, first.text_at("/key"), &first, 3_600).await.expect_status(201)];
    for _ in 0..3 {
        let made = child(&stage, &keys[0], limits.clone()).await;
        keys.push(rotate(&stage, made.text_at("/key"), &made, 3_600).await.expect_status(201));
        keys.push(made);
    }
    keys.push(first);
    let answers = join_all((0..48).map(|place| ask(&stage, &keys[place % keys.len()]))).await;
    let granted = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(granted >= 6, "{granted}");
    for refused in answers.into_iter().filter(|answer| answer.status != 200) {
        refused.expect_problem(429, "key_cost_limit");
    }
    stage.expect_bill(granted).await;
    assert!(spent(&stage).await <= nano(&limit), "{} of {limit}", spent(&stage).await);
}

#[tokio::test]
async fn the_minute_of_a_lineage_goes_on_through_rotations() {
    let stage = stage().await;
    super::keys::well_within_a_minute().await;
    let first = manager(&stage, json!({ "requests_per_minute": 3 })).await;
    let second = rotate(&stage, first.text_at("/key"), &first, 3_600).await.expect_status(201);
    let child = child(&stage, &second, json!({ "requests_per_minute": 3 })).await;
    for key in [&first, &second, &child] {
        ask(&stage, key).await.expect_status(200);
    }
    for key in [&first, &second, &child] {
        ask(&stage, key).await.expect_problem(429, "key_request_limit");
    }
    stage.expect_bill(3).await;
}
