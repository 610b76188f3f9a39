-- Ended model calls: $1 ids (those of their reservations), $2 users, $3 providers, $4 models, $5 input, $6 output and
-- $7 cached tokens, $8 sessions and $9 API keys (all zeros for none), $10 latencies (-1 for none), $11 outcomes,
-- $12 costs, $13 price versions ('' for no price), $14 the usage as JSON, $15 its source, $16 unpaid tokens, $17 costs
-- in dollars, rounded for reading.
INSERT INTO ai_usage_logs (id, user_id, provider, model, tokens_used, cost, input_tokens, output_tokens, cached_tokens, session_id,
    api_key_id, reservation_id, latency_ms, outcome, cost_nano_usd, price_version, usage, source, unpaid_tokens)
SELECT c.id, c.user_id, c.provider, c.model, c.input_tokens + c.output_tokens, least(c.cost::numeric, 999999.9999),
    c.input_tokens, c.output_tokens, c.cached_tokens, nullif(c.session_id, '00000000-0000-0000-0000-000000000000'),
    nullif(c.api_key_id, '00000000-0000-0000-0000-000000000000'), c.id, nullif(c.latency_ms, -1), c.outcome, c.cost_nano_usd,
    nullif(c.price_version, ''), c.usage::jsonb, c.source, c.unpaid_tokens
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[], $9::uuid[],
    $10::bigint[], $11::text[], $12::bigint[], $13::text[], $14::text[], $15::text[], $16::bigint[], $17::text[])
    AS c (id, user_id, provider, model, input_tokens, output_tokens, cached_tokens, session_id, api_key_id, latency_ms, outcome,
        cost_nano_usd, price_version, usage, source, unpaid_tokens, cost)
