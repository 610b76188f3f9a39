-- Keys and products: how programs ask, and what users publish. Before AI, since a chat session names its key.

CREATE TABLE public.api_keys (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    key_hash varchar(255) NOT NULL,
    key_prefix varchar(20) NOT NULL,
    last_four varchar(4) NOT NULL,
    name varchar(100) NOT NULL,
    permissions jsonb NOT NULL DEFAULT '[]',
    on_behalf boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    last_used_at timestamptz,
    expires_at timestamptz,
    rotated_to uuid,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash),
    CONSTRAINT fk_api_keys_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_api_keys_rotated_to FOREIGN KEY (rotated_to) REFERENCES public.api_keys (id) ON DELETE SET NULL,
    CONSTRAINT check_api_key_permissions CHECK (jsonb_typeof(permissions) = 'array')
);
CREATE INDEX idx_api_keys_user_id ON public.api_keys (user_id);
CREATE INDEX idx_api_keys_rotated_to ON public.api_keys (rotated_to);

CREATE TABLE public.generated_apis (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    name varchar(100) NOT NULL,
    description text,
    code text,
    endpoint varchar(2048),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT generated_apis_pkey PRIMARY KEY (id),
    CONSTRAINT fk_generated_apis_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE
);
CREATE INDEX idx_generated_apis_user_id ON public.generated_apis (user_id);

-- One row an API and minute. response_time is the sum of the minute's milliseconds: a sum can be added to, an average cannot.
CREATE TABLE public.api_usage (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    api_id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    request_count bigint NOT NULL DEFAULT 0,
    response_time bigint NOT NULL DEFAULT 0,
    CONSTRAINT api_usage_pkey PRIMARY KEY (id),
    CONSTRAINT api_usage_api_id_timestamp_key UNIQUE (api_id, timestamp),
    CONSTRAINT fk_api_usage_api FOREIGN KEY (api_id) REFERENCES public.generated_apis (id) ON DELETE CASCADE,
    CONSTRAINT check_api_usage_counts CHECK (request_count >= 0 AND response_time >= 0)
);
