-- $1 user, $2 the session that goes on or NULL, $3 when. What was revoked before keeps its time.
WITH tokens AS (
    UPDATE refresh_tokens SET revoked_at = $3
    WHERE user_id = $1 AND session_id IS DISTINCT FROM $2::uuid AND revoked_at IS NULL
)
UPDATE sessions SET revoked_at = $3 WHERE user_id = $1 AND id IS DISTINCT FROM $2::uuid AND revoked_at IS NULL
