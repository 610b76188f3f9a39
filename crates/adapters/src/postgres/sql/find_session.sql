-- $1 session. Sessions of an earlier release were last authenticated when they were created.
SELECT s.id, s.user_id, s.user_agent, s.created_at, s.last_seen_at, coalesce(s.authenticated_at, s.created_at) AS authenticated_at,
    s.expires_at, s.revoked_at
FROM sessions AS s
WHERE s.id = $1
