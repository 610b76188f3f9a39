DROP TABLE public.api_usage;
DROP TABLE public.generated_apis;
DROP TABLE public.api_keys;
