-- $1 the reservations, in locking order. One row each. A row that another transaction has just changed is read with
-- that change, under the lock.
SELECT h.id IS NOT NULL AS is_locked,
    CASE WHEN h.id IS NULL THEN EXISTS (SELECT FROM usage_reservations AS r WHERE r.id = a.id OFFSET 0) ELSE false END AS is_held,
    h.id, h.user_id, h.feature_id, h.period, h.period_start, h.amount, h.beyond, h.tokens_reserved, h.settled_amount, h.overage,
    h.status, h.api_key_id, h.expires_at, h.outcome, h.phase, h.detail,
    h.expires_at <= now() AS is_due
FROM unnest($1::uuid[]) WITH ORDINALITY AS a (id, place)
LEFT JOIN LATERAL (
    SELECT r.* FROM usage_reservations AS r WHERE r.id = a.id FOR NO KEY UPDATE SKIP LOCKED
) AS h ON true
ORDER BY a.place
