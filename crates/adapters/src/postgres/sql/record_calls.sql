-- Calls of models that are over: $1 ids (those of their holds), $2 users, $3 providers, $4 models, $5 input, $6 output and $7 cached tokens,
-- $8 sessions and $9 API keys (all zeros for none), $10 latencies (-1 for none), $11 outcomes, $12 costs, $13 versions of the prices ('' for no
-- price), $14 the usage as JSON, $15 its source, $16 tokens that nobody paid,
-- $17 costs in dollars, rounded for reading.
-- The messages that are kept: $18 the place of their call, $19 roles, $20 contents, $21 tokens, $22 costs, in the order in which they were
-- said. A session that was deleted meanwhile takes none; the record of the cost stays.
WITH calls AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[], $9::uuid[],
        $10::bigint[], $11::text[], $12::bigint[], $13::text[], $14::text[], $15::text[], $16::bigint[], $17::numeric[]) WITH ORDINALITY
        AS c (id, user_id, provider, model, input_tokens, output_tokens, cached_tokens, session_id, api_key_id, latency_ms, outcome,
            cost_nano_usd, price_version, usage, source, unpaid_tokens, cost, place)
), said AS (
    INSERT INTO chat_messages (session_id, role, content, tokens, cost_nano_usd, model, usage_log_id)
    SELECT s.id, m.role, m.content, m.tokens, m.cost_nano_usd, CASE WHEN m.role = 'assistant' THEN c.model END, c.id
    FROM unnest($18::bigint[], $19::text[], $20::text[], $21::bigint[], $22::bigint[]) WITH ORDINALITY
        AS m (call, role, content, tokens, cost_nano_usd, place)
    JOIN calls AS c ON c.place = m.call
    JOIN chat_sessions AS s ON s.id = c.session_id AND s.user_id = c.user_id
    ORDER BY m.place
), sessions AS (
    UPDATE chat_sessions AS s SET tokens_used = s.tokens_used + t.tokens, cost_nano_usd = s.cost_nano_usd + t.cost, model = t.model
    FROM (
        SELECT c.session_id, c.user_id, sum(c.input_tokens + c.output_tokens) AS tokens, sum(c.cost_nano_usd) AS cost,
            (array_agg(c.model ORDER BY c.place DESC))[1] AS model
        FROM calls AS c WHERE c.session_id <> '00000000-0000-0000-0000-000000000000' GROUP BY c.session_id, c.user_id
    ) AS t
    WHERE s.id = t.session_id AND s.user_id = t.user_id
)
INSERT INTO ai_usage_logs (id, user_id, provider, model, tokens_used, cost, input_tokens, output_tokens, cached_tokens, session_id,
    api_key_id, reservation_id, latency_ms, outcome, cost_nano_usd, price_version, usage, source, unpaid_tokens)
SELECT c.id, c.user_id, c.provider, c.model, c.input_tokens + c.output_tokens, least(c.cost, 999999.9999),
    c.input_tokens, c.output_tokens, c.cached_tokens, nullif(c.session_id, '00000000-0000-0000-0000-000000000000'),
    nullif(c.api_key_id, '00000000-0000-0000-0000-000000000000'), c.id, nullif(c.latency_ms, -1), c.outcome, c.cost_nano_usd,
    nullif(c.price_version, ''), c.usage::jsonb, c.source, c.unpaid_tokens
FROM calls AS c
