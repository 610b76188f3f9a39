//! `consume_usage`: it decides and counts like `domain::usage::consume`, checks its caller, and joins the caller's
//! transaction.

use chrono::{DateTime, Utc};
use domain::entitlements::{Decision, Entitlement, Reason, Source};
use domain::features::{FeatureId, FeatureKind};
use domain::plans::PlanId;
use domain::usage::consume;
use domain::users::UserId;
use harness::TestDatabase;
use harness::sqlx::{self, AssertSqlSafe, PgConnection};
use ports::store::Scope;
use serde::Deserialize;
use serde_json::Value;

use crate::clusters::refusal;
use crate::decisions::{FEATURES, random_catalogue, random_user};
use crate::dice::Dice;
use crate::matrix::Role;
use crate::people::sign_up;
use crate::rights::as_role;

const USERS: u64 = 40;
const STEPS: u64 = 4;
const AMOUNTS: [i64; 9] = [1, 1, 1, 2, 3, 5, 1000, i64::MAX - 4, i64::MAX];

/// One row of the function, by its columns.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub allowed: bool,
    pub current: i64,
    pub limit: Option<i64>,
    pub remaining: Option<i64>,
    pub reserved: i64,
    pub reason: Reason,
    pub feature_id: FeatureId,
    pub plan_id: PlanId,
    pub source: Source,
    pub period_start: DateTime<Utc>,
    pub resets_at: Option<DateTime<Utc>>,
    pub as_of: DateTime<Utc>,
    pub replayed: bool,
    pub idempotency_key: String,
}

impl Answer {
    fn decision(&self) -> Decision {
        Decision {
            allowed: self.allowed,
            reason: self.reason,
            feature_id: self.feature_id.clone(),
            current: self.current,
            limit: self.limit,
            remaining: self.remaining,
            reserved: self.reserved,
            plan_id: self.plan_id.clone(),
            source: self.source,
            period_start: self.period_start,
            resets_at: self.resets_at,
            as_of: self.as_of,
        }
    }
}

/// The result for these arguments, written as SQL, or the SQLSTATE of the refusal.
pub async fn call(connection: &mut PgConnection, arguments: &str) -> Result<Answer, String> {
    let query = format!("SELECT to_jsonb(c) FROM public.consume_usage({arguments}) c");
    let row: Result<Value, sqlx::Error> = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await;
    row.map(|row| serde_json::from_value(row).unwrap()).map_err(|error| {
        let refused = error.as_database_error().unwrap_or_else(|| panic!("{arguments}: {error}"));
        refused.code().unwrap_or_default().into_owned()
    })
}

/// The same on one of the owner's connections, committed at once.
pub async fn consumed(database: &TestDatabase, arguments: &str) -> Result<Answer, String> {
    call(&mut database.owner().acquire().await.unwrap(), arguments).await
}

fn name(reason: Reason) -> String {
    serde_json::to_value(reason).unwrap().as_str().unwrap().to_owned()
}

/// Makes the rows of random users consistent: ledger rows for their balances, and reservations for reserved amounts.
const BALANCE_THE_BOOKS: &str = "
    INSERT INTO token_transactions (user_id, amount, type, balance_after)
    SELECT u.id, u.token_balance - l.total, 'bonus', u.token_balance FROM users u
    CROSS JOIN LATERAL (SELECT coalesce(sum(t.amount), 0)::bigint AS total FROM token_transactions t WHERE t.user_id = u.id) l
    WHERE u.token_balance <> l.total;
    INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, expires_at)
    SELECT user_id, feature_id, period, period_start, reserved, now() + interval '1 day' FROM usage_counters WHERE reserved > 0;
    UPDATE usage_reservations r SET tokens_reserved = u.token_reserved FROM users u
    WHERE u.id = r.user_id AND r.id = (SELECT s.id FROM usage_reservations s WHERE s.user_id = u.id ORDER BY s.id LIMIT 1);
    INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, overage)
    SELECT user_id, feature_id, period, period_start, used - carried, overage FROM usage_counters WHERE used > carried";

/// Counters that random users do not have: full ones, and open ones of another kind, whose use is carried.
async fn strange_counters(database: &TestDatabase, dice: &mut Dice, user: UserId) {
    let mut sql = Vec::new();
    for feature in FEATURES {
        if dice.once_in(6) {
            sql.push(format!(
                "UPDATE usage_counters n SET used = 9223372036854775807 - {}, overage = 0 FROM feature_entitlement('{user}', '{feature}') e
                 WHERE n.user_id = '{user}' AND n.feature_id = '{feature}' AND (n.period, n.period_start) = (e.limit_period, e.period_start);",
                dice.below(4)
            ));
        } else if dice.once_in(4) {
            let (counted, superseded) = (dice.below(6), dice.once_in(4));
            sql.push(format!(
                "INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, superseded)
                 SELECT '{user}', '{feature}', 'month', date_trunc('month', now(), 'UTC') - interval '1 day', {counted}, {superseded};
                 UPDATE usage_counters n SET superseded = true FROM feature_entitlement('{user}', '{feature}') e
                 WHERE NOT {superseded} AND n.user_id = '{user}' AND n.feature_id = '{feature}'
                   AND (n.period, n.period_start) = (e.limit_period, e.period_start);
                 UPDATE usage_counters SET period_end = now() + interval '2 days'
                 WHERE user_id = '{user}' AND feature_id = '{feature}' AND period_start = date_trunc('month', now(), 'UTC') - interval '1 day';"
            ));
        }
    }
    database.sql(&sql.join("\n")).await;
}

/// The facts as the repository reads them.
async fn facts(database: &TestDatabase, user: UserId, feature: &str) -> (FeatureKind, Entitlement) {
    let mut work = database.store().begin(Scope::SERVICE).await.unwrap();
    let found = work.entitlements().find(user, &FeatureId::parse(feature).unwrap()).await.unwrap().unwrap();
    (found.kind, found.entitlement)
}

async fn findings(database: &TestDatabase) -> Vec<(String, String, String)> {
    database.query_all("SELECT finding, subject, detail FROM integrity_findings").await
}

/// One consumption by both sides. Returns the outcome, for the totals of the test.
async fn assert_twins(database: &TestDatabase, user: UserId, feature: &str, amount: i64) -> String {
    let (kind, mut expected) = facts(database, user, feature).await;
    let before = expected.clone();
    let answer = consumed(database, &format!("'{user}', '{feature}', {amount}")).await;
    let about = format!("{amount} of {feature} for {user}\n  {before:?}\n  {answer:?}");
    if kind == FeatureKind::Boolean && amount != 1 {
        assert_eq!(answer.as_ref().err().map(String::as_str), Some("22023"), "{about}");
        return "not_metered".to_owned();
    }
    let came = consume(&mut expected, amount);
    let answer = answer.unwrap();
    // Everything but the time, which is that of another transaction.
    let decision = Decision { as_of: answer.as_of, ..came.decision.clone() };
    assert_eq!(answer.decision(), decision, "{about}");
    let key = &answer.idempotency_key;
    assert!(answer.as_of >= before.as_of && key.len() == 36 && !answer.replayed, "{about}");
    let (_, after) = facts(database, user, feature).await;
    assert_eq!((after.tally, after.tokens_available), (expected.tally, expected.tokens_available), "{about}");
    let counter: (i64, i64, i64, bool) = database
        .query_one(&format!(
            "SELECT used, reserved, overage, superseded FROM usage_counters WHERE (user_id, feature_id, period, period_start)
                = ('{user}', '{feature}', '{}', '{}')",
            after.period.kind.as_str(), after.period.start
        ))
        .await;
    assert_eq!(counter, (expected.tally.used, expected.tally.reserved, expected.tally.overage, false), "{about}");
    let kept = format!(
        "SELECT (SELECT count(*) FROM idempotency_keys WHERE user_id = '{user}' AND key = '{key}' AND amount = {amount} AND overage = {paid}),
            (SELECT count(*) FROM usage_events WHERE user_id = '{user}' AND idempotency_key = '{key}' AND amount = {amount} AND overage = {paid})",
        paid = came.overage
    );
    let granted = i64::from(came.decision.allowed);
    assert_eq!(database.query_one::<(i64, i64)>(&kept).await, (granted, granted), "{about}");
    if came.overage > 0 { "paid".to_owned() } else { name(came.decision.reason) }
}

#[tokio::test]
async fn sql_and_rust_consume_the_same_in_hundreds_of_situations() {
    let database = TestDatabase::new().await;
    let mut dice = Dice::seeded(7);
    random_catalogue(&database, &mut dice).await;
    database.sql("UPDATE features SET kind = 'metered' WHERE id IN ('ai_requests', 'scans', 'pages', 'gone')").await;
    let mut users = Vec::new();
    for number in 0..USERS {
        let user = random_user(&database, &mut dice, number).await;
        strange_counters(&database, &mut dice, user).await;
        users.push(user);
    }
    database.sql(BALANCE_THE_BOOKS).await;
    database.sql("UPDATE users SET token_reserved = 0 WHERE id NOT IN (SELECT user_id FROM usage_reservations)").await;
    assert_eq!(findings(&database).await, []);
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for user in users {
        for feature in FEATURES {
            for _ in 0..STEPS {
                let amount = *dice.pick(&AMOUNTS);
                *seen.entry(assert_twins(&database, user, feature, amount).await).or_default() += 1;
            }
        }
    }
    assert!(seen.len() == 8 && seen.values().all(|count| *count >= 5), "everything occurs: {seen:?}");
    let carried: i64 = database.query_scalar("SELECT count(*) FROM usage_counters WHERE carried > 0").await;
    assert!(carried >= 5, "{carried} counters began with what another had counted");
    assert_eq!(findings(&database).await, []);
}

/// A user on a plan that allows 5 `ai_requests`.
pub async fn ann(database: &TestDatabase) -> UserId {
    let ann = sign_up(database, "ann").await;
    database
        .sql(&format!(
            "UPDATE users SET plan_id = 'gold' WHERE id = '{ann}';
             UPDATE plan_features SET limit_value = 5 WHERE plan_id = 'gold' AND feature_id = 'ai_requests'"
        ))
        .await;
    ann
}

#[tokio::test]
async fn users_consume_for_themselves_and_the_service_for_all() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    let own: &'static str = Box::leak(format!(r#"{{"sub":"{ann}","role":"authenticated"}}"#).into_boxed_str());
    let absent = uuid::Uuid::max();
    let refused = |state: &str| Err::<bool, _>(state.to_owned());
    for (name, claims, about, feature, expected) in [
        ("authenticated", own, ann.0, "ai_requests", Ok(true)),
        ("authenticated", own, ann.0, "export_csv", Ok(true)),
        ("authenticated", own, ann.0, "api_access", Ok(false)),
        ("authenticated", own, ann.0, "nothing", refused("P0002")),
        ("authenticated", own, absent, "ai_requests", refused("42501")),
        ("authenticated", own, absent, "nothing", refused("42501")),
        ("authenticated", "", ann.0, "ai_requests", refused("42501")),
        ("authenticated", "", absent, "ai_requests", refused("42501")),
        ("anon", own, ann.0, "ai_requests", refused("42501")),
        ("readonly_user", own, ann.0, "ai_requests", refused("42501")),
        ("app_user", own, ann.0, "ai_requests", refused("42501")),
        ("app_service", "", ann.0, "ai_requests", Ok(true)),
        ("app_service", "", absent, "ai_requests", refused("P0002")),
        ("app_service", "", ann.0, "nothing", refused("P0002")),
        ("service_role", "", ann.0, "ai_requests", Ok(true)),
    ] {
        let mut transaction = as_role(&database, &Role { name, claims }).await;
        let answer = call(&mut transaction, &format!("'{about}', '{feature}'")).await;
        assert_eq!(answer.map(|answer| answer.allowed), expected, "{name} {claims} about {about} and {feature}");
    }
    let bob = sign_up(&database, "bob").await;
    let mut transaction = as_role(&database, &Role { name: "authenticated", claims: own }).await;
    assert_eq!(call(&mut transaction, &format!("'{bob}', 'ai_requests'")).await.unwrap_err(), "42501");
    drop(transaction);
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM usage_events").await, 0, "none was committed");
}

/// The inner functions would count without the guard, so only their owner may call them.
#[tokio::test]
async fn the_parts_of_the_function_are_nobodys() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    for name in ["authenticated", "app_service", "service_role", "anon"] {
        for part in [
            format!("SELECT FROM count_consumption('{ann}', 'ai_requests', 1, 'k')"),
            "SELECT record_consumption(NULL)".to_owned(),
            format!("SELECT FROM usage_decision('{ann}', 'ai_requests', 1)"),
        ] {
            let (state, _) = refusal(&database.owner_url(), &format!("SET ROLE {name}; {part}")).await;
            assert_eq!(state, "42501", "{name}: {part}");
        }
    }
}

#[tokio::test]
async fn bad_input_is_refused_and_counts_nothing() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    for (arguments, state) in [
        ("'ai_requests', 0", "22023"),
        ("'ai_requests', -1", "22023"),
        ("'ai_requests', NULL", "22023"),
        ("'custom_theme', 2", "22023"),
        ("'ai_requests', 1, ''", "22023"),
        ("'ai_requests', 1, repeat('k', 256)", "22023"),
        ("'ai_requests', 1, E'a\\nb'", "22023"),
        ("'ai_requests', 1, E'a\\n'", "22023"),
        ("'ai_requests', 1, '鍵'", "22023"),
        ("NULL, 1", "P0002"),
    ] {
        assert_eq!(consumed(&database, &format!("'{ann}', {arguments}")).await.unwrap_err(), state, "{arguments}");
    }
    assert_eq!(consumed(&database, "NULL, 'ai_requests'").await.unwrap_err(), "P0002");
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM usage_counters").await, 0);
    for (arguments, key) in [("repeat('k', 255)", "k".repeat(255)), ("'a key ~'", "a key ~".to_owned())] {
        let answer = consumed(&database, &format!("'{ann}', 'ai_requests', 1, {arguments}")).await.unwrap();
        assert_eq!(answer.idempotency_key, key);
    }
}

#[tokio::test]
async fn a_key_seen_before_gives_the_first_outcome_or_is_refused() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    let again = format!("'{ann}', 'ai_requests', 2, 'one'");
    let first = consumed(&database, &again).await.unwrap();
    assert_eq!((first.allowed, first.current, first.remaining, first.replayed), (true, 2, Some(3), false));
    consumed(&database, &format!("'{ann}', 'ai_requests', 3, 'two'")).await.unwrap();
    database.sql("UPDATE features SET is_active = false WHERE id = 'ai_requests'").await;
    let replay = consumed(&database, &again).await.unwrap();
    assert_eq!(replay, Answer { replayed: true, ..first }, "whatever became of the feature since");
    for other in ["'ai_requests', 3, 'one'", "'export_csv', 1, 'one'", "'nothing', 2, 'one'"] {
        assert_eq!(consumed(&database, &format!("'{ann}', {other}")).await.unwrap_err(), "22023", "{other}");
    }
    database.sql("UPDATE idempotency_keys SET digest = 'reserve' WHERE key = 'one'").await;
    assert_eq!(consumed(&database, &again).await.unwrap_err(), "22023", "a hold was made under this key");
    let refused = consumed(&database, &format!("'{ann}', 'ai_requests', 1, 'three'")).await.unwrap();
    assert_eq!((refused.allowed, refused.reason), (false, Reason::FeatureDisabled));
    database.sql("UPDATE features SET is_active = true; UPDATE plan_features SET limit_value = 6").await;
    let granted = consumed(&database, &format!("'{ann}', 'ai_requests', 1, 'three'")).await.unwrap();
    assert_eq!((granted.allowed, granted.replayed), (true, false), "a refusal claims no key");
    assert_eq!(findings(&database).await, []);
}

/// The SQL of a page between a line that begins with `from` and the end of its block.
fn example<'a>(page: &'a str, from: &str) -> &'a str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no example with {from}"));
    rest.split_once("```").unwrap().0
}

/// A business row whose trigger consumes, as in docs/DATA.md: neither is stored without the other.
#[tokio::test]
async fn quota_and_business_row_are_kept_or_undone_together() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    let trigger = example(include_str!("../../docs/DATA.md"), "CREATE FUNCTION count_document");
    database
        .sql(&format!(
            "CREATE TABLE documents (id bigserial PRIMARY KEY, user_id uuid NOT NULL, title text CHECK (title <> ''));
             GRANT INSERT, SELECT ON documents TO authenticated;
             GRANT USAGE ON SEQUENCE documents_id_seq TO authenticated;
             CREATE FUNCTION count_document{trigger};
             INSERT INTO features (id, name, display_name) VALUES ('documents', 'documents', 'documents');
             INSERT INTO plan_features (plan_id, feature_id, enabled, limit_value, overage) VALUES ('gold', 'documents', true, 1, 'tokens')"
        ))
        .await;
    let own: &'static str = Box::leak(format!(r#"{{"sub":"{ann}"}}"#).into_boxed_str());
    let role = Role { name: "authenticated", claims: own };
    let insert = |title: &str| format!("INSERT INTO documents (user_id, title) VALUES ('{ann}', '{title}')");
    let state = "SELECT (SELECT count(*) FROM documents), (SELECT coalesce(sum(used), 0)::bigint FROM usage_counters),
        (SELECT count(*) FROM usage_events), (SELECT count(*) FROM idempotency_keys),
        (SELECT sum(token_balance)::bigint FROM users), (SELECT count(*) FROM token_transactions)";
    for (title, commits, expected) in [
        ("rolled back", false, (0, 0, 0, 0, 100, 1)),
        ("", true, (0, 0, 0, 0, 100, 1)),
        ("kept", true, (1, 1, 1, 1, 100, 1)),
        ("rolled back with its token", false, (1, 1, 1, 1, 100, 1)),
        ("paid", true, (2, 2, 2, 2, 99, 2)),
    ] {
        let mut transaction = as_role(&database, &role).await;
        let done = sqlx::raw_sql(AssertSqlSafe(insert(title))).execute(&mut *transaction).await;
        assert_eq!(done.is_ok(), !title.is_empty(), "{title}: {done:?}");
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        assert_eq!(database.query_one::<(i64, i64, i64, i64, i64, i64)>(state).await, expected, "{title}");
    }
    database.sql("UPDATE plan_features SET overage = 'block' WHERE feature_id = 'documents'").await;
    let (code, _) = refusal(&database.owner_url(), &insert("one too many")).await;
    assert_eq!(code, "PT429");
    assert_eq!(findings(&database).await, []);
}

/// The function in docs/API.md: a retry writes nothing twice, and a refusal writes nothing.
#[tokio::test]
async fn a_function_that_consumes_writes_once_a_key() {
    let database = TestDatabase::new().await;
    let ann = ann(&database).await;
    let function = example(include_str!("../../docs/API.md"), "CREATE FUNCTION add_summary");
    database
        .sql(&format!(
            "CREATE TABLE summaries (user_id uuid NOT NULL, text text); GRANT INSERT ON summaries TO authenticated;
             CREATE FUNCTION add_summary{function};
             UPDATE plan_features SET limit_value = 1 WHERE feature_id = 'ai_requests'"
        ))
        .await;
    let own: &'static str = Box::leak(format!(r#"{{"sub":"{ann}"}}"#).into_boxed_str());
    let role = Role { name: "authenticated", claims: own };
    for (key, expected) in [("one", (true, false)), ("one", (true, true)), ("two", (false, false))] {
        let mut transaction = as_role(&database, &role).await;
        let query = format!(
            "SELECT (s ->> 'allowed')::boolean, (s ->> 'replayed')::boolean FROM add_summary('text', '{key}') s"
        );
        let told: (bool, bool) = sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(
            (told, database.query_scalar::<i64>("SELECT count(*) FROM summaries").await),
            (expected, 1),
            "{key}"
        );
    }
}
