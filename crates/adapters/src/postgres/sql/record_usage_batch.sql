-- Meters: $1 users, $2 features, $3 periods, $4 their starts, $5 their ends (the epoch for none), $6 limits (-1 for
-- none), $7 plans, $8 sources, $9 held, $10 what is added to used, $11 to overage.
-- Grants: $12 the place of its meter, from 1, $13 the event's id, $14 the key, $15 amount, $16 overage, $17 the API key
-- (all zeros for none), $18 used after it, $19 left after it (-1 for no limit).
-- The counters go through their primary key; a key that came in meanwhile raises, so that the batch is decided anew.
WITH meters AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::bigint[], $7::text[],
        $8::text[], $9::bigint[], $10::bigint[], $11::bigint[]) WITH ORDINALITY
        AS m (user_id, feature_id, period, period_start, resets_at, limit_value, plan_id, source, reserved, used, overage, place)
), grants AS MATERIALIZED (
    SELECT g.*, m.user_id, m.feature_id, m.period, m.period_start, m.resets_at, m.limit_value, m.plan_id, m.source, m.reserved
    FROM unnest($12::bigint[], $13::uuid[], $14::text[], $15::bigint[], $16::bigint[], $17::uuid[], $18::bigint[], $19::bigint[])
        AS g (meter, event_id, key, amount, overage, api_key_id, current, remaining)
    JOIN meters AS m ON m.place = g.meter
), counters AS (
    INSERT INTO usage_counters AS c (user_id, feature_id, period, period_start, used, overage)
    SELECT user_id, feature_id, period, period_start, used, overage FROM meters
    ON CONFLICT (user_id, feature_id, period, period_start)
    DO UPDATE SET used = c.used + excluded.used, overage = c.overage + excluded.overage
), events AS (
    INSERT INTO usage_events (id, user_id, feature_id, period, period_start, amount, overage, idempotency_key, api_key_id)
    SELECT event_id, user_id, feature_id, period, period_start, amount, overage, key,
        nullif(api_key_id, '00000000-0000-0000-0000-000000000000')
    FROM grants
)
INSERT INTO idempotency_keys (user_id, key, digest, feature_id, amount, allowed, current, limit_value, remaining, reserved,
    reason, plan_id, source, period, period_start, resets_at, overage)
SELECT user_id, key, 'consume', feature_id, amount, true, current, nullif(limit_value, -1), nullif(remaining, -1), reserved,
    'ok', plan_id, source, period, period_start, nullif(resets_at, 'epoch'), overage
FROM grants
