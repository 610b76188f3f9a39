-- Record: what was changed and by whom, and what the world is told about it.

-- Append only. The actor is no foreign key: the record outlives who made it.
CREATE TABLE public.audit_logs (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    table_name varchar(100) NOT NULL,
    record_id text NOT NULL,
    action varchar(50) NOT NULL,
    old_values jsonb,
    new_values jsonb,
    actor_id uuid,
    actor_name text NOT NULL DEFAULT session_user,
    reason text,
    -- By the clock: of two changes at once, the one that waited for the other comes second.
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_logs_pkey PRIMARY KEY (id)
);
CREATE INDEX idx_audit_logs_record ON public.audit_logs (table_name, record_id, created_at);
CREATE INDEX idx_audit_logs_created_at ON public.audit_logs (created_at DESC, id);
CREATE INDEX idx_audit_logs_actor_id ON public.audit_logs (actor_id, created_at DESC) WHERE actor_id IS NOT NULL;

-- Effects outside the database, written in the transaction of their cause and sent by a job.
CREATE TABLE public.outbox (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    topic varchar(100) NOT NULL,
    subject text,
    payload jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    processed_at timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT check_outbox_attempts CHECK (attempts >= 0)
);
CREATE INDEX idx_outbox_waiting ON public.outbox (available_at, id) WHERE processed_at IS NULL;
CREATE INDEX idx_outbox_processed_at ON public.outbox (processed_at) WHERE processed_at IS NOT NULL;

-- An alert that went off, once for each threshold in each period.
CREATE TABLE public.usage_alerts (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    feature_id varchar(50) NOT NULL,
    period varchar(20) NOT NULL,
    period_start timestamptz NOT NULL,
    threshold_percent integer NOT NULL,
    used bigint NOT NULL,
    limit_value bigint NOT NULL,
    acknowledged_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT usage_alerts_pkey PRIMARY KEY (id),
    CONSTRAINT usage_alerts_once_key UNIQUE (user_id, feature_id, period, period_start, threshold_percent),
    CONSTRAINT fk_usage_alerts_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_usage_alerts_feature FOREIGN KEY (feature_id) REFERENCES public.features (id) ON DELETE CASCADE,
    CONSTRAINT check_usage_alert_threshold CHECK (threshold_percent BETWEEN 1 AND 1000),
    CONSTRAINT check_usage_alert_period CHECK (period IN ('day', 'month', 'billing_period', 'lifetime'))
);
CREATE INDEX idx_usage_alerts_feature_id ON public.usage_alerts (feature_id);
CREATE INDEX idx_usage_alerts_created_at ON public.usage_alerts (created_at DESC, id);

CREATE TABLE public.webhook_endpoints (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    url varchar(2048) NOT NULL,
    description text,
    event_types jsonb NOT NULL DEFAULT '[]',
    sealed_secret bytea NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    failure_count integer NOT NULL DEFAULT 0,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id),
    CONSTRAINT fk_webhook_endpoints_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_webhook_event_types CHECK (jsonb_typeof(event_types) = 'array'),
    CONSTRAINT check_webhook_failures CHECK (failure_count >= 0)
);
CREATE INDEX idx_webhook_endpoints_user_id ON public.webhook_endpoints (user_id);

CREATE TABLE public.webhook_deliveries (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    endpoint_id uuid NOT NULL,
    event_type varchar(100) NOT NULL,
    payload jsonb NOT NULL,
    status varchar(20) NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_status smallint,
    last_error text,
    delivered_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (id),
    CONSTRAINT fk_webhook_deliveries_endpoint FOREIGN KEY (endpoint_id) REFERENCES public.webhook_endpoints (id) ON DELETE CASCADE,
    CONSTRAINT check_webhook_delivery_status CHECK (status IN ('pending', 'delivered', 'failed')),
    CONSTRAINT check_webhook_delivery_attempts CHECK (attempts >= 0)
);
CREATE INDEX idx_webhook_deliveries_endpoint_date ON public.webhook_deliveries (endpoint_id, created_at DESC);
CREATE INDEX idx_webhook_deliveries_next_attempt_at ON public.webhook_deliveries (next_attempt_at) WHERE status = 'pending';
