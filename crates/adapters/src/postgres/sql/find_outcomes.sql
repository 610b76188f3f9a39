-- $1 users and $2 their idempotency keys, as parallel arrays. The stored outcomes of known keys, each with its place.
-- OFFSET 0 keeps the planner from joining the two lists: each key is looked up in its partition, by the primary key.
SELECT jsonb_agg(jsonb_build_object(
    'place', q.place, 'digest', encode(k.digest, 'escape'), 'amount', k.amount, 'feature_id', k.feature_id,
    'current', k.current, 'limit', k.limit_value, 'remaining', k.remaining, 'reserved', k.reserved,
    'plan_id', k.plan_id, 'source', k.source, 'period_start', k.period_start, 'resets_at', k.resets_at,
    'as_of', k.created_at, 'hold_id', k.reservation_id, 'hold_expires_at', k.hold_expires_at)) AS outcomes
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS q (user_id, key, place)
CROSS JOIN LATERAL (
    SELECT i.* FROM idempotency_keys AS i WHERE i.user_id = q.user_id AND i.key = q.key OFFSET 0
) AS k
