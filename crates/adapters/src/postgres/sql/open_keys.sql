-- $1 lineages of API keys, $2 periods and $3 their starts: windows without a counter. Their use is zero: a call by a
-- key without limits is also counted in its month when it is settled.
INSERT INTO api_key_counters (api_key_id, period, period_start)
SELECT a.api_key_id, a.period, a.period_start
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS a (api_key_id, period, period_start)
ON CONFLICT DO NOTHING
