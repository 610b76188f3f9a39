-- Counters of API key windows, each locked by this transaction: $1 API keys, $2 periods, $3 their starts, and their new
-- values: $4 requests, $5 tokens, $6 reserved tokens, $7 cost, $8 reserved cost.
UPDATE api_key_counters AS n SET requests = a.requests, tokens = a.tokens, tokens_reserved = a.tokens_reserved,
    cost_nano_usd = a.cost_nano_usd, cost_reserved_nano_usd = a.cost_reserved_nano_usd
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
    AS a (api_key_id, period, period_start, requests, tokens, tokens_reserved, cost_nano_usd, cost_reserved_nano_usd)
WHERE n.api_key_id = a.api_key_id AND n.period = a.period AND n.period_start = a.period_start
