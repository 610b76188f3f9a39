-- $1 users, $2 their API keys, $3 periods and $4 their starts: windows that have no counter yet. A month begins with what the
-- key's calls cost in it already, since a key has counters only from the day on which it was limited. The calls are found by
-- their user and time, once a key and month.
INSERT INTO api_key_counters (api_key_id, period, period_start, cost_nano_usd)
SELECT a.api_key_id, a.period, a.period_start, CASE WHEN a.period = 'month' THEN coalesce((
        SELECT sum(g.cost_nano_usd) FROM ai_usage_logs AS g
        WHERE g.user_id = a.user_id AND g.api_key_id = a.api_key_id AND g.created_at >= a.period_start), 0) ELSE 0 END
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[]) AS a (user_id, api_key_id, period, period_start)
ON CONFLICT DO NOTHING
