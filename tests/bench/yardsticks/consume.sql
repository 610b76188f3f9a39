-- POST /api/usage by Postgres alone: a guarded consumption that leaves the same durable rows (counter, event, key), for
-- a random user, in one statement.
\set n random(1, :users)
WITH caller AS (
    SELECT md5(:n::text)::uuid AS id
), counter AS (
    INSERT INTO usage_counters AS c (user_id, feature_id, period, period_start, used)
    SELECT u.id, 'bench_calls', 'month', date_trunc('month', now(), 'UTC'), 1 FROM caller AS u
    ON CONFLICT (user_id, feature_id, period, period_start)
    DO UPDATE SET used = c.used + 1 WHERE c.used + 1 <= 1000000000000
    RETURNING c.user_id, c.period_start, c.used
), event AS (
    INSERT INTO usage_events (user_id, feature_id, period, period_start, amount)
    SELECT user_id, 'bench_calls', 'month', period_start, 1 FROM counter
)
INSERT INTO idempotency_keys (user_id, key, digest, feature_id, amount, allowed, current, period, period_start)
SELECT user_id, gen_random_uuid()::text, 'consume', 'bench_calls', 1, true, used, 'month', period_start FROM counter;
