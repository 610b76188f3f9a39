//! Stripe events that come late, twice, or for a second subscription.

use harness::TestDatabase;

use crate::clusters::refusal;
use crate::people::sign_up;

const LIVE: [&str; 3] = ["trialing", "active", "past_due"];

async fn in_force(database: &TestDatabase, user: &str) -> String {
    database.query_scalar(&format!("SELECT plan_id::text FROM effective_plan('{user}')")).await
}

/// The end arrives after the plan was set, but is earlier by Stripe's clock: the plan ends, whatever the delay.
#[tokio::test]
async fn an_end_that_is_told_late_ends_the_plan() {
    let database = TestDatabase::new().await;
    for (n, (late, status)) in
        [("1 second", "canceled"), ("3 days", "canceled"), ("40 days", "unpaid"), ("-2 minutes", "incomplete_expired")]
            .into_iter()
            .enumerate()
    {
        let user = sign_up(&database, &format!("u{n}")).await.to_string();
        let paid = format!(
            "BEGIN; INSERT INTO user_subscriptions (user_id, plan_id, status, stripe_subscription_id) VALUES ('{user}', 'gold', 'active', 'sub_{n}');
             UPDATE users SET plan_id = 'gold' WHERE id = '{user}'; COMMIT"
        );
        database.sql(&paid).await;
        assert_eq!(in_force(&database, &user).await, "gold");
        let ended = format!(
            "UPDATE user_subscriptions SET status = '{status}', ended_at = now() - interval '{late}' WHERE user_id = '{user}'"
        );
        database.sql(&ended).await;
        assert_eq!(in_force(&database, &user).await, "free", "{late} {status}");
        let kept = format!(
            "SELECT ended_at < now() - interval '{late}' + interval '1 minute' FROM user_subscriptions WHERE user_id = '{user}'"
        );
        assert!(database.query_scalar::<bool>(&kept).await, "Stripe's time is kept as Stripe told it");
        // The event repeated, as Stripe does, and then a new grant by an administrator, which stays in force.
        database.sql(&ended).await;
        database.sql(&format!("UPDATE users SET plan_changed_at = clock_timestamp() WHERE id = '{user}'")).await;
        assert_eq!(in_force(&database, &user).await, "gold", "an end from before does not end what was granted since");
        database.sql(&ended).await;
        assert_eq!(in_force(&database, &user).await, "gold", "nor does the same end, told a third time");
    }
}

#[tokio::test]
async fn a_subscription_is_behind_since_its_period_began_and_not_since_we_heard() {
    let database = TestDatabase::new().await;
    let user = sign_up(&database, "ann").await.to_string();
    for (given, started, since) in [
        ("NULL", "now() - interval '3 days'", "now() - interval '3 days'"),
        ("now() - interval '2 days'", "now() - interval '3 days'", "now() - interval '2 days'"),
        ("NULL", "now() + interval '3 days'", "now()"),
        ("NULL", "NULL", "now()"),
    ] {
        let wrong = format!(
            "WITH s AS (INSERT INTO user_subscriptions (user_id, plan_id, status, past_due_since, current_period_start)
                VALUES ('{user}', 'gold', 'past_due', {given}, {started}) RETURNING past_due_since)
             SELECT past_due_since IS DISTINCT FROM {since} FROM s"
        );
        assert!(!database.query_scalar::<bool>(&wrong).await, "{given}, {started}");
        database.sql("UPDATE user_subscriptions SET current_period_start = now() - interval '1 hour'").await;
        let moved = "SELECT past_due_since > now() - interval '59 minutes' OR past_due_since < now() - interval '61 minutes' FROM user_subscriptions";
        if started != "NULL" && given != "NULL" {
            assert!(database.query_scalar::<bool>(moved).await, "it does not move while it stays behind");
        }
        database.sql("DELETE FROM user_subscriptions").await;
    }
}

/// A second subscription is accepted in every order of states; exactly one counts at any time, and after its end the
/// other.
#[tokio::test]
async fn a_second_live_subscription_is_kept_beside_the_first() {
    let database = TestDatabase::new().await;
    for (n, (first, second)) in LIVE.iter().flat_map(|a| LIVE.iter().map(move |b| (a, b))).enumerate() {
        let user = sign_up(&database, &format!("u{n}")).await.to_string();
        let add = |sub: &str, plan: &str, status: &str| {
            format!("INSERT INTO user_subscriptions (user_id, plan_id, status, stripe_subscription_id) VALUES ('{user}', '{plan}', '{status}', '{sub}_{n}')
                ON CONFLICT (stripe_subscription_id) DO UPDATE SET status = EXCLUDED.status")
        };
        database.sql(&add("a", "gold", first)).await;
        for _ in 0..2 {
            database.sql(&add("b", "platinum", second)).await;
        }
        assert_eq!(in_force(&database, &user).await, "gold");
        let counted = format!("SELECT string_agg(stripe_subscription_id, ',') FROM user_subscriptions WHERE user_id = '{user}' AND NOT is_duplicate
            AND status IN ('trialing', 'active', 'past_due')");
        assert_eq!(database.query_scalar::<String>(&counted).await, format!("a_{n}"));
        let doubled = format!(
            "SELECT count(*) FROM integrity_findings WHERE finding = 'DOUBLE_SUBSCRIPTION' AND subject = '{user}'"
        );
        assert_eq!(database.query_scalar::<i64>(&doubled).await, 1);
        let ended = if n % 2 == 0 {
            format!("UPDATE user_subscriptions SET status = 'canceled' WHERE stripe_subscription_id = 'a_{n}'")
        } else {
            format!("DELETE FROM user_subscriptions WHERE stripe_subscription_id = 'a_{n}'")
        };
        database.sql(&ended).await;
        assert_eq!(in_force(&database, &user).await, "platinum");
        assert_eq!(database.query_scalar::<String>(&counted).await, format!("b_{n}"));
        assert_eq!(database.query_scalar::<i64>(&doubled).await, 0);
        // The first one becomes active again: it waits behind the one that counts now.
        database.sql(&add("a", "gold", "active")).await;
        assert_eq!(in_force(&database, &user).await, "platinum");
    }
    // The index refuses two that count, whatever wrote them.
    let two = "ALTER TABLE user_subscriptions DISABLE TRIGGER set_user_subscriptions_times; UPDATE user_subscriptions SET is_duplicate = false";
    assert_eq!(refusal(&database.owner_url(), two).await.1.as_deref(), Some("idx_user_subscriptions_live"));
}

/// The row is deleted with its user; the audit trail shows that Stripe continues to charge, also for deletions in SQL.
#[tokio::test]
async fn a_subscription_that_goes_with_its_user_is_in_the_trail() {
    let database = TestDatabase::new().await;
    let (ann, bob) = (sign_up(&database, "ann").await, sign_up(&database, "bob").await);
    database
        .sql(&format!(
            "INSERT INTO user_subscriptions (user_id, plan_id, status, stripe_subscription_id) VALUES
                ('{ann}', 'gold', 'active', 'sub_1'), ('{bob}', 'gold', 'canceled', 'sub_2'), ('{bob}', 'gold', 'active', NULL);
             DELETE FROM auth.users"
        ))
        .await;
    let told: Vec<(String,)> = database
        .query_all("SELECT old_values ->> 'stripe_subscription_id' || ' ' || (old_values ->> 'status') FROM audit_logs WHERE table_name = 'user_subscriptions'")
        .await;
    assert_eq!(told, [("sub_1 active".to_owned(),)]);
}
