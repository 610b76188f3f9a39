-- The calls of the messages: $1 ids, $2 users, $3 sessions, $4 models, $5 tokens and $6 costs.
-- The messages to keep, in conversation order: $7 the place of their call, $8 roles, $9 contents, $10 tokens,
-- $11 costs. A session that was deleted meanwhile gets none; the record of the cost stays.
WITH calls AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[]) WITH ORDINALITY
        AS c (id, user_id, session_id, model, tokens, cost_nano_usd, place)
), said AS (
    INSERT INTO chat_messages (session_id, role, content, tokens, cost_nano_usd, model, usage_log_id)
    SELECT s.id, m.role, m.content, m.tokens, m.cost_nano_usd, CASE WHEN m.role = 'assistant' THEN c.model END, c.id
    FROM unnest($7::bigint[], $8::text[], $9::text[], $10::bigint[], $11::bigint[]) WITH ORDINALITY
        AS m (call, role, content, tokens, cost_nano_usd, place)
    JOIN calls AS c ON c.place = m.call
    JOIN chat_sessions AS s ON s.id = c.session_id AND s.user_id = c.user_id
    ORDER BY m.place
)
UPDATE chat_sessions AS s SET tokens_used = s.tokens_used + t.tokens, cost_nano_usd = s.cost_nano_usd + t.cost, model = t.model
FROM (
    SELECT c.session_id, c.user_id, sum(c.tokens) AS tokens, sum(c.cost_nano_usd) AS cost,
        (array_agg(c.model ORDER BY c.place DESC))[1] AS model
    FROM calls AS c GROUP BY c.session_id, c.user_id
) AS t
WHERE s.id = t.session_id AND s.user_id = t.user_id
