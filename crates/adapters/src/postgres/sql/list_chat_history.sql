-- $1 the user, $2 the number of messages. No message is newer than the last change of its conversation, except for
-- calls that ended at the same time; so a conversation that last changed before the $2-th newest message of the newest
-- conversations has none to return.
WITH newest AS (
    SELECT s.id FROM chat_sessions AS s WHERE s.user_id = $1 ORDER BY s.updated_at DESC, s.id DESC LIMIT $2
), oldest_shown AS (
    SELECT last.created_at FROM newest CROSS JOIN LATERAL (
        SELECT m.created_at FROM chat_messages AS m WHERE m.session_id = newest.id
        ORDER BY m.created_at DESC, m.seq DESC LIMIT $2
    ) AS last
    ORDER BY last.created_at DESC OFFSET $2 - 1 LIMIT 1
)
SELECT s.title, last.* FROM chat_sessions AS s CROSS JOIN LATERAL (
    SELECT m.id, m.session_id, m.role, m.content, m.tokens, m.cost_nano_usd, m.model, m.usage_log_id, m.seq, m.created_at
    FROM chat_messages AS m WHERE m.session_id = s.id ORDER BY m.created_at DESC, m.seq DESC LIMIT $2
) AS last
WHERE s.user_id = $1
    AND s.updated_at >= coalesce((SELECT created_at FROM oldest_shown) - interval '1 minute', '-infinity')
ORDER BY last.created_at DESC, last.seq DESC LIMIT $2
