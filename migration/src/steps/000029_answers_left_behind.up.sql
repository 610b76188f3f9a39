-- A call without an idempotency key whose client left before it had the answer: the digest of what was asked, by which the
-- retry of that client finds it. A retry that took the call over, and a call with a key, have none.
ALTER TABLE public.ai_answers ADD COLUMN content_digest bytea;
-- @ concurrently
CREATE INDEX CONCURRENTLY idx_ai_answers_left ON public.ai_answers (user_id, content_digest) WHERE content_digest IS NOT NULL;
