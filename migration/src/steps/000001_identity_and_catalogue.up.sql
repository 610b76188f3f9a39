-- Identity and catalogue: who exists, what can be bought, what each plan contains.
-- Rules that need more than one row live in replaceable/; here stand the columns and what Postgres can refuse by itself.

-- Supabase brings its own auth.users, which is never created, owned or altered here. Anywhere else the
-- compatible minimum is made, and the comment remembers that it is ours, so that `down` knows what to drop.
DO $auth$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'auth' AND c.relname = 'users') THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'auth') THEN
        CREATE SCHEMA auth;
        COMMENT ON SCHEMA auth IS 'product-base: the built-in identity, where no identity provider is';
    END IF;

    CREATE TABLE auth.users (
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        email varchar(255) NOT NULL,
        encrypted_password varchar(255),
        created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
        CONSTRAINT users_pkey PRIMARY KEY (id)
    );
    COMMENT ON TABLE auth.users IS 'product-base: the built-in identity, where no identity provider is';
    CREATE UNIQUE INDEX idx_auth_users_email ON auth.users (lower(email));
    ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;

    -- After a transaction that set it locally, the setting is '' and not NULL: hence nullif.
    CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE
        AS $f$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb $f$;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
        AS $f$ SELECT nullif(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub', '')::uuid $f$;
    CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE
        AS $f$ SELECT nullif(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role', '') $f$;
    COMMENT ON FUNCTION auth.jwt() IS 'product-base: the claims of the caller';
    COMMENT ON FUNCTION auth.uid() IS 'product-base: the id of the caller, NULL without claims';
    COMMENT ON FUNCTION auth.role() IS 'product-base: the role in the claims of the caller';
    GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
END
$auth$;

CREATE TABLE public.plans (
    id varchar(50) NOT NULL,
    name varchar(100) NOT NULL,
    display_name varchar(100) NOT NULL,
    description text,
    price_monthly decimal(10,2),
    price_yearly decimal(10,2),
    currency char(3) NOT NULL DEFAULT 'JPY',
    stripe_price_id_monthly varchar(100),
    stripe_price_id_yearly varchar(100),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT plans_pkey PRIMARY KEY (id),
    CONSTRAINT check_plan_prices CHECK (price_monthly >= 0 AND price_yearly >= 0),
    CONSTRAINT check_plan_currency CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX idx_plans_active ON public.plans (id) WHERE is_active = true;
-- A price of Stripe names one plan, so that an invoice can only mean that one.
CREATE UNIQUE INDEX idx_plans_stripe_price_id_monthly ON public.plans (stripe_price_id_monthly) WHERE stripe_price_id_monthly IS NOT NULL;
CREATE UNIQUE INDEX idx_plans_stripe_price_id_yearly ON public.plans (stripe_price_id_yearly) WHERE stripe_price_id_yearly IS NOT NULL;

CREATE TABLE public.features (
    id varchar(50) NOT NULL,
    name varchar(100) NOT NULL,
    display_name varchar(100) NOT NULL,
    description text,
    kind varchar(20) NOT NULL DEFAULT 'metered',
    unit varchar(30),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT features_pkey PRIMARY KEY (id),
    CONSTRAINT check_feature_kind CHECK (kind IN ('boolean', 'metered'))
);
CREATE INDEX idx_features_active ON public.features (id) WHERE is_active = true;

CREATE TABLE public.plan_features (
    plan_id varchar(50) NOT NULL,
    feature_id varchar(50) NOT NULL,
    enabled boolean NOT NULL DEFAULT false,
    limit_value bigint,
    limit_period varchar(20) NOT NULL DEFAULT 'month',
    overage varchar(20) NOT NULL DEFAULT 'block',
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT plan_features_pkey PRIMARY KEY (plan_id, feature_id),
    CONSTRAINT fk_plan_features_plan FOREIGN KEY (plan_id) REFERENCES public.plans (id) ON DELETE CASCADE,
    CONSTRAINT fk_plan_features_feature FOREIGN KEY (feature_id) REFERENCES public.features (id) ON DELETE CASCADE,
    CONSTRAINT check_plan_feature_limit CHECK (limit_value >= 0),
    CONSTRAINT check_plan_feature_period CHECK (limit_period IN ('day', 'month', 'billing_period', 'lifetime')),
    CONSTRAINT check_plan_feature_overage CHECK (overage IN ('block', 'tokens'))
);
CREATE INDEX idx_plan_features_feature_id ON public.plan_features (feature_id);

CREATE TABLE public.users (
    id uuid NOT NULL,
    name varchar(100) NOT NULL,
    role varchar(20) NOT NULL DEFAULT 'user',
    plan_id varchar(50) NOT NULL DEFAULT 'free',
    plan_changed_at timestamptz NOT NULL DEFAULT now(),
    stripe_customer_id varchar(100),
    wallet_address varchar(100),
    token_balance bigint NOT NULL DEFAULT 100,
    token_reserved bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT fk_users_auth FOREIGN KEY (id) REFERENCES auth.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_users_plan FOREIGN KEY (plan_id) REFERENCES public.plans (id),
    CONSTRAINT check_user_role CHECK (role IN ('admin', 'user')),
    CONSTRAINT check_token_balance CHECK (token_balance >= 0),
    CONSTRAINT check_token_reserved CHECK (token_reserved BETWEEN 0 AND token_balance)
);
CREATE INDEX idx_users_plan_id ON public.users (plan_id);
-- Unique, beyond the seed: an event of Stripe names its customer, and must find one user.
CREATE UNIQUE INDEX idx_users_stripe_customer_id ON public.users (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL;

-- What is left of a deleted profile: enough to give no second starting balance and to tell whose counters remain.
CREATE TABLE public.deleted_profiles (
    user_id uuid NOT NULL,
    email_digest bytea,
    deleted_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT deleted_profiles_pkey PRIMARY KEY (user_id),
    CONSTRAINT deleted_profiles_email_digest_key UNIQUE (email_digest)
);

CREATE TABLE public.organizations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name varchar(100) NOT NULL,
    owner_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT organizations_pkey PRIMARY KEY (id),
    CONSTRAINT fk_organizations_owner FOREIGN KEY (owner_id) REFERENCES public.users (id) ON DELETE CASCADE
);
CREATE INDEX idx_organizations_owner_id ON public.organizations (owner_id);

CREATE TABLE public.organization_members (
    organization_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role varchar(20) NOT NULL DEFAULT 'member',
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT organization_members_pkey PRIMARY KEY (organization_id, user_id),
    CONSTRAINT fk_organization_members_organization FOREIGN KEY (organization_id) REFERENCES public.organizations (id) ON DELETE CASCADE,
    CONSTRAINT fk_organization_members_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_member_role CHECK (role IN ('owner', 'admin', 'member', 'viewer'))
);
CREATE INDEX idx_organization_members_user_id ON public.organization_members (user_id);

CREATE TABLE public.feature_overrides (
    user_id uuid NOT NULL,
    feature_id varchar(50) NOT NULL,
    enabled boolean NOT NULL,
    limit_value bigint,
    reason text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT feature_overrides_pkey PRIMARY KEY (user_id, feature_id),
    CONSTRAINT fk_feature_overrides_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_feature_overrides_feature FOREIGN KEY (feature_id) REFERENCES public.features (id) ON DELETE CASCADE,
    CONSTRAINT check_feature_override_limit CHECK (limit_value >= 0)
);
CREATE INDEX idx_feature_overrides_feature_id ON public.feature_overrides (feature_id);

CREATE TABLE public.sessions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    kind varchar(10) NOT NULL,
    user_agent varchar(255),
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    last_seen_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT fk_sessions_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_session_kind CHECK (kind IN ('api', 'web'))
);
CREATE INDEX idx_sessions_user_id ON public.sessions (user_id);
CREATE INDEX idx_sessions_expires_at ON public.sessions (expires_at);

-- A token is used once; using it again revokes its whole family.
CREATE TABLE public.refresh_tokens (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    family uuid NOT NULL,
    token_hash bytea NOT NULL,
    replaced_by uuid,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT refresh_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT fk_refresh_tokens_session FOREIGN KEY (session_id) REFERENCES public.sessions (id) ON DELETE CASCADE,
    CONSTRAINT fk_refresh_tokens_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT fk_refresh_tokens_replaced_by FOREIGN KEY (replaced_by) REFERENCES public.refresh_tokens (id) ON DELETE SET NULL
);
CREATE INDEX idx_refresh_tokens_session_id ON public.refresh_tokens (session_id);
CREATE INDEX idx_refresh_tokens_user_id ON public.refresh_tokens (user_id);
CREATE INDEX idx_refresh_tokens_family ON public.refresh_tokens (family);
CREATE INDEX idx_refresh_tokens_replaced_by ON public.refresh_tokens (replaced_by);
CREATE INDEX idx_refresh_tokens_expires_at ON public.refresh_tokens (expires_at);

-- Only the fingerprint of a signing key: the key itself stands here only where the service made it.
CREATE TABLE public.signing_keys (
    kid varchar(64) NOT NULL,
    algorithm varchar(10) NOT NULL,
    fingerprint bytea NOT NULL,
    -- Only where the service made the key itself and keeps it here (outside production); readable by app_service alone.
    secret bytea,
    first_used_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    last_used_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    retired_at timestamptz,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
);

-- Settings that SQL must know too, so that the service and the functions cannot disagree.
CREATE TABLE public.runtime_settings (
    name varchar(100) NOT NULL,
    value jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT runtime_settings_pkey PRIMARY KEY (name),
    CONSTRAINT check_past_due_grace_days CHECK (
        name <> 'past_due_grace_days'
        OR CASE WHEN jsonb_typeof(value) = 'number' THEN value::numeric BETWEEN 0 AND 365 AND value::numeric = trunc(value::numeric) ELSE false END
    )
);
INSERT INTO public.runtime_settings (name, value) VALUES ('past_due_grace_days', '7');

-- Which text of each replaceable object stands in this database.
CREATE TABLE public.replaceable_checksums (
    name varchar(150) NOT NULL,
    checksum varchar(64) NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT replaceable_checksums_pkey PRIMARY KEY (name)
);
