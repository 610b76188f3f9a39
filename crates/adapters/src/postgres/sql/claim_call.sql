-- $1 user, $2 route, $3 digest of the key, $4 fingerprint of the body, $5 the call's hold, $6 for how many seconds, $7 the rights of
-- whoever asks, as JSON. A row whose time is over gives its place to anybody. Nothing is claimed, and nobody waits on a connection of
-- the pool, while another transaction has locked the user's row, which the foreign key asks for.
WITH owner AS MATERIALIZED (SELECT u.id FROM users AS u WHERE u.id = $1 FOR KEY SHARE SKIP LOCKED)
INSERT INTO ai_answers AS kept (user_id, route, key_digest, fingerprint, reservation_id, created_at, expires_at, rights)
SELECT owner.id, $2, $3, $4, $5, now(), now() + make_interval(secs => $6), $7 FROM owner
ON CONFLICT (user_id, route, key_digest) DO UPDATE SET fingerprint = excluded.fingerprint, status = NULL,
    content_type = NULL, sealed_body = NULL, reservation_id = excluded.reservation_id,
    created_at = excluded.created_at, expires_at = excluded.expires_at, rights = excluded.rights
WHERE kept.expires_at <= now()
