DELETE FROM public.rollup_watermarks WHERE name = 'ai_usage_logs' OR name LIKE 'sums of %';
DROP TABLE public.integrity_pieces;
DROP TABLE public.sealed_usage;
DROP TABLE public.usage_seals;
DROP TABLE public.ai_usage_totals;
DROP TABLE public.usage_totals;
