-- AI: what each call used and cost, and the conversations that a user keeps.

-- cost is the rounded copy for reading; sums use cost_nano_usd. session_id and api_key_id are not
-- foreign keys: the record of a cost outlives the conversation and the key.
CREATE TABLE public.ai_usage_logs (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    provider varchar(20) NOT NULL,
    model text,
    tokens_used bigint,
    cost decimal(10,4),
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    session_id uuid,
    api_key_id uuid,
    reservation_id uuid,
    latency_ms integer,
    outcome varchar(30) NOT NULL DEFAULT 'ok',
    cost_nano_usd bigint NOT NULL DEFAULT 0,
    price_version varchar(100),
    usage jsonb,
    source varchar(20) NOT NULL DEFAULT 'provider',
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT ai_usage_logs_pkey PRIMARY KEY (id, created_at),
    CONSTRAINT fk_ai_usage_logs_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_provider CHECK (provider IN ('openai', 'claude', 'gemini')),
    CONSTRAINT check_ai_usage_source CHECK (source IN ('provider', 'estimated', 'partial', 'sandbox')),
    CONSTRAINT check_ai_usage_tokens CHECK (tokens_used >= 0 AND input_tokens >= 0 AND output_tokens >= 0 AND cached_tokens >= 0),
    CONSTRAINT check_ai_usage_cost CHECK (cost_nano_usd >= 0)
) PARTITION BY RANGE (created_at);
CREATE INDEX idx_ai_usage_logs_user_id ON public.ai_usage_logs (user_id);
CREATE INDEX idx_ai_usage_logs_created_at ON public.ai_usage_logs (created_at);
CREATE INDEX idx_ai_usage_logs_provider ON public.ai_usage_logs (provider);
CREATE INDEX idx_ai_usage_user_date ON public.ai_usage_logs (user_id, created_at DESC);
CREATE TABLE public.ai_usage_logs_default PARTITION OF public.ai_usage_logs DEFAULT;

CREATE TABLE public.chat_sessions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    api_key_id uuid,
    title varchar(200),
    tokens_used bigint NOT NULL DEFAULT 0,
    model text,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    ended_at timestamptz,
    CONSTRAINT chat_sessions_pkey PRIMARY KEY (id),
    CONSTRAINT fk_chat_sessions_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_chat_sessions_api_key FOREIGN KEY (api_key_id) REFERENCES public.api_keys (id) ON DELETE SET NULL,
    CONSTRAINT check_chat_session_tokens CHECK (tokens_used >= 0)
);
CREATE INDEX idx_chat_sessions_user_date ON public.chat_sessions (user_id, created_at DESC);
CREATE INDEX idx_chat_sessions_api_key_id ON public.chat_sessions (api_key_id);

CREATE TABLE public.chat_messages (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_id uuid NOT NULL,
    role varchar(20) NOT NULL,
    content text NOT NULL,
    tokens bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT chat_messages_pkey PRIMARY KEY (id),
    CONSTRAINT fk_chat_messages_session FOREIGN KEY (session_id) REFERENCES public.chat_sessions (id) ON DELETE CASCADE,
    CONSTRAINT check_chat_message_role CHECK (role IN ('user', 'assistant', 'system')),
    CONSTRAINT check_chat_message_tokens CHECK (tokens >= 0)
);
CREATE INDEX idx_chat_messages_session_date ON public.chat_messages (session_id, created_at);
