-- $1 user, $2 the session that stays or NULL, $3 the time. Earlier revocations keep their time.
WITH tokens AS (
    UPDATE refresh_tokens SET revoked_at = $3
    WHERE user_id = $1 AND session_id IS DISTINCT FROM $2::uuid AND revoked_at IS NULL
)
UPDATE sessions SET revoked_at = $3 WHERE user_id = $1 AND id IS DISTINCT FROM $2::uuid AND revoked_at IS NULL
