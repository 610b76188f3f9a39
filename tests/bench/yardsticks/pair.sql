-- POST /api/usage/reservations and its settle by Postgres alone: two transactions of one statement each that leave the
-- same durable rows (counter, key, reservation; then counter, event, reservation), for a random user.
\set n random(1, :users)
WITH caller AS (
    SELECT md5(:n::text)::uuid AS id
), counter AS (
    INSERT INTO usage_counters AS c (user_id, feature_id, period, period_start, reserved)
    SELECT u.id, 'bench_calls', 'month', date_trunc('month', now(), 'UTC'), 1 FROM caller AS u
    ON CONFLICT (user_id, feature_id, period, period_start)
    DO UPDATE SET reserved = c.reserved + 1 WHERE c.used + c.reserved + 1 <= 1000000000000
    RETURNING c.user_id, c.period_start, c.used, c.reserved
), reservation AS (
    INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, idempotency_key, expires_at)
    SELECT user_id, 'bench_calls', 'month', period_start, 1, gen_random_uuid()::text, now() + interval '5 minutes' FROM counter
    RETURNING id, user_id, idempotency_key, expires_at
)
INSERT INTO idempotency_keys (user_id, key, digest, feature_id, amount, allowed, current, reserved, period, period_start,
    reservation_id, hold_expires_at)
SELECT r.user_id, r.idempotency_key, 'hold', 'bench_calls', 1, true, c.used, c.reserved, 'month', c.period_start, r.id, r.expires_at
FROM reservation AS r CROSS JOIN counter AS c
RETURNING reservation_id \gset
WITH reservation AS (
    UPDATE usage_reservations SET status = 'settled', phase = 'settled', settled_amount = 1, settled_at = now()
    WHERE id = :reservation_id::uuid AND status = 'pending'
    RETURNING id, user_id, period_start, amount
), counter AS (
    INSERT INTO usage_counters AS c (user_id, feature_id, period, period_start, used)
    SELECT user_id, 'bench_calls', 'month', period_start, 1 FROM reservation
    ON CONFLICT (user_id, feature_id, period, period_start)
    DO UPDATE SET used = c.used + 1, reserved = c.reserved - 1
)
INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, reservation_id)
SELECT user_id, 'bench_calls', 'month', period_start, 1, id FROM reservation;
