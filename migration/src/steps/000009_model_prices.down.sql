DROP TABLE public.model_prices;
