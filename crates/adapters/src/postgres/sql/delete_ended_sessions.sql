-- $1 the time before which they ended, $2 the row limit; their tokens are deleted by the cascade. A session that is
-- being refreshed is skipped. Each new token extends its session, so a session that has not expired cannot have ended;
-- the tokens are checked too, since they decide.
DELETE FROM sessions WHERE id IN (
    SELECT s.id FROM sessions AS s
    WHERE s.revoked_at < $1
       OR (s.expires_at < $1 AND NOT EXISTS (
            SELECT FROM refresh_tokens AS t WHERE t.session_id = s.id AND t.expires_at >= $1))
    ORDER BY s.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
