-- $1 user, $2 now, $3 created after, $4 and $5 the last row of the page before or NULLs, $6 the row limit.
SELECT s.id, s.user_id, s.user_agent, s.created_at, s.last_seen_at, coalesce(s.authenticated_at, s.created_at) AS authenticated_at,
    s.expires_at, s.revoked_at
FROM sessions AS s
WHERE s.user_id = $1 AND s.revoked_at IS NULL AND s.expires_at > $2 AND s.created_at > $3
  AND ($4::timestamptz IS NULL OR (s.created_at, s.id) < ($4, $5::uuid))
ORDER BY s.created_at DESC, s.id DESC LIMIT $6
