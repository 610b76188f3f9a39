DROP INDEX public.idx_ai_answers_left;
ALTER TABLE public.ai_answers DROP COLUMN content_digest;
