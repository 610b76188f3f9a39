-- Fills what 000014 added, without a lock that keeps anybody from reading keys or counting. What takes long comes first, while
-- nothing is locked yet.

-- The month of every key with calls, limited or not: it is kept from now on, so that a limit set later sums nothing. A month that
-- is there already began with this sum.
INSERT INTO public.api_key_counters (api_key_id, period, period_start, requests, tokens, cost_nano_usd)
SELECT g.api_key_id, 'month', m.start, count(*), coalesce(sum(g.input_tokens + g.output_tokens), 0), coalesce(sum(g.cost_nano_usd), 0)
FROM (SELECT pg_catalog.date_trunc('month', now(), 'UTC') AS start) m
JOIN public.ai_usage_logs g ON g.created_at >= m.start
WHERE EXISTS (SELECT FROM public.api_keys k WHERE k.id = g.api_key_id)
GROUP BY g.api_key_id, m.start
ON CONFLICT DO NOTHING;

-- Successors get the first key of their rotations. UNION ends where somebody made the rotations a ring by hand.
WITH RECURSIVE chain AS (
    SELECT k.id AS first, k.rotated_to AS next FROM public.api_keys k
    WHERE k.rotated_to IS NOT NULL AND NOT EXISTS (SELECT FROM public.api_keys p WHERE p.rotated_to = k.id)
    UNION
    SELECT c.first, k.rotated_to FROM chain c JOIN public.api_keys k ON k.id = c.next WHERE k.rotated_to IS NOT NULL
)
UPDATE public.api_keys k SET lineage_id = c.first FROM chain c WHERE k.id = c.next;

ALTER TABLE public.api_keys VALIDATE CONSTRAINT fk_api_keys_lineage;
ALTER TABLE public.api_keys VALIDATE CONSTRAINT check_api_key_makers;

-- The windows of successors go to their lineage, with what calls under way hold of them.
INSERT INTO public.api_key_counters AS n
    (api_key_id, period, period_start, requests, tokens, cost_nano_usd, tokens_reserved, cost_reserved_nano_usd)
SELECT k.lineage_id, c.period, c.period_start, sum(c.requests), sum(c.tokens), sum(c.cost_nano_usd), sum(c.tokens_reserved),
    sum(c.cost_reserved_nano_usd)
FROM public.api_key_counters c JOIN public.api_keys k ON k.id = c.api_key_id
WHERE k.lineage_id IS NOT NULL
GROUP BY k.lineage_id, c.period, c.period_start
ON CONFLICT (api_key_id, period, period_start) DO UPDATE SET requests = n.requests + excluded.requests,
    tokens = n.tokens + excluded.tokens, cost_nano_usd = n.cost_nano_usd + excluded.cost_nano_usd,
    tokens_reserved = n.tokens_reserved + excluded.tokens_reserved,
    cost_reserved_nano_usd = n.cost_reserved_nano_usd + excluded.cost_reserved_nano_usd;
DELETE FROM public.api_key_counters c USING public.api_keys k WHERE k.id = c.api_key_id AND k.lineage_id IS NOT NULL;

-- Calls under way name the lineage in whose windows they count.
UPDATE public.usage_reservations r SET detail = pg_catalog.jsonb_set(r.detail, '{key_lineages}', pg_catalog.jsonb_build_array(k.lineage_id))
FROM public.api_keys k
WHERE k.id = r.api_key_id AND k.lineage_id IS NOT NULL AND r.detail IS NOT NULL AND r.status IN ('pending', 'expired');
