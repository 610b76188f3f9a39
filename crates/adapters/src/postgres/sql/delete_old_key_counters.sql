-- $1 the row limit. Rows that a call has locked are left for the next run.
DELETE FROM api_key_counters WHERE (api_key_id, period, period_start) IN (
    SELECT api_key_id, period, period_start FROM api_key_counters
    WHERE (period = 'minute' AND period_start < now() - interval '1 day')
        OR (period = 'month' AND period_start < now() - interval '13 months')
    LIMIT $1 FOR UPDATE SKIP LOCKED
)
