-- $1 user, $2 route, $3 digest of the idempotency key, $4 fingerprint of the body, $5 the call's reservation,
-- $6 lifetime in seconds, $7 the caller's rights as JSON. An expired row is replaced. While another transaction has
-- locked the user's row, which the foreign key needs, nothing is claimed, so that no caller waits on a pool connection.
WITH owner AS MATERIALIZED (SELECT u.id FROM users AS u WHERE u.id = $1 FOR KEY SHARE SKIP LOCKED)
INSERT INTO ai_answers AS kept (user_id, route, key_digest, fingerprint, reservation_id, created_at, expires_at, rights)
SELECT owner.id, $2, $3, $4, $5, now(), now() + make_interval(secs => $6), $7 FROM owner
ON CONFLICT (user_id, route, key_digest) DO UPDATE SET fingerprint = excluded.fingerprint, status = NULL,
    content_type = NULL, sealed_body = NULL, reservation_id = excluded.reservation_id,
    created_at = excluded.created_at, expires_at = excluded.expires_at, rights = excluded.rights
WHERE kept.expires_at <= now()
