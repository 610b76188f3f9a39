-- Adds use that no limit was checked for: $1 lineages of API keys, $2 periods and $3 their starts, each once and in
-- order, $4 requests, $5 tokens, $6 cost. A key that was deleted with its user is left out.
INSERT INTO api_key_counters AS n (api_key_id, period, period_start, requests, tokens, cost_nano_usd)
SELECT a.api_key_id, a.period, a.period_start, a.requests, a.tokens, a.cost_nano_usd
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS a (api_key_id, period, period_start, requests, tokens, cost_nano_usd)
WHERE EXISTS (SELECT FROM api_keys AS k WHERE k.id = a.api_key_id)
ON CONFLICT (api_key_id, period, period_start) DO UPDATE SET requests = n.requests + excluded.requests,
    tokens = n.tokens + excluded.tokens, cost_nano_usd = n.cost_nano_usd + excluded.cost_nano_usd
