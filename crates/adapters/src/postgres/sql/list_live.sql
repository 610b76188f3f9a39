-- $1 users, $2 their sessions (all zeros for none; no session has that id). One row each, in their order.
SELECT EXISTS (SELECT FROM users AS u WHERE u.id = t.user_id)
    AND EXISTS (SELECT FROM identity_states(ARRAY[t.user_id]) AS i WHERE i.state = 'active')
    AND NOT EXISTS (SELECT FROM sessions AS s WHERE s.id = t.session_id AND (s.revoked_at IS NOT NULL OR s.expires_at <= now()))
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS t (user_id, session_id, place)
ORDER BY t.place
