-- $1 user, $2 route, $3 digest of the idempotency key. Returns the stored response; only without one it takes the
-- claim. A stored response does not change, so reading it again locks nothing and blocks no other caller.
SELECT a.fingerprint, a.status, a.content_type, a.sealed_body, a.rights,
    CASE WHEN a.user_id IS NULL
        THEN pg_try_advisory_xact_lock(hashtextextended($1::uuid || ' ' || $2::text || ' ' || encode($3::bytea, 'hex'), 0))
        ELSE false
    END AS is_taken
FROM (SELECT) AS one
LEFT JOIN idempotent_answers AS a ON a.user_id = $1 AND a.route = $2 AND a.key_digest = $3 AND a.expires_at > now()
