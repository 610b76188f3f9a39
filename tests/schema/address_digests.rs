//! The upgrade to ids that are assigned once: identities of earlier releases are recognized by their addresses.

use harness::TestDatabase;

use crate::undoing::undo_from;

async fn balance(database: &TestDatabase, id: &str, email: &str) -> i64 {
    database
        .sql(&format!(
            "INSERT INTO auth.users (id, email) VALUES ('{id}', '{email}'); INSERT INTO users (id, name) VALUES ('{id}', 'n')"
        ))
        .await;
    database.query_scalar(&format!("SELECT token_balance FROM users WHERE id = '{id}'")).await
}

#[tokio::test]
async fn what_earlier_releases_left_brings_no_second_bonus_and_no_id() {
    let database = TestDatabase::new().await;
    undo_from(&database, "_address_digests").await;
    let id = |number: u8| format!("a0000000-0000-4000-8000-00000000000{number}");
    database
        .sql(&format!(
            "INSERT INTO auth.users (id, email) VALUES ('{0}', 'living@example.com'), ('{1}', E'a\\u0308@example.com');
             INSERT INTO users (id, name) VALUES ('{0}', 'living'), ('{1}', 'umlaut');
             INSERT INTO deleted_profiles (user_id, email_digest) VALUES ('{2}', sha256('gone@example.com'));
             INSERT INTO usage_counters (user_id, feature_id, period, period_start, used)
             VALUES ('{2}', 'api_access', 'month', date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', 7)",
            id(1),
            id(2),
            id(3)
        ))
        .await;
    migration::up(&database.owner_url()).await.unwrap();
    let left: i64 = database.query_scalar("SELECT count(*) FROM deleted_profiles WHERE email_digest IS NOT NULL").await;
    assert_eq!(left, 0, "a process of an earlier release finds no id to give again");
    let spelled: String =
        database.query_scalar(&format!("SELECT email::text FROM auth.users WHERE id = '{}'", id(2))).await;
    assert_eq!(spelled, "ä@example.com");

    assert_eq!(balance(&database, &id(4), "gone@example.com").await, 0);
    let carried = format!("SELECT used::text || ' ' || carried FROM usage_counters WHERE user_id = '{}'", id(4));
    assert_eq!(database.query_scalar::<String>(&carried).await, "7 7");
    // The provider deletes the remaining identity in SQL, and its address signs up again.
    database.sql(&format!("DELETE FROM auth.users WHERE id = '{}'", id(1))).await;
    assert_eq!(balance(&database, &id(5), "Living@example.com").await, 0);
    assert_eq!(balance(&database, &id(6), "new@example.com").await, 100);
    let of_the_new = format!("SELECT count(*) FROM integrity_findings WHERE subject LIKE '%{}%'", id(4));
    assert_eq!(database.query_scalar::<i64>(&of_the_new).await, 0);
    // Then undo the step, for a release that finds ids by digest.
    undo_from(&database, "_address_digests").await;
    migration::up(&database.owner_url()).await.unwrap();
}
