DROP TABLE public.rollup_watermarks;
DROP TABLE public.usage_rollups;
