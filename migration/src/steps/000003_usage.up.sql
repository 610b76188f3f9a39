-- Usage: what was consumed and what is held. The tables of the hot path carry no foreign keys:
-- they were measured to cost 27 % of the throughput, and a deleted profile that is made again
-- must find the use of its period. integrity_findings checks what a foreign key would have.

CREATE TABLE public.usage_counters (
    user_id uuid NOT NULL,
    feature_id varchar(50) NOT NULL,
    period varchar(20) NOT NULL,
    period_start timestamptz NOT NULL,
    used bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    overage bigint NOT NULL DEFAULT 0,
    CONSTRAINT usage_counters_pkey PRIMARY KEY (user_id, feature_id, period, period_start),
    CONSTRAINT check_usage_counter_period CHECK (period IN ('day', 'month', 'billing_period', 'lifetime')),
    CONSTRAINT check_usage_counter_used CHECK (used >= 0),
    CONSTRAINT check_usage_counter_reserved CHECK (reserved >= 0),
    CONSTRAINT check_usage_counter_overage CHECK (overage BETWEEN 0 AND used)
) WITH (fillfactor = 70);

-- The default partition takes what no month was made for; maintain_partitions() moves it out again.
CREATE TABLE public.usage_events (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    feature_id varchar(50) NOT NULL,
    period varchar(20) NOT NULL,
    period_start timestamptz NOT NULL,
    amount bigint NOT NULL,
    overage bigint NOT NULL DEFAULT 0,
    idempotency_key varchar(255),
    api_key_id uuid,
    reservation_id uuid,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT usage_events_pkey PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX idx_usage_events_user_date ON public.usage_events (user_id, created_at DESC);
-- Rows arrive in the order of time, so the roll-up finds an hour by a BRIN that costs a write nothing.
CREATE INDEX idx_usage_events_created_at ON public.usage_events USING brin (created_at);
CREATE TABLE public.usage_events_default PARTITION OF public.usage_events DEFAULT;

-- tokens_reserved is the part of the hold that lies on users.token_reserved; detail is what the sweep
-- needs to settle after a crash (provider, model, estimate).
CREATE TABLE public.usage_reservations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    feature_id varchar(50) NOT NULL,
    period varchar(20) NOT NULL,
    period_start timestamptz NOT NULL,
    amount bigint NOT NULL,
    tokens_reserved bigint NOT NULL DEFAULT 0,
    settled_amount bigint,
    status varchar(20) NOT NULL DEFAULT 'pending',
    phase varchar(20) NOT NULL DEFAULT 'reserved',
    idempotency_key varchar(255),
    api_key_id uuid,
    detail jsonb,
    expires_at timestamptz NOT NULL,
    settled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT usage_reservations_pkey PRIMARY KEY (id),
    CONSTRAINT check_reservation_period CHECK (period IN ('day', 'month', 'billing_period', 'lifetime')),
    CONSTRAINT check_reservation_amount CHECK (amount >= 0),
    CONSTRAINT check_reservation_tokens CHECK (tokens_reserved >= 0),
    CONSTRAINT check_reservation_settled CHECK (settled_amount >= 0),
    CONSTRAINT check_reservation_status CHECK (status IN ('pending', 'settled', 'released', 'expired')),
    CONSTRAINT check_reservation_phase CHECK (phase IN ('reserved', 'dispatched', 'first_byte', 'settled'))
);
CREATE INDEX idx_usage_reservations_user_date ON public.usage_reservations (user_id, created_at DESC);
CREATE INDEX idx_usage_reservations_pending ON public.usage_reservations (user_id, feature_id, period, period_start) WHERE status = 'pending';
CREATE INDEX idx_usage_reservations_expires_at ON public.usage_reservations (expires_at) WHERE status = 'pending';

-- A granted outcome under its key; the columns are the Decision, so that a retry answers the same.
CREATE TABLE public.idempotency_keys (
    user_id uuid NOT NULL,
    key text NOT NULL,
    digest bytea NOT NULL,
    feature_id varchar(50) NOT NULL,
    amount bigint NOT NULL,
    allowed boolean NOT NULL,
    current bigint,
    limit_value bigint,
    remaining bigint,
    reserved bigint,
    reason varchar(30),
    plan_id varchar(50),
    source varchar(10),
    period varchar(20),
    period_start timestamptz,
    resets_at timestamptz,
    overage bigint,
    reservation_id uuid,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT check_idempotency_key_length CHECK (length(key) BETWEEN 1 AND 255)
) PARTITION BY HASH (user_id);
CREATE INDEX idx_idempotency_keys_created_at ON public.idempotency_keys (created_at);
DO $partitions$
BEGIN
    FOR remainder IN 0..7 LOOP
        EXECUTE format('CREATE TABLE public.idempotency_keys_%s PARTITION OF public.idempotency_keys FOR VALUES WITH (MODULUS 8, REMAINDER %s)', remainder, remainder);
    END LOOP;
END
$partitions$;

-- The replay of creating routes: status and body byte for byte, sealed, since a body may hold a secret shown once.
CREATE TABLE public.idempotent_answers (
    user_id uuid NOT NULL,
    route varchar(150) NOT NULL,
    key_digest bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    content_type varchar(100),
    sealed_body bytea,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamptz NOT NULL,
    CONSTRAINT idempotent_answers_pkey PRIMARY KEY (user_id, route, key_digest)
);
CREATE INDEX idx_idempotent_answers_expires_at ON public.idempotent_answers (expires_at);
