//! The integrity checks in pieces: shared by processes, right about sealed hours, and not blind to old damage.

use harness::TestDatabase;

use crate::people::sign_up;

/// Use of twelve days, summed.
async fn used(database: &TestDatabase) -> String {
    let ann = sign_up(database, "ann").await.to_string();
    database
        .sql(&format!(
            "INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, overage, created_at)
             SELECT '{ann}', 'api_access', 'lifetime', 'epoch', 2, 1, now() - make_interval(hours => n) FROM generate_series(0, 287) n;
             INSERT INTO usage_counters (user_id, feature_id, period, period_start, used, overage)
             VALUES ('{ann}', 'api_access', 'lifetime', 'epoch', 576, 288)"
        ))
        .await;
    database.sql("SELECT maintain_partitions() FROM generate_series(1, 10)").await;
    while database.query_scalar::<i64>("SELECT roll_up_usage()").await > 0 {}
    // The state after two more fences: the summed hours get no further event.
    database.sql("UPDATE rollup_watermarks SET final_at = reached_at WHERE name = 'usage_events'").await;
    ann
}

/// One run over all pieces, like one process of several.
async fn check(database: &TestDatabase) -> Vec<(String, String)> {
    let mut pieces = Vec::new();
    let began: String = database.query_scalar("SELECT clock_timestamp()::text").await;
    while let Some(piece) =
        database.query_scalar::<Option<String>>(&format!("SELECT claim_integrity_piece('{began}')")).await
    {
        database.query_scalar::<i64>(&format!("SELECT check_integrity_piece('{piece}', '5 seconds')")).await;
        pieces.push(piece);
    }
    assert_eq!(pieces.len(), 18, "{pieces:?}");
    database
        .query_all("SELECT f.was ->> 'finding', f.was ->> 'detail' FROM integrity_pieces p, jsonb_array_elements(p.findings) f (was) ORDER BY 1, 2")
        .await
}

#[tokio::test]
async fn what_is_sealed_counts_once_and_damage_is_found_wherever_it_lies() {
    let database = TestDatabase::new().await;
    let ann = used(&database).await;
    assert_eq!(check(&database).await, []);
    let (seals, sealed): (i64, i64) = database.query_one("SELECT count(*), sum(events)::bigint FROM usage_seals").await;
    assert!((9..=12).contains(&seals) && (200..=245).contains(&sealed), "{seals} seals of {sealed} events");
    let kept: i64 = database.query_scalar("SELECT amount::bigint FROM sealed_usage").await;
    assert_eq!(kept, 2 * sealed);
    assert_eq!(check(&database).await, [], "what is sealed is not sealed again");
    for (finding, damage, undo) in [
        ("COUNTER_MISMATCH", "UPDATE usage_counters SET used = used - 1", "UPDATE usage_counters SET used = used + 1"),
        (
            "COUNTER_MISMATCH",
            "UPDATE usage_events SET amount = 3 WHERE created_at > now() - interval '30 minutes'",
            "UPDATE usage_events SET amount = 2 WHERE amount = 3",
        ),
        (
            "SEAL_BROKEN",
            "UPDATE usage_events SET amount = 3 WHERE created_at BETWEEN now() - interval '245 hours 30 minutes' AND now() - interval '244 hours 30 minutes'",
            "UPDATE usage_events SET amount = 2 WHERE amount = 3",
        ),
    ] {
        database.sql(damage).await;
        let found = check(&database).await;
        assert!(found.len() == 1 && found[0].0 == finding, "{damage}: {found:?}");
        database.sql(undo).await;
        assert_eq!(check(&database).await, [], "{undo}");
    }
    database.sql(&format!("DELETE FROM auth.users WHERE id = '{ann}'; DELETE FROM deleted_profiles")).await;
    let found = check(&database).await;
    assert!(
        found.iter().any(|(finding, _)| finding == "ORPHAN_EVENT")
            && found.iter().any(|(finding, _)| finding == "ORPHAN_COUNTER"),
        "{found:?}"
    );
}

#[tokio::test]
async fn hours_whose_sums_are_wrong_are_not_sealed() {
    let database = TestDatabase::new().await;
    used(&database).await;
    database.sql("UPDATE usage_rollups SET amount = amount + 1 WHERE bucket < now() - interval '280 hours'").await;
    let found = check(&database).await;
    assert!(!found.is_empty() && found.iter().all(|(finding, _)| finding == "ROLLUP_MISMATCH"), "{found:?}");
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM usage_seals").await, 0);
    database.sql("UPDATE usage_rollups SET amount = 2").await;
    assert_eq!(check(&database).await, []);
    assert!(database.query_scalar::<i64>("SELECT count(*) FROM usage_seals").await > 0);
}

#[tokio::test]
async fn several_processes_share_the_pieces_and_none_is_claimed_twice() {
    let database = TestDatabase::new().await;
    let hour = "SELECT claim_integrity_piece(clock_timestamp() - interval '50 minutes')";
    let mut claimed = std::collections::BTreeSet::new();
    loop {
        let (one, other): (Option<String>, Option<String>) =
            tokio::join!(database.query_scalar(hour), database.query_scalar(hour));
        if one.is_none() && other.is_none() {
            break;
        }
        for piece in [one, other].into_iter().flatten() {
            assert!(claimed.insert(piece.clone()), "{piece} twice");
        }
    }
    assert_eq!(claimed.len(), 18);
}

#[tokio::test]
async fn everybodys_sums_follow_the_users_whoever_writes_them() {
    let database = TestDatabase::new().await;
    used(&database).await;
    let same = "SELECT (SELECT jsonb_agg(t ORDER BY bucket) FROM (SELECT bucket, feature_id, sum(amount) AS amount, sum(overage) AS overage,
            sum(events) AS events FROM usage_rollups GROUP BY 1, 2) t)
        IS NOT DISTINCT FROM (SELECT jsonb_agg(t ORDER BY bucket) FROM (SELECT bucket, feature_id, amount, overage, events FROM usage_totals) t)";
    assert!(database.query_scalar::<bool>(same).await);
    for change in [
        "UPDATE usage_rollups SET amount = amount + 5, events = events + 1 WHERE bucket < now() - interval '5 days'",
        "INSERT INTO usage_rollups SELECT gen_random_uuid(), feature_id, period, period_start, bucket, 7, 0, 2 FROM usage_rollups",
        "DELETE FROM usage_rollups WHERE bucket < now() - interval '8 days'",
        "DELETE FROM usage_rollups",
    ] {
        database.sql(change).await;
        assert!(database.query_scalar::<bool>(same).await, "{change}");
    }
}
