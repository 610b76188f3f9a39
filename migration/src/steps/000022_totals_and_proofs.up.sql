-- Sums of everybody, apart from the users'. A trigger on usage_rollups keeps the first, a job the second. Sums are numeric:
-- those of everybody may be larger than a bigint.
CREATE TABLE public.usage_totals (
    bucket timestamptz NOT NULL,
    feature_id varchar(50) NOT NULL,
    period varchar(20) NOT NULL,
    period_start timestamptz NOT NULL,
    amount numeric NOT NULL,
    overage numeric NOT NULL,
    events numeric NOT NULL,
    CONSTRAINT usage_totals_pkey PRIMARY KEY (bucket, feature_id, period, period_start)
);

-- A call without a model has the model ''.
CREATE TABLE public.ai_usage_totals (
    bucket timestamptz NOT NULL,
    provider varchar(20) NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cached_tokens numeric NOT NULL,
    total_tokens numeric NOT NULL,
    cost_nano_usd numeric NOT NULL,
    CONSTRAINT ai_usage_totals_pkey PRIMARY KEY (bucket, provider, model)
);

-- A stretch of hours whose events were compared with their sums, and what they came to. What is sealed is not read again
-- by every run of the checks; one seal after another is compared with its events once more.
CREATE TABLE public.usage_seals (
    hours_from timestamptz NOT NULL,
    hours_to timestamptz NOT NULL,
    amount numeric NOT NULL,
    overage numeric NOT NULL,
    events bigint NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    checked_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT usage_seals_pkey PRIMARY KEY (hours_from),
    CONSTRAINT check_usage_seal_hours CHECK (hours_from < hours_to)
);
CREATE INDEX idx_usage_seals_checked_at ON public.usage_seals (checked_at);

-- What the sealed hours come to, counter by counter.
CREATE TABLE public.sealed_usage (
    user_id uuid NOT NULL,
    feature_id varchar(50) NOT NULL,
    period varchar(20) NOT NULL,
    period_start timestamptz NOT NULL,
    amount numeric NOT NULL,
    overage numeric NOT NULL,
    CONSTRAINT sealed_usage_pkey PRIMARY KEY (user_id, feature_id, period, period_start)
);

-- The parts of the integrity checks, and what each found last. attempted_at is the claim: whoever sets it checks that part.
CREATE TABLE public.integrity_pieces (
    name varchar(20) NOT NULL,
    findings jsonb NOT NULL DEFAULT '[]',
    checked_at timestamptz,
    took_ms bigint,
    attempted_at timestamptz,
    CONSTRAINT integrity_pieces_pkey PRIMARY KEY (name)
);
