-- The replay of idempotent AI calls, for 24 hours. It holds what a model said, so it goes with its user.

-- A row without status is a call in flight: a second request with the same key waits for it.
CREATE TABLE public.ai_answers (
    user_id uuid NOT NULL,
    route varchar(150) NOT NULL,
    key_digest bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    content_type varchar(100),
    sealed_body bytea,
    reservation_id uuid,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamptz NOT NULL,
    CONSTRAINT ai_answers_pkey PRIMARY KEY (user_id, route, key_digest),
    CONSTRAINT fk_ai_answers_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE
);
CREATE INDEX idx_ai_answers_expires_at ON public.ai_answers (expires_at);
