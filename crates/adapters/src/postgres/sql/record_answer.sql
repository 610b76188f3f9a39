-- $1 user, $2 route, $3 digest of the idempotency key, $4 fingerprint of the body, $5 status, $6 content type,
-- $7 sealed body, $8 lifetime in seconds, $9 the caller's rights as JSON.
INSERT INTO idempotent_answers AS kept
    (user_id, route, key_digest, fingerprint, status, content_type, sealed_body, created_at, expires_at, rights)
VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now() + make_interval(secs => $8), $9)
ON CONFLICT (user_id, route, key_digest) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,
    content_type = excluded.content_type, sealed_body = excluded.sealed_body, created_at = excluded.created_at,
    expires_at = excluded.expires_at, rights = excluded.rights
WHERE kept.expires_at <= now()
