DROP TABLE public.second_factors;
