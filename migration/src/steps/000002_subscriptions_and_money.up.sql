-- Subscriptions and money: what was bought, what was paid, and the ledger of tokens.

CREATE TABLE public.user_subscriptions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    plan_id varchar(50) NOT NULL,
    stripe_subscription_id varchar(100),
    stripe_price_id varchar(100),
    billing_interval varchar(10),
    status varchar(20) NOT NULL,
    trial_start timestamptz,
    trial_end timestamptz,
    current_period_start timestamptz,
    current_period_end timestamptz,
    cancel_at_period_end boolean NOT NULL DEFAULT false,
    past_due_since timestamptz,
    ended_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT user_subscriptions_pkey PRIMARY KEY (id),
    CONSTRAINT user_subscriptions_stripe_subscription_id_key UNIQUE (stripe_subscription_id),
    CONSTRAINT fk_user_subscriptions_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_user_subscriptions_plan FOREIGN KEY (plan_id) REFERENCES public.plans (id),
    CONSTRAINT check_subscription_status CHECK (status IN ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'canceled', 'unpaid')),
    CONSTRAINT check_subscription_interval CHECK (billing_interval IN ('month', 'year'))
);
CREATE INDEX idx_user_subscriptions_user_id ON public.user_subscriptions (user_id);
CREATE INDEX idx_user_subscriptions_plan_id ON public.user_subscriptions (plan_id);
CREATE INDEX idx_user_subscriptions_stripe_id ON public.user_subscriptions (stripe_subscription_id) WHERE stripe_subscription_id IS NOT NULL;
CREATE INDEX idx_user_subscriptions_status ON public.user_subscriptions (status);
CREATE INDEX idx_subscriptions_active ON public.user_subscriptions (user_id, status) WHERE status IN ('active', 'trialing');
-- At most one live subscription a user; effective_plan finds it here.
CREATE UNIQUE INDEX idx_user_subscriptions_live ON public.user_subscriptions (user_id) WHERE status IN ('trialing', 'active', 'past_due');

CREATE TABLE public.scheduled_plan_changes (
    user_id uuid NOT NULL,
    plan_id varchar(50) NOT NULL,
    effective_at timestamptz NOT NULL,
    reason text,
    requested_by uuid,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT scheduled_plan_changes_pkey PRIMARY KEY (user_id),
    CONSTRAINT fk_scheduled_plan_changes_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_scheduled_plan_changes_plan FOREIGN KEY (plan_id) REFERENCES public.plans (id)
);
CREATE INDEX idx_scheduled_plan_changes_plan_id ON public.scheduled_plan_changes (plan_id);
CREATE INDEX idx_scheduled_plan_changes_effective_at ON public.scheduled_plan_changes (effective_at);

CREATE TABLE public.stripe_events (
    id text NOT NULL,
    type text NOT NULL,
    created timestamptz NOT NULL,
    payload jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    processed_at timestamptz,
    error text,
    CONSTRAINT stripe_events_pkey PRIMARY KEY (id)
);
CREATE INDEX idx_stripe_events_unprocessed ON public.stripe_events (received_at) WHERE processed_at IS NULL;

-- Append only. seq, prev_hash and hash are written by the trigger chain_token_transaction, whatever the caller sends.
CREATE TABLE public.token_transactions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    amount bigint NOT NULL,
    type varchar(20) NOT NULL,
    description text,
    reference_id uuid,
    balance_after bigint NOT NULL,
    idempotency_key varchar(255),
    seq bigint NOT NULL,
    prev_hash bytea,
    hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT token_transactions_pkey PRIMARY KEY (id),
    CONSTRAINT token_transactions_user_id_seq_key UNIQUE (user_id, seq),
    CONSTRAINT token_transactions_user_id_idempotency_key_key UNIQUE (user_id, idempotency_key),
    CONSTRAINT fk_token_transactions_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_token_transaction_type CHECK (type IN ('topup', 'usage', 'refund', 'bonus')),
    CONSTRAINT check_token_transaction_amount CHECK (amount <> 0),
    CONSTRAINT check_token_transaction_balance CHECK (balance_after >= 0),
    CONSTRAINT check_token_transaction_seq CHECK (seq >= 1)
);
CREATE INDEX idx_token_transactions_user_date ON public.token_transactions (user_id, created_at DESC);

CREATE TABLE public.billing_records (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    amount decimal(28,8) NOT NULL,
    currency varchar(10) NOT NULL DEFAULT 'JPY',
    transaction_hash varchar(255),
    kind varchar(20) NOT NULL DEFAULT 'onchain',
    status varchar(20) NOT NULL DEFAULT 'pending',
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT billing_records_pkey PRIMARY KEY (id),
    CONSTRAINT billing_records_transaction_hash_key UNIQUE (transaction_hash),
    CONSTRAINT fk_billing_records_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_billing_record_kind CHECK (kind IN ('onchain', 'stripe', 'manual')),
    CONSTRAINT check_billing_record_status CHECK (status IN ('pending', 'confirmed', 'failed', 'refunded'))
);
CREATE INDEX idx_billing_records_user_date ON public.billing_records (user_id, created_at DESC);
