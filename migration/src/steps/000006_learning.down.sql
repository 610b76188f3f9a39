DROP TABLE public.tutorial_completion;
DROP TABLE public.learning_progress;
