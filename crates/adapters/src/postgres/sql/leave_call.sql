-- $1 user, $2 route, $3 digest of the call's own key, $4 fingerprint of the body, $5 the call's reservation, $6 seconds
-- for which it can be adopted, $7 digest of the request, $8 status, $9 content type, $10 sealed body; these three are
-- NULL while the call runs; $11 the caller's rights as JSON. An existing row only gets its result, so a caller that
-- adopted the call keeps it.
INSERT INTO ai_answers AS left_call (user_id, route, key_digest, fingerprint, reservation_id, expires_at, content_digest,
    status, content_type, sealed_body, rights)
VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), $7, $8, $9, $10, $11)
ON CONFLICT (user_id, route, key_digest) DO UPDATE SET status = excluded.status, content_type = excluded.content_type,
    sealed_body = excluded.sealed_body, expires_at = excluded.expires_at
WHERE left_call.status IS NULL AND excluded.status IS NOT NULL
