SELECT m.* FROM chat_messages AS m JOIN chat_sessions AS s ON s.id = m.session_id
WHERE s.user_id = $1 ORDER BY m.created_at DESC, m.seq DESC
