-- $1 session, $2 the time. Earlier revocations keep their time.
WITH ended AS (
    UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL
)
UPDATE refresh_tokens SET revoked_at = $2 WHERE session_id = $1 AND revoked_at IS NULL
