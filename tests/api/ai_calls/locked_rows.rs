//! Rows that another transaction has locked: each delays only its own user, and no other user in the same batch.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{Answer, Bearer, TestUser, eventually, sqlx};
use serde_json::{Value, json};
use testkit::upstream::{Fault, Script};

use super::stage::{Stage, hello, prices};
use crate::usage::allow;

/// The limit for another user's request while a row is locked. Otherwise it takes a few milliseconds.
const OTHERS_WITHIN: Duration = Duration::from_millis(700);

/// What another transaction does to the rows of Ada, whose id is `$ada`, without a commit.
const LOCKS: [(&str, &str); 9] = [
    // First, while there is no counter yet.
    ("a counter that is being made", "SELECT consume_usage('$ada', 'documents', 1, 'made')"),
    ("the profile", "SELECT FROM users WHERE id = '$ada' FOR UPDATE"),
    ("an identity that is being deleted", "DELETE FROM auth.users WHERE id = '$ada'"),
    ("the conversations", "SELECT FROM chat_sessions WHERE user_id = '$ada' FOR UPDATE"),
    ("the API keys", "SELECT FROM api_keys WHERE user_id = '$ada' FOR UPDATE"),
    ("the windows of the keys", "SELECT FROM api_key_counters FOR UPDATE"),
    ("the counters", "SELECT FROM usage_counters WHERE user_id = '$ada' FOR UPDATE"),
    ("the reservations", "SELECT FROM usage_reservations WHERE user_id = '$ada' FOR UPDATE"),
    ("an idempotency key that is being used", "SELECT consume_usage('$ada', 'summaries', 1, 'shared')"),
];

struct People {
    stage: Stage,
    key: String,
    session: Value,
    eve: TestUser,
}

impl People {
    async fn gather() -> Self {
        let stage = Stage::with(|settings| settings.usage.lanes = 1).await;
        stage.upstream.script_others(Script::words(3).priced(prices()));
        let sql = "UPDATE plan_features SET enabled = true, limit_value = NULL WHERE plan_id = 'gold'; \
            INSERT INTO features (id, name, display_name, kind) VALUES \
                ('documents', 'documents', 'Documents', 'metered'), ('summaries', 'summaries', 'Summaries', 'metered'); \
            INSERT INTO plan_features (plan_id, feature_id, enabled, limit_period) VALUES \
                ('gold', 'documents', true, 'month'), ('gold', 'summaries', true, 'month')";
        stage.app.database().sql(sql).await;
        let eve = stage.app.signup("eve@example.com").await;
        allow(&stage.app, &eve, "limit_value = NULL").await;
        let limits = json!({ "requests_per_minute": 1000, "monthly_cost_usd": "100" });
        let key = stage.key(limits).await.text_at("/key").to_owned();
        let opened = stage.app.post("/api/ai/sessions").bearer(&stage.ada).json(json!({})).send().await;
        let session = opened.expect_status(201).at("/id").clone();
        let people = Self { stage, key, session, eve };
        people.ask(&people.stage.ada, &people.session).await.expect_status(200);
        people.ask(&people.key, &Value::Null).await.expect_status(200);
        people.consume(&people.eve, "ai_requests", "warm").await.expect_status(200);
        people
    }

    async fn ask(&self, who: &(impl Bearer + ?Sized), session: &Value) -> Answer {
        let mut body = hello("gpt-one");
        if !session.is_null() {
            body["session_id"] = session.clone();
        }
        self.stage.ask(who, body).await
    }

    async fn consume(&self, who: &TestUser, feature: &str, key: &str) -> Answer {
        let body = json!({ "feature_id": feature, "idempotency_key": key });
        self.stage.app.post("/api/usage").bearer(who).json(body).send().await
    }

    /// All of Ada's requests that need the locked row; each is retried until it is done.
    async fn ada_goes_on(&self, round: &str, shared: &str) {
        let calls = join_all([None, Some(&self.session)].into_iter().flat_map(|session| {
            [async move { again(async || self.ask(&self.stage.ada, session.unwrap_or(&Value::Null)).await).await }]
        }));
        let by_key = again(async || self.ask(&self.key, &Value::Null).await);
        let by_counter = again(async || self.consume(&self.stage.ada, "documents", round).await);
        let by_idempotency_key = again(async || self.consume(&self.stage.ada, "ai_requests", shared).await);
        tokio::join!(calls, by_key, by_counter, by_idempotency_key);
    }

    /// The slowest response to Eve, whose requests share Ada's batches.
    async fn slowest_of_others(&self, round: &str) -> Duration {
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            let asked = Instant::now();
            self.consume(&self.eve, "ai_requests", &format!("{round} {number}")).await.expect_status(200);
            self.ask(&self.eve, &Value::Null).await.expect_status(200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    }
}

/// Retries on 503 and 409. A reused idempotency key or a missing account ends the retries.
async fn again(send: impl AsyncFn() -> Answer) {
    for _ in 0..20 {
        if !matches!(send().await.status, 409 | 503) {
            return;
        }
    }
    panic!("not done in twenty tries");
}

#[tokio::test]
async fn a_locked_row_delays_nobody_else() {
    let people = People::gather().await;
    let ada = people.stage.ada.id.to_string();
    let mut late = Vec::new();
    for (what, lock) in LOCKS {
        let mut holder = people.stage.app.database().owner().begin().await.unwrap();
        let sql = sqlx::AssertSqlSafe(lock.replace("$ada", &ada));
        sqlx::raw_sql(sql).execute(&mut *holder).await.unwrap();
        let others = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let slowest = people.slowest_of_others(what).await;
            holder.rollback().await.unwrap();
            slowest
        };
        let ((), slowest) =
            tokio::join!(people.ada_goes_on(what, if lock.contains("summaries") { "shared" } else { what }), others);
        if slowest > OTHERS_WITHIN {
            late.push((what, slowest));
        }
    }
    assert_eq!(late, [], "others wait for a row of Ada's");
    let pending =
        async || people.stage.number("SELECT count(*) FROM usage_reservations WHERE status = 'pending'").await;
    eventually(Duration::from_secs(10), pending, |pending| *pending == 0).await;
    people.stage.expect_in_order().await;
}

/// With and without a charge in tokens.
#[tokio::test]
async fn a_call_of_a_profile_that_is_deleted_meanwhile_is_in_the_books() {
    for beyond in [false, true] {
        let stage = Stage::set().await;
        if beyond {
            stage.pays_beyond(0, 100_000).await;
        }
        let held = Fault::HoldAfter { events: 2 };
        stage.upstream.script_others(Script::words(9).priced(prices()).with_fault(held));
        let deletes = async {
            stage.upstream.until("the call", |stub| stub.held() == 1).await;
            stage.app.delete("/api/users/me").bearer(&stage.ada).send().await.expect_status(204);
            stage.upstream.let_go(1);
        };
        let (response, ()) = tokio::join!(stage.begin(&stage.ada, hello("gpt-one")), deletes);
        response.text().await.ok();
        stage.settled(1).await;
        stage.expect_in_order().await;
        let logged = "SELECT user_id::text FROM ai_usage_logs";
        assert_eq!(stage.app.database().query_scalar::<String>(logged).await, stage.ada.id.to_string());
    }
}

#[tokio::test]
async fn calls_that_cannot_be_settled_keep_no_other_from_it() {
    let stage = Stage::set().await;
    // More than one run of the sweep processes.
    let broken = format!(
        "INSERT INTO usage_reservations (id, user_id, feature_id, period, period_start, amount, status, expires_at, phase, detail) \
         SELECT gen_random_uuid(), '{}', 'ai_requests', 'month', date_trunc('month', now()), 1, 'pending', now() - interval '1 day', \
             'dispatched', '{{\"model\": \"of a later release\"}}' FROM generate_series(1, 450)",
        stage.ada.id
    );
    stage.app.database().sql(&broken).await;
    stage.upstream.script_others(Script::words(9).priced(prices()).with_fault(Fault::HoldAfter { events: 2 }));
    let left = async {
        stage.upstream.until("the call", |stub| stub.held() == 1).await;
        let marked = "SELECT count(*) FROM usage_reservations WHERE phase = 'first_byte'";
        eventually(Duration::from_secs(5), async || stage.number(marked).await, |marked| *marked == 1).await;
        let due = "UPDATE usage_reservations SET expires_at = now() - interval '1 minute' WHERE phase = 'first_byte'";
        stage.app.database().sql(due).await;
        let swept = async || stage.number("SELECT count(*) FROM ai_usage_logs WHERE outcome = 'swept'").await;
        eventually(Duration::from_secs(15), swept, |swept| *swept == 1).await;
        stage.upstream.let_go(1);
    };
    let (response, ()) = tokio::join!(stage.begin(&stage.ada, hello("gpt-one")), left);
    response.text().await.ok();
}
