-- $1 id, $2 session, $3 user, $4 hash, $5 expiry, $6 used at, $7 revoked at. The session is the token's family, and
-- lasts as long as its last token.
WITH lengthened AS (
    UPDATE sessions SET last_seen_at = now(), expires_at = greatest(expires_at, $5) WHERE id = $2
)
INSERT INTO refresh_tokens (id, session_id, user_id, family, token_hash, expires_at, used_at, revoked_at)
VALUES ($1, $2, $3, $2, $4, $5, $6, $7)
