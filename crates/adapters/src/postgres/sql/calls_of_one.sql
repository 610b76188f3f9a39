-- The calls of one user or of one session: {whose} is the condition ($5 may be the session).
SELECT l.provider, l.model, l.created_at, 1::numeric AS requests, l.input_tokens::numeric, l.output_tokens::numeric,
    l.cached_tokens::numeric, l.cost_nano_usd::numeric,
    coalesce(l.tokens_used::numeric, l.input_tokens::numeric + l.output_tokens) AS total_tokens
FROM ai_usage_logs AS l
WHERE {whose} AND l.created_at >= $1 AND l.created_at < $2 AND ($5::uuid IS NULL OR l.session_id = $5)
