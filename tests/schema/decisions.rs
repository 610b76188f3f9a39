//! The decision: `check_feature_access` and `check_usage_limit` give the same results as `domain::entitlements::decide`
//! for the facts that the repository reads.

use chrono::{DateTime, Utc};
use domain::entitlements::{Access, Reason, decide};
use domain::features::FeatureId;
use domain::users::UserId;
use harness::TestDatabase;
use ports::store::Scope;

use crate::dice::Dice;
use crate::people::sign_up;

const USERS: u64 = 70;
const PLANS: [&str; 5] = ["free", "gold", "platinum", "team", "retired"];
pub const FEATURES: [&str; 8] =
    ["ai_requests", "export_csv", "custom_theme", "priority_support", "api_access", "scans", "pages", "gone"];
const LIMITS: [&str; 7] = ["NULL", "0", "1", "2", "5", "1000", "9223372036854775807"];
const COUNTS: [u64; 6] = [0, 1, 2, 4, 5, 1000];

/// A result of `check_usage_limit`, with that of `check_feature_access`.
type Answer = (uuid::Uuid, String, bool, i64, Option<i64>, Option<i64>, Option<DateTime<Utc>>, String, bool);

/// Every plan has every feature or not, with every kind of limit, period and overage.
pub async fn random_catalogue(database: &TestDatabase, dice: &mut Dice) {
    database
        .sql(
            "INSERT INTO plans (id, name, display_name) VALUES ('team', 'team', 'team'), ('retired', 'retired', 'retired');
             UPDATE plans SET is_active = false WHERE id = 'retired';
             INSERT INTO features (id, name, display_name, is_active)
             VALUES ('scans', 'scans', 'scans', true), ('pages', 'pages', 'pages', true), ('gone', 'gone', 'gone', false);
             DELETE FROM plan_features",
        )
        .await;
    for plan in PLANS {
        for feature in FEATURES.into_iter().filter(|_| !dice.once_in(5)).collect::<Vec<_>>() {
            let (limit, enabled) = (dice.pick(&LIMITS), !dice.once_in(4));
            let period = dice.pick(&["day", "month", "billing_period", "lifetime"]);
            let overage = dice.pick(&["block", "tokens"]);
            database
                .sql(&format!(
                    "INSERT INTO plan_features (plan_id, feature_id, enabled, limit_value, limit_period, overage)
                     VALUES ('{plan}', '{feature}', {enabled}, {limit}, '{period}', '{overage}')"
                ))
                .await;
        }
    }
}

/// A time some days from now, with a margin that no test can cross.
fn days(dice: &mut Dice) -> String {
    let days = i64::try_from(dice.below(80)).unwrap() - 40;
    format!("now() + interval '{days} days 3 hours'")
}

/// A user with or without subscriptions, a scheduled change, overrides and tokens.
pub async fn random_user(database: &TestDatabase, dice: &mut Dice, number: u64) -> UserId {
    let user = sign_up(database, &format!("user{number}")).await;
    let (plan, changed_at, made_at) = (dice.pick(&PLANS), days(dice), days(dice));
    let (balance, held) = dice.pick(&[(0, 0), (1, 0), (1, 1), (100, 0), (100, 99), (100, 100)]);
    let mut sql = vec![format!(
        "UPDATE users SET plan_id = '{plan}', plan_changed_at = {changed_at}, created_at = {made_at}, token_balance = {balance},
            token_reserved = {held} WHERE id = '{user}';"
    )];
    let live = ["trialing", "active", "past_due"];
    for status in [
        (!dice.once_in(3)).then(|| *dice.pick(&live)),
        dice.once_in(3).then(|| *dice.pick(&["canceled", "unpaid", "incomplete_expired"])),
        dice.once_in(6).then_some("incomplete"),
    ] {
        let Some(status) = status else { continue };
        let stripe = if dice.once_in(2) { format!("'sub_{}'", dice.throw()) } else { "NULL".to_owned() };
        let ended = if live.contains(&status) { "NULL".to_owned() } else { days(dice) };
        let start =
            if dice.once_in(3) { "NULL".to_owned() } else { format!("now() - interval '{} days'", dice.below(60)) };
        sql.push(format!(
            "INSERT INTO user_subscriptions (user_id, plan_id, status, stripe_subscription_id, trial_end, past_due_since,
                current_period_start, ended_at)
             VALUES ('{user}', '{}', '{status}', {stripe}, {}, {}, {start}, {ended});",
            dice.pick(&PLANS), days(dice), days(dice),
        ));
    }
    if dice.once_in(4) {
        sql.push(format!(
            "INSERT INTO scheduled_plan_changes (user_id, plan_id, effective_at) VALUES ('{user}', '{}', {});",
            dice.pick(&PLANS),
            days(dice)
        ));
    }
    for feature in FEATURES {
        if dice.once_in(4) {
            let (enabled, limit) = (!dice.once_in(3), dice.pick(&LIMITS));
            let until = if dice.once_in(3) { "NULL".to_owned() } else { days(dice) };
            sql.push(format!(
                "INSERT INTO feature_overrides (user_id, feature_id, enabled, limit_value, expires_at)
                    VALUES ('{user}', '{feature}', {enabled}, {limit}, {until});"
            ));
        }
    }
    database.sql(&sql.join("\n")).await;
    random_counters(database, dice, user).await;
    user
}

/// In the current period, and also in periods that do not count.
async fn random_counters(database: &TestDatabase, dice: &mut Dice, user: UserId) {
    let mut sql = Vec::new();
    for feature in FEATURES {
        let (spent, held) = (*dice.pick(&COUNTS), *dice.pick(&[0, 0, 0, 1, 3]));
        let overage = if dice.once_in(3) { spent.min(*dice.pick(&COUNTS)) } else { 0 };
        if !dice.once_in(4) {
            sql.push(format!(
                "INSERT INTO usage_counters SELECT '{user}', '{feature}', e.limit_period, e.period_start, {spent}, {held}, {overage}
                 FROM feature_entitlement('{user}', '{feature}') e;"
            ));
        }
        sql.push(format!(
            "INSERT INTO usage_counters SELECT '{user}', '{feature}', p, date_trunc('day', now(), 'UTC') - interval '100 days', 999, 9, 9
             FROM unnest(ARRAY['day', 'month', 'billing_period']) p ON CONFLICT DO NOTHING;"
        ));
    }
    database.sql(&sql.join("\n")).await;
}

async fn by_sql(database: &TestDatabase) -> Vec<Answer> {
    let query = "SELECT u.id, f.id::text, l.allowed, l.current, l.\"limit\", l.remaining, l.resets_at, l.reason, check_feature_access(u.id, f.id)
        FROM users u CROSS JOIN features f LEFT JOIN LATERAL check_usage_limit(u.id, f.id) l ON true ORDER BY u.created_at, u.id, f.id";
    database.query_all(query).await
}

#[tokio::test]
async fn sql_and_rust_decide_the_same_in_hundreds_of_situations() {
    let database = TestDatabase::new().await;
    let mut dice = Dice::seeded(1);
    random_catalogue(&database, &mut dice).await;
    for number in 0..USERS {
        random_user(&database, &mut dice, number).await;
    }
    let store = database.store();
    let mut work = store.begin(Scope::SERVICE).await.unwrap();
    let mut disagreements = Vec::new();
    let mut reasons = std::collections::BTreeMap::<String, u32>::new();
    let answers = by_sql(&database).await;
    assert_eq!(answers.len() as u64, USERS * FEATURES.len() as u64);
    for (user, feature, allowed, current, limit, remaining, resets_at, reason, access) in answers {
        let feature_id = FeatureId::parse(&feature).unwrap();
        let facts = work.entitlements().find(UserId(user), &feature_id).await.unwrap().unwrap().entitlement;
        let decision = decide(&facts, 1);
        let ours = serde_json::to_value(decision.reason).unwrap().as_str().unwrap().to_owned();
        let has_access = facts.access == Access::Granted;
        let rust = (
            decision.allowed,
            decision.current,
            decision.limit,
            decision.remaining,
            decision.resets_at,
            &ours,
            has_access,
        );
        let sql = (allowed, current, limit, remaining, resets_at, &reason, access);
        if rust != sql {
            disagreements.push(format!("{feature} of {user}\n    rust {rust:?}\n    sql  {sql:?}\n    {facts:?}"));
        }
        *reasons.entry(ours).or_default() += 1;
    }
    let shown = disagreements.iter().take(5).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(disagreements.is_empty(), "{} of {reasons:?} disagree, such as\n  {shown}", disagreements.len());
    assert!(reasons.len() == 6 && reasons.values().all(|count| *count >= 5), "every reason occurs: {reasons:?}");
}

/// The REST API reads a user's own data in the user's scope: the result must equal that of the service.
#[tokio::test]
async fn users_are_answered_about_themselves_as_the_service_is() {
    let database = TestDatabase::new().await;
    let mut dice = Dice::seeded(3);
    random_catalogue(&database, &mut dice).await;
    let store = database.store();
    for number in 0..12 {
        let user = random_user(&database, &mut dice, number).await;
        for feature in FEATURES {
            let feature_id = FeatureId::parse(feature).unwrap();
            let mut own = store.begin(Scope::User(user)).await.unwrap();
            let by_oneself = own.entitlements().find(user, &feature_id).await.unwrap();
            drop(own);
            let mut service = store.begin(Scope::SERVICE).await.unwrap();
            let by_service = service.entitlements().find(user, &feature_id).await.unwrap();
            drop(service);
            let told = |found: Result<ports::entitlements::NamedEntitlement, ports::entitlements::MeterMissing>| {
                found.map(|named| {
                    let decision = decide(&named.entitlement, 1);
                    (decision.allowed, decision.reason, decision.plan_id, decision.limit, decision.remaining)
                })
            };
            // A disabled feature is hidden from users; the services read it for them (decision 0009).
            let is_hidden = told(by_service.clone()).is_ok_and(|told| told.1 == Reason::FeatureDisabled)
                && by_oneself == Err(ports::entitlements::MeterMissing::Feature);
            assert!(is_hidden || told(by_oneself.clone()) == told(by_service), "{feature} of {user}: {by_oneself:?}");
        }
    }
}

#[tokio::test]
async fn the_check_functions_answer_about_oneself_only() {
    let database = TestDatabase::new().await;
    let (ann, bob) = (sign_up(&database, "ann").await, sign_up(&database, "bob").await);
    database.sql("UPDATE users SET plan_id = 'platinum'").await;
    for (role, claims, about, answered) in [
        ("authenticated", format!(r#"{{"sub":"{ann}"}}"#), ann, true),
        ("authenticated", format!(r#"{{"sub":"{ann}"}}"#), bob, false),
        ("authenticated", String::new(), ann, false),
        ("app_service", String::new(), bob, true),
        ("service_role", String::new(), bob, true),
    ] {
        let mut transaction = database.owner().begin().await.unwrap();
        let opening =
            format!("SELECT set_config('role', '{role}', true), set_config('request.jwt.claims', '{claims}', true)");
        harness::sqlx::raw_sql(harness::sqlx::AssertSqlSafe(opening)).execute(&mut *transaction).await.unwrap();
        let query = format!(
            "SELECT check_feature_access('{about}', 'api_access'), (SELECT count(*) FROM check_usage_limit('{about}', 'api_access'))"
        );
        let found: (bool, i64) =
            harness::sqlx::query_as(harness::sqlx::AssertSqlSafe(query)).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(found, (answered, i64::from(answered)), "{role} {claims} about {about}");
    }
    let nothing: (bool, i64) = database
        .query_one(&format!("SELECT check_feature_access('{ann}', 'nothing'), (SELECT count(*) FROM check_usage_limit('{ann}', 'nothing'))"))
        .await;
    assert_eq!(nothing, (false, 0));
}

/// Rust saturates; SQL must not fail where Rust has a result.
#[tokio::test]
async fn counters_at_the_end_of_their_range_are_decided_too() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&database, "ann").await;
    let counter = format!(
        "UPDATE plan_features SET enabled = true, limit_value = 9223372036854775807 WHERE plan_id = 'free';
         INSERT INTO usage_counters VALUES ('{ann}', 'api_access', 'month', date_trunc('month', now(), 'UTC'), 9223372036854775807, 5)"
    );
    database.sql(&counter).await;
    let store = database.store();
    let mut work = store.begin(Scope::SERVICE).await.unwrap();
    let facts = work.entitlements().find(ann, &FeatureId::parse("api_access").unwrap()).await.unwrap().unwrap();
    let decision = decide(&facts.entitlement, 1);
    let ours = (decision.allowed, decision.current, decision.remaining);
    let query = format!("SELECT allowed, current, remaining FROM check_usage_limit('{ann}', 'api_access')");
    assert_eq!(database.query_one::<(bool, i64, Option<i64>)>(&query).await, ours);
}
