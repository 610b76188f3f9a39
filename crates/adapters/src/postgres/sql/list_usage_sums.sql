-- $1 the start of the page's newest bucket, $2 of the oldest bucket, $3 the length of a bucket, $4 feature, $5 period
-- kind (null for all), $6 whether there was a page before, and its last row: $7 bucket, $8 feature, $9 period kind,
-- $10 its start, $11 the row limit; {sums_of} and {events_of} select the user.
-- Buckets are summed one by one, newest first, and only as many as the page needs. Rows before the watermark come from
-- the hourly sums, later ones from the events; both are as of one moment.
WITH summed AS MATERIALIZED (
    SELECT coalesce(max(w.reached_at), '-infinity') AS reached_at FROM rollup_watermarks AS w WHERE w.name = 'usage_events'
)
SELECT b.bucket, s.feature_id, s.period, s.period_start, s.amount, s.overage, s.events
FROM summed
CROSS JOIN LATERAL (
    SELECT moment, moment AT TIME ZONE 'UTC' AS bucket, (moment + $3::interval) AT TIME ZONE 'UTC' AS bucket_end
    FROM generate_series($1::timestamptz AT TIME ZONE 'UTC', $2::timestamptz AT TIME ZONE 'UTC', -$3::interval) AS moment
    ORDER BY moment DESC
) AS b
CROSS JOIN LATERAL (
    SELECT p.feature_id, p.period, p.period_start, least(sum(p.amount), 9223372036854775807)::bigint AS amount,
        least(sum(p.overage), 9223372036854775807)::bigint AS overage, sum(p.events)::bigint AS events
    FROM (
        SELECT r.feature_id, r.period, r.period_start, r.amount, r.overage, r.events
        FROM {sums_of} AND b.bucket < summed.reached_at
            AND r.bucket >= b.bucket AND r.bucket < least(b.bucket_end, summed.reached_at)
        UNION ALL
        SELECT e.feature_id, e.period, e.period_start, e.amount, e.overage, 1
        FROM usage_events AS e
        WHERE {events_of} AND b.bucket_end > summed.reached_at
            AND e.created_at >= greatest(b.bucket, summed.reached_at) AND e.created_at < b.bucket_end
    ) AS p
    WHERE ($4::text IS NULL OR p.feature_id = $4) AND ($5::text IS NULL OR p.period = $5)
        AND (NOT $6 OR b.bucket < $7::timestamptz OR (p.feature_id, p.period, p.period_start) > ($8::text, $9::text, $10::timestamptz))
    GROUP BY p.feature_id, p.period, p.period_start
) AS s
ORDER BY b.moment DESC, s.feature_id, s.period, s.period_start
LIMIT $11
