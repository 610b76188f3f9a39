DROP TABLE public.ai_answers;
