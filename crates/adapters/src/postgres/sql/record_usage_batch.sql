-- Counters, each locked by this transaction: $1 users, $2 features, $3 periods, $4 their starts, and their new values:
-- $5 used, $6 reserved, $7 overage.
-- Granted or settled commands: $8 user, $9 feature, $10 period, $11 its start, $12 amount, $13 overage, $14 the API key
-- (all zeros for none), $15 the event's id (all zeros: nothing was used), $16 the reservation (all zeros for none),
-- $17 the idempotency key ('' for none) that stores the rest: $18 the kind of request, $19 used, $20 reserved and
-- $21 remaining after it (-1 for no limit), $22 the limit (-1 for none), $23 plan, $24 source, $25 the end of the
-- period and $26 of the reservation (the epoch for none).
-- Every counter and key is found by its primary key, and nothing is joined. A key inserted meanwhile raises an error,
-- so that the batch is decided anew.
WITH counters AS (
    INSERT INTO usage_counters AS c (user_id, feature_id, period, period_start, used, reserved, overage)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::bigint[])
    ON CONFLICT (user_id, feature_id, period, period_start)
    DO UPDATE SET used = excluded.used, reserved = excluded.reserved, overage = excluded.overage
), entries AS MATERIALIZED (
    SELECT * FROM unnest($8::uuid[], $9::text[], $10::text[], $11::timestamptz[], $12::bigint[], $13::bigint[], $14::uuid[],
        $15::uuid[], $16::uuid[], $17::text[], $18::text[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[],
        $23::text[], $24::text[], $25::timestamptz[], $26::timestamptz[])
        AS e (user_id, feature_id, period, period_start, amount, overage, api_key_id, event_id, hold_id, key, digest, current,
            reserved, remaining, limit_value, plan_id, source, resets_at, hold_expires_at)
), events AS (
    INSERT INTO usage_events (id, user_id, feature_id, period, period_start, amount, overage, idempotency_key, api_key_id, reservation_id)
    SELECT event_id, user_id, feature_id, period, period_start, amount, overage, nullif(key, ''),
        nullif(api_key_id, '00000000-0000-0000-0000-000000000000'), nullif(hold_id, '00000000-0000-0000-0000-000000000000')
    FROM entries WHERE event_id <> '00000000-0000-0000-0000-000000000000'
)
INSERT INTO idempotency_keys (user_id, key, digest, feature_id, amount, allowed, current, limit_value, remaining, reserved,
    reason, plan_id, source, period, period_start, resets_at, overage, reservation_id, hold_expires_at)
SELECT user_id, key, digest::bytea, feature_id, amount, true, current, nullif(limit_value, -1), nullif(remaining, -1), reserved,
    'ok', plan_id, source, period, period_start, nullif(resets_at, 'epoch'), overage,
    nullif(hold_id, '00000000-0000-0000-0000-000000000000'), nullif(hold_expires_at, 'epoch')
FROM entries WHERE key <> ''
