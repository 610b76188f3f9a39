-- $1 from, $2 up to but excluding, $3 provider, $4 model, $5 session (each null for any), $6 the number of models
-- listed separately; the calls are one user's ($7), or all users' with the summed hours. The rows are read once for all
-- groupings. Sums are numeric, so that they cannot overflow; the results are capped at the largest bigint.
WITH sums AS (
    SELECT grouping(c.provider, c.model, c.day, c.month) AS left_out, c.provider, c.model, c.day, c.month,
        coalesce(sum(c.requests), 0) AS requests, sum(c.input_tokens) AS input_tokens, sum(c.output_tokens) AS output_tokens,
        sum(c.cached_tokens) AS cached_tokens, sum(c.total_tokens) AS total_tokens, sum(c.cost_nano_usd) AS cost_nano_usd
    FROM (
        SELECT a.provider, a.model, a.requests, a.input_tokens, a.output_tokens, a.cached_tokens, a.cost_nano_usd, a.total_tokens,
            (a.created_at AT TIME ZONE 'UTC')::date AS day,
            date_trunc('month', a.created_at AT TIME ZONE 'UTC')::date AS month
        FROM ({calls}) AS a
        WHERE ($3::text IS NULL OR a.provider = $3) AND ($4::text IS NULL OR a.model = $4)
    ) AS c
    GROUP BY GROUPING SETS ((), (c.provider), (c.provider, c.model), (c.day), (c.month))
), placed AS (
    SELECT s.*, CASE s.left_out WHEN 15 THEN 'nothing' WHEN 7 THEN 'provider' WHEN 3 THEN 'model' WHEN 13 THEN 'day' ELSE 'month' END AS divided_by,
        row_number() OVER (
            PARTITION BY s.left_out
            ORDER BY s.day DESC, s.month DESC, s.cost_nano_usd DESC, s.requests DESC, s.provider, s.model
        ) AS place
    FROM sums AS s
), shown AS (
    SELECT p.divided_by, p.provider, p.model, p.day, p.month, p.requests, p.input_tokens, p.output_tokens, p.cached_tokens,
        p.total_tokens, p.cost_nano_usd, p.place
    FROM placed AS p WHERE p.divided_by <> 'model' OR p.place <= $6
    UNION ALL
    SELECT 'other', NULL, NULL, NULL, NULL, sum(p.requests), sum(p.input_tokens), sum(p.output_tokens), sum(p.cached_tokens),
        sum(p.total_tokens), sum(p.cost_nano_usd), 0
    FROM placed AS p WHERE p.divided_by = 'model' AND p.place > $6 HAVING count(*) > 0
)
SELECT s.divided_by, s.provider::text, s.model, s.day, s.month,
    least(s.requests, 9223372036854775807)::bigint AS requests,
    least(coalesce(s.input_tokens, 0), 9223372036854775807)::bigint AS input_tokens,
    least(coalesce(s.output_tokens, 0), 9223372036854775807)::bigint AS output_tokens,
    least(coalesce(s.cached_tokens, 0), 9223372036854775807)::bigint AS cached_tokens,
    least(coalesce(s.total_tokens, 0), 9223372036854775807)::bigint AS total_tokens,
    least(coalesce(s.cost_nano_usd, 0), 9223372036854775807)::bigint AS cost_nano_usd
FROM shown AS s ORDER BY s.divided_by, s.place
