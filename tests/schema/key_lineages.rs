//! The steps that give API keys their lineages: earlier counts are kept, on the first key of each rotation.

use chrono::{DateTime, Utc};

use crate::undoing::before;

/// The names of the keys; each index is the last digit of the id.
const KEYS: [&str; 5] = ["first", "second", "third", "alone", "silent"];

fn id(place: usize) -> String {
    format!("00000000-0000-4000-8000-00000000000{place}")
}

#[tokio::test]
async fn what_was_counted_before_is_the_lineages() {
    let database = before("000014_key_lineages").await;
    let ann = crate::people::sign_up(&database, "ann").await;
    for (place, name) in KEYS.iter().enumerate() {
        let key = format!(
            "INSERT INTO api_keys (id, user_id, key_hash, key_prefix, last_four, name) \
             VALUES ('{}', '{ann}', '{name}', 'sk_live_', 'abcd', '{name}')",
            id(place)
        );
        database.sql(&key).await;
    }
    let [first, second, third, alone, silent] = [0, 1, 2, 3, 4].map(id);
    database
        .sql(&format!(
            "UPDATE api_keys SET rotated_to = '{second}' WHERE id = '{first}';
             UPDATE api_keys SET rotated_to = '{third}' WHERE id = '{second}';
             INSERT INTO ai_usage_logs (user_id, provider, api_key_id, input_tokens, output_tokens, cost_nano_usd, created_at) VALUES
                ('{ann}', 'openai', '{first}', 1, 2, 100, now()), ('{ann}', 'openai', '{second}', 3, 4, 20, now()),
                ('{ann}', 'openai', '{third}', 5, 6, 3, now()), ('{ann}', 'openai', '{alone}', 7, 8, 50, now()),
                ('{ann}', 'openai', '{alone}', 7, 8, 9000, date_trunc('month', now(), 'UTC') - interval '1 hour'),
                ('{ann}', 'openai', NULL, 7, 8, 60, now());
             -- The third was limited: its windows are there, with a call under way.
             INSERT INTO api_key_counters (api_key_id, period, period_start, requests, tokens, cost_nano_usd, tokens_reserved, cost_reserved_nano_usd) VALUES
                ('{third}', 'month', date_trunc('month', now(), 'UTC'), 1, 11, 3, 70, 7),
                ('{third}', 'minute', date_trunc('minute', now()), 1, 11, 3, 70, 7),
                ('{first}', 'minute', date_trunc('minute', now()), 2, 22, 30, 0, 0);
             INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, api_key_id, expires_at, status, phase, detail)
                SELECT '{ann}', 'ai_requests', 'month', now(), 1, '{third}', now(), 'pending', 'dispatched', jsonb_build_object('on_key',
                    jsonb_build_object('tokens', 70, 'cost_nano_usd', 7, 'windows', jsonb_build_object(
                        'minute', date_trunc('minute', now()), 'month', date_trunc('month', now(), 'UTC'))))"
        ))
        .await;
    migration::up(&database.owner_url()).await.unwrap();
    let lineages: Vec<(String, Option<String>)> =
        database.query_all("SELECT name::text, lineage_id::text FROM api_keys ORDER BY id").await;
    let named = |name: &str, of: Option<&String>| (name.to_owned(), of.cloned());
    assert_eq!(
        lineages,
        [
            named("first", None),
            named("second", Some(&first)),
            named("third", Some(&first)),
            named("alone", None),
            named("silent", None)
        ]
    );
    let counted: Vec<(String, String, i64, i64, i64, i64, i64)> = database
        .query_all(
            "SELECT k.name::text, c.period::text, c.requests, c.tokens, c.cost_nano_usd, c.tokens_reserved, c.cost_reserved_nano_usd
             FROM api_key_counters c JOIN api_keys k ON k.id = c.api_key_id ORDER BY k.name, c.period",
        )
        .await;
    let row = |name: &str, period: &str, numbers: [i64; 5]| {
        let [requests, tokens, cost, tokens_held, cost_held] = numbers;
        (name.to_owned(), period.to_owned(), requests, tokens, cost, tokens_held, cost_held)
    };
    assert_eq!(
        counted,
        [
            row("alone", "month", [1, 15, 50, 0, 0]),
            row("first", "minute", [3, 33, 33, 70, 7]),
            row("first", "month", [3, 21, 123, 70, 7]),
        ],
        "{silent} and the month before have nothing"
    );
    let held: String = database.query_scalar("SELECT detail ->> 'key_lineages' FROM usage_reservations").await;
    assert_eq!(held, format!("[\"{first}\"]"));
    let mismatches =
        "SELECT count(*) FROM integrity_findings() WHERE finding = 'HOLD_MISMATCH' AND detail LIKE '%of the key%'";
    assert_eq!(database.query_scalar::<i64>(mismatches).await, 0, "what is held stands in the hold");
}

#[tokio::test]
async fn a_ring_of_rotations_does_not_stop_the_step() {
    let database = before("000014_key_lineages").await;
    let ann = crate::people::sign_up(&database, "ann").await;
    let (one, other) = (id(0), id(1));
    database
        .sql(&format!(
            "INSERT INTO api_keys (id, user_id, key_hash, key_prefix, last_four, name) VALUES
                ('{one}', '{ann}', 'a', 'sk', 'abcd', 'a'), ('{other}', '{ann}', 'b', 'sk', 'abcd', 'b');
             UPDATE api_keys SET rotated_to = CASE WHEN name = 'a' THEN '{other}'::uuid ELSE '{one}'::uuid END"
        ))
        .await;
    migration::up(&database.owner_url()).await.unwrap();
    let at: DateTime<Utc> = database.query_scalar("SELECT max(created_at) FROM api_keys").await;
    assert!(at > DateTime::UNIX_EPOCH);
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM api_keys WHERE lineage_id IS NULL").await, 2);
}
