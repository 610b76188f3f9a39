DROP TABLE public.integrity_pieces;
DROP TABLE public.sealed_usage;
DROP TABLE public.usage_seals;
DROP TABLE public.ai_usage_totals;
DROP TABLE public.usage_totals;
