-- $1 user, $2 route, $3 digest of the idempotency key. Uses the clock's time, since the caller may have waited for the
-- row.
SELECT a.fingerprint, a.status, a.content_type, a.sealed_body, a.reservation_id, a.rights,
    extract(epoch FROM clock_timestamp() - a.created_at)::float8 AS age, r.status AS hold_status,
    extract(epoch FROM clock_timestamp() - r.updated_at)::float8 AS hold_since
FROM ai_answers a LEFT JOIN usage_reservations r ON r.id = a.reservation_id AND a.status IS NULL
WHERE a.user_id = $1 AND a.route = $2 AND a.key_digest = $3 AND a.expires_at > now()
