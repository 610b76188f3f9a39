-- $1 session. One of an earlier release was last proved when it was opened.
SELECT s.id, s.user_id, s.user_agent, s.created_at, s.last_seen_at, coalesce(s.authenticated_at, s.created_at) AS authenticated_at,
    s.expires_at, s.revoked_at
FROM sessions AS s
WHERE s.id = $1
