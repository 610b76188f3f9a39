-- Hourly sums of usage_events. They stay when a month of events is dropped, hence no foreign key.

CREATE TABLE public.usage_rollups (
    user_id uuid NOT NULL,
    feature_id varchar(50) NOT NULL,
    period varchar(20) NOT NULL,
    period_start timestamptz NOT NULL,
    bucket timestamptz NOT NULL,
    amount bigint NOT NULL DEFAULT 0,
    overage bigint NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    CONSTRAINT usage_rollups_pkey PRIMARY KEY (user_id, feature_id, period, period_start, bucket),
    CONSTRAINT check_usage_rollup_period CHECK (period IN ('day', 'month', 'billing_period', 'lifetime')),
    CONSTRAINT check_usage_rollup_events CHECK (events >= 0)
);
CREATE INDEX idx_usage_rollups_user_bucket ON public.usage_rollups (user_id, bucket);
CREATE INDEX idx_usage_rollups_bucket ON public.usage_rollups (bucket);

-- Up to which hour each roll-up is complete.
CREATE TABLE public.rollup_watermarks (
    name varchar(50) NOT NULL,
    reached_at timestamptz NOT NULL,
    CONSTRAINT rollup_watermarks_pkey PRIMARY KEY (name)
);
