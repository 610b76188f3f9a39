//! The plan in force, case by case.

use harness::TestDatabase;

use crate::people::sign_up;

/// The statements for the user (`$1`), and the plan and status in force after them.
struct Case {
    name: &'static str,
    given: &'static str,
    plan: &'static str,
    status: &'static str,
}

const fn case(name: &'static str, given: &'static str, plan: &'static str, status: &'static str) -> Case {
    Case { name, given, plan, status }
}

const CASES: [Case; 22] = [
    case("nothing happened", "", "free", "active"),
    case("a plan was granted", "UPDATE users SET plan_id = 'gold' WHERE id = $1", "gold", "active"),
    case("a live subscription says more than the user's row", "SUBSCRIBE 'gold', 'active'", "gold", "active"),
    case(
        "and less too",
        "UPDATE users SET plan_id = 'platinum' WHERE id = $1; SUBSCRIBE 'gold', 'active'",
        "gold",
        "active",
    ),
    case(
        "a trial goes on",
        "SUBSCRIBE 'gold', 'trialing', trial_end => now() + interval '1 minute'",
        "gold",
        "trialing",
    ),
    case(
        "a trial is over",
        "SUBSCRIBE 'gold', 'trialing', trial_end => now() - interval '1 second'",
        "free",
        "trialing",
    ),
    case("a trial ends this moment", "SUBSCRIBE 'gold', 'trialing', trial_end => now()", "free", "trialing"),
    case("a trial has no end", "SUBSCRIBE 'gold', 'trialing'", "gold", "trialing"),
    case(
        "behind, within the grace",
        "SUBSCRIBE 'gold', 'past_due', past_due_since => now() - interval '6 days 23 hours'",
        "gold",
        "past_due",
    ),
    case(
        "behind, after the grace",
        "SUBSCRIBE 'gold', 'past_due', past_due_since => now() - interval '7 days 1 second'",
        "free",
        "past_due",
    ),
    case(
        "the grace is a setting",
        "UPDATE runtime_settings SET value = '0' WHERE name = 'past_due_grace_days'; SUBSCRIBE 'gold', 'past_due',
            past_due_since => now() - interval '1 second'",
        "free",
        "past_due",
    ),
    case("behind since now", "SUBSCRIBE 'gold', 'past_due'", "gold", "past_due"),
    case("never completed", "SUBSCRIBE 'gold', 'incomplete'", "free", "active"),
    case(
        "ended, and it had paid for the plan",
        "UPDATE users SET plan_id = 'gold' WHERE id = $1; SUBSCRIBE 'gold', 'canceled', ended_at => now() + interval '1 second'",
        "free",
        "active",
    ),
    case(
        "ended, and another plan was granted",
        "UPDATE users SET plan_id = 'platinum' WHERE id = $1; SUBSCRIBE 'gold', 'canceled', ended_at => now()",
        "platinum",
        "active",
    ),
    case(
        "ended before the plan was granted",
        "SUBSCRIBE 'gold', 'canceled', ended_at => now() - interval '1 day'; UPDATE users SET plan_id = 'gold' WHERE id = $1",
        "gold",
        "active",
    ),
    case(
        "unpaid counts as ended",
        "UPDATE users SET plan_id = 'gold' WHERE id = $1; SUBSCRIBE 'gold', 'unpaid', ended_at => now() + interval '1 second'",
        "free",
        "active",
    ),
    case(
        "ended once, live again",
        "SUBSCRIBE 'gold', 'canceled', ended_at => now(); SUBSCRIBE 'platinum', 'active'",
        "platinum",
        "active",
    ),
    case(
        "a change waits",
        "UPDATE users SET plan_id = 'gold' WHERE id = $1; SCHEDULE 'free', now() + interval '1 second'",
        "gold",
        "active",
    ),
    case(
        "a change is due",
        "UPDATE users SET plan_id = 'gold' WHERE id = $1; SCHEDULE 'free', now() - interval '1 second'",
        "free",
        "active",
    ),
    case(
        "a change is due beside a subscription that is not Stripe's",
        "SUBSCRIBE 'platinum', 'active'; SCHEDULE 'gold', now()",
        "gold",
        "active",
    ),
    case(
        "a change is due, but Stripe holds the subscription",
        "SUBSCRIBE 'platinum', 'active', stripe_subscription_id => 'sub_1'; SCHEDULE 'gold', now()",
        "platinum",
        "active",
    ),
];

/// The helper functions of the cases.
const WORDS: &str = "
CREATE FUNCTION subscribe(p_user uuid, plan text, status text, trial_end timestamptz DEFAULT NULL, past_due_since timestamptz DEFAULT NULL,
    ended_at timestamptz DEFAULT NULL, stripe_subscription_id text DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO user_subscriptions (user_id, plan_id, status, trial_end, past_due_since, ended_at, stripe_subscription_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7) $$;
CREATE FUNCTION schedule(p_user uuid, plan text, at timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO scheduled_plan_changes (user_id, plan_id, effective_at) VALUES ($1, $2, $3) $$";

#[tokio::test]
async fn the_plan_in_force_follows_trial_grace_end_and_schedule() {
    let database = TestDatabase::new().await;
    database.sql(WORDS).await;
    let user = sign_up(&database, "ann").await;
    for Case { name, given, plan, status } in CASES {
        // Each case runs in one transaction, so that all its statements and the query have the same now().
        let mut transaction = database.owner().begin().await.unwrap();
        for statement in given.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            let spelled = match statement.split_once(' ') {
                Some(("SUBSCRIBE", rest)) => format!("SELECT subscribe('{user}', {rest})"),
                Some(("SCHEDULE", rest)) => format!("SELECT schedule('{user}', {rest})"),
                _ => statement.replace("$1", &format!("'{user}'")),
            };
            let outcome =
                harness::sqlx::raw_sql(harness::sqlx::AssertSqlSafe(spelled.as_str())).execute(&mut *transaction).await;
            outcome.unwrap_or_else(|error| panic!("{name}: {spelled}: {error}"));
        }
        let query = format!("SELECT plan_id::text, status FROM effective_plan('{user}')");
        let found: (String, String) =
            harness::sqlx::query_as(harness::sqlx::AssertSqlSafe(query)).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(found, (plan.to_owned(), status.to_owned()), "{name}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_has_no_plan_in_force() {
    let database = TestDatabase::new().await;
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM effective_plan(gen_random_uuid())").await, 0);
}
