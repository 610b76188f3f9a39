-- Fills what 000014 added, some thousand rows at a time.
-- @ batches
-- The month of every key with calls, limited or not: it is kept from now on, so that a limit set later sums nothing. A month that
-- is there already began with this sum.
INSERT INTO public.api_key_counters (api_key_id, period, period_start, requests, tokens, cost_nano_usd)
SELECT g.api_key_id, 'month', c.start, count(*), coalesce(sum(g.input_tokens + g.output_tokens), 0), coalesce(sum(g.cost_nano_usd), 0)
FROM (
    SELECT k.id, m.start FROM public.api_keys k
    CROSS JOIN (SELECT pg_catalog.date_trunc('month', now(), 'UTC') AS start) m
    WHERE EXISTS (SELECT FROM public.ai_usage_logs u WHERE u.api_key_id = k.id AND u.created_at >= m.start)
      AND NOT EXISTS (SELECT FROM public.api_key_counters n WHERE n.api_key_id = k.id AND n.period = 'month' AND n.period_start = m.start)
      -- A successor's month was moved to its lineage, where this step was begun before.
      AND k.lineage_id IS NULL
    LIMIT 5000
) c
JOIN public.ai_usage_logs g ON g.api_key_id = c.id AND g.created_at >= c.start
GROUP BY g.api_key_id, c.start
ON CONFLICT DO NOTHING;
-- @ batches
-- Successors get the first key of their rotations. UNION ends where somebody made the rotations a ring by hand.
WITH RECURSIVE chain AS (
    SELECT k.id AS first, k.rotated_to AS next FROM public.api_keys k
    WHERE k.rotated_to IS NOT NULL AND NOT EXISTS (SELECT FROM public.api_keys p WHERE p.rotated_to = k.id)
    UNION
    SELECT c.first, k.rotated_to FROM chain c JOIN public.api_keys k ON k.id = c.next WHERE k.rotated_to IS NOT NULL
), unfilled AS (
    SELECT k.id, c.first FROM chain c JOIN public.api_keys k ON k.id = c.next WHERE k.lineage_id IS NULL LIMIT 5000
)
UPDATE public.api_keys k SET lineage_id = f.first FROM unfilled f WHERE k.id = f.id;
-- @ transaction
ALTER TABLE public.api_keys VALIDATE CONSTRAINT fk_api_keys_lineage;
-- @ transaction
ALTER TABLE public.api_keys VALIDATE CONSTRAINT check_api_key_makers;
-- @ batches
-- The windows of successors go to their lineage, with what calls under way hold of them, and those calls name it in the same
-- statement: whoever settles one finds its hold where the call says.
WITH successors AS (
    SELECT k.id, k.lineage_id FROM public.api_keys k
    WHERE k.lineage_id IS NOT NULL AND EXISTS (SELECT FROM public.api_key_counters c WHERE c.api_key_id = k.id)
    ORDER BY k.id LIMIT 50
), named AS (
    UPDATE public.usage_reservations r
    SET detail = pg_catalog.jsonb_set(r.detail, '{key_lineages}', pg_catalog.jsonb_build_array(s.lineage_id))
    FROM successors s
    WHERE r.api_key_id = s.id AND r.status IN ('pending', 'expired') AND pg_catalog.jsonb_typeof(r.detail) = 'object'
      AND r.detail -> 'key_lineages' IS NULL
), gone AS (
    DELETE FROM public.api_key_counters c USING successors s WHERE c.api_key_id = s.id
    RETURNING s.lineage_id, c.period, c.period_start, c.requests, c.tokens, c.cost_nano_usd, c.tokens_reserved, c.cost_reserved_nano_usd
)
INSERT INTO public.api_key_counters AS n
    (api_key_id, period, period_start, requests, tokens, cost_nano_usd, tokens_reserved, cost_reserved_nano_usd)
SELECT g.lineage_id, g.period, g.period_start, sum(g.requests), sum(g.tokens), sum(g.cost_nano_usd), sum(g.tokens_reserved),
    sum(g.cost_reserved_nano_usd)
FROM gone g
GROUP BY g.lineage_id, g.period, g.period_start
ON CONFLICT (api_key_id, period, period_start) DO UPDATE SET requests = n.requests + excluded.requests,
    tokens = n.tokens + excluded.tokens, cost_nano_usd = n.cost_nano_usd + excluded.cost_nano_usd,
    tokens_reserved = n.tokens_reserved + excluded.tokens_reserved,
    cost_reserved_nano_usd = n.cost_reserved_nano_usd + excluded.cost_reserved_nano_usd;
-- @ batches
-- Calls under way by keys that have no window.
UPDATE public.usage_reservations r
SET detail = pg_catalog.jsonb_set(r.detail, '{key_lineages}', pg_catalog.jsonb_build_array(u.lineage_id))
FROM (
    SELECT p.id, k.lineage_id FROM public.usage_reservations p JOIN public.api_keys k ON k.id = p.api_key_id
    WHERE k.lineage_id IS NOT NULL AND p.status IN ('pending', 'expired') AND pg_catalog.jsonb_typeof(p.detail) = 'object'
      AND p.detail -> 'key_lineages' IS NULL
    LIMIT 5000
) u
WHERE r.id = u.id AND r.detail -> 'key_lineages' IS NULL;
