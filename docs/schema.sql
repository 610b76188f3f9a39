-- The schema of Product Base, for reading. Written from the catalogue by `cargo run -p migration -- schema`:
-- do not edit. The steps and replaceable texts in migration/src are what makes it.

-- Tables

CREATE TABLE auth.users (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    email character varying(255) NOT NULL,
    encrypted_password character varying(255),
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);
ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX idx_auth_users_email ON auth.users USING btree (lower((email)::text));
CREATE TRIGGER update_auth_users_updated_at BEFORE UPDATE ON auth.users FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.plans (
    id character varying(50) NOT NULL,
    name character varying(100) NOT NULL,
    display_name character varying(100) NOT NULL,
    description text,
    price_monthly numeric(10,2),
    price_yearly numeric(10,2),
    currency character(3) NOT NULL DEFAULT 'JPY'::bpchar,
    stripe_price_id_monthly character varying(100),
    stripe_price_id_yearly character varying(100),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT plans_pkey PRIMARY KEY (id),
    CONSTRAINT check_plan_currency CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT check_plan_prices CHECK (((price_monthly >= (0)::numeric) AND (price_yearly >= (0)::numeric)))
);
ALTER TABLE public.plans ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_plans_active ON public.plans USING btree (id) WHERE (is_active = true);
CREATE UNIQUE INDEX idx_plans_stripe_price_id_monthly ON public.plans USING btree (stripe_price_id_monthly) WHERE (stripe_price_id_monthly IS NOT NULL);
CREATE UNIQUE INDEX idx_plans_stripe_price_id_yearly ON public.plans USING btree (stripe_price_id_yearly) WHERE (stripe_price_id_yearly IS NOT NULL);
CREATE POLICY plans_readonly ON public.plans FOR SELECT TO readonly_user USING (true);
CREATE POLICY plans_select_active ON public.plans FOR SELECT TO anon USING (is_active);
CREATE POLICY plans_select_own ON public.plans FOR SELECT TO authenticated USING ((is_active OR ((id)::text IN ( SELECT u.plan_id
   FROM public.users u
  WHERE (u.id = ( SELECT auth.uid() AS uid))
UNION ALL
 SELECT s.plan_id
   FROM public.user_subscriptions s
  WHERE (s.user_id = ( SELECT auth.uid() AS uid))))));
CREATE POLICY plans_service ON public.plans FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER audit_plans AFTER INSERT OR DELETE OR UPDATE ON public.plans FOR EACH ROW EXECUTE FUNCTION public.audit_row('id');
CREATE TRIGGER notify_plans AFTER INSERT OR DELETE OR UPDATE ON public.plans FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');
CREATE TRIGGER update_plans_updated_at BEFORE UPDATE ON public.plans FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.features (
    id character varying(50) NOT NULL,
    name character varying(100) NOT NULL,
    display_name character varying(100) NOT NULL,
    description text,
    kind character varying(20) NOT NULL DEFAULT 'metered'::character varying,
    unit character varying(30),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT features_pkey PRIMARY KEY (id),
    CONSTRAINT check_feature_kind CHECK (((kind)::text = ANY ((ARRAY['boolean'::character varying, 'metered'::character varying])::text[])))
);
ALTER TABLE public.features ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_features_active ON public.features USING btree (id) WHERE (is_active = true);
CREATE POLICY features_readonly ON public.features FOR SELECT TO readonly_user USING (true);
CREATE POLICY features_select_active ON public.features FOR SELECT TO anon, authenticated USING (is_active);
CREATE POLICY features_service ON public.features FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER audit_features AFTER INSERT OR DELETE OR UPDATE ON public.features FOR EACH ROW EXECUTE FUNCTION public.audit_row('id');
CREATE TRIGGER notify_features AFTER INSERT OR DELETE OR UPDATE ON public.features FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');
CREATE TRIGGER update_features_updated_at BEFORE UPDATE ON public.features FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.plan_features (
    plan_id character varying(50) NOT NULL,
    feature_id character varying(50) NOT NULL,
    enabled boolean NOT NULL DEFAULT false,
    limit_value bigint,
    limit_period character varying(20) NOT NULL DEFAULT 'month'::character varying,
    overage character varying(20) NOT NULL DEFAULT 'block'::character varying,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT plan_features_pkey PRIMARY KEY (plan_id, feature_id),
    CONSTRAINT fk_plan_features_feature FOREIGN KEY (feature_id) REFERENCES public.features(id) ON DELETE CASCADE,
    CONSTRAINT fk_plan_features_plan FOREIGN KEY (plan_id) REFERENCES public.plans(id) ON DELETE CASCADE,
    CONSTRAINT check_plan_feature_limit CHECK ((limit_value >= 0)),
    CONSTRAINT check_plan_feature_overage CHECK (((overage)::text = ANY ((ARRAY['block'::character varying, 'tokens'::character varying])::text[]))),
    CONSTRAINT check_plan_feature_period CHECK (((limit_period)::text = ANY ((ARRAY['day'::character varying, 'month'::character varying, 'billing_period'::character varying, 'lifetime'::character varying])::text[])))
);
ALTER TABLE public.plan_features ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_plan_features_feature_id ON public.plan_features USING btree (feature_id);
CREATE POLICY plan_features_readonly ON public.plan_features FOR SELECT TO readonly_user USING (true);
CREATE POLICY plan_features_select_visible ON public.plan_features FOR SELECT TO anon, authenticated USING ((((plan_id)::text IN ( SELECT p.id
   FROM public.plans p)) AND ((feature_id)::text IN ( SELECT f.id
   FROM public.features f))));
CREATE POLICY plan_features_service ON public.plan_features FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER audit_plan_features AFTER INSERT OR DELETE OR UPDATE ON public.plan_features FOR EACH ROW EXECUTE FUNCTION public.audit_row('plan_id,feature_id');
CREATE TRIGGER notify_plan_features AFTER INSERT OR DELETE OR UPDATE ON public.plan_features FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');
CREATE TRIGGER update_plan_features_updated_at BEFORE UPDATE ON public.plan_features FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.users (
    id uuid NOT NULL,
    name character varying(100) NOT NULL,
    role character varying(20) NOT NULL DEFAULT 'user'::character varying,
    plan_id character varying(50) NOT NULL DEFAULT 'free'::character varying,
    plan_changed_at timestamp with time zone NOT NULL DEFAULT now(),
    stripe_customer_id character varying(100),
    wallet_address character varying(100),
    token_balance bigint NOT NULL DEFAULT 100,
    token_reserved bigint NOT NULL DEFAULT 0,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT fk_users_auth FOREIGN KEY (id) REFERENCES auth.users(id) ON DELETE CASCADE,
    CONSTRAINT fk_users_plan FOREIGN KEY (plan_id) REFERENCES public.plans(id),
    CONSTRAINT check_token_balance CHECK ((token_balance >= 0)),
    CONSTRAINT check_token_reserved CHECK (((token_reserved >= 0) AND (token_reserved <= token_balance))),
    CONSTRAINT check_user_role CHECK (((role)::text = ANY ((ARRAY['admin'::character varying, 'user'::character varying])::text[])))
);
ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_users_created_at ON public.users USING btree (created_at DESC, id DESC);
CREATE INDEX idx_users_plan_id ON public.users USING btree (plan_id);
CREATE UNIQUE INDEX idx_users_stripe_customer_id ON public.users USING btree (stripe_customer_id) WHERE (stripe_customer_id IS NOT NULL);
CREATE POLICY users_readonly ON public.users FOR SELECT TO readonly_user USING (true);
CREATE POLICY users_select_own ON public.users FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = id));
CREATE POLICY users_service ON public.users FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE POLICY users_update_own ON public.users FOR UPDATE TO authenticated USING ((( SELECT auth.uid() AS uid) = id)) WITH CHECK ((( SELECT auth.uid() AS uid) = id));
CREATE TRIGGER apply_users_tombstone BEFORE INSERT ON public.users FOR EACH ROW EXECUTE FUNCTION public.apply_tombstone();
CREATE TRIGGER audit_users_role AFTER UPDATE ON public.users FOR EACH ROW WHEN (((old.role)::text IS DISTINCT FROM (new.role)::text)) EXECUTE FUNCTION public.audit_row('id', 'role');
CREATE TRIGGER check_user_plan_change BEFORE UPDATE ON public.users FOR EACH ROW WHEN (((old.plan_id)::text IS DISTINCT FROM (new.plan_id)::text)) EXECUTE FUNCTION public.check_plan_change_consistency();
CREATE TRIGGER hand_over_users_organizations BEFORE DELETE ON public.users FOR EACH ROW EXECUTE FUNCTION public.hand_over_organizations();
CREATE TRIGGER keep_users_tombstone AFTER DELETE ON public.users FOR EACH ROW EXECUTE FUNCTION public.keep_tombstone();
CREATE TRIGGER notify_users AFTER UPDATE ON public.users FOR EACH ROW WHEN ((((old.plan_id)::text IS DISTINCT FROM (new.plan_id)::text) OR ((old.role)::text IS DISTINCT FROM (new.role)::text))) EXECUTE FUNCTION public.notify_change('user', 'id');
CREATE TRIGGER notify_users_deleted AFTER DELETE ON public.users FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'id');
CREATE TRIGGER record_users_starting_balance AFTER INSERT ON public.users FOR EACH ROW WHEN ((new.token_balance > 0)) EXECUTE FUNCTION public.record_starting_balance();
CREATE TRIGGER update_users_updated_at BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.deleted_profiles (
    user_id uuid NOT NULL,
    email_digest bytea,
    deleted_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT deleted_profiles_pkey PRIMARY KEY (user_id),
    CONSTRAINT deleted_profiles_email_digest_key UNIQUE (email_digest)
);
ALTER TABLE public.deleted_profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY deleted_profiles_service ON public.deleted_profiles FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.organizations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name character varying(100) NOT NULL,
    owner_id uuid,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT organizations_pkey PRIMARY KEY (id),
    CONSTRAINT fk_organizations_owner_kept FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE SET NULL
);
ALTER TABLE public.organizations ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_organizations_owner_id ON public.organizations USING btree (owner_id);
CREATE POLICY organizations_select_member ON public.organizations FOR SELECT TO authenticated USING ((id IN ( SELECT public.member_organizations() AS member_organizations)));
CREATE POLICY organizations_service ON public.organizations FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.organization_members (
    organization_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role character varying(20) NOT NULL DEFAULT 'member'::character varying,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT organization_members_pkey PRIMARY KEY (organization_id, user_id),
    CONSTRAINT fk_organization_members_organization FOREIGN KEY (organization_id) REFERENCES public.organizations(id) ON DELETE CASCADE,
    CONSTRAINT fk_organization_members_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_member_role CHECK (((role)::text = ANY ((ARRAY['owner'::character varying, 'admin'::character varying, 'member'::character varying, 'viewer'::character varying])::text[])))
);
ALTER TABLE public.organization_members ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_organization_members_user_id ON public.organization_members USING btree (user_id);
CREATE POLICY organization_members_select_member ON public.organization_members FOR SELECT TO authenticated USING ((organization_id IN ( SELECT public.member_organizations() AS member_organizations)));
CREATE POLICY organization_members_service ON public.organization_members FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.feature_overrides (
    user_id uuid NOT NULL,
    feature_id character varying(50) NOT NULL,
    enabled boolean NOT NULL,
    limit_value bigint,
    reason text,
    expires_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT feature_overrides_pkey PRIMARY KEY (user_id, feature_id),
    CONSTRAINT fk_feature_overrides_feature FOREIGN KEY (feature_id) REFERENCES public.features(id) ON DELETE CASCADE,
    CONSTRAINT fk_feature_overrides_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_feature_override_limit CHECK ((limit_value >= 0))
);
ALTER TABLE public.feature_overrides ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_feature_overrides_feature_id ON public.feature_overrides USING btree (feature_id);
CREATE POLICY feature_overrides_readonly ON public.feature_overrides FOR SELECT TO readonly_user USING (true);
CREATE POLICY feature_overrides_select_own ON public.feature_overrides FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY feature_overrides_service ON public.feature_overrides FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER audit_feature_overrides AFTER INSERT OR DELETE OR UPDATE ON public.feature_overrides FOR EACH ROW EXECUTE FUNCTION public.audit_row('user_id,feature_id');
CREATE TRIGGER notify_feature_overrides AFTER INSERT OR DELETE OR UPDATE ON public.feature_overrides FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'user_id');
CREATE TRIGGER update_feature_overrides_updated_at BEFORE UPDATE ON public.feature_overrides FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.sessions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    kind character varying(10) NOT NULL,
    user_agent character varying(255),
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    last_seen_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    authenticated_at timestamp with time zone,
    network_mark bytea,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT fk_sessions_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_session_kind CHECK (((kind)::text = ANY ((ARRAY['api'::character varying, 'web'::character varying])::text[])))
);
ALTER TABLE public.sessions ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_sessions_expires_at ON public.sessions USING btree (expires_at);
CREATE INDEX idx_sessions_user_id ON public.sessions USING btree (user_id);
CREATE POLICY sessions_select_own ON public.sessions FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY sessions_service ON public.sessions FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.refresh_tokens (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    family uuid NOT NULL,
    token_hash bytea NOT NULL,
    replaced_by uuid,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT refresh_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT fk_refresh_tokens_replaced_by FOREIGN KEY (replaced_by) REFERENCES public.refresh_tokens(id) ON DELETE SET NULL,
    CONSTRAINT fk_refresh_tokens_session FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE,
    CONSTRAINT fk_refresh_tokens_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE
);
ALTER TABLE public.refresh_tokens ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_refresh_tokens_expires_at ON public.refresh_tokens USING btree (expires_at);
CREATE INDEX idx_refresh_tokens_family ON public.refresh_tokens USING btree (family);
CREATE INDEX idx_refresh_tokens_replaced_by ON public.refresh_tokens USING btree (replaced_by);
CREATE INDEX idx_refresh_tokens_session_id ON public.refresh_tokens USING btree (session_id);
CREATE INDEX idx_refresh_tokens_user_id ON public.refresh_tokens USING btree (user_id);
CREATE POLICY refresh_tokens_service ON public.refresh_tokens FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.signing_keys (
    kid character varying(64) NOT NULL,
    algorithm character varying(10) NOT NULL,
    fingerprint bytea NOT NULL,
    secret bytea,
    first_used_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    last_used_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    retired_at timestamp with time zone,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
);
ALTER TABLE public.signing_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY signing_keys_service ON public.signing_keys FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.runtime_settings (
    name character varying(100) NOT NULL,
    value jsonb NOT NULL,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT runtime_settings_pkey PRIMARY KEY (name),
    CONSTRAINT check_past_due_grace_days CHECK ((((name)::text <> 'past_due_grace_days'::text) OR
CASE
    WHEN (jsonb_typeof(value) = 'number'::text) THEN ((((value)::numeric >= (0)::numeric) AND ((value)::numeric <= (365)::numeric)) AND ((value)::numeric = trunc((value)::numeric)))
    ELSE false
END))
);
ALTER TABLE public.runtime_settings ENABLE ROW LEVEL SECURITY;
CREATE POLICY runtime_settings_readonly ON public.runtime_settings FOR SELECT TO readonly_user USING (true);
CREATE POLICY runtime_settings_select_rules ON public.runtime_settings FOR SELECT TO authenticated USING (((name)::text = 'past_due_grace_days'::text));
CREATE POLICY runtime_settings_service ON public.runtime_settings FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER notify_runtime_settings AFTER INSERT OR DELETE OR UPDATE ON public.runtime_settings FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');
CREATE TRIGGER update_runtime_settings_updated_at BEFORE UPDATE ON public.runtime_settings FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.replaceable_checksums (
    name character varying(150) NOT NULL,
    checksum character varying(64) NOT NULL,
    applied_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT replaceable_checksums_pkey PRIMARY KEY (name)
);
ALTER TABLE public.replaceable_checksums ENABLE ROW LEVEL SECURITY;
CREATE POLICY replaceable_checksums_service ON public.replaceable_checksums FOR SELECT TO app_service USING (true);

CREATE TABLE public.user_subscriptions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    plan_id character varying(50) NOT NULL,
    stripe_subscription_id character varying(100),
    stripe_price_id character varying(100),
    billing_interval character varying(10),
    status character varying(20) NOT NULL,
    trial_start timestamp with time zone,
    trial_end timestamp with time zone,
    current_period_start timestamp with time zone,
    current_period_end timestamp with time zone,
    cancel_at_period_end boolean NOT NULL DEFAULT false,
    past_due_since timestamp with time zone,
    ended_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    end_recorded_at timestamp with time zone,
    is_duplicate boolean NOT NULL DEFAULT false,
    CONSTRAINT user_subscriptions_pkey PRIMARY KEY (id),
    CONSTRAINT user_subscriptions_stripe_subscription_id_key UNIQUE (stripe_subscription_id),
    CONSTRAINT fk_user_subscriptions_plan FOREIGN KEY (plan_id) REFERENCES public.plans(id),
    CONSTRAINT fk_user_subscriptions_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_subscription_interval CHECK (((billing_interval)::text = ANY ((ARRAY['month'::character varying, 'year'::character varying])::text[]))),
    CONSTRAINT check_subscription_status CHECK (((status)::text = ANY ((ARRAY['incomplete'::character varying, 'incomplete_expired'::character varying, 'trialing'::character varying, 'active'::character varying, 'past_due'::character varying, 'canceled'::character varying, 'unpaid'::character varying])::text[])))
);
ALTER TABLE public.user_subscriptions ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_subscriptions_active ON public.user_subscriptions USING btree (user_id, status) WHERE ((status)::text = ANY ((ARRAY['active'::character varying, 'trialing'::character varying])::text[]));
CREATE UNIQUE INDEX idx_user_subscriptions_live ON public.user_subscriptions USING btree (user_id) WHERE (((status)::text = ANY ((ARRAY['trialing'::character varying, 'active'::character varying, 'past_due'::character varying])::text[])) AND (NOT is_duplicate));
CREATE INDEX idx_user_subscriptions_plan_id ON public.user_subscriptions USING btree (plan_id);
CREATE INDEX idx_user_subscriptions_status ON public.user_subscriptions USING btree (status);
CREATE INDEX idx_user_subscriptions_stripe_id ON public.user_subscriptions USING btree (stripe_subscription_id) WHERE (stripe_subscription_id IS NOT NULL);
CREATE INDEX idx_user_subscriptions_user_id ON public.user_subscriptions USING btree (user_id);
CREATE POLICY user_subscriptions_readonly ON public.user_subscriptions FOR SELECT TO readonly_user USING (true);
CREATE POLICY user_subscriptions_select_own ON public.user_subscriptions FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY user_subscriptions_service ON public.user_subscriptions FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER audit_user_subscriptions_deleted AFTER DELETE ON public.user_subscriptions FOR EACH ROW WHEN (((old.stripe_subscription_id IS NOT NULL) AND ((old.status)::text = ANY ((ARRAY['trialing'::character varying, 'active'::character varying, 'past_due'::character varying])::text[])))) EXECUTE FUNCTION public.audit_row('id', 'user_id,plan_id,stripe_subscription_id,status,current_period_end');
CREATE TRIGGER notify_user_subscriptions AFTER INSERT OR DELETE OR UPDATE ON public.user_subscriptions FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'user_id');
CREATE TRIGGER promote_user_subscriptions AFTER UPDATE OF status ON public.user_subscriptions FOR EACH ROW WHEN ((((old.status)::text = ANY ((ARRAY['trialing'::character varying, 'active'::character varying, 'past_due'::character varying])::text[])) AND (NOT old.is_duplicate) AND ((new.status)::text <> ALL ((ARRAY['trialing'::character varying, 'active'::character varying, 'past_due'::character varying])::text[])))) EXECUTE FUNCTION public.promote_subscription();
CREATE TRIGGER promote_user_subscriptions_deleted AFTER DELETE ON public.user_subscriptions FOR EACH ROW WHEN ((((old.status)::text = ANY ((ARRAY['trialing'::character varying, 'active'::character varying, 'past_due'::character varying])::text[])) AND (NOT old.is_duplicate))) EXECUTE FUNCTION public.promote_subscription();
CREATE TRIGGER set_user_subscriptions_times BEFORE INSERT OR UPDATE ON public.user_subscriptions FOR EACH ROW EXECUTE FUNCTION public.set_subscription_times();
CREATE TRIGGER update_user_subscriptions_updated_at BEFORE UPDATE ON public.user_subscriptions FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.scheduled_plan_changes (
    user_id uuid NOT NULL,
    plan_id character varying(50) NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    reason text,
    requested_by uuid,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT scheduled_plan_changes_pkey PRIMARY KEY (user_id),
    CONSTRAINT fk_scheduled_plan_changes_plan FOREIGN KEY (plan_id) REFERENCES public.plans(id),
    CONSTRAINT fk_scheduled_plan_changes_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE
);
ALTER TABLE public.scheduled_plan_changes ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_scheduled_plan_changes_effective_at ON public.scheduled_plan_changes USING btree (effective_at);
CREATE INDEX idx_scheduled_plan_changes_plan_id ON public.scheduled_plan_changes USING btree (plan_id);
CREATE POLICY scheduled_plan_changes_readonly ON public.scheduled_plan_changes FOR SELECT TO readonly_user USING (true);
CREATE POLICY scheduled_plan_changes_select_own ON public.scheduled_plan_changes FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY scheduled_plan_changes_service ON public.scheduled_plan_changes FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER notify_scheduled_plan_changes AFTER INSERT OR DELETE OR UPDATE ON public.scheduled_plan_changes FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'user_id');

CREATE TABLE public.stripe_events (
    id text NOT NULL,
    type text NOT NULL,
    created timestamp with time zone NOT NULL,
    payload jsonb NOT NULL,
    received_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    processed_at timestamp with time zone,
    error text,
    CONSTRAINT stripe_events_pkey PRIMARY KEY (id)
);
ALTER TABLE public.stripe_events ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_stripe_events_unprocessed ON public.stripe_events USING btree (received_at) WHERE (processed_at IS NULL);
CREATE POLICY stripe_events_service ON public.stripe_events FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.token_transactions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    amount bigint NOT NULL,
    type character varying(20) NOT NULL,
    description text,
    reference_id uuid,
    balance_after bigint NOT NULL,
    idempotency_key character varying(255),
    seq bigint NOT NULL,
    prev_hash bytea,
    hash bytea NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT token_transactions_pkey PRIMARY KEY (id),
    CONSTRAINT token_transactions_user_id_idempotency_key_key UNIQUE (user_id, idempotency_key),
    CONSTRAINT token_transactions_user_id_seq_key UNIQUE (user_id, seq),
    CONSTRAINT fk_token_transactions_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_token_transaction_amount CHECK ((amount <> 0)),
    CONSTRAINT check_token_transaction_balance CHECK ((balance_after >= 0)),
    CONSTRAINT check_token_transaction_seq CHECK ((seq >= 1)),
    CONSTRAINT check_token_transaction_type CHECK (((type)::text = ANY ((ARRAY['topup'::character varying, 'usage'::character varying, 'refund'::character varying, 'bonus'::character varying])::text[])))
);
ALTER TABLE public.token_transactions ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_token_transactions_refunds ON public.token_transactions USING btree (reference_id) WHERE ((type)::text = 'refund'::text);
CREATE INDEX idx_token_transactions_user_date ON public.token_transactions USING btree (user_id, created_at DESC);
CREATE POLICY token_transactions_select_own ON public.token_transactions FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY token_transactions_service_insert ON public.token_transactions FOR INSERT TO app_service WITH CHECK (true);
CREATE POLICY token_transactions_service_select ON public.token_transactions FOR SELECT TO app_service USING (true);
CREATE TRIGGER chain_token_transactions BEFORE INSERT ON public.token_transactions FOR EACH ROW EXECUTE FUNCTION public.chain_token_transaction();
CREATE TRIGGER note_token_transactions_head AFTER INSERT ON public.token_transactions FOR EACH ROW EXECUTE FUNCTION public.note_ledger_head();
CREATE TRIGGER refuse_token_transactions_update BEFORE UPDATE ON public.token_transactions FOR EACH ROW EXECUTE FUNCTION public.refuse_update();

CREATE TABLE public.billing_records (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    amount numeric(28,8) NOT NULL,
    currency character varying(10) NOT NULL DEFAULT 'JPY'::character varying,
    transaction_hash character varying(255),
    kind character varying(20) NOT NULL DEFAULT 'onchain'::character varying,
    status character varying(20) NOT NULL DEFAULT 'pending'::character varying,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT billing_records_pkey PRIMARY KEY (id),
    CONSTRAINT billing_records_transaction_hash_key UNIQUE (transaction_hash),
    CONSTRAINT fk_billing_records_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_billing_record_kind CHECK (((kind)::text = ANY ((ARRAY['onchain'::character varying, 'stripe'::character varying, 'manual'::character varying])::text[]))),
    CONSTRAINT check_billing_record_status CHECK (((status)::text = ANY ((ARRAY['pending'::character varying, 'confirmed'::character varying, 'failed'::character varying, 'refunded'::character varying])::text[])))
);
ALTER TABLE public.billing_records ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_billing_records_user_date ON public.billing_records USING btree (user_id, created_at DESC);
CREATE POLICY billing_records_select_own ON public.billing_records FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY billing_records_service ON public.billing_records FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.usage_counters (
    user_id uuid NOT NULL,
    feature_id character varying(50) NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    used bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    overage bigint NOT NULL DEFAULT 0,
    carried bigint NOT NULL DEFAULT 0,
    period_end timestamp with time zone,
    superseded boolean NOT NULL DEFAULT false,
    CONSTRAINT usage_counters_pkey PRIMARY KEY (user_id, feature_id, period, period_start),
    CONSTRAINT check_usage_counter_carried CHECK (((carried >= 0) AND (carried <= used))),
    CONSTRAINT check_usage_counter_overage CHECK (((overage >= 0) AND (overage <= used))),
    CONSTRAINT check_usage_counter_period CHECK (((period)::text = ANY ((ARRAY['day'::character varying, 'month'::character varying, 'billing_period'::character varying, 'lifetime'::character varying])::text[]))),
    CONSTRAINT check_usage_counter_reserved CHECK ((reserved >= 0)),
    CONSTRAINT check_usage_counter_used CHECK ((used >= 0))
) WITH (fillfactor=70);
ALTER TABLE public.usage_counters ENABLE ROW LEVEL SECURITY;
CREATE POLICY usage_counters_readonly ON public.usage_counters FOR SELECT TO readonly_user USING (true);
CREATE POLICY usage_counters_select_own ON public.usage_counters FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY usage_counters_service ON public.usage_counters FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.usage_events (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    feature_id character varying(50) NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    amount bigint NOT NULL,
    overage bigint NOT NULL DEFAULT 0,
    idempotency_key character varying(255),
    api_key_id uuid,
    reservation_id uuid,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT usage_events_pkey PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
ALTER TABLE public.usage_events ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_usage_events_created_at ON ONLY public.usage_events USING brin (created_at);
CREATE INDEX idx_usage_events_user_date ON ONLY public.usage_events USING btree (user_id, created_at DESC);
CREATE POLICY usage_events_select_own ON public.usage_events FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY usage_events_service ON public.usage_events FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.usage_events_default PARTITION OF public.usage_events DEFAULT;
ALTER TABLE public.usage_events_default ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.usage_reservations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    feature_id character varying(50) NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    amount bigint NOT NULL,
    tokens_reserved bigint NOT NULL DEFAULT 0,
    settled_amount bigint,
    status character varying(20) NOT NULL DEFAULT 'pending'::character varying,
    phase character varying(20) NOT NULL DEFAULT 'reserved'::character varying,
    idempotency_key character varying(255),
    api_key_id uuid,
    detail jsonb,
    expires_at timestamp with time zone NOT NULL,
    settled_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    overage bigint NOT NULL DEFAULT 0,
    outcome jsonb,
    beyond bigint NOT NULL DEFAULT 0,
    CONSTRAINT usage_reservations_pkey PRIMARY KEY (id),
    CONSTRAINT check_reservation_amount CHECK ((amount >= 0)),
    CONSTRAINT check_reservation_beyond CHECK ((beyond >= 0)),
    CONSTRAINT check_reservation_overage CHECK ((overage >= 0)),
    CONSTRAINT check_reservation_period CHECK (((period)::text = ANY ((ARRAY['day'::character varying, 'month'::character varying, 'billing_period'::character varying, 'lifetime'::character varying])::text[]))),
    CONSTRAINT check_reservation_phase CHECK (((phase)::text = ANY ((ARRAY['reserved'::character varying, 'dispatched'::character varying, 'first_byte'::character varying, 'settled'::character varying])::text[]))),
    CONSTRAINT check_reservation_settled CHECK ((settled_amount >= 0)),
    CONSTRAINT check_reservation_status CHECK (((status)::text = ANY ((ARRAY['pending'::character varying, 'settled'::character varying, 'released'::character varying, 'expired'::character varying])::text[]))),
    CONSTRAINT check_reservation_tokens CHECK ((tokens_reserved >= 0))
);
ALTER TABLE public.usage_reservations ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_usage_reservations_ended ON public.usage_reservations USING btree (updated_at) WHERE ((status)::text <> 'pending'::text);
CREATE INDEX idx_usage_reservations_expires_at ON public.usage_reservations USING btree (expires_at) WHERE ((status)::text = 'pending'::text);
CREATE INDEX idx_usage_reservations_pending ON public.usage_reservations USING btree (user_id, feature_id, period, period_start) WHERE ((status)::text = 'pending'::text);
CREATE INDEX idx_usage_reservations_user_date ON public.usage_reservations USING btree (user_id, created_at DESC);
CREATE POLICY usage_reservations_select_own ON public.usage_reservations FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY usage_reservations_service ON public.usage_reservations FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER update_usage_reservations_updated_at BEFORE UPDATE ON public.usage_reservations FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.idempotency_keys (
    user_id uuid NOT NULL,
    key text NOT NULL,
    digest bytea NOT NULL,
    feature_id character varying(50) NOT NULL,
    amount bigint NOT NULL,
    allowed boolean NOT NULL,
    current bigint,
    limit_value bigint,
    remaining bigint,
    reserved bigint,
    reason character varying(30),
    plan_id character varying(50),
    source character varying(10),
    period character varying(20),
    period_start timestamp with time zone,
    resets_at timestamp with time zone,
    overage bigint,
    reservation_id uuid,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    hold_expires_at timestamp with time zone,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT check_idempotency_key_length CHECK (((length(key) >= 1) AND (length(key) <= 255)))
) PARTITION BY HASH (user_id);
ALTER TABLE public.idempotency_keys ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_idempotency_keys_created_at ON ONLY public.idempotency_keys USING btree (created_at);
CREATE POLICY idempotency_keys_service ON public.idempotency_keys FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.idempotency_keys_0 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 0);
ALTER TABLE public.idempotency_keys_0 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_1 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 1);
ALTER TABLE public.idempotency_keys_1 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_2 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 2);
ALTER TABLE public.idempotency_keys_2 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_3 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 3);
ALTER TABLE public.idempotency_keys_3 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_4 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 4);
ALTER TABLE public.idempotency_keys_4 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_5 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 5);
ALTER TABLE public.idempotency_keys_5 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_6 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 6);
ALTER TABLE public.idempotency_keys_6 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_7 PARTITION OF public.idempotency_keys FOR VALUES WITH (modulus 8, remainder 7);
ALTER TABLE public.idempotency_keys_7 ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.idempotent_answers (
    user_id uuid NOT NULL,
    route character varying(150) NOT NULL,
    key_digest bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    content_type character varying(100),
    sealed_body bytea,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamp with time zone NOT NULL,
    rights jsonb,
    CONSTRAINT idempotent_answers_pkey PRIMARY KEY (user_id, route, key_digest)
);
ALTER TABLE public.idempotent_answers ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_idempotent_answers_expires_at ON public.idempotent_answers USING btree (expires_at);
CREATE POLICY idempotent_answers_service ON public.idempotent_answers FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.api_keys (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    key_hash character varying(255) NOT NULL,
    key_prefix character varying(20) NOT NULL,
    last_four character varying(4) NOT NULL,
    name character varying(100) NOT NULL,
    permissions jsonb NOT NULL DEFAULT '[]'::jsonb,
    on_behalf boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    last_used_at timestamp with time zone,
    expires_at timestamp with time zone,
    rotated_to uuid,
    revoked_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    requests_per_minute bigint,
    tokens_per_minute bigint,
    monthly_cost_nano_usd bigint,
    lineage_id uuid,
    makers uuid[] NOT NULL DEFAULT '{}'::uuid[],
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash),
    CONSTRAINT fk_api_keys_lineage FOREIGN KEY (lineage_id) REFERENCES public.api_keys(id) ON DELETE CASCADE,
    CONSTRAINT fk_api_keys_rotated_to FOREIGN KEY (rotated_to) REFERENCES public.api_keys(id) ON DELETE SET NULL,
    CONSTRAINT fk_api_keys_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_api_key_limits CHECK (((requests_per_minute > 0) AND (tokens_per_minute > 0) AND (monthly_cost_nano_usd > 0))),
    CONSTRAINT check_api_key_makers CHECK ((cardinality(makers) <= 4)),
    CONSTRAINT check_api_key_permissions CHECK ((jsonb_typeof(permissions) = 'array'::text))
);
ALTER TABLE public.api_keys ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_api_keys_lineage_id ON public.api_keys USING btree (lineage_id);
CREATE INDEX idx_api_keys_rotated_to ON public.api_keys USING btree (rotated_to);
CREATE INDEX idx_api_keys_user_date ON public.api_keys USING btree (user_id, created_at DESC, id DESC);
CREATE INDEX idx_api_keys_user_id ON public.api_keys USING btree (user_id);
CREATE POLICY api_keys_select_own ON public.api_keys FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY api_keys_service ON public.api_keys FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER audit_api_keys_limits AFTER UPDATE ON public.api_keys FOR EACH ROW WHEN ((((((old.name)::text IS DISTINCT FROM (new.name)::text) OR (old.requests_per_minute IS DISTINCT FROM new.requests_per_minute)) OR (old.tokens_per_minute IS DISTINCT FROM new.tokens_per_minute)) OR (old.monthly_cost_nano_usd IS DISTINCT FROM new.monthly_cost_nano_usd))) EXECUTE FUNCTION public.audit_row('id', 'name,requests_per_minute,tokens_per_minute,monthly_cost_nano_usd');
CREATE TRIGGER notify_api_keys AFTER UPDATE ON public.api_keys FOR EACH ROW WHEN ((((((((((((old.key_hash)::text IS DISTINCT FROM (new.key_hash)::text) OR (old.permissions IS DISTINCT FROM new.permissions)) OR (old.on_behalf IS DISTINCT FROM new.on_behalf)) OR (old.is_active IS DISTINCT FROM new.is_active)) OR (old.expires_at IS DISTINCT FROM new.expires_at)) OR (old.rotated_to IS DISTINCT FROM new.rotated_to)) OR (old.revoked_at IS DISTINCT FROM new.revoked_at)) OR (old.requests_per_minute IS DISTINCT FROM new.requests_per_minute)) OR (old.tokens_per_minute IS DISTINCT FROM new.tokens_per_minute)) OR (old.monthly_cost_nano_usd IS DISTINCT FROM new.monthly_cost_nano_usd))) EXECUTE FUNCTION public.notify_change('key', 'id');
CREATE TRIGGER notify_api_keys_deleted AFTER DELETE ON public.api_keys FOR EACH ROW EXECUTE FUNCTION public.notify_change('key', 'id');
CREATE TRIGGER notify_api_keys_limits AFTER UPDATE ON public.api_keys FOR EACH ROW WHEN ((((old.requests_per_minute IS DISTINCT FROM new.requests_per_minute) OR (old.tokens_per_minute IS DISTINCT FROM new.tokens_per_minute)) OR (old.monthly_cost_nano_usd IS DISTINCT FROM new.monthly_cost_nano_usd))) EXECUTE FUNCTION public.notify_change('user', 'user_id');
CREATE TRIGGER update_api_keys_updated_at BEFORE UPDATE ON public.api_keys FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.generated_apis (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    name character varying(100) NOT NULL,
    description text,
    code text,
    endpoint character varying(2048),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT generated_apis_pkey PRIMARY KEY (id),
    CONSTRAINT fk_generated_apis_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE
);
ALTER TABLE public.generated_apis ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_generated_apis_user_id ON public.generated_apis USING btree (user_id);
CREATE POLICY generated_apis_select_own ON public.generated_apis FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY generated_apis_service ON public.generated_apis FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER update_generated_apis_updated_at BEFORE UPDATE ON public.generated_apis FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.api_usage (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    api_id uuid NOT NULL,
    "timestamp" timestamp with time zone NOT NULL,
    request_count bigint NOT NULL DEFAULT 0,
    response_time bigint NOT NULL DEFAULT 0,
    CONSTRAINT api_usage_pkey PRIMARY KEY (id),
    CONSTRAINT api_usage_api_id_timestamp_key UNIQUE (api_id, "timestamp"),
    CONSTRAINT fk_api_usage_api FOREIGN KEY (api_id) REFERENCES public.generated_apis(id) ON DELETE CASCADE,
    CONSTRAINT check_api_usage_counts CHECK (((request_count >= 0) AND (response_time >= 0)))
);
ALTER TABLE public.api_usage ENABLE ROW LEVEL SECURITY;
CREATE POLICY api_usage_select_own ON public.api_usage FOR SELECT TO authenticated USING ((api_id IN ( SELECT g.id
   FROM public.generated_apis g
  WHERE (g.user_id = ( SELECT auth.uid() AS uid)))));
CREATE POLICY api_usage_service ON public.api_usage FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.ai_usage_logs (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    provider character varying(20) NOT NULL,
    model text,
    tokens_used bigint,
    cost numeric(10,4),
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    session_id uuid,
    api_key_id uuid,
    reservation_id uuid,
    latency_ms integer,
    outcome character varying(30) NOT NULL DEFAULT 'ok'::character varying,
    cost_nano_usd bigint NOT NULL DEFAULT 0,
    price_version character varying(100),
    usage jsonb,
    source character varying(20) NOT NULL DEFAULT 'provider'::character varying,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    unpaid_tokens bigint NOT NULL DEFAULT 0,
    CONSTRAINT ai_usage_logs_pkey PRIMARY KEY (id, created_at),
    CONSTRAINT check_ai_usage_cost CHECK ((cost_nano_usd >= 0)),
    CONSTRAINT check_ai_usage_source CHECK (((source)::text = ANY ((ARRAY['provider'::character varying, 'estimated'::character varying, 'partial'::character varying, 'sandbox'::character varying])::text[]))),
    CONSTRAINT check_ai_usage_tokens CHECK (((tokens_used >= 0) AND (input_tokens >= 0) AND (output_tokens >= 0) AND (cached_tokens >= 0))),
    CONSTRAINT check_ai_usage_unpaid CHECK ((unpaid_tokens >= 0)),
    CONSTRAINT check_provider CHECK (((provider)::text ~ '^[a-z][a-z0-9_-]*$'::text))
) PARTITION BY RANGE (created_at);
ALTER TABLE public.ai_usage_logs ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_ai_usage_logs_created_at ON ONLY public.ai_usage_logs USING btree (created_at);
CREATE INDEX idx_ai_usage_logs_provider ON ONLY public.ai_usage_logs USING btree (provider);
CREATE INDEX idx_ai_usage_logs_user_id ON ONLY public.ai_usage_logs USING btree (user_id);
CREATE INDEX idx_ai_usage_user_date ON ONLY public.ai_usage_logs USING btree (user_id, created_at DESC);
CREATE POLICY ai_usage_logs_insert_own ON public.ai_usage_logs FOR INSERT TO authenticated WITH CHECK ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY ai_usage_logs_readonly ON public.ai_usage_logs FOR SELECT TO readonly_user USING (true);
CREATE POLICY ai_usage_logs_select_own ON public.ai_usage_logs FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY ai_usage_logs_service ON public.ai_usage_logs FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER check_ai_usage_logs_provider BEFORE INSERT OR UPDATE OF provider ON public.ai_usage_logs FOR EACH ROW EXECUTE FUNCTION public.check_ai_provider();

CREATE TABLE public.ai_usage_logs_default PARTITION OF public.ai_usage_logs DEFAULT;
ALTER TABLE public.ai_usage_logs_default ENABLE ROW LEVEL SECURITY;

CREATE TABLE public.chat_sessions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    api_key_id uuid,
    title character varying(200),
    tokens_used bigint NOT NULL DEFAULT 0,
    model text,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    ended_at timestamp with time zone,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    cost_nano_usd bigint NOT NULL DEFAULT 0,
    system text,
    CONSTRAINT chat_sessions_pkey PRIMARY KEY (id),
    CONSTRAINT fk_chat_sessions_api_key FOREIGN KEY (api_key_id) REFERENCES public.api_keys(id) ON DELETE SET NULL,
    CONSTRAINT fk_chat_sessions_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_chat_session_cost CHECK ((cost_nano_usd >= 0)),
    CONSTRAINT check_chat_session_system CHECK ((octet_length(system) <= 32768)),
    CONSTRAINT check_chat_session_tokens CHECK ((tokens_used >= 0))
);
ALTER TABLE public.chat_sessions ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_chat_sessions_api_key_id ON public.chat_sessions USING btree (api_key_id);
CREATE INDEX idx_chat_sessions_user_activity ON public.chat_sessions USING btree (user_id, updated_at DESC, id DESC);
CREATE INDEX idx_chat_sessions_user_date ON public.chat_sessions USING btree (user_id, created_at DESC);
CREATE POLICY chat_sessions_delete_own ON public.chat_sessions FOR DELETE TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY chat_sessions_select_own ON public.chat_sessions FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY chat_sessions_service ON public.chat_sessions FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE POLICY chat_sessions_update_own ON public.chat_sessions FOR UPDATE TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id)) WITH CHECK ((( SELECT auth.uid() AS uid) = user_id));
CREATE TRIGGER update_chat_sessions_updated_at BEFORE UPDATE ON public.chat_sessions FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.chat_messages (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_id uuid NOT NULL,
    role character varying(20) NOT NULL,
    content text NOT NULL,
    tokens bigint NOT NULL DEFAULT 0,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    cost_nano_usd bigint NOT NULL DEFAULT 0,
    model text,
    usage_log_id uuid,
    seq bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    CONSTRAINT chat_messages_pkey PRIMARY KEY (id),
    CONSTRAINT fk_chat_messages_session FOREIGN KEY (session_id) REFERENCES public.chat_sessions(id) ON DELETE CASCADE,
    CONSTRAINT check_chat_message_cost CHECK ((cost_nano_usd >= 0)),
    CONSTRAINT check_chat_message_role CHECK (((role)::text = ANY ((ARRAY['user'::character varying, 'assistant'::character varying, 'system'::character varying])::text[]))),
    CONSTRAINT check_chat_message_tokens CHECK ((tokens >= 0))
);
ALTER TABLE public.chat_messages ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_chat_messages_session_order ON public.chat_messages USING btree (session_id, created_at, seq);
CREATE POLICY chat_messages_select_own ON public.chat_messages FOR SELECT TO authenticated USING ((session_id IN ( SELECT c.id
   FROM public.chat_sessions c
  WHERE (c.user_id = ( SELECT auth.uid() AS uid)))));
CREATE POLICY chat_messages_service ON public.chat_messages FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.learning_progress (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    lesson_id character varying(100) NOT NULL,
    status character varying(20) NOT NULL DEFAULT 'not_started'::character varying,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    CONSTRAINT learning_progress_pkey PRIMARY KEY (id),
    CONSTRAINT learning_progress_user_id_lesson_id_key UNIQUE (user_id, lesson_id),
    CONSTRAINT fk_learning_progress_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_learning_status CHECK (((status)::text = ANY ((ARRAY['not_started'::character varying, 'in_progress'::character varying, 'completed'::character varying])::text[]))),
    CONSTRAINT check_learning_times CHECK ((completed_at >= started_at))
);
ALTER TABLE public.learning_progress ENABLE ROW LEVEL SECURITY;
CREATE POLICY learning_progress_delete_own ON public.learning_progress FOR DELETE TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY learning_progress_insert_own ON public.learning_progress FOR INSERT TO authenticated WITH CHECK ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY learning_progress_select_own ON public.learning_progress FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY learning_progress_service ON public.learning_progress FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE POLICY learning_progress_update_own ON public.learning_progress FOR UPDATE TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id)) WITH CHECK ((( SELECT auth.uid() AS uid) = user_id));

CREATE TABLE public.tutorial_completion (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    tutorial_id character varying(100) NOT NULL,
    completion_percentage integer NOT NULL DEFAULT 0,
    last_accessed timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT tutorial_completion_pkey PRIMARY KEY (id),
    CONSTRAINT tutorial_completion_user_id_tutorial_id_key UNIQUE (user_id, tutorial_id),
    CONSTRAINT fk_tutorial_completion_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_completion_percentage CHECK (((completion_percentage >= 0) AND (completion_percentage <= 100)))
);
ALTER TABLE public.tutorial_completion ENABLE ROW LEVEL SECURITY;
CREATE POLICY tutorial_completion_delete_own ON public.tutorial_completion FOR DELETE TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY tutorial_completion_insert_own ON public.tutorial_completion FOR INSERT TO authenticated WITH CHECK ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY tutorial_completion_select_own ON public.tutorial_completion FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY tutorial_completion_service ON public.tutorial_completion FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE POLICY tutorial_completion_update_own ON public.tutorial_completion FOR UPDATE TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id)) WITH CHECK ((( SELECT auth.uid() AS uid) = user_id));

CREATE TABLE public.audit_logs (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    table_name character varying(100) NOT NULL,
    record_id text NOT NULL,
    action character varying(50) NOT NULL,
    old_values jsonb,
    new_values jsonb,
    actor_id uuid,
    actor_name text NOT NULL,
    reason text,
    created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_logs_pkey PRIMARY KEY (id)
);
ALTER TABLE public.audit_logs ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_audit_logs_actor_id ON public.audit_logs USING btree (actor_id, created_at DESC) WHERE (actor_id IS NOT NULL);
CREATE INDEX idx_audit_logs_created_at ON public.audit_logs USING btree (created_at DESC, id);
CREATE INDEX idx_audit_logs_record ON public.audit_logs USING btree (table_name, record_id, created_at);
CREATE INDEX idx_audit_logs_table_date ON public.audit_logs USING btree (table_name, created_at DESC, id DESC);
CREATE POLICY audit_logs_service_insert ON public.audit_logs FOR INSERT TO app_service WITH CHECK (true);
CREATE POLICY audit_logs_service_select ON public.audit_logs FOR SELECT TO app_service USING (true);
CREATE TRIGGER name_audit_logs_actor BEFORE INSERT ON public.audit_logs FOR EACH ROW EXECUTE FUNCTION public.name_the_actor();
CREATE TRIGGER refuse_audit_logs_update BEFORE UPDATE ON public.audit_logs FOR EACH ROW EXECUTE FUNCTION public.refuse_update();

CREATE TABLE public.outbox (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    topic character varying(100) NOT NULL,
    subject text,
    payload jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    available_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    processed_at timestamp with time zone,
    last_error text,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT check_outbox_attempts CHECK ((attempts >= 0))
);
ALTER TABLE public.outbox ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_outbox_processed_at ON public.outbox USING btree (processed_at) WHERE (processed_at IS NOT NULL);
CREATE INDEX idx_outbox_waiting ON public.outbox USING btree (available_at, id) WHERE (processed_at IS NULL);
CREATE POLICY outbox_service ON public.outbox FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.usage_alerts (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    feature_id character varying(50) NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    threshold_percent integer NOT NULL,
    used bigint NOT NULL,
    limit_value bigint NOT NULL,
    acknowledged_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT usage_alerts_pkey PRIMARY KEY (id),
    CONSTRAINT usage_alerts_once_key UNIQUE (user_id, feature_id, period, period_start, threshold_percent),
    CONSTRAINT fk_usage_alerts_feature FOREIGN KEY (feature_id) REFERENCES public.features(id) ON DELETE CASCADE,
    CONSTRAINT fk_usage_alerts_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_usage_alert_period CHECK (((period)::text = ANY ((ARRAY['day'::character varying, 'month'::character varying, 'billing_period'::character varying, 'lifetime'::character varying])::text[]))),
    CONSTRAINT check_usage_alert_threshold CHECK (((threshold_percent >= 1) AND (threshold_percent <= 1000)))
);
ALTER TABLE public.usage_alerts ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_usage_alerts_created_at ON public.usage_alerts USING btree (created_at DESC, id);
CREATE INDEX idx_usage_alerts_feature_id ON public.usage_alerts USING btree (feature_id);
CREATE POLICY usage_alerts_select_own ON public.usage_alerts FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY usage_alerts_service ON public.usage_alerts FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.webhook_endpoints (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    url character varying(2048) NOT NULL,
    description text,
    event_types jsonb NOT NULL DEFAULT '[]'::jsonb,
    sealed_secret bytea NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    failure_count integer NOT NULL DEFAULT 0,
    disabled_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id),
    CONSTRAINT fk_webhook_endpoints_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_webhook_event_types CHECK ((jsonb_typeof(event_types) = 'array'::text)),
    CONSTRAINT check_webhook_failures CHECK ((failure_count >= 0))
);
ALTER TABLE public.webhook_endpoints ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_webhook_endpoints_user_id ON public.webhook_endpoints USING btree (user_id);
CREATE POLICY webhook_endpoints_select_own ON public.webhook_endpoints FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY webhook_endpoints_service ON public.webhook_endpoints FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER update_webhook_endpoints_updated_at BEFORE UPDATE ON public.webhook_endpoints FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

CREATE TABLE public.webhook_deliveries (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    endpoint_id uuid NOT NULL,
    event_type character varying(100) NOT NULL,
    payload jsonb NOT NULL,
    status character varying(20) NOT NULL DEFAULT 'pending'::character varying,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamp with time zone,
    last_status smallint,
    last_error text,
    delivered_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (id),
    CONSTRAINT fk_webhook_deliveries_endpoint FOREIGN KEY (endpoint_id) REFERENCES public.webhook_endpoints(id) ON DELETE CASCADE,
    CONSTRAINT check_webhook_delivery_attempts CHECK ((attempts >= 0)),
    CONSTRAINT check_webhook_delivery_status CHECK (((status)::text = ANY ((ARRAY['pending'::character varying, 'delivered'::character varying, 'failed'::character varying])::text[])))
);
ALTER TABLE public.webhook_deliveries ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_webhook_deliveries_endpoint_date ON public.webhook_deliveries USING btree (endpoint_id, created_at DESC);
CREATE INDEX idx_webhook_deliveries_next_attempt_at ON public.webhook_deliveries USING btree (next_attempt_at) WHERE ((status)::text = 'pending'::text);
CREATE POLICY webhook_deliveries_select_own ON public.webhook_deliveries FOR SELECT TO authenticated USING ((endpoint_id IN ( SELECT w.id
   FROM public.webhook_endpoints w
  WHERE (w.user_id = ( SELECT auth.uid() AS uid)))));
CREATE POLICY webhook_deliveries_service ON public.webhook_deliveries FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.usage_rollups (
    user_id uuid NOT NULL,
    feature_id character varying(50) NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    bucket timestamp with time zone NOT NULL,
    amount bigint NOT NULL DEFAULT 0,
    overage bigint NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    CONSTRAINT usage_rollups_pkey PRIMARY KEY (user_id, feature_id, period, period_start, bucket),
    CONSTRAINT check_usage_rollup_events CHECK ((events >= 0)),
    CONSTRAINT check_usage_rollup_period CHECK (((period)::text = ANY ((ARRAY['day'::character varying, 'month'::character varying, 'billing_period'::character varying, 'lifetime'::character varying])::text[])))
);
ALTER TABLE public.usage_rollups ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_usage_rollups_bucket ON public.usage_rollups USING btree (bucket);
CREATE INDEX idx_usage_rollups_user_bucket ON public.usage_rollups USING btree (user_id, bucket);
CREATE POLICY usage_rollups_readonly ON public.usage_rollups FOR SELECT TO readonly_user USING (true);
CREATE POLICY usage_rollups_select_own ON public.usage_rollups FOR SELECT TO authenticated USING ((( SELECT auth.uid() AS uid) = user_id));
CREATE POLICY usage_rollups_service ON public.usage_rollups FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER total_usage_rollups_added AFTER INSERT ON public.usage_rollups REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION public.total_usage_rollups();
CREATE TRIGGER total_usage_rollups_changed AFTER UPDATE ON public.usage_rollups REFERENCING OLD TABLE AS gone NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION public.total_usage_rollups();
CREATE TRIGGER total_usage_rollups_removed AFTER DELETE ON public.usage_rollups REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.total_usage_rollups();

CREATE TABLE public.rollup_watermarks (
    name character varying(50) NOT NULL,
    reached_at timestamp with time zone NOT NULL,
    final_at timestamp with time zone,
    fence_at timestamp with time zone,
    fence_xid xid8,
    CONSTRAINT rollup_watermarks_pkey PRIMARY KEY (name)
);
ALTER TABLE public.rollup_watermarks ENABLE ROW LEVEL SECURITY;
CREATE POLICY rollup_watermarks_service ON public.rollup_watermarks FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.model_prices (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    provider character varying(20) NOT NULL,
    model text NOT NULL,
    kind character varying(30) NOT NULL,
    tier character varying(20) NOT NULL DEFAULT 'standard'::character varying,
    geo character varying(20) NOT NULL,
    threshold_tokens bigint NOT NULL DEFAULT 0,
    usd_per_million numeric(18,6) NOT NULL,
    version character varying(100) NOT NULL,
    source text,
    valid_from timestamp with time zone NOT NULL DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone,
    valid_to timestamp with time zone,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT model_prices_pkey PRIMARY KEY (id),
    CONSTRAINT fk_model_prices_provider FOREIGN KEY (provider) REFERENCES public.ai_providers(id),
    CONSTRAINT check_model_price_amount CHECK ((usd_per_million >= (0)::numeric)),
    CONSTRAINT check_model_price_threshold CHECK ((threshold_tokens >= 0)),
    CONSTRAINT check_model_price_validity CHECK ((valid_to > valid_from)),
    CONSTRAINT model_prices_no_overlap EXCLUDE USING gist (int8range(hashtextextended((((((((((((provider)::text || '|'::text) || model) || '|'::text) || (kind)::text) || '|'::text) || (tier)::text) || '|'::text) || (geo)::text) || '|'::text) || (threshold_tokens)::text), (0)::bigint), hashtextextended((((((((((((provider)::text || '|'::text) || model) || '|'::text) || (kind)::text) || '|'::text) || (tier)::text) || '|'::text) || (geo)::text) || '|'::text) || (threshold_tokens)::text), (0)::bigint), '[]'::text) WITH =, tstzrange(valid_from, valid_to) WITH &&)
);
ALTER TABLE public.model_prices ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_model_prices_model ON public.model_prices USING btree (provider, model, valid_from);
CREATE INDEX idx_model_prices_valid_from ON public.model_prices USING btree (valid_from DESC, id DESC);
CREATE POLICY model_prices_service ON public.model_prices FOR ALL TO app_service USING (true) WITH CHECK (true);
CREATE TRIGGER audit_model_prices AFTER DELETE OR UPDATE ON public.model_prices FOR EACH ROW EXECUTE FUNCTION public.audit_row('id');
CREATE TRIGGER audit_model_prices_added AFTER INSERT ON public.model_prices FOR EACH ROW WHEN ((new.source IS DISTINCT FROM 'catalogue'::text)) EXECUTE FUNCTION public.audit_row('id');
CREATE TRIGGER notify_model_prices AFTER INSERT OR DELETE OR UPDATE ON public.model_prices FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');
CREATE TRIGGER price_model_anywhere BEFORE INSERT ON public.model_prices FOR EACH ROW EXECUTE FUNCTION public.price_anywhere();

CREATE TABLE public.ai_answers (
    user_id uuid NOT NULL,
    route character varying(150) NOT NULL,
    key_digest bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    content_type character varying(100),
    sealed_body bytea,
    reservation_id uuid,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamp with time zone NOT NULL,
    rights jsonb,
    content_digest bytea,
    CONSTRAINT ai_answers_pkey PRIMARY KEY (user_id, route, key_digest),
    CONSTRAINT fk_ai_answers_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE
);
ALTER TABLE public.ai_answers ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_ai_answers_expires_at ON public.ai_answers USING btree (expires_at);
CREATE INDEX idx_ai_answers_left ON public.ai_answers USING btree (user_id, content_digest) WHERE (content_digest IS NOT NULL);
CREATE POLICY ai_answers_service ON public.ai_answers FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.api_key_counters (
    api_key_id uuid NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    cost_nano_usd bigint NOT NULL DEFAULT 0,
    tokens_reserved bigint NOT NULL DEFAULT 0,
    cost_reserved_nano_usd bigint NOT NULL DEFAULT 0,
    CONSTRAINT api_key_counters_pkey PRIMARY KEY (api_key_id, period, period_start),
    CONSTRAINT check_api_key_counter_period CHECK (((period)::text = ANY ((ARRAY['minute'::character varying, 'month'::character varying])::text[]))),
    CONSTRAINT check_api_key_counter_reserved CHECK (((tokens_reserved >= 0) AND (cost_reserved_nano_usd >= 0))),
    CONSTRAINT check_api_key_counter_used CHECK (((requests >= 0) AND (tokens >= 0) AND (cost_nano_usd >= 0)))
) WITH (fillfactor=70);
ALTER TABLE public.api_key_counters ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_api_key_counters_period_start ON public.api_key_counters USING btree (period, period_start);
CREATE POLICY api_key_counters_service ON public.api_key_counters FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.address_digests (
    digest bytea NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT address_digests_pkey PRIMARY KEY (digest)
);
ALTER TABLE public.address_digests ENABLE ROW LEVEL SECURITY;
CREATE POLICY address_digests_service ON public.address_digests FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.second_factors (
    user_id uuid NOT NULL,
    sealed_secret bytea NOT NULL,
    confirmed_at timestamp with time zone,
    last_step bigint,
    recovery_marks text[] NOT NULL DEFAULT '{}'::text[],
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT second_factors_pkey PRIMARY KEY (user_id),
    CONSTRAINT fk_second_factors_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE,
    CONSTRAINT check_recovery_marks CHECK ((cardinality(recovery_marks) <= 10))
);
ALTER TABLE public.second_factors ENABLE ROW LEVEL SECURITY;
CREATE POLICY second_factors_service ON public.second_factors FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.usage_totals (
    bucket timestamp with time zone NOT NULL,
    feature_id character varying(50) NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    amount numeric NOT NULL,
    overage numeric NOT NULL,
    events numeric NOT NULL,
    CONSTRAINT usage_totals_pkey PRIMARY KEY (bucket, feature_id, period, period_start)
);
ALTER TABLE public.usage_totals ENABLE ROW LEVEL SECURITY;
CREATE POLICY usage_totals_service ON public.usage_totals FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.ai_usage_totals (
    bucket timestamp with time zone NOT NULL,
    provider character varying(20) NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cached_tokens numeric NOT NULL,
    total_tokens numeric NOT NULL,
    cost_nano_usd numeric NOT NULL,
    CONSTRAINT ai_usage_totals_pkey PRIMARY KEY (bucket, provider, model)
);
ALTER TABLE public.ai_usage_totals ENABLE ROW LEVEL SECURITY;
CREATE POLICY ai_usage_totals_service ON public.ai_usage_totals FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.usage_seals (
    hours_from timestamp with time zone NOT NULL,
    hours_to timestamp with time zone NOT NULL,
    amount numeric NOT NULL,
    overage numeric NOT NULL,
    events bigint NOT NULL,
    sealed_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    checked_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT usage_seals_pkey PRIMARY KEY (hours_from),
    CONSTRAINT check_usage_seal_hours CHECK ((hours_from < hours_to))
);
ALTER TABLE public.usage_seals ENABLE ROW LEVEL SECURITY;
CREATE INDEX idx_usage_seals_checked_at ON public.usage_seals USING btree (checked_at);
CREATE POLICY usage_seals_service ON public.usage_seals FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.sealed_usage (
    user_id uuid NOT NULL,
    feature_id character varying(50) NOT NULL,
    period character varying(20) NOT NULL,
    period_start timestamp with time zone NOT NULL,
    amount numeric NOT NULL,
    overage numeric NOT NULL,
    CONSTRAINT sealed_usage_pkey PRIMARY KEY (user_id, feature_id, period, period_start)
);
ALTER TABLE public.sealed_usage ENABLE ROW LEVEL SECURITY;
CREATE POLICY sealed_usage_service ON public.sealed_usage FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.integrity_pieces (
    name character varying(20) NOT NULL,
    findings jsonb NOT NULL DEFAULT '[]'::jsonb,
    checked_at timestamp with time zone,
    took_ms bigint,
    attempted_at timestamp with time zone,
    CONSTRAINT integrity_pieces_pkey PRIMARY KEY (name)
);
ALTER TABLE public.integrity_pieces ENABLE ROW LEVEL SECURITY;
CREATE POLICY integrity_pieces_service ON public.integrity_pieces FOR ALL TO app_service USING (true) WITH CHECK (true);

CREATE TABLE public.ledger_heads (
    user_id uuid NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    balance bigint NOT NULL,
    CONSTRAINT ledger_heads_pkey PRIMARY KEY (user_id),
    CONSTRAINT check_ledger_head_seq CHECK ((seq > 0))
) WITH (fillfactor=70);
ALTER TABLE public.ledger_heads ENABLE ROW LEVEL SECURITY;
CREATE POLICY ledger_heads_service_select ON public.ledger_heads FOR SELECT TO app_service USING (true);

CREATE TABLE public.ai_providers (
    id character varying(20) NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT ai_providers_pkey PRIMARY KEY (id),
    CONSTRAINT check_ai_provider_id CHECK (((id)::text ~ '^[a-z][a-z0-9_-]*$'::text))
);
ALTER TABLE public.ai_providers ENABLE ROW LEVEL SECURITY;
CREATE POLICY ai_providers_service_insert ON public.ai_providers FOR INSERT TO app_service WITH CHECK (true);
CREATE POLICY ai_providers_service_select ON public.ai_providers FOR SELECT TO app_service USING (true);

CREATE TABLE public.product_base_migrations (
    version character varying NOT NULL,
    applied_at bigint NOT NULL,
    parts_done integer,
    CONSTRAINT product_base_migrations_pkey PRIMARY KEY (version),
    CONSTRAINT check_parts_done CHECK ((parts_done >= 0))
);
ALTER TABLE public.product_base_migrations ENABLE ROW LEVEL SECURITY;
CREATE POLICY product_base_migrations_service ON public.product_base_migrations FOR SELECT TO app_service USING (true);

-- Functions

CREATE OR REPLACE FUNCTION auth.jwt()
 RETURNS jsonb
 LANGUAGE sql
 STABLE
AS $function$
    SELECT coalesce(
        nullif(pg_catalog.current_setting('request.jwt.claim', true), ''),
        nullif(pg_catalog.current_setting('request.jwt.claims', true), '')
    )::pg_catalog.jsonb
$function$;

CREATE OR REPLACE FUNCTION auth.role()
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
    SELECT coalesce(
        nullif(pg_catalog.current_setting('request.jwt.claim.role', true), ''),
        nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'role'
    )
$function$;

CREATE OR REPLACE FUNCTION auth.uid()
 RETURNS uuid
 LANGUAGE sql
 STABLE
AS $function$
    SELECT CASE WHEN coalesce(
        nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
        nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'sub'
    ) ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN coalesce(
        nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
        nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'sub'
    )::pg_catalog.uuid END
$function$;

CREATE OR REPLACE FUNCTION public.apply_tombstone()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    digests bytea[] := ARRAY(SELECT d.digest FROM public.identity_digests(NEW.id) d (digest) ORDER BY 1);
    had_before boolean := EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = NEW.id);
    earlier uuid;
BEGIN
    INSERT INTO public.address_digests (digest, user_id) SELECT d.digest, NEW.id FROM pg_catalog.unnest(digests) d (digest)
    ON CONFLICT (digest) DO NOTHING;
    FOR earlier IN
        SELECT k.user_id FROM public.address_digests k
        WHERE k.digest = ANY (digests) AND k.user_id <> NEW.id ORDER BY k.digest FOR UPDATE
    LOOP
        had_before := true;
        IF NOT EXISTS (SELECT FROM public.users u WHERE u.id = earlier)
           OR EXISTS (SELECT FROM public.identity_states(ARRAY[earlier]) s WHERE s.state <> 'active') THEN
            PERFORM public.carry_usage(earlier, NEW.id);
        END IF;
    END LOOP;
    UPDATE public.address_digests k SET user_id = NEW.id WHERE k.digest = ANY (digests) AND k.user_id <> NEW.id;
    IF had_before
       OR EXISTS (SELECT FROM public.identity_states(ARRAY[NEW.id]) s WHERE s.is_anonymous OR s.state IN ('banned', 'deleted')) THEN
        NEW.token_balance := 0;
        NEW.token_reserved := 0;
    END IF;
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.audit_row()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN pg_catalog.to_jsonb(OLD) END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN pg_catalog.to_jsonb(NEW) END;
    id_columns text[] := pg_catalog.string_to_array(TG_ARGV[0], ',');
    only_columns text[] := pg_catalog.string_to_array(TG_ARGV[1], ',');
    record_key text;
BEGIN
    IF TG_OP = 'UPDATE' AND before - 'updated_at' = after - 'updated_at' THEN
        RETURN NULL;
    END IF;
    SELECT pg_catalog.string_agg(coalesce(after, before) ->> c.name, ':' ORDER BY c.n) INTO record_key
    FROM pg_catalog.unnest(id_columns) WITH ORDINALITY AS c (name, n);
    IF only_columns IS NOT NULL THEN
        before := (SELECT pg_catalog.jsonb_object_agg(e.key, e.value) FROM pg_catalog.jsonb_each(before) e WHERE e.key = ANY (only_columns));
        after := (SELECT pg_catalog.jsonb_object_agg(e.key, e.value) FROM pg_catalog.jsonb_each(after) e WHERE e.key = ANY (only_columns));
    END IF;
    INSERT INTO public.audit_logs (table_name, record_id, action, old_values, new_values, actor_id, actor_name, reason)
    VALUES (TG_TABLE_NAME, record_key, pg_catalog.lower(TG_OP), before, after,
        public.request_actor(), session_user, nullif(pg_catalog.current_setting('app.reason', true), ''));
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION public.caller_role()
 RETURNS name
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT CASE WHEN r.role IN ('none', '') THEN session_user ELSE r.role::name END
    FROM (SELECT coalesce(pg_catalog.current_setting('role', true), 'none') AS role) r
$function$;

CREATE OR REPLACE FUNCTION public.carry_usage(p_from uuid, p_to uuid)
 RETURNS void
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    WITH counters AS (
        SELECT n.feature_id, n.period, n.period_start, n.period_end, n.superseded,
            least(n.used::numeric - n.overage + n.reserved, 9223372036854775807)::bigint AS counted
        FROM public.usage_counters n
        WHERE n.user_id = p_from AND n.period_start <= CURRENT_TIMESTAMP
          AND coalesce(n.period_end, public.usage_period_end(n.period, n.period_start, n.period_start), 'infinity') > CURRENT_TIMESTAMP
        ORDER BY n.feature_id, n.period, n.period_start
        FOR NO KEY UPDATE
    )
    INSERT INTO public.usage_counters AS n
        (user_id, feature_id, period, period_start, period_end, used, carried, superseded)
    SELECT p_to, c.feature_id, c.period, c.period_start, c.period_end, c.counted, c.counted, c.superseded FROM counters c
    ON CONFLICT (user_id, feature_id, period, period_start) DO UPDATE SET
        used = n.used + greatest(0, excluded.used - (n.used - n.overage)),
        carried = n.carried + greatest(0, excluded.used - (n.used - n.overage))
$function$;

CREATE OR REPLACE FUNCTION public.chain_token_transaction()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    head record;
BEGIN
    SELECT t.seq, t.hash, t.balance_after INTO head FROM public.token_transactions t
    WHERE t.user_id = NEW.user_id ORDER BY t.seq DESC LIMIT 1;
    NEW.seq := coalesce(head.seq, 0) + 1;
    NEW.prev_hash := head.hash;
    NEW.balance_after := coalesce(NEW.balance_after, coalesce(head.balance_after, 0) + NEW.amount);
    NEW.hash := public.ledger_hash(NEW.prev_hash, NEW.id, NEW.user_id, NEW.seq, NEW.amount, NEW.type, NEW.balance_after,
        NEW.description, NEW.reference_id, NEW.idempotency_key, NEW.created_at);
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.check_ai_provider()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    IF NOT EXISTS (SELECT FROM public.ai_providers p WHERE p.id = NEW.provider) THEN
        RAISE EXCEPTION '% is no known provider', NEW.provider USING ERRCODE = 'check_violation', CONSTRAINT = 'check_provider',
            TABLE = 'ai_usage_logs';
    END IF;
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.check_feature_access(user_id uuid, feature_id text)
 RETURNS boolean
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT coalesce((
        SELECT e.feature_active AND e.enabled FROM public.feature_entitlement($1, $2) e
        WHERE public.may_see_user($1)
          AND NOT EXISTS (SELECT FROM public.identity_states(ARRAY[$1]) s WHERE s.state IN ('banned', 'deleted'))
    ), false)
$function$;

CREATE OR REPLACE FUNCTION public.check_integrity_piece(p_name text, p_budget interval)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    began timestamptz := clock_timestamp();
    found_now jsonb := '[]';
    slice text := split_part(p_name, '/', 2);
    sealing record;
    checking record;
    rounds integer := 0;
BEGIN
    IF p_name = 'catalogue' THEN
        SELECT coalesce(jsonb_agg(f), '[]') INTO found_now FROM (SELECT * FROM public.integrity_of_catalogue() LIMIT 1000) f;
    ELSIF p_name = 'usage' THEN
        LOOP
            SELECT * INTO sealing FROM public.seal_usage();
            EXIT WHEN NOT sealing.sealed OR clock_timestamp() > began + p_budget / 2;
        END LOOP;
        found_now := sealing.findings;
        LOOP
            SELECT * INTO checking FROM public.recheck_seal();
            found_now := found_now || checking.findings;
            rounds := rounds + 1;
            EXIT WHEN NOT checking.checked OR rounds >= (SELECT count(*) FROM public.usage_seals) OR clock_timestamp() > began + p_budget;
        END LOOP;
        -- What another run found of a seal that this one did not come to.
        found_now := found_now || (
            SELECT coalesce(jsonb_agg(f.was), '[]') FROM public.integrity_pieces p CROSS JOIN LATERAL jsonb_array_elements(p.findings) f (was)
            JOIN public.usage_seals s ON f.was ->> 'subject' = 'usage_events:' || s.hours_from
            WHERE p.name = 'usage' AND f.was ->> 'finding' = 'SEAL_BROKEN' AND s.checked_at < began);
    ELSE
        SELECT coalesce(jsonb_agg(f), '[]') INTO found_now FROM (
            SELECT * FROM public.integrity_of_users(rpad(slice, 32, '0')::pg_catalog.uuid, rpad(slice, 32, 'f')::pg_catalog.uuid, true) LIMIT 1000) f;
    END IF;
    UPDATE public.integrity_pieces SET findings = found_now, checked_at = began,
        took_ms = extract(epoch FROM clock_timestamp() - began) * 1000
    WHERE name = p_name;
    RETURN jsonb_array_length(found_now);
END
$function$;

CREATE OR REPLACE FUNCTION public.check_plan_change_consistency()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    IF NEW.plan_changed_at IS NOT DISTINCT FROM OLD.plan_changed_at THEN
        -- By the clock, not by the transaction: within one, what came later must be later.
        NEW.plan_changed_at := pg_catalog.clock_timestamp();
    END IF;
    INSERT INTO public.audit_logs (table_name, record_id, action, old_values, new_values, actor_id, actor_name, reason)
    VALUES ('users', NEW.id::text, 'plan_change',
        pg_catalog.jsonb_build_object('plan_type', OLD.plan_id), pg_catalog.jsonb_build_object('plan_type', NEW.plan_id),
        public.request_actor(), session_user, nullif(pg_catalog.current_setting('app.reason', true), ''));
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.check_usage_limit(user_id uuid, feature_id text)
 RETURNS TABLE(allowed boolean, current bigint, "limit" bigint, remaining bigint, resets_at timestamp with time zone, reason text)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT d.reason = 'ok', d.used, d.limit_value, d.remaining, d.period_end, d.reason
    FROM public.usage_decision($1, $2, 1) d
    WHERE public.may_see_user($1)
      AND NOT EXISTS (SELECT FROM public.identity_states(ARRAY[$1]) s WHERE s.state IN ('banned', 'deleted'))
$function$;

CREATE OR REPLACE FUNCTION public.claim_integrity_piece(p_before timestamp with time zone)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    claimed text;
BEGIN
    INSERT INTO public.integrity_pieces (name)
    SELECT 'catalogue' UNION ALL SELECT 'usage' UNION ALL SELECT 'users/' || to_hex(n) FROM generate_series(0, 15) n
    ON CONFLICT (name) DO NOTHING;
    UPDATE public.integrity_pieces SET attempted_at = clock_timestamp()
    WHERE name = (
        SELECT p.name FROM public.integrity_pieces p WHERE p.attempted_at IS NULL OR p.attempted_at < p_before
        ORDER BY p.attempted_at NULLS FIRST, p.name LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING name INTO claimed;
    RETURN claimed;
END
$function$;

CREATE OR REPLACE FUNCTION public.consume_usage(user_id uuid, feature_id text, amount bigint DEFAULT 1, idempotency_key text DEFAULT NULL::text)
 RETURNS TABLE(allowed boolean, current bigint, "limit" bigint, remaining bigint, reserved bigint, reason text, feature_id text, plan_id text, source text, period_start timestamp with time zone, resets_at timestamp with time zone, as_of timestamp with time zone, replayed boolean, idempotency_key text)
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT (c.outcome).allowed, (c.outcome).current, (c.outcome).limit_value, (c.outcome).remaining, (c.outcome).reserved,
        (c.outcome).reason::text, (c.outcome).feature_id::text, (c.outcome).plan_id::text, (c.outcome).source::text,
        (c.outcome).period_start, (c.outcome).resets_at, (c.outcome).created_at, c.replayed, (c.outcome).key
    FROM public.count_consumption($1, $2, $3, coalesce($4, gen_random_uuid()::text)) c
$function$;

CREATE OR REPLACE FUNCTION public.count_consumption(p_user_id uuid, p_feature_id text, p_amount bigint, p_key text, OUT outcome public.idempotency_keys, OUT replayed boolean)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
DECLARE
    facts record;
    balance_is_locked boolean := false;
    locked_period text;
    locked_start timestamptz;
BEGIN
    -- Before any word about the request, and the same whether there is such a user or not.
    IF NOT public.may_see_user(p_user_id) THEN
        RAISE EXCEPTION 'usage of another user cannot be consumed' USING ERRCODE = '42501';
    ELSIF EXISTS (
        SELECT FROM public.users u CROSS JOIN public.identity_states(ARRAY[p_user_id]) s
        WHERE u.id = p_user_id AND s.state IN ('banned', 'deleted')
    ) THEN
        RAISE EXCEPTION 'the identity is banned or deleted' USING ERRCODE = '42501';
    ELSIF p_amount IS NULL OR p_amount < 1 THEN
        RAISE EXCEPTION 'amount must be 1 or more' USING ERRCODE = '22023';
    ELSIF p_key !~ '^[ -~]{1,255}$' COLLATE "C" THEN
        RAISE EXCEPTION 'an idempotency key has 1 to 255 visible ASCII characters' USING ERRCODE = '22023';
    END IF;

    -- Two passes as a rule: to the lock, and under it. Each further one follows a change that was committed in between.
    FOR pass IN 1..10 LOOP
        SELECT k.* INTO outcome FROM public.idempotency_keys k WHERE k.user_id = p_user_id AND k.key = p_key;
        IF FOUND THEN
            IF (outcome.feature_id, outcome.amount, outcome.digest) IS DISTINCT FROM (p_feature_id, p_amount, 'consume'::bytea) THEN
                RAISE EXCEPTION 'this idempotency key was used for something else' USING ERRCODE = '22023';
            END IF;
            replayed := true;
            RETURN;
        END IF;

        SELECT d.* INTO facts FROM public.usage_decision(p_user_id, p_feature_id, p_amount) d;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no such %', CASE
                WHEN EXISTS (SELECT FROM public.users u WHERE u.id = p_user_id) THEN 'feature' ELSE 'user' END
                USING ERRCODE = 'P0002';
        ELSIF facts.kind = 'boolean' AND p_amount <> 1 THEN
            RAISE EXCEPTION 'the feature % is had or not, so it is consumed one at a time', p_feature_id USING ERRCODE = '22023';
        END IF;

        IF facts.may_cost_tokens AND NOT balance_is_locked THEN
            IF locked_start IS NOT NULL THEN
                RAISE EXCEPTION 'the plan changed meanwhile: try again' USING ERRCODE = '40001';
            END IF;
            PERFORM FROM public.users u WHERE u.id = p_user_id FOR NO KEY UPDATE;
            balance_is_locked := true;
        END IF;
        IF (locked_period, locked_start) IS DISTINCT FROM (facts.period::text, facts.period_start) THEN
            PERFORM FROM public.usage_counters n
            WHERE n.user_id = p_user_id AND n.feature_id = p_feature_id AND n.period = facts.period
              AND n.period_start = facts.period_start AND NOT n.superseded
            FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                PERFORM public.open_usage_counter(p_user_id, p_feature_id, facts.period, facts.period_start, facts.period_end);
            END IF;
            locked_period := facts.period;
            locked_start := facts.period_start;
            CONTINUE;
        END IF;

        -- What follows is the twin of domain::usage::consume. A counter ends at 2^63 - 1, where there is no limit too.
        outcome.reason := CASE
            WHEN facts.reason = 'ok' AND facts.used > 9223372036854775807 - p_amount THEN 'limit_reached' ELSE facts.reason END;
        outcome.allowed := outcome.reason = 'ok';
        outcome.current := facts.used + CASE WHEN outcome.allowed THEN p_amount ELSE 0 END;
        outcome.remaining := CASE
            WHEN outcome.allowed AND facts.remaining IS NOT NULL THEN greatest(0, facts.remaining - p_amount) ELSE facts.remaining END;
        -- greatest() passes over a NULL: without a limit nothing lies beyond it.
        outcome.overage := CASE WHEN outcome.allowed THEN greatest(0, p_amount - facts.remaining) ELSE 0 END;
        outcome.user_id := p_user_id;
        outcome.key := p_key;
        outcome.feature_id := p_feature_id;
        outcome.amount := p_amount;
        outcome.limit_value := facts.limit_value;
        outcome.reserved := facts.reserved;
        outcome.plan_id := facts.plan_id;
        outcome.source := facts.source;
        outcome.period := facts.period;
        outcome.period_start := facts.period_start;
        outcome.resets_at := facts.period_end;
        outcome.created_at := facts.as_of;
        replayed := false;
        IF NOT outcome.allowed OR public.record_consumption(outcome) THEN
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'the period or the key changed too often meanwhile: try again' USING ERRCODE = '40001';
END
$function$;

CREATE OR REPLACE FUNCTION public.delete_usage_keys(p_age interval, p_rows bigint)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    partition text;
    deleted bigint;
    total bigint := 0;
BEGIN
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'public.idempotency_keys'::regclass
    LOOP
        EXECUTE format(
            'DELETE FROM public.%1$I WHERE ctid = ANY (ARRAY(
                SELECT k.ctid FROM public.%1$I k WHERE k.created_at < CURRENT_TIMESTAMP - $1 ORDER BY k.created_at LIMIT $2 FOR UPDATE SKIP LOCKED))',
            partition) USING p_age, p_rows;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        total := total + deleted;
    END LOOP;
    RETURN total;
END
$function$;

CREATE OR REPLACE FUNCTION public.drop_partition(p_parent text, p_partition text, p_month_end timestamp with time zone)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '300ms'
AS $function$
BEGIN
    INSERT INTO public.rollup_watermarks AS w (name, reached_at)
    SELECT p_parent, p_month_end
    WHERE NOT EXISTS (SELECT FROM public.rollup_watermarks w WHERE w.name = p_parent AND w.reached_at >= p_month_end)
    ON CONFLICT (name) DO UPDATE SET reached_at = greatest(w.reached_at, EXCLUDED.reached_at);
    DELETE FROM public.rollup_watermarks WHERE name = 'sums of ' || p_partition;
    EXECUTE format('DROP TABLE public.%I', p_partition);
    RETURN 'dropped ' || p_partition;
END
$function$;

CREATE OR REPLACE FUNCTION public.effective_plan(p_user_id uuid, p_at timestamp with time zone DEFAULT now())
 RETURNS TABLE(plan_id character varying, status text, subscription_id uuid, current_period_start timestamp with time zone, current_period_end timestamp with time zone, trial_end timestamp with time zone, cancel_at_period_end boolean)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT p.plan_id, p.status, p.subscription_id, p.current_period_start, p.current_period_end, p.trial_end, p.cancel_at_period_end
    FROM public.users u
    CROSS JOIN LATERAL public.plan_in_force(u.id, u.plan_id, u.plan_changed_at, p_at) p
    WHERE u.id = p_user_id
$function$;

CREATE OR REPLACE FUNCTION public.entitlement_changes_at(p_user_id uuid, p_feature_id text, p_at timestamp with time zone DEFAULT now())
 RETURNS TABLE(changes_at timestamp with time zone)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT least(
        CASE WHEN s.status = 'trialing' AND s.trial_end > p_at THEN s.trial_end END,
        CASE WHEN s.status = 'past_due' AND s.past_due_since + g.grace > p_at THEN s.past_due_since + g.grace END,
        c.effective_at, o.expires_at
    )
    FROM (SELECT) one
    LEFT JOIN public.user_subscriptions s ON s.user_id = p_user_id AND s.status IN ('trialing', 'past_due') AND NOT s.is_duplicate
    LEFT JOIN LATERAL (
        SELECT make_interval(hours => 24 * coalesce(
            (SELECT (r.value #>> '{}')::integer FROM public.runtime_settings r WHERE r.name = 'past_due_grace_days'), 7)) AS grace
    ) g ON s.status = 'past_due'
    LEFT JOIN public.scheduled_plan_changes c ON c.user_id = p_user_id AND c.effective_at > p_at
    LEFT JOIN public.feature_overrides o ON o.user_id = p_user_id AND o.feature_id = p_feature_id AND o.expires_at > p_at
$function$;

CREATE OR REPLACE FUNCTION public.feature_entitlement(p_user_id uuid, p_feature_id text, p_at timestamp with time zone DEFAULT now())
 RETURNS TABLE(plan_id character varying, plan_status text, feature_active boolean, in_plan boolean, enabled boolean, limit_value bigint, limit_period character varying, overage character varying, kind character varying, unit character varying, source text, override_expires_at timestamp with time zone, period_start timestamp with time zone, period_end timestamp with time zone, used bigint, reserved bigint, counter_overage bigint, token_balance bigint, token_reserved bigint, as_of timestamp with time zone)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT
        x.plan_id, x.plan_status, x.feature_active, x.in_plan, x.enabled,
        x.limit_value, x.limit_period, x.overage, x.kind, x.unit,
        x.source, x.override_expires_at, x.period_start,
        public.usage_period_end(x.limit_period, x.anchor, p_at),
        -- Where the kind or the anchor of the period has moved and nothing was counted since, what open_usage_counter will carry.
        CASE WHEN n.superseded IS FALSE THEN n.used ELSE coalesce(n.used, 0) + greatest(0, coalesce((
            SELECT max(o.used - o.overage) FROM public.usage_counters o
            WHERE o.user_id = p_user_id AND o.feature_id = p_feature_id AND NOT o.superseded AND o.period_start <= p_at
              AND coalesce(o.period_end, public.usage_period_end(o.period, o.period_start, o.period_start), 'infinity') > p_at
        ), 0) - coalesce(n.used - n.overage, 0)) END,
        coalesce(n.reserved, 0), coalesce(n.overage, 0),
        x.token_balance, x.token_reserved, p_at
    FROM (
        SELECT
            p.plan_id, p.status AS plan_status, f.is_active AS feature_active, pf.plan_id IS NOT NULL AS in_plan,
            coalesce(o.enabled, pf.enabled, false) AS enabled,
            CASE WHEN o.user_id IS NOT NULL THEN o.limit_value WHEN pf.plan_id IS NOT NULL THEN pf.limit_value ELSE 0 END AS limit_value,
            coalesce(pf.limit_period, 'month')::varchar AS limit_period,
            coalesce(pf.overage, 'block')::varchar AS overage,
            f.kind, f.unit,
            CASE WHEN o.user_id IS NOT NULL THEN 'override' ELSE 'plan' END AS source,
            o.expires_at AS override_expires_at,
            coalesce(p.current_period_start, u.created_at) AS anchor,
            public.usage_period_start(coalesce(pf.limit_period, 'month'), coalesce(p.current_period_start, u.created_at), p_at) AS period_start,
            u.token_balance, u.token_reserved
        FROM public.users u
        CROSS JOIN LATERAL public.plan_in_force(u.id, u.plan_id, u.plan_changed_at, p_at) p
        JOIN public.features f ON f.id = p_feature_id
        LEFT JOIN public.plan_features pf ON pf.plan_id = p.plan_id AND pf.feature_id = f.id
        LEFT JOIN public.feature_overrides o ON o.user_id = u.id AND o.feature_id = f.id AND (o.expires_at IS NULL OR o.expires_at > p_at)
        WHERE u.id = p_user_id
    ) x
    LEFT JOIN public.usage_counters n ON n.user_id = p_user_id AND n.feature_id = p_feature_id
        AND n.period = x.limit_period AND n.period_start = x.period_start
$function$;

CREATE OR REPLACE FUNCTION public.first_usage_hour(p_from timestamp with time zone)
 RETURNS timestamp with time zone
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    -- What was in no month is in no order either, and little: it is read whole.
    first timestamptz := (SELECT min(d.created_at) FROM public.usage_events_default d WHERE d.created_at >= p_from);
    month record;
    has_events boolean;
BEGIN
    FOR month IN SELECT m.month_start, m.partition FROM public.usage_months() m ORDER BY 1
    LOOP
        EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM public.%I WHERE created_at >= $1)', month.partition) INTO has_events USING p_from;
        IF has_events THEN
            first := least(first, greatest(month.month_start, p_from));
            EXIT;
        END IF;
    END LOOP;
    RETURN pg_catalog.date_trunc('hour', first, 'UTC');
END
$function$;

CREATE OR REPLACE FUNCTION public.hand_over_organizations()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    organization record;
    successor uuid;
BEGIN
    FOR organization IN SELECT o.id FROM public.organizations o WHERE o.owner_id = OLD.id ORDER BY o.id FOR NO KEY UPDATE
    LOOP
        SELECT m.user_id INTO successor
        FROM public.organization_members m JOIN public.users u ON u.id = m.user_id
        WHERE m.organization_id = organization.id AND m.user_id <> OLD.id AND m.role IN ('owner', 'admin')
          AND NOT EXISTS (SELECT FROM public.identity_states(ARRAY[m.user_id]) s WHERE s.state IN ('banned', 'deleted'))
        ORDER BY m.role = 'owner' DESC, m.created_at, m.user_id LIMIT 1
        FOR KEY SHARE OF u SKIP LOCKED;
        UPDATE public.organizations SET owner_id = successor WHERE id = organization.id;
        UPDATE public.organization_members SET role = 'owner'
        WHERE organization_id = organization.id AND user_id = successor AND role <> 'owner';
        INSERT INTO public.audit_logs (table_name, record_id, action, old_values, new_values, actor_id, actor_name, reason)
        VALUES ('organizations', organization.id::pg_catalog.text, 'hand_over', jsonb_build_object('owner_id', OLD.id),
            jsonb_build_object('owner_id', successor), public.request_actor(), session_user, 'the profile of the owner was deleted');
    END LOOP;
    RETURN OLD;
END
$function$;

CREATE OR REPLACE FUNCTION public.identity_credentials(p_email text)
 RETURNS TABLE(user_id uuid, email text, encrypted_password text)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT a.id, a.email::text, a.encrypted_password::text FROM auth.users a
    WHERE pg_catalog.lower(a.email) = pg_catalog.lower(p_email)
$function$;

CREATE OR REPLACE FUNCTION public.identity_delete(p_user_id uuid)
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    DELETE FROM auth.users WHERE id = p_user_id
$function$;

CREATE OR REPLACE FUNCTION public.identity_digests(p_user_id uuid)
 RETURNS SETOF bytea
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT pg_catalog.sha256(pg_catalog.convert_to(w.address, 'UTF8'))
    FROM auth.users a
    CROSS JOIN LATERAL (VALUES
        (public.normal_address(a.email::text)), ('tel:' || nullif(pg_catalog.to_jsonb(a) ->> 'phone', ''))
    ) w (address)
    WHERE a.id = p_user_id AND w.address IS NOT NULL
$function$;

CREATE OR REPLACE FUNCTION public.identity_email(p_user_id uuid)
 RETURNS text
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT a.email::text FROM auth.users a
    WHERE a.id = p_user_id
      AND (public.may_see_user(p_user_id) OR pg_catalog.pg_has_role(public.caller_role(), 'readonly_user', 'USAGE'))
$function$;

CREATE OR REPLACE FUNCTION public.identity_exists(p_user_id uuid)
 RETURNS boolean
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT EXISTS (SELECT FROM auth.users a WHERE a.id = p_user_id)
$function$;

CREATE OR REPLACE FUNCTION public.identity_find(p_email text)
 RETURNS uuid
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT a.id FROM auth.users a WHERE pg_catalog.lower(a.email) = pg_catalog.lower(p_email) ORDER BY a.created_at LIMIT 1
$function$;

CREATE OR REPLACE FUNCTION public.identity_owns_address(p_user_id uuid, p_email text)
 RETURNS boolean
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT EXISTS (
        SELECT FROM auth.users a CROSS JOIN public.identity_states(ARRAY[p_user_id]) s
        WHERE a.id = p_user_id AND s.state = 'active' AND NOT s.is_anonymous
          AND pg_catalog.lower(a.email::text COLLATE "C") = p_email
          AND pg_catalog.to_jsonb(a) ->> 'email_confirmed_at' IS NOT NULL
    ) AND (SELECT count(*) = 1 FROM auth.users b WHERE public.normal_address(b.email::text) = p_email)
$function$;

CREATE OR REPLACE FUNCTION public.identity_register(p_id uuid, p_email text, p_encrypted_password text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    IF EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = p_id) THEN
        RAISE EXCEPTION 'this id belonged to a deleted account'
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'deleted_profiles_pkey';
    END IF;
    INSERT INTO auth.users (id, email, encrypted_password)
    VALUES (coalesce(p_id, pg_catalog.gen_random_uuid()), p_email, p_encrypted_password);
END
$function$;

CREATE OR REPLACE FUNCTION public.identity_set_password(p_user_id uuid, p_encrypted_password text)
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    UPDATE auth.users SET encrypted_password = p_encrypted_password, updated_at = CURRENT_TIMESTAMP WHERE id = p_user_id
$function$;

CREATE OR REPLACE FUNCTION public.identity_states(p_user_ids uuid[])
 RETURNS TABLE(user_id uuid, state text, began_at timestamp with time zone, is_anonymous boolean)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT w.id,
        CASE
            WHEN a.id IS NULL THEN CASE
                WHEN EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = w.id) THEN 'deleted' ELSE 'unknown' END
            WHEN a.fields ->> 'deleted_at' IS NOT NULL THEN 'deleted'
            WHEN (a.fields ->> 'banned_until')::timestamptz > pg_catalog.clock_timestamp() THEN 'banned'
            ELSE 'active'
        END,
        (a.fields ->> 'created_at')::timestamptz,
        coalesce(a.fields ->> 'is_anonymous' = 'true', false)
    FROM pg_catalog.unnest(p_user_ids) w (id)
    LEFT JOIN LATERAL (SELECT i.id, pg_catalog.to_jsonb(i) AS fields FROM auth.users i WHERE i.id = w.id OFFSET 0) a ON true
$function$;

CREATE OR REPLACE FUNCTION public.integrity_findings()
 RETURNS TABLE(finding text, subject text, detail text)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT c.finding, c.subject, c.detail FROM public.integrity_of_catalogue() c
    UNION ALL
    SELECT u.finding, u.subject, u.detail
    FROM public.integrity_of_users('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', false) u
$function$;

CREATE OR REPLACE FUNCTION public.integrity_of_catalogue()
 RETURNS TABLE(finding text, subject text, detail text)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT 'MISSING_PLAN', pf.plan_id || ':' || pf.feature_id, 'plan_features names a plan that does not exist'
    FROM public.plan_features pf WHERE NOT EXISTS (SELECT FROM public.plans p WHERE p.id = pf.plan_id)

    UNION ALL
    SELECT 'MISSING_FEATURE', pf.plan_id || ':' || pf.feature_id, 'plan_features names a feature that does not exist'
    FROM public.plan_features pf WHERE NOT EXISTS (SELECT FROM public.features f WHERE f.id = pf.feature_id)

    UNION ALL
    SELECT 'MISSING_DATA', c.name, c.present || ' rows, at least ' || c.expected || ' are expected: run the seed'
    FROM (VALUES
        ('plans', (SELECT count(*) FROM public.plans), 3),
        ('features', (SELECT count(*) FROM public.features), 5),
        ('plan_features', (SELECT count(*) FROM public.plan_features), 15)
    ) AS c (name, present, expected) WHERE c.present < c.expected

    UNION ALL
    -- Windows of keys: what calls under way hold of them stands in their holds. A window that was swept holds nothing.
    SELECT 'HOLD_MISMATCH', k.api_key_id::text, 'the ' || k.period || ' from ' || k.period_start || ' of the key holds ' || k.tokens_reserved
        || ' tokens and ' || k.cost_reserved_nano_usd || ' nano-dollars; its pending holds sum to ' || coalesce(h.tokens, 0) || ' and '
        || coalesce(h.cost, 0)
    FROM public.api_key_counters k
    LEFT JOIN (
        SELECT l.lineage_id AS api_key_id, w.period, w.period_start, sum((r.detail #>> '{on_key,tokens}')::bigint) AS tokens,
            sum((r.detail #>> '{on_key,cost_nano_usd}')::bigint) AS cost
        FROM public.usage_reservations r
        CROSS JOIN LATERAL (VALUES
            ('minute', (r.detail #>> '{on_key,windows,minute}')::timestamptz),
            ('month', (r.detail #>> '{on_key,windows,month}')::timestamptz)) AS w (period, period_start)
        -- A call counts on its key's lineage and on those of the key's makers; one of an earlier release on its key.
        CROSS JOIN LATERAL (
            SELECT n.lineage_id::uuid FROM pg_catalog.jsonb_array_elements_text(
                coalesce(r.detail -> 'key_lineages', pg_catalog.jsonb_build_array(r.api_key_id))) AS n (lineage_id)
        ) AS l
        WHERE r.status = 'pending' AND r.detail #>> '{on_key,tokens}' IS NOT NULL
        GROUP BY l.lineage_id, w.period, w.period_start
    ) h ON h.api_key_id = k.api_key_id AND h.period = k.period AND h.period_start = k.period_start
    WHERE (k.tokens_reserved, k.cost_reserved_nano_usd) IS DISTINCT FROM (coalesce(h.tokens, 0), coalesce(h.cost, 0))

    UNION ALL
    -- The last two days that get no event any more. Sums without events are right where their month was dropped.
    SELECT 'ROLLUP_MISMATCH', coalesce(r.user_id, e.user_id) || ':' || coalesce(r.feature_id, e.feature_id),
        'the hour from ' || coalesce(r.bucket, e.bucket) || ', ' || coalesce(r.period, e.period) || ' from '
        || coalesce(r.period_start, e.period_start) || ', says ' || coalesce(r.amount, 0) || ', overage ' || coalesce(r.overage, 0)
        || ', in ' || coalesce(r.events, 0) || ' events; they sum to ' || coalesce(e.amount, 0) || ', overage '
        || coalesce(e.overage, 0) || ', and are ' || coalesce(e.events, 0)
    FROM (
        SELECT s.* FROM public.usage_rollups s JOIN public.rollup_watermarks w ON w.name = 'usage_events'
        WHERE s.bucket >= coalesce(w.final_at, w.reached_at) - interval '48 hours' AND s.bucket < coalesce(w.final_at, w.reached_at)
    ) r
    FULL JOIN (
        SELECT v.user_id, v.feature_id, v.period, v.period_start, pg_catalog.date_trunc('hour', v.created_at, 'UTC') AS bucket,
            sum(v.amount) AS amount, sum(v.overage) AS overage, count(*) AS events
        FROM public.usage_events v JOIN public.rollup_watermarks w ON w.name = 'usage_events'
        WHERE v.created_at >= coalesce(w.final_at, w.reached_at) - interval '48 hours' AND v.created_at < coalesce(w.final_at, w.reached_at)
        GROUP BY 1, 2, 3, 4, 5
    ) e ON e.user_id = r.user_id AND e.feature_id = r.feature_id AND e.period = r.period
        AND e.period_start = r.period_start AND e.bucket = r.bucket
    WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (e.amount, e.overage, e.events)
      AND (e.user_id IS NOT NULL OR pg_catalog.date_trunc('month', r.bucket, 'UTC') IN (SELECT m.month_start FROM public.usage_months() m))
$function$;

CREATE OR REPLACE FUNCTION public.integrity_of_users(p_from uuid, p_to uuid, p_sealed boolean)
 RETURNS TABLE(finding text, subject text, detail text)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    RETURN QUERY EXECUTE $checks$
    SELECT 'MISSING_AUTH_USER', u.id::text, 'the profile has no identity in auth.users'
    FROM public.users u WHERE u.id BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM auth.users a WHERE a.id = u.id)

    UNION ALL
    SELECT 'BALANCE_MISMATCH', u.id::text, 'the balance is ' || u.token_balance || ', the ledger sums to ' || coalesce(l.total, 0)
    FROM public.users u
    LEFT JOIN (SELECT t.user_id, sum(t.amount) AS total FROM public.token_transactions t WHERE t.user_id BETWEEN $1 AND $2 GROUP BY t.user_id) l ON l.user_id = u.id
    WHERE u.id BETWEEN $1 AND $2 AND u.token_balance <> coalesce(l.total, 0)

    UNION ALL
    SELECT 'LEDGER_CHAIN_BROKEN', c.user_id::text, 'first at seq ' || min(c.seq)
    FROM (
        SELECT t.*, row_number() OVER w AS position, lag(t.hash) OVER w AS before_hash, sum(t.amount) OVER w AS running
        FROM public.token_transactions t WHERE t.user_id BETWEEN $1 AND $2 WINDOW w AS (PARTITION BY t.user_id ORDER BY t.seq)
    ) c
    WHERE c.seq <> c.position OR c.prev_hash IS DISTINCT FROM c.before_hash OR c.balance_after <> c.running
       OR c.hash <> public.ledger_hash(c.prev_hash, c.id, c.user_id, c.seq, c.amount, c.type, c.balance_after,
            c.description, c.reference_id, c.idempotency_key, c.created_at)
    GROUP BY c.user_id

    UNION ALL
    -- What the ledger ended with at some time must stand in it. A head that is older than the last row is no fault.
    SELECT 'LEDGER_HEAD_MISMATCH', h.user_id::text, 'the ledger had a row ' || h.seq || ' with the balance ' || h.balance
        || ', which is gone or was written anew; it ends at ' || coalesce((SELECT max(e.seq) FROM public.token_transactions e WHERE e.user_id = h.user_id), 0)
    FROM public.ledger_heads h JOIN public.users u ON u.id = h.user_id
    WHERE h.user_id BETWEEN $1 AND $2
      AND NOT EXISTS (SELECT FROM public.token_transactions t WHERE t.user_id = h.user_id AND t.seq = h.seq AND t.hash = h.hash AND t.balance_after = h.balance)

    UNION ALL
    -- Rows of the hour in which the heads were introduced may have none until the next row.
    SELECT 'LEDGER_HEAD_MISMATCH', t.user_id::text, 'the ledger has ' || count(*) || ' rows and no head is kept of it'
    FROM public.token_transactions t
    WHERE t.user_id BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM public.ledger_heads h WHERE h.user_id = t.user_id)
    GROUP BY t.user_id
    HAVING abs(extract(epoch FROM min(t.created_at)) - (SELECT m.applied_at FROM public.product_base_migrations m WHERE m.version = 'm20261201_000027_heads_of_ledgers')) > 3600

    UNION ALL
    SELECT 'DOUBLE_SUBSCRIPTION', s.user_id::text, 'a second live subscription is charged: ' || coalesce(s.stripe_subscription_id, s.id::text)
    FROM public.user_subscriptions s WHERE s.user_id BETWEEN $1 AND $2 AND s.is_duplicate

    UNION ALL
    SELECT 'ORPHAN_COUNTER', n.user_id::text, count(*) || ' counters of neither a user nor a deleted profile'
    FROM public.usage_counters n
    WHERE n.user_id BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM public.users u WHERE u.id = n.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = n.user_id)
    GROUP BY n.user_id

    UNION ALL
    SELECT 'ORPHAN_EVENT', e.user_id::text, e.events || ' events of neither a user nor a deleted profile'
    FROM (SELECT v.user_id, count(*) AS events FROM public.usage_events v WHERE v.user_id BETWEEN $1 AND $2 AND v.created_at >= $4 GROUP BY v.user_id) e
    WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = e.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = e.user_id)

    UNION ALL
    SELECT 'ORPHAN_EVENT', e.user_id::text, 'sealed events of neither a user nor a deleted profile'
    FROM (SELECT DISTINCT s.user_id FROM public.sealed_usage s WHERE $3 AND s.user_id BETWEEN $1 AND $2) e
    WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = e.user_id)
      AND NOT EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = e.user_id)

    UNION ALL
    SELECT 'ORPHAN_HOLD', r.id::text, 'a pending hold without its counter'
    FROM public.usage_reservations r
    WHERE r.user_id BETWEEN $1 AND $2 AND r.status = 'pending' AND NOT EXISTS (
        SELECT FROM public.usage_counters n WHERE n.user_id = r.user_id AND n.feature_id = r.feature_id
          AND n.period = r.period AND n.period_start = r.period_start)

    UNION ALL
    SELECT 'ORPHAN_HOLD', n.user_id || ':' || n.feature_id, 'the counter of ' || n.period || ' from ' || n.period_start || ' holds ' || n.reserved || ' without a pending hold'
    FROM public.usage_counters n
    WHERE n.user_id BETWEEN $1 AND $2 AND n.reserved > 0 AND NOT EXISTS (
        SELECT FROM public.usage_reservations r WHERE r.status = 'pending' AND r.user_id = n.user_id
          AND r.feature_id = n.feature_id AND r.period = n.period AND r.period_start = n.period_start)

    UNION ALL
    SELECT 'ORPHAN_HOLD', u.id::text, u.token_reserved || ' tokens are held without a pending hold'
    FROM public.users u
    WHERE u.id BETWEEN $1 AND $2 AND u.token_reserved > 0 AND NOT EXISTS (
        SELECT FROM public.usage_reservations r WHERE r.status = 'pending' AND r.user_id = u.id)

    UNION ALL
    SELECT 'HOLD_MISMATCH', n.user_id || ':' || n.feature_id, 'the counter of ' || n.period || ' from ' || n.period_start || ' holds '
        || n.reserved || '; its pending holds sum to ' || h.held
    FROM public.usage_counters n
    JOIN (
        SELECT r.user_id, r.feature_id, r.period, r.period_start, sum(r.amount - r.beyond) AS held
        FROM public.usage_reservations r WHERE r.status = 'pending'
        GROUP BY r.user_id, r.feature_id, r.period, r.period_start
    ) h ON h.user_id = n.user_id AND h.feature_id = n.feature_id AND h.period = n.period AND h.period_start = n.period_start
    WHERE n.user_id BETWEEN $1 AND $2 AND n.reserved <> h.held

    UNION ALL
    SELECT 'HOLD_MISMATCH', u.id::text, u.token_reserved || ' tokens are held; the pending holds sum to ' || h.held
    FROM public.users u
    JOIN (
        SELECT r.user_id, sum(r.tokens_reserved) AS held FROM public.usage_reservations r WHERE r.status = 'pending' GROUP BY r.user_id
    ) h ON h.user_id = u.id
    WHERE u.id BETWEEN $1 AND $2 AND u.token_reserved <> h.held

    UNION ALL
    -- From both ends: a counter whose events are others, and events whose counter is gone.
    SELECT CASE WHEN n.user_id IS NULL THEN 'COUNTER_MISSING' ELSE 'COUNTER_MISMATCH' END,
        coalesce(n.user_id, s.user_id) || ':' || coalesce(n.feature_id, s.feature_id),
        'the counter of ' || coalesce(n.period, s.period) || ' from ' || coalesce(n.period_start, s.period_start)
        || coalesce(' says ' || (n.used - n.carried) || ' beside ' || n.carried || ' carried, overage ' || n.overage, ' is not there')
        || '; its events sum to ' || coalesce(s.amount, 0) || ', overage ' || coalesce(s.overage, 0)
    FROM (SELECT c.* FROM public.usage_counters c WHERE c.user_id BETWEEN $1 AND $2) n
    FULL JOIN (
        SELECT p.user_id, p.feature_id, p.period, p.period_start, sum(p.amount) AS amount, sum(p.overage) AS overage
        FROM (
            SELECT e.user_id, e.feature_id, e.period, e.period_start, e.amount, e.overage FROM public.usage_events e
            WHERE e.user_id BETWEEN $1 AND $2 AND e.created_at >= $4
            UNION ALL
            SELECT s.user_id, s.feature_id, s.period, s.period_start, s.amount, s.overage FROM public.sealed_usage s
            WHERE $3 AND s.user_id BETWEEN $1 AND $2
            UNION ALL
            -- Months that were dropped. A month that was not made yet has its events in the default partition.
            SELECT r.user_id, r.feature_id, r.period, r.period_start, r.amount, r.overage FROM public.usage_rollups r
            WHERE r.user_id BETWEEN $1 AND $2 AND r.bucket >= $4 AND pg_catalog.date_trunc('month', r.bucket, 'UTC') NOT IN (SELECT m.month_start FROM public.usage_months() m) AND NOT EXISTS (
                SELECT FROM public.usage_events_default d
                WHERE d.user_id = r.user_id AND d.feature_id = r.feature_id AND d.period = r.period
                  AND d.period_start = r.period_start AND pg_catalog.date_trunc('hour', d.created_at, 'UTC') = r.bucket)
        ) p
        GROUP BY p.user_id, p.feature_id, p.period, p.period_start
    ) s ON s.user_id = n.user_id AND s.feature_id = n.feature_id AND s.period = n.period AND s.period_start = n.period_start
    WHERE (n.used - n.carried, n.overage) IS DISTINCT FROM (coalesce(s.amount, 0), coalesce(s.overage, 0))
      AND (n.user_id IS NOT NULL OR (s.amount, s.overage) IS DISTINCT FROM (0::numeric, 0::numeric) AND (
        EXISTS (SELECT FROM public.users u WHERE u.id = s.user_id) OR EXISTS (SELECT FROM public.deleted_profiles d WHERE d.user_id = s.user_id)))
    $checks$ USING p_from, p_to, p_sealed,
        coalesce((SELECT max(s.hours_to) FROM public.usage_seals s WHERE p_sealed), '-infinity');
END
$function$;

CREATE OR REPLACE FUNCTION public.keep_tombstone()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    INSERT INTO public.deleted_profiles (user_id) VALUES (OLD.id)
    ON CONFLICT (user_id) DO UPDATE SET deleted_at = CURRENT_TIMESTAMP;
    DELETE FROM public.idempotent_answers k WHERE k.user_id = OLD.id;
    DELETE FROM public.ledger_heads h WHERE h.user_id = OLD.id;
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION public.lapsed_subscription(p_user_id uuid, p_feature_id text)
 RETURNS TABLE(plan_id character varying)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT latest.plan_id
    FROM (
        SELECT s.plan_id, s.status FROM public.user_subscriptions s
        WHERE s.user_id = p_user_id AND s.status <> 'incomplete'
        ORDER BY s.status IN ('trialing', 'active', 'past_due') AND NOT s.is_duplicate DESC, s.ended_at DESC NULLS LAST, s.created_at DESC
        LIMIT 1
    ) latest
    JOIN public.plan_features paid_for ON paid_for.plan_id = latest.plan_id AND paid_for.feature_id = p_feature_id
    WHERE latest.status <> 'active' AND paid_for.enabled
$function$;

CREATE OR REPLACE FUNCTION public.ledger_hash(p_prev_hash bytea, p_id uuid, p_user_id uuid, p_seq bigint, p_amount bigint, p_type text, p_balance_after bigint, p_description text, p_reference_id uuid, p_idempotency_key text, p_created_at timestamp with time zone)
 RETURNS bytea
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT sha256(coalesce(p_prev_hash, ''::pg_catalog.bytea) || convert_to(
        p_id::pg_catalog.text || '|' || p_user_id::pg_catalog.text || '|' || p_seq::pg_catalog.text || '|' || p_amount::pg_catalog.text || '|' || quote_nullable(p_type)
        || '|' || p_balance_after::pg_catalog.text || '|' || quote_nullable(p_description) || '|' || quote_nullable(p_reference_id::pg_catalog.text)
        || '|' || quote_nullable(p_idempotency_key)
        || '|' || trunc(extract(epoch FROM p_created_at AT TIME ZONE 'UTC') * 1000000)::pg_catalog.text, 'UTF8'))
$function$;

CREATE OR REPLACE FUNCTION public.maintain_partitions()
 RETURNS SETOF text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    piece record;
    done text;
    busy text;
BEGIN
    -- Nobody but the owner can take this lock; an advisory lock would be anybody's.
    PERFORM FROM public.product_base_locks l WHERE l.name = 'maintain_partitions' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR piece IN
        SELECT 'make' AS action, m.parent, NULL AS partition, m.month, NULL::timestamptz AS month_start, NULL::timestamptz AS month_end
        FROM public.partitions_to_make() m
        UNION ALL SELECT 'drop', d.parent, d.partition, NULL, d.month_start, d.month_end FROM public.partitions_to_drop() d
    LOOP
        BEGIN
            IF piece.action = 'make' THEN
                done := public.make_partition(piece.parent, piece.month);
            ELSIF piece.parent = 'usage_events' THEN
                done := public.sum_partition(piece.partition, piece.month_start, piece.month_end);
            ELSE
                done := public.sum_calls_before(piece.month_end);
            END IF;
            IF done IS NULL AND piece.action = 'drop' THEN
                done := public.drop_partition(piece.parent, piece.partition, piece.month_end);
            END IF;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            done := NULL;
            busy := coalesce(busy || ', ', 'busy: ') || coalesce(piece.partition, to_char(piece.month, 'YYYY-MM') || ' of ' || piece.parent);
        END;
        IF done IS NOT NULL THEN
            RETURN NEXT done;
            RETURN;
        END IF;
    END LOOP;
    IF busy IS NOT NULL THEN
        RETURN NEXT busy || ' waits for the next run';
    END IF;
END
$function$;

CREATE OR REPLACE FUNCTION public.make_partition(p_parent text, p_month timestamp without time zone)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '300ms'
AS $function$
DECLARE
    partition text := p_parent || to_char(p_month, '"_"YYYY"_"MM');
    lower_bound timestamptz := p_month AT TIME ZONE 'UTC';
    upper_bound timestamptz := (p_month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass('public.' || partition) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition, p_parent);
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('REVOKE ALL ON TABLE public.%I FROM PUBLIC, anon, authenticated, service_role', partition);
    EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', p_parent || '_default');
    EXECUTE format(
        'WITH moved AS (DELETE FROM public.%I WHERE created_at >= $1 AND created_at < $2 RETURNING *) INSERT INTO public.%I SELECT * FROM moved',
        p_parent || '_default', partition) USING lower_bound, upper_bound;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
        p_parent, partition, lower_bound, upper_bound);
    RETURN 'made ' || partition;
END
$function$;

CREATE OR REPLACE FUNCTION public.may_see_user(p_user_id uuid)
 RETURNS boolean
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT coalesce(p_user_id = public.request_user_id(), false) OR EXISTS (
        SELECT FROM pg_catalog.pg_roles r
        WHERE r.rolname = public.caller_role()
          AND (r.rolname = current_user OR r.rolsuper
               OR pg_catalog.pg_has_role(r.oid, 'app_service', 'USAGE')
               OR pg_catalog.pg_has_role(r.oid, 'service_role', 'USAGE'))
    )
$function$;

CREATE OR REPLACE FUNCTION public.member_organizations()
 RETURNS SETOF uuid
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT m.organization_id FROM public.organization_members m WHERE m.user_id = public.request_user_id()
    UNION
    SELECT o.id FROM public.organizations o WHERE o.owner_id = public.request_user_id()
$function$;

CREATE OR REPLACE FUNCTION public.name_the_actor()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    NEW.actor_name := coalesce(NEW.actor_name, session_user);
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.normal_address(p_address text)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
    SELECT nullif(pg_catalog.lower(CASE WHEN pg_catalog.current_setting('server_encoding') = 'UTF8'
        THEN normalize(pg_catalog.btrim(p_address), NFC) ELSE pg_catalog.btrim(p_address) END), '')
$function$;

CREATE OR REPLACE FUNCTION public.note_ledger_head()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    INSERT INTO public.ledger_heads AS h (user_id, seq, hash, balance) VALUES (NEW.user_id, NEW.seq, NEW.hash, NEW.balance_after)
    ON CONFLICT (user_id) DO UPDATE SET seq = EXCLUDED.seq, hash = EXCLUDED.hash, balance = EXCLUDED.balance
        WHERE h.seq < EXCLUDED.seq
          AND EXISTS (SELECT FROM public.token_transactions t WHERE t.user_id = h.user_id AND t.seq = h.seq AND t.hash = h.hash);
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION public.notify_change()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    changed jsonb := CASE WHEN TG_OP = 'DELETE' THEN pg_catalog.to_jsonb(OLD) ELSE pg_catalog.to_jsonb(NEW) END;
BEGIN
    IF TG_ARGV[0] = 'catalogue' THEN
        PERFORM pg_catalog.pg_notify('product_base_changes', 'catalogue');
    ELSE
        PERFORM pg_catalog.pg_notify('product_base_changes', TG_ARGV[0] || ':' || (changed ->> TG_ARGV[1]));
    END IF;
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION public.open_usage_counter(p_user_id uuid, p_feature_id text, p_period text, p_period_start timestamp with time zone, p_period_end timestamp with time zone)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    standing bigint := 0;
    other record;
BEGIN
    -- Oldest first, so that two who open counters of the same user wait for one another and do not lock each other out.
    FOR other IN
        SELECT n.period, n.period_start, n.used - n.overage AS counted
        FROM public.usage_counters n
        WHERE n.user_id = p_user_id AND n.feature_id = p_feature_id AND NOT n.superseded
          AND (n.period, n.period_start) <> (p_period, p_period_start)
          AND n.period_start <= CURRENT_TIMESTAMP
          AND coalesce(n.period_end, public.usage_period_end(n.period, n.period_start, n.period_start), 'infinity') > CURRENT_TIMESTAMP
        ORDER BY n.period_start, n.period
        FOR NO KEY UPDATE
    LOOP
        standing := greatest(standing, other.counted);
        UPDATE public.usage_counters n SET superseded = true
        WHERE n.user_id = p_user_id AND n.feature_id = p_feature_id
          AND n.period = other.period AND n.period_start = other.period_start;
    END LOOP;
    INSERT INTO public.usage_counters AS n (user_id, feature_id, period, period_start, period_end, used, carried)
    VALUES (p_user_id, p_feature_id, p_period, p_period_start, p_period_end, standing, standing)
    ON CONFLICT (user_id, feature_id, period, period_start) DO UPDATE SET
        superseded = false,
        used = n.used + greatest(0, standing - (n.used - n.overage)),
        carried = n.carried + greatest(0, standing - (n.used - n.overage));
END
$function$;

CREATE OR REPLACE FUNCTION public.partitions_to_drop()
 RETURNS TABLE(parent text, partition text, month_start timestamp with time zone, month_end timestamp with time zone)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT p.name, c.relname::text, m.first AT TIME ZONE 'UTC', (m.first + interval '1 month') AT TIME ZONE 'UTC'
    FROM unnest(ARRAY['usage_events', 'ai_usage_logs']) AS p (name)
    JOIN pg_inherits i ON i.inhparent = to_regclass('public.' || p.name)
    JOIN pg_class c ON c.oid = i.inhrelid
    -- The default partition has no month.
    CROSS JOIN LATERAL (SELECT CASE WHEN c.relname ~ ('^' || p.name || '_\d{4}_\d{2}$')
        THEN to_date(right(c.relname::text, 7), 'YYYY_MM')::timestamp END AS first) m
    WHERE m.first + interval '7 months' < CURRENT_TIMESTAMP AT TIME ZONE 'UTC'
    ORDER BY 3, 1
$function$;

CREATE OR REPLACE FUNCTION public.partitions_to_make()
 RETURNS TABLE(parent text, month timestamp without time zone)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    this_month timestamp := date_trunc('month', CURRENT_TIMESTAMP AT TIME ZONE 'UTC');
BEGIN
    FOREACH parent IN ARRAY ARRAY['usage_events', 'ai_usage_logs'] LOOP
        FOR month IN EXECUTE format(
            'SELECT $1 + make_interval(months => n) FROM generate_series(0, 3) n
                UNION SELECT date_trunc(''month'', created_at AT TIME ZONE ''UTC'') FROM public.%I ORDER BY 1', parent || '_default')
            USING this_month
        LOOP
            IF to_regclass('public.' || parent || to_char(month, '"_"YYYY"_"MM')) IS NULL THEN
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END
$function$;

CREATE OR REPLACE FUNCTION public.plan_in_force(p_user_id uuid, p_plan_id character varying, p_plan_changed_at timestamp with time zone, p_at timestamp with time zone)
 RETURNS TABLE(plan_id character varying, status text, subscription_id uuid, current_period_start timestamp with time zone, current_period_end timestamp with time zone, trial_end timestamp with time zone, cancel_at_period_end boolean)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT
        (CASE
            WHEN c.plan_id IS NOT NULL AND (s.id IS NULL OR s.stripe_subscription_id IS NULL) THEN c.plan_id
            WHEN s.status = 'active' THEN s.plan_id
            WHEN s.status = 'trialing' AND (s.trial_end IS NULL OR s.trial_end > p_at) THEN s.plan_id
            WHEN s.status = 'past_due' AND p_at < s.past_due_since + make_interval(hours => 24 * coalesce(
                (SELECT (r.value #>> '{}')::integer FROM public.runtime_settings r WHERE r.name = 'past_due_grace_days'), 7)) THEN s.plan_id
            WHEN s.id IS NOT NULL OR p_plan_id = 'free' THEN 'free'
            WHEN (
                SELECT e.plan_id = p_plan_id AND p_plan_changed_at
                    <= CASE WHEN e.created_at <= p_plan_changed_at THEN coalesce(e.end_recorded_at, e.ended_at) ELSE e.ended_at END
                FROM public.user_subscriptions e
                WHERE e.user_id = p_user_id AND e.status IN ('canceled', 'unpaid', 'incomplete_expired')
                ORDER BY e.ended_at DESC NULLS LAST LIMIT 1
            ) THEN 'free'
            ELSE p_plan_id
        END)::varchar,
        coalesce(s.status, 'active')::pg_catalog.text,
        s.id, s.current_period_start, s.current_period_end, s.trial_end, coalesce(s.cancel_at_period_end, false)
    FROM (SELECT) one
    LEFT JOIN public.user_subscriptions s ON s.user_id = p_user_id AND s.status IN ('trialing', 'active', 'past_due') AND NOT s.is_duplicate
    LEFT JOIN public.scheduled_plan_changes c ON c.user_id = p_user_id AND c.effective_at <= p_at
$function$;

CREATE OR REPLACE FUNCTION public.price_anywhere()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    NEW.geo := coalesce(NEW.geo, '');
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.promote_subscription()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    UPDATE public.user_subscriptions u SET is_duplicate = false
    WHERE u.id = (
        SELECT s.id FROM public.user_subscriptions s
        WHERE s.user_id = OLD.user_id AND s.is_duplicate AND s.status IN ('trialing', 'active', 'past_due')
        ORDER BY s.status = 'active' DESC, s.status = 'trialing' DESC, s.created_at, s.id LIMIT 1);
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION public.recheck_seal(OUT checked boolean, OUT findings jsonb)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    seal public.usage_seals;
    months_there boolean;
    counted record;
BEGIN
    findings := '[]';
    SELECT s.* INTO seal FROM public.usage_seals s ORDER BY s.checked_at, s.hours_from LIMIT 1;
    checked := FOUND;
    IF NOT checked THEN
        RETURN;
    END IF;
    SELECT count(*) = 2 INTO months_there
    FROM (VALUES (seal.hours_from), (seal.hours_to - interval '1 microsecond')) AS at (moment)
    WHERE date_trunc('month', at.moment, 'UTC') IN (SELECT m.month_start FROM public.usage_months() m);
    IF months_there THEN
        SELECT coalesce(sum(e.amount), 0) AS amount, coalesce(sum(e.overage), 0) AS overage, count(*) AS events INTO counted
        FROM public.usage_events e WHERE e.created_at >= seal.hours_from AND e.created_at < seal.hours_to;
    ELSE
        SELECT coalesce(sum(r.amount), 0) AS amount, coalesce(sum(r.overage), 0) AS overage, coalesce(sum(r.events), 0) AS events INTO counted
        FROM public.usage_rollups r WHERE r.bucket >= seal.hours_from AND r.bucket < seal.hours_to;
    END IF;
    IF (counted.amount, counted.overage, counted.events) IS DISTINCT FROM (seal.amount, seal.overage, seal.events::numeric) THEN
        findings := jsonb_build_array(jsonb_build_object('finding', 'SEAL_BROKEN', 'subject', 'usage_events:' || seal.hours_from, 'detail',
            'the hours up to ' || seal.hours_to || ' were sealed with ' || seal.amount || ', overage ' || seal.overage || ', in ' || seal.events
            || ' events; they come to ' || counted.amount || ', overage ' || counted.overage || ', in ' || counted.events));
    END IF;
    UPDATE public.usage_seals SET checked_at = clock_timestamp() WHERE hours_from = seal.hours_from;
END
$function$;

CREATE OR REPLACE FUNCTION public.record_consumption(p_outcome public.idempotency_keys)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    balance bigint;
BEGIN
    -- A use that was acknowledged must survive a crash, whatever the database, the login or the session says. A stronger or
    -- a chosen weaker level of waiting for standbys is left as it is. It holds until the caller's transaction ends.
    IF pg_catalog.current_setting('synchronous_commit') = 'off' THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
    END IF;
    -- It waits for whoever is writing the same key. Under REPEATABLE READ a key that the snapshot lacks raises 40001.
    INSERT INTO public.idempotency_keys (user_id, key, digest, feature_id, amount, allowed, current, limit_value, remaining,
        reserved, reason, plan_id, source, period, period_start, resets_at, overage)
    VALUES (p_outcome.user_id, p_outcome.key, 'consume', p_outcome.feature_id, p_outcome.amount, true, p_outcome.current,
        p_outcome.limit_value, p_outcome.remaining, p_outcome.reserved, 'ok', p_outcome.plan_id, p_outcome.source,
        p_outcome.period, p_outcome.period_start, p_outcome.resets_at, p_outcome.overage)
    ON CONFLICT (user_id, key) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE public.usage_counters n SET used = n.used + p_outcome.amount, overage = n.overage + p_outcome.overage
    WHERE n.user_id = p_outcome.user_id AND n.feature_id = p_outcome.feature_id
      AND n.period = p_outcome.period AND n.period_start = p_outcome.period_start;
    -- By the clock: the transaction may have begun hours ago, and roll_up_usage relies on an event being no older than its
    -- transaction's id.
    INSERT INTO public.usage_events (user_id, feature_id, period, period_start, amount, overage, idempotency_key, created_at)
    VALUES (p_outcome.user_id, p_outcome.feature_id, p_outcome.period, p_outcome.period_start, p_outcome.amount,
        p_outcome.overage, p_outcome.key, pg_catalog.clock_timestamp());
    IF p_outcome.overage > 0 THEN
        UPDATE public.users u SET token_balance = u.token_balance - p_outcome.overage
        WHERE u.id = p_outcome.user_id RETURNING u.token_balance INTO STRICT balance;
        INSERT INTO public.token_transactions (user_id, amount, type, description, balance_after)
        VALUES (p_outcome.user_id, -p_outcome.overage, 'usage', p_outcome.feature_id || ' beyond the limit', balance);
    END IF;
    RETURN true;
END
$function$;

CREATE OR REPLACE FUNCTION public.record_starting_balance()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    INSERT INTO public.token_transactions (user_id, amount, type, description, balance_after)
    VALUES (NEW.id, NEW.token_balance, 'bonus', 'Starting balance', NEW.token_balance);
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION public.refill_usage_totals()
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    DELETE FROM public.usage_totals;
    INSERT INTO public.usage_totals (bucket, feature_id, period, period_start, amount, overage, events)
    SELECT bucket, feature_id, period, period_start, sum(amount), sum(overage), sum(events)
    FROM public.usage_rollups GROUP BY 1, 2, 3, 4;
$function$;

CREATE OR REPLACE FUNCTION public.refuse_update()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation', HINT = 'Add a row that corrects it.';
END
$function$;

CREATE OR REPLACE FUNCTION public.request_actor()
 RETURNS uuid
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT coalesce(
        CASE WHEN a.actor ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN a.actor::uuid END,
        public.request_user_id()
    )
    FROM (SELECT pg_catalog.current_setting('app.actor_id', true) AS actor) a
$function$;

CREATE OR REPLACE FUNCTION public.request_user_id()
 RETURNS uuid
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT CASE WHEN c.sub ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN c.sub::uuid END
    FROM (SELECT coalesce(
        nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
        nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    ) AS sub) c
$function$;

CREATE OR REPLACE FUNCTION public.roll_up_ai_usage()
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    reached timestamptz;
    until_hour timestamptz := date_trunc('hour', CURRENT_TIMESTAMP - interval '5 minutes', 'UTC');
    summed_to timestamptz;
BEGIN
    INSERT INTO public.rollup_watermarks (name, reached_at) VALUES ('ai_usage_logs', '-infinity') ON CONFLICT (name) DO NOTHING;
    SELECT w.reached_at INTO reached FROM public.rollup_watermarks w WHERE w.name = 'ai_usage_logs' FOR UPDATE SKIP LOCKED;
    IF reached IS NULL OR reached >= until_hour THEN
        RETURN 0;
    END IF;
    IF reached = '-infinity' THEN
        reached := coalesce((SELECT date_trunc('hour', min(l.created_at), 'UTC') FROM public.ai_usage_logs l), until_hour);
    END IF;
    summed_to := least(reached + interval '24 hours', until_hour);
    WITH sums AS (
        SELECT date_trunc('hour', l.created_at, 'UTC') AS bucket, l.provider, coalesce(l.model, '') AS model, count(*) AS requests,
            sum(l.input_tokens) AS input_tokens, sum(l.output_tokens) AS output_tokens, sum(l.cached_tokens) AS cached_tokens,
            sum(coalesce(l.tokens_used::numeric, l.input_tokens::numeric + l.output_tokens)) AS total_tokens, sum(l.cost_nano_usd) AS cost_nano_usd
        FROM public.ai_usage_logs l
        WHERE l.created_at >= reached - interval '24 hours' AND l.created_at < summed_to
        GROUP BY 1, 2, 3
    )
    INSERT INTO public.ai_usage_totals AS t (bucket, provider, model, requests, input_tokens, output_tokens, cached_tokens, total_tokens, cost_nano_usd)
    SELECT s.bucket, s.provider, s.model, s.requests, s.input_tokens, s.output_tokens, s.cached_tokens, s.total_tokens, s.cost_nano_usd FROM sums s
    ON CONFLICT (bucket, provider, model) DO UPDATE SET requests = EXCLUDED.requests, input_tokens = EXCLUDED.input_tokens,
        output_tokens = EXCLUDED.output_tokens, cached_tokens = EXCLUDED.cached_tokens, total_tokens = EXCLUDED.total_tokens,
        cost_nano_usd = EXCLUDED.cost_nano_usd
        -- Logs of a deleted profile may be gone; what everybody used was used.
        WHERE EXCLUDED.requests >= t.requests
            AND (t.requests, t.input_tokens, t.output_tokens, t.cached_tokens, t.total_tokens, t.cost_nano_usd) IS DISTINCT FROM
                (EXCLUDED.requests, EXCLUDED.input_tokens, EXCLUDED.output_tokens, EXCLUDED.cached_tokens, EXCLUDED.total_tokens, EXCLUDED.cost_nano_usd);
    IF summed_to < until_hour THEN
        summed_to := least(coalesce((SELECT date_trunc('hour', min(l.created_at), 'UTC') FROM public.ai_usage_logs l
            WHERE l.created_at >= summed_to), until_hour), until_hour);
    END IF;
    UPDATE public.rollup_watermarks SET reached_at = summed_to WHERE name = 'ai_usage_logs';
    RETURN ceil(extract(epoch FROM until_hour - summed_to) / 3600);
END
$function$;

CREATE OR REPLACE FUNCTION public.roll_up_usage()
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    seen pg_snapshot := pg_catalog.pg_current_snapshot();
    -- The transaction of the caller writes no event.
    ended_below xid8 := coalesce((SELECT x.id FROM pg_catalog.pg_snapshot_xip(seen) AS x (id)
        WHERE x.id IS DISTINCT FROM pg_catalog.pg_current_xact_id_if_assigned() ORDER BY x.id LIMIT 1), pg_catalog.pg_snapshot_xmax(seen));
    begun_below xid8;
    this_hour timestamptz := pg_catalog.date_trunc('hour', CURRENT_TIMESTAMP, 'UTC');
    until_hour timestamptz := pg_catalog.date_trunc('hour', CURRENT_TIMESTAMP - interval '5 minutes', 'UTC');
    old public.rollup_watermarks;
    mark public.rollup_watermarks;
    has_fallen boolean;
    final_to timestamptz;
    again_to timestamptz;
BEGIN
    PERFORM FROM public.product_base_locks l WHERE l.name = 'roll_up_usage' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- Its own id: who has none yet gets a later one. The end of a snapshot would not do, since it is the first id after the
    -- last one that has ended.
    begun_below := pg_catalog.pg_current_xact_id();
    SELECT w.* INTO old FROM public.rollup_watermarks w WHERE w.name = 'usage_events';
    old.reached_at := coalesce(old.reached_at, public.first_usage_hour('-infinity'), until_hour);
    -- Before there was a fence, the hour before the watermark was summed once more.
    old.final_at := least(coalesce(old.final_at, old.reached_at - interval '1 hour'), old.reached_at);
    mark := old;
    -- An id that no transaction of this cluster has had came with a copy of another cluster, whose transactions are over.
    has_fallen := ended_below >= old.fence_xid OR old.fence_xid > begun_below;

    IF old.reached_at < until_hour THEN
        mark.reached_at := least(old.reached_at + interval '24 hours', until_hour);
        PERFORM public.sum_usage_hours(
            CASE WHEN has_fallen THEN old.reached_at ELSE greatest(old.final_at - interval '1 hour', old.reached_at - interval '24 hours') END,
            mark.reached_at);
        IF mark.reached_at < until_hour THEN
            mark.reached_at := least(coalesce(public.first_usage_hour(mark.reached_at), until_hour), until_hour);
        END IF;
    END IF;

    IF has_fallen THEN
        final_to := least(pg_catalog.date_trunc('hour', old.fence_at, 'UTC'), mark.reached_at);
        -- What was summed just now needs no second time.
        again_to := least(final_to, old.reached_at, old.final_at + interval '24 hours');
        IF again_to > old.final_at - interval '1 hour' AND final_to > old.final_at THEN
            PERFORM public.sum_usage_hours(old.final_at - interval '1 hour', again_to);
            IF again_to < least(final_to, old.reached_at) THEN
                again_to := least(coalesce(public.first_usage_hour(again_to), final_to), final_to, old.reached_at);
            END IF;
        END IF;
        mark.final_at := greatest(old.final_at, CASE
            WHEN again_to < least(final_to, old.reached_at) THEN again_to ELSE final_to END);
    END IF;
    IF old.fence_xid IS NULL OR (has_fallen AND mark.final_at >= final_to AND old.fence_at < this_hour) THEN
        mark.fence_at := CURRENT_TIMESTAMP;
        mark.fence_xid := begun_below;
    END IF;

    INSERT INTO public.rollup_watermarks AS w (name, reached_at, final_at, fence_at, fence_xid)
    VALUES ('usage_events', mark.reached_at, mark.final_at, mark.fence_at, mark.fence_xid)
    ON CONFLICT (name) DO UPDATE SET reached_at = greatest(w.reached_at, EXCLUDED.reached_at), final_at = EXCLUDED.final_at,
        fence_at = EXCLUDED.fence_at, fence_xid = EXCLUDED.fence_xid
    WHERE (w.reached_at, w.final_at, w.fence_at, w.fence_xid)
        IS DISTINCT FROM (EXCLUDED.reached_at, EXCLUDED.final_at, EXCLUDED.fence_at, EXCLUDED.fence_xid);
    RETURN pg_catalog.ceil(extract(epoch FROM until_hour - mark.reached_at) / 3600);
END
$function$;

CREATE OR REPLACE FUNCTION public.seal_usage(OUT sealed boolean, OUT findings jsonb)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    until_hour timestamptz := (SELECT coalesce(w.final_at, w.reached_at) - interval '48 hours' FROM public.rollup_watermarks w WHERE w.name = 'usage_events');
    seal_from timestamptz := (SELECT max(s.hours_to) FROM public.usage_seals s);
    seal_to timestamptz;
BEGIN
    sealed := false;
    findings := '[]';
    seal_from := coalesce(seal_from, (SELECT min(r.bucket) FROM public.usage_rollups r));
    IF until_hour IS NULL OR seal_from IS NULL OR seal_from >= until_hour THEN
        RETURN;
    END IF;
    seal_to := least(seal_from + interval '24 hours', until_hour);
    IF NOT EXISTS (SELECT FROM public.usage_rollups r WHERE r.bucket >= seal_from AND r.bucket < seal_to)
        AND NOT EXISTS (SELECT FROM public.usage_events e WHERE e.created_at >= seal_from AND e.created_at < seal_to) THEN
        -- Nothing was used for a day: on to where something was.
        seal_to := greatest(seal_to, least(until_hour, coalesce(least((SELECT min(r.bucket) FROM public.usage_rollups r WHERE r.bucket >= seal_from),
            public.first_usage_hour(seal_from)), until_hour)));
    END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_object('finding', 'ROLLUP_MISMATCH', 'subject', d.user_id || ':' || d.feature_id, 'detail',
        'the hour from ' || d.bucket || ' cannot be sealed: its sum says ' || d.summed || ', its events ' || d.used)), '[]') INTO findings
    FROM (
        SELECT coalesce(r.user_id, e.user_id) AS user_id, coalesce(r.feature_id, e.feature_id) AS feature_id, coalesce(r.bucket, e.bucket) AS bucket,
            coalesce(r.amount, 0) AS summed, coalesce(e.amount, 0) AS used
        FROM (SELECT s.* FROM public.usage_rollups s WHERE s.bucket >= seal_from AND s.bucket < seal_to) r
        FULL JOIN (
            SELECT v.user_id, v.feature_id, v.period, v.period_start, date_trunc('hour', v.created_at, 'UTC') AS bucket,
                sum(v.amount) AS amount, sum(v.overage) AS overage, count(*) AS events
            FROM public.usage_events v WHERE v.created_at >= seal_from AND v.created_at < seal_to GROUP BY 1, 2, 3, 4, 5
        ) e ON e.user_id = r.user_id AND e.feature_id = r.feature_id AND e.period = r.period AND e.period_start = r.period_start AND e.bucket = r.bucket
        WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (e.amount, e.overage, e.events)
          -- Sums without events are right where their month was dropped.
          AND (e.user_id IS NOT NULL OR date_trunc('month', r.bucket, 'UTC') IN (SELECT m.month_start FROM public.usage_months() m))
        LIMIT 100
    ) d;
    IF findings <> '[]' THEN
        RETURN;
    END IF;
    INSERT INTO public.sealed_usage AS u (user_id, feature_id, period, period_start, amount, overage)
    SELECT r.user_id, r.feature_id, r.period, r.period_start, sum(r.amount), sum(r.overage)
    FROM public.usage_rollups r WHERE r.bucket >= seal_from AND r.bucket < seal_to GROUP BY 1, 2, 3, 4
    ON CONFLICT (user_id, feature_id, period, period_start)
        DO UPDATE SET amount = u.amount + EXCLUDED.amount, overage = u.overage + EXCLUDED.overage;
    INSERT INTO public.usage_seals (hours_from, hours_to, amount, overage, events)
    SELECT seal_from, seal_to, coalesce(sum(r.amount), 0), coalesce(sum(r.overage), 0), coalesce(sum(r.events), 0)
    FROM public.usage_rollups r WHERE r.bucket >= seal_from AND r.bucket < seal_to;
    sealed := true;
END
$function$;

CREATE OR REPLACE FUNCTION public.set_subscription_times()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    old_since timestamptz := CASE WHEN TG_OP = 'UPDATE' THEN OLD.past_due_since END;
    old_ended timestamptz := CASE WHEN TG_OP = 'UPDATE' THEN OLD.ended_at END;
    old_recorded timestamptz := CASE WHEN TG_OP = 'UPDATE' THEN OLD.end_recorded_at END;
    entered boolean := TG_OP = 'INSERT' OR OLD.status IS DISTINCT FROM NEW.status;
BEGIN
    IF NEW.status = 'past_due' THEN
        IF NEW.past_due_since IS NULL OR (entered AND NEW.past_due_since IS NOT DISTINCT FROM old_since) THEN
            NEW.past_due_since := CASE WHEN NOT entered THEN old_since END;
            NEW.past_due_since := coalesce(NEW.past_due_since, least(NEW.current_period_start, CURRENT_TIMESTAMP));
        END IF;
        NEW.ended_at := NULL;
        NEW.end_recorded_at := NULL;
    ELSIF NEW.status IN ('canceled', 'unpaid', 'incomplete_expired') THEN
        -- From one dead status to another (unpaid, then canceled) it ended only once.
        NEW.ended_at := coalesce(NEW.ended_at, old_ended, clock_timestamp());
        NEW.end_recorded_at := coalesce(old_recorded, clock_timestamp());
    ELSE
        NEW.past_due_since := NULL;
        NEW.ended_at := NULL;
        NEW.end_recorded_at := NULL;
    END IF;
    NEW.is_duplicate := NEW.status IN ('trialing', 'active', 'past_due') AND EXISTS (
        SELECT FROM public.user_subscriptions o
        WHERE o.user_id = NEW.user_id AND o.id <> NEW.id AND o.status IN ('trialing', 'active', 'past_due') AND NOT o.is_duplicate);
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.sum_calls_before(p_moment timestamp with time zone)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    IF EXISTS (SELECT FROM public.rollup_watermarks w WHERE w.name = 'ai_usage_logs' AND w.reached_at >= p_moment) THEN
        RETURN NULL;
    END IF;
    RETURN 'summed calls, ' || public.roll_up_ai_usage() || ' hours are left';
END
$function$;

CREATE OR REPLACE FUNCTION public.sum_partition(p_partition text, p_month_start timestamp with time zone, p_month_end timestamp with time zone)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    mark text := 'sums of ' || p_partition;
    reached timestamptz := coalesce((SELECT w.reached_at FROM public.rollup_watermarks w WHERE w.name = mark), p_month_start);
    until timestamptz := least(reached + interval '24 hours', p_month_end);
BEGIN
    IF reached >= p_month_end THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        'INSERT INTO public.usage_rollups AS r (user_id, feature_id, period, period_start, bucket, amount, overage, events)
         SELECT user_id, feature_id, period, period_start, date_trunc(''hour'', created_at, ''UTC''), sum(amount), sum(overage), count(*)
         FROM public.%I WHERE created_at >= $1 AND created_at < $2 GROUP BY 1, 2, 3, 4, 5
         ON CONFLICT (user_id, feature_id, period, period_start, bucket)
         DO UPDATE SET amount = EXCLUDED.amount, overage = EXCLUDED.overage, events = EXCLUDED.events
         WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (EXCLUDED.amount, EXCLUDED.overage, EXCLUDED.events)', p_partition)
        USING reached, until;
    INSERT INTO public.rollup_watermarks AS w (name, reached_at) VALUES (mark, until)
    ON CONFLICT (name) DO UPDATE SET reached_at = EXCLUDED.reached_at;
    RETURN 'summed ' || p_partition || ' up to ' || to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD');
END
$function$;

CREATE OR REPLACE FUNCTION public.sum_usage_hours(p_from timestamp with time zone, p_to timestamp with time zone)
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    INSERT INTO public.usage_rollups AS r (user_id, feature_id, period, period_start, bucket, amount, overage, events)
    SELECT e.user_id, e.feature_id, e.period, e.period_start, pg_catalog.date_trunc('hour', e.created_at, 'UTC'),
        sum(e.amount), sum(e.overage), count(*)
    FROM public.usage_events e
    WHERE e.created_at >= p_from AND e.created_at < p_to
    GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (user_id, feature_id, period, period_start, bucket)
        DO UPDATE SET amount = EXCLUDED.amount, overage = EXCLUDED.overage, events = EXCLUDED.events
        WHERE (r.amount, r.overage, r.events) IS DISTINCT FROM (EXCLUDED.amount, EXCLUDED.overage, EXCLUDED.events)
$function$;

CREATE OR REPLACE FUNCTION public.total_usage_rollups()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    come text := 'SELECT bucket, feature_id, period, period_start, amount, overage, events FROM come';
    gone text := 'SELECT bucket, feature_id, period, period_start, -amount AS amount, -overage AS overage, -events AS events FROM gone';
    changes text := CASE TG_OP WHEN 'INSERT' THEN come WHEN 'DELETE' THEN gone ELSE come || ' UNION ALL ' || gone END;
BEGIN
    EXECUTE 'INSERT INTO public.usage_totals AS t (bucket, feature_id, period, period_start, amount, overage, events)
        SELECT c.bucket, c.feature_id, c.period, c.period_start, sum(c.amount), sum(c.overage), sum(c.events)
        FROM (' || changes || ') c GROUP BY 1, 2, 3, 4
        HAVING (sum(c.amount), sum(c.overage), sum(c.events)) IS DISTINCT FROM (0, 0, 0)
        ORDER BY 1, 2, 3, 4
        ON CONFLICT (bucket, feature_id, period, period_start)
        DO UPDATE SET amount = t.amount + EXCLUDED.amount, overage = t.overage + EXCLUDED.overage, events = t.events + EXCLUDED.events';
    IF TG_OP <> 'INSERT' THEN
        EXECUTE 'DELETE FROM public.usage_totals t USING (SELECT DISTINCT bucket, feature_id, period, period_start FROM gone) g
            WHERE t.events = 0 AND t.bucket = g.bucket AND t.feature_id = g.feature_id AND t.period = g.period AND t.period_start = g.period_start';
    END IF;
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION public.update_updated_at_column()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    NEW.updated_at = CURRENT_TIMESTAMP;
    RETURN NEW;
END
$function$;

CREATE OR REPLACE FUNCTION public.usage_decision(p_user_id uuid, p_feature_id text, p_amount bigint)
 RETURNS TABLE(reason text, used bigint, limit_value bigint, remaining bigint, reserved bigint, may_cost_tokens boolean, kind character varying, plan_id character varying, source text, period character varying, period_start timestamp with time zone, period_end timestamp with time zone, as_of timestamp with time zone)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT
        CASE
            WHEN NOT e.feature_active OR (e.source = 'override' AND NOT e.enabled) THEN 'feature_disabled'
            WHEN NOT e.enabled AND lapsed.plan_id <> e.plan_id THEN 'subscription_inactive'
            WHEN NOT e.enabled THEN 'feature_not_in_plan'
            WHEN l.remaining IS NULL OR p_amount <= l.remaining THEN 'ok'
            WHEN e.overage = 'block' THEN 'limit_reached'
            WHEN p_amount - l.remaining <= e.token_balance - e.token_reserved THEN 'ok'
            ELSE 'insufficient_tokens'
        END,
        e.used, e.limit_value, l.remaining, e.reserved,
        e.feature_active AND e.enabled AND e.limit_value IS NOT NULL AND e.overage = 'tokens',
        e.kind, e.plan_id, e.source, e.limit_period, e.period_start, e.period_end, e.as_of
    FROM public.feature_entitlement(p_user_id, p_feature_id) e
    LEFT JOIN LATERAL public.lapsed_subscription(p_user_id, p_feature_id) lapsed ON true
    -- numeric, since a counter at the end of its range and a hold add up to more than a bigint holds.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN e.limit_value IS NOT NULL
            THEN greatest(0, e.limit_value - (e.used::numeric - e.counter_overage + e.reserved))::bigint END AS remaining
    ) l
$function$;

CREATE OR REPLACE FUNCTION public.usage_months()
 RETURNS TABLE(month_start timestamp with time zone, partition text)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT pg_catalog.to_date(pg_catalog.right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC', c.relname::text
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.usage_events'::pg_catalog.regclass AND c.relname ~ '^usage_events_\d{4}_\d{2}$'
$function$;

CREATE OR REPLACE FUNCTION public.usage_period_end(p_period text, p_anchor timestamp with time zone, p_at timestamp with time zone)
 RETURNS timestamp with time zone
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT CASE p_period
        WHEN 'day' THEN (date_trunc('day', p_at AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC'
        WHEN 'month' THEN (date_trunc('month', p_at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
        WHEN 'billing_period' THEN
            (p_anchor AT TIME ZONE 'UTC' + make_interval(months => public.usage_period_index(p_anchor, p_at) + 1)) AT TIME ZONE 'UTC'
    END
$function$;

CREATE OR REPLACE FUNCTION public.usage_period_index(p_anchor timestamp with time zone, p_at timestamp with time zone)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT m.months - CASE WHEN m.anchor + make_interval(months => m.months) > m.at THEN 1 ELSE 0 END
    FROM (
        SELECT a.anchor, a.at,
            ((date_part('year', a.at) - date_part('year', a.anchor)) * 12
                + date_part('month', a.at) - date_part('month', a.anchor))::integer AS months
        FROM (SELECT p_anchor AT TIME ZONE 'UTC' AS anchor, p_at AT TIME ZONE 'UTC' AS at) a
    ) m
$function$;

CREATE OR REPLACE FUNCTION public.usage_period_start(p_period text, p_anchor timestamp with time zone, p_at timestamp with time zone)
 RETURNS timestamp with time zone
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT CASE p_period
        WHEN 'day' THEN date_trunc('day', p_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
        WHEN 'month' THEN date_trunc('month', p_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
        WHEN 'billing_period' THEN
            (p_anchor AT TIME ZONE 'UTC' + make_interval(months => public.usage_period_index(p_anchor, p_at))) AT TIME ZONE 'UTC'
        WHEN 'lifetime' THEN timestamp '1970-01-01 00:00:00' AT TIME ZONE 'UTC'
    END
$function$;

CREATE OR REPLACE FUNCTION public.usage_tally(p_user_id uuid, p_feature_id text, p_period text, p_period_start timestamp with time zone, p_at timestamp with time zone)
 RETURNS TABLE(used bigint, reserved bigint, overage bigint)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT
        CASE WHEN n.superseded IS FALSE THEN n.used ELSE coalesce(n.used, 0) + greatest(0, coalesce((
            SELECT max(o.used - o.overage) FROM public.usage_counters o
            WHERE o.user_id = p_user_id AND o.feature_id = p_feature_id AND NOT o.superseded AND o.period_start <= p_at
              AND coalesce(o.period_end, public.usage_period_end(o.period, o.period_start, o.period_start), 'infinity') > p_at
        ), 0) - coalesce(n.used - n.overage, 0)) END,
        coalesce(n.reserved, 0), coalesce(n.overage, 0)
    FROM (SELECT) one
    LEFT JOIN public.usage_counters n ON n.user_id = p_user_id AND n.feature_id = p_feature_id
        AND n.period = p_period AND n.period_start = p_period_start
$function$;

-- Views

CREATE VIEW public.user_plan_summary WITH (security_invoker=true) AS
 SELECT u.id,
    public.identity_email(u.id) AS email,
    u.name,
    u.plan_id AS plan_type,
    COALESCE(us.status, 'active'::character varying)::character varying(20) AS plan_status,
    p.display_name AS plan_display_name,
    p.price_monthly,
    us.status AS subscription_status,
    us.current_period_end,
    us.trial_end,
    us.cancel_at_period_end
   FROM public.users u
     LEFT JOIN public.plans p ON p.id::text = u.plan_id::text
     LEFT JOIN public.user_subscriptions us ON us.user_id = u.id AND (us.status::text = ANY (ARRAY['active'::character varying, 'trialing'::character varying, 'past_due'::character varying]::text[])) AND NOT us.is_duplicate;

CREATE VIEW public.user_feature_access WITH (security_invoker=true) AS
 SELECT u.id AS user_id,
    public.identity_email(u.id) AS email,
    u.plan_id AS plan_type,
    f.id AS feature_id,
    f.display_name AS feature_name,
    COALESCE(o.enabled, pf.enabled, false) AS enabled,
        CASE
            WHEN o.user_id IS NOT NULL THEN o.limit_value
            WHEN pf.plan_id IS NOT NULL THEN pf.limit_value
            ELSE 0::bigint
        END AS limit_value
   FROM public.users u
     CROSS JOIN LATERAL public.effective_plan(u.id) e(plan_id, status, subscription_id, current_period_start, current_period_end, trial_end, cancel_at_period_end)
     CROSS JOIN public.features f
     LEFT JOIN public.plan_features pf ON pf.plan_id::text = e.plan_id::text AND pf.feature_id::text = f.id::text
     LEFT JOIN public.feature_overrides o ON o.user_id = u.id AND o.feature_id::text = f.id::text AND (o.expires_at IS NULL OR o.expires_at > now())
  WHERE f.is_active = true;

CREATE VIEW public.ai_usage_monthly WITH (security_invoker=true) AS
 SELECT l.user_id,
    date_trunc('month'::text, l.created_at, 'UTC'::text) AS usage_month,
    l.provider,
    count(*) AS request_count,
    sum(l.tokens_used)::bigint AS total_tokens,
    sum(
        CASE
            WHEN l.cost_nano_usd <> 0 THEN l.cost_nano_usd::numeric / 1000000000::numeric
            ELSE COALESCE(l.cost, 0::numeric)
        END)::numeric(20,9) AS total_cost
   FROM public.ai_usage_logs l
  GROUP BY l.user_id, (date_trunc('month'::text, l.created_at, 'UTC'::text)), l.provider;

CREATE VIEW public.integrity_findings WITH (security_invoker=true) AS
 SELECT f.finding,
    f.subject,
    f.detail
   FROM public.integrity_findings() f(finding, subject, detail);

-- Rights
GRANT DELETE, SELECT ON TABLE public.address_digests TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.ai_answers TO app_service;
GRANT INSERT, SELECT ON TABLE public.ai_providers TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.ai_usage_logs TO app_service;
GRANT INSERT, SELECT ON TABLE public.ai_usage_logs TO app_user;
GRANT SELECT (id, user_id, provider, model, tokens_used, cost, input_tokens, output_tokens, cached_tokens, session_id, api_key_id, reservation_id, latency_ms, outcome, cost_nano_usd, price_version, usage, source, created_at, unpaid_tokens) ON TABLE public.ai_usage_logs TO authenticated;
GRANT SELECT ON TABLE public.ai_usage_logs TO readonly_user;
GRANT SELECT ON TABLE public.ai_usage_monthly TO app_service;
GRANT SELECT ON TABLE public.ai_usage_monthly TO authenticated;
GRANT SELECT ON TABLE public.ai_usage_monthly TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.ai_usage_totals TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.api_key_counters TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.api_keys TO app_service;
GRANT SELECT (id, user_id, key_prefix, last_four, name, permissions, on_behalf, is_active, last_used_at, expires_at, rotated_to, revoked_at, created_at, updated_at, requests_per_minute, tokens_per_minute, monthly_cost_nano_usd, lineage_id, makers) ON TABLE public.api_keys TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.api_usage TO app_service;
GRANT SELECT (id, api_id, "timestamp", request_count, response_time) ON TABLE public.api_usage TO authenticated;
GRANT INSERT, SELECT ON TABLE public.audit_logs TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.billing_records TO app_service;
GRANT SELECT (id, user_id, amount, currency, transaction_hash, kind, status, created_at) ON TABLE public.billing_records TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.chat_messages TO app_service;
GRANT SELECT (id, session_id, role, content, tokens, created_at, cost_nano_usd, model, usage_log_id, seq) ON TABLE public.chat_messages TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.chat_sessions TO app_service;
GRANT DELETE, SELECT (id, user_id, api_key_id, title, tokens_used, model, created_at, ended_at, updated_at, cost_nano_usd, system), UPDATE (title, ended_at, system) ON TABLE public.chat_sessions TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.deleted_profiles TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.feature_overrides TO app_service;
GRANT SELECT (user_id, feature_id, enabled, limit_value, reason, expires_at, created_at, updated_at) ON TABLE public.feature_overrides TO authenticated;
GRANT SELECT ON TABLE public.feature_overrides TO readonly_user;
GRANT SELECT (id, name, display_name, description, kind, unit, is_active, created_at, updated_at) ON TABLE public.features TO anon;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.features TO app_service;
GRANT SELECT ON TABLE public.features TO app_user;
GRANT SELECT (id, name, display_name, description, kind, unit, is_active, created_at, updated_at) ON TABLE public.features TO authenticated;
GRANT SELECT ON TABLE public.features TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.generated_apis TO app_service;
GRANT SELECT (id, user_id, name, description, code, endpoint, is_active, created_at, updated_at) ON TABLE public.generated_apis TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.idempotency_keys TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.idempotent_answers TO app_service;
GRANT SELECT ON TABLE public.integrity_findings TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.integrity_pieces TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.learning_progress TO app_service;
GRANT DELETE, INSERT (id, user_id, lesson_id, status, started_at, completed_at), SELECT (id, user_id, lesson_id, status, started_at, completed_at), UPDATE (id, user_id, lesson_id, status, started_at, completed_at) ON TABLE public.learning_progress TO authenticated;
GRANT SELECT ON TABLE public.ledger_heads TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.model_prices TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.organization_members TO app_service;
GRANT SELECT (organization_id, user_id, role, created_at) ON TABLE public.organization_members TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.organizations TO app_service;
GRANT SELECT (id, name, owner_id, created_at) ON TABLE public.organizations TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.outbox TO app_service;
GRANT SELECT (plan_id, feature_id, enabled, limit_value, limit_period, overage, created_at, updated_at) ON TABLE public.plan_features TO anon;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.plan_features TO app_service;
GRANT SELECT ON TABLE public.plan_features TO app_user;
GRANT SELECT (plan_id, feature_id, enabled, limit_value, limit_period, overage, created_at, updated_at) ON TABLE public.plan_features TO authenticated;
GRANT SELECT ON TABLE public.plan_features TO readonly_user;
GRANT SELECT (id, name, display_name, description, price_monthly, price_yearly, currency, stripe_price_id_monthly, stripe_price_id_yearly, is_active, created_at, updated_at) ON TABLE public.plans TO anon;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.plans TO app_service;
GRANT SELECT ON TABLE public.plans TO app_user;
GRANT SELECT (id, name, display_name, description, price_monthly, price_yearly, currency, stripe_price_id_monthly, stripe_price_id_yearly, is_active, created_at, updated_at) ON TABLE public.plans TO authenticated;
GRANT SELECT ON TABLE public.plans TO readonly_user;
GRANT SELECT ON TABLE public.product_base_migrations TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.refresh_tokens TO app_service;
GRANT SELECT ON TABLE public.replaceable_checksums TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.rollup_watermarks TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.runtime_settings TO app_service;
GRANT SELECT (name, value, updated_at) ON TABLE public.runtime_settings TO authenticated;
GRANT SELECT ON TABLE public.runtime_settings TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.scheduled_plan_changes TO app_service;
GRANT SELECT (user_id, plan_id, effective_at, reason, requested_by, created_at) ON TABLE public.scheduled_plan_changes TO authenticated;
GRANT SELECT ON TABLE public.scheduled_plan_changes TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.sealed_usage TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.second_factors TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.sessions TO app_service;
GRANT SELECT (id, user_id, kind, user_agent, created_at, last_seen_at, expires_at, revoked_at, authenticated_at, network_mark) ON TABLE public.sessions TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.signing_keys TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.stripe_events TO app_service;
GRANT INSERT, SELECT ON TABLE public.token_transactions TO app_service;
GRANT SELECT (id, user_id, amount, type, description, reference_id, balance_after, idempotency_key, seq, prev_hash, hash, created_at) ON TABLE public.token_transactions TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.tutorial_completion TO app_service;
GRANT DELETE, INSERT (id, user_id, tutorial_id, completion_percentage, last_accessed), SELECT (id, user_id, tutorial_id, completion_percentage, last_accessed), UPDATE (id, user_id, tutorial_id, completion_percentage, last_accessed) ON TABLE public.tutorial_completion TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.usage_alerts TO app_service;
GRANT SELECT (id, user_id, feature_id, period, period_start, threshold_percent, used, limit_value, acknowledged_at, created_at) ON TABLE public.usage_alerts TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.usage_counters TO app_service;
GRANT SELECT (user_id, feature_id, period, period_start, used, reserved, overage, carried, period_end, superseded) ON TABLE public.usage_counters TO authenticated;
GRANT SELECT ON TABLE public.usage_counters TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.usage_events TO app_service;
GRANT SELECT (id, user_id, feature_id, period, period_start, amount, overage, idempotency_key, api_key_id, reservation_id, created_at) ON TABLE public.usage_events TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.usage_reservations TO app_service;
GRANT SELECT (id, user_id, feature_id, period, period_start, amount, tokens_reserved, settled_amount, status, phase, idempotency_key, api_key_id, expires_at, settled_at, created_at, updated_at, overage, outcome, beyond) ON TABLE public.usage_reservations TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.usage_rollups TO app_service;
GRANT SELECT (user_id, feature_id, period, period_start, bucket, amount, overage, events) ON TABLE public.usage_rollups TO authenticated;
GRANT SELECT ON TABLE public.usage_rollups TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.usage_seals TO app_service;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.usage_totals TO app_service;
GRANT SELECT ON TABLE public.user_feature_access TO app_service;
GRANT SELECT ON TABLE public.user_feature_access TO authenticated;
GRANT SELECT ON TABLE public.user_feature_access TO readonly_user;
GRANT SELECT ON TABLE public.user_plan_summary TO app_service;
GRANT SELECT ON TABLE public.user_plan_summary TO authenticated;
GRANT SELECT ON TABLE public.user_plan_summary TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.user_subscriptions TO app_service;
GRANT INSERT, SELECT, UPDATE ON TABLE public.user_subscriptions TO app_user;
GRANT SELECT (id, user_id, plan_id, stripe_subscription_id, stripe_price_id, billing_interval, status, trial_start, trial_end, current_period_start, current_period_end, cancel_at_period_end, past_due_since, ended_at, created_at, updated_at, end_recorded_at, is_duplicate) ON TABLE public.user_subscriptions TO authenticated;
GRANT SELECT ON TABLE public.user_subscriptions TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.users TO app_service;
GRANT INSERT, SELECT, UPDATE ON TABLE public.users TO app_user;
GRANT SELECT (id, name, role, plan_id, plan_changed_at, stripe_customer_id, wallet_address, token_balance, token_reserved, created_at, updated_at), UPDATE (name, wallet_address) ON TABLE public.users TO authenticated;
GRANT SELECT ON TABLE public.users TO readonly_user;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.webhook_deliveries TO app_service;
GRANT SELECT (id, endpoint_id, event_type, payload, status, attempts, next_attempt_at, last_status, last_error, delivered_at, created_at) ON TABLE public.webhook_deliveries TO authenticated;
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.webhook_endpoints TO app_service;
GRANT SELECT (id, user_id, url, description, event_types, is_active, failure_count, disabled_at, created_at, updated_at) ON TABLE public.webhook_endpoints TO authenticated;
GRANT EXECUTE ON FUNCTION public.caller_role() TO app_service;
GRANT EXECUTE ON FUNCTION public.caller_role() TO authenticated;
GRANT EXECUTE ON FUNCTION public.caller_role() TO readonly_user;
GRANT EXECUTE ON FUNCTION public.check_feature_access(uuid,text) TO app_service;
GRANT EXECUTE ON FUNCTION public.check_feature_access(uuid,text) TO authenticated;
GRANT EXECUTE ON FUNCTION public.check_integrity_piece(text,interval) TO app_service;
GRANT EXECUTE ON FUNCTION public.check_usage_limit(uuid,text) TO app_service;
GRANT EXECUTE ON FUNCTION public.check_usage_limit(uuid,text) TO authenticated;
GRANT EXECUTE ON FUNCTION public.claim_integrity_piece(timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.consume_usage(uuid,text,bigint,text) TO app_service;
GRANT EXECUTE ON FUNCTION public.consume_usage(uuid,text,bigint,text) TO authenticated;
GRANT EXECUTE ON FUNCTION public.delete_usage_keys(interval,bigint) TO app_service;
GRANT EXECUTE ON FUNCTION public.effective_plan(uuid,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.effective_plan(uuid,timestamp with time zone) TO authenticated;
GRANT EXECUTE ON FUNCTION public.effective_plan(uuid,timestamp with time zone) TO readonly_user;
GRANT EXECUTE ON FUNCTION public.entitlement_changes_at(uuid,text,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.entitlement_changes_at(uuid,text,timestamp with time zone) TO authenticated;
GRANT EXECUTE ON FUNCTION public.feature_entitlement(uuid,text,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.feature_entitlement(uuid,text,timestamp with time zone) TO authenticated;
GRANT EXECUTE ON FUNCTION public.identity_credentials(text) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_delete(uuid) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_email(uuid) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_email(uuid) TO authenticated;
GRANT EXECUTE ON FUNCTION public.identity_email(uuid) TO readonly_user;
GRANT EXECUTE ON FUNCTION public.identity_exists(uuid) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_find(text) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_owns_address(uuid,text) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_register(uuid,text,text) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_set_password(uuid,text) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_states(uuid[]) TO app_service;
GRANT EXECUTE ON FUNCTION public.integrity_findings() TO app_service;
GRANT EXECUTE ON FUNCTION public.lapsed_subscription(uuid,text) TO app_service;
GRANT EXECUTE ON FUNCTION public.lapsed_subscription(uuid,text) TO authenticated;
GRANT EXECUTE ON FUNCTION public.ledger_hash(bytea,uuid,uuid,bigint,bigint,text,bigint,text,uuid,text,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.maintain_partitions() TO app_service;
GRANT EXECUTE ON FUNCTION public.member_organizations() TO authenticated;
GRANT EXECUTE ON FUNCTION public.open_usage_counter(uuid,text,text,timestamp with time zone,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.plan_in_force(uuid,character varying,timestamp with time zone,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.plan_in_force(uuid,character varying,timestamp with time zone,timestamp with time zone) TO authenticated;
GRANT EXECUTE ON FUNCTION public.plan_in_force(uuid,character varying,timestamp with time zone,timestamp with time zone) TO readonly_user;
GRANT EXECUTE ON FUNCTION public.request_actor() TO app_service;
GRANT EXECUTE ON FUNCTION public.request_actor() TO authenticated;
GRANT EXECUTE ON FUNCTION public.request_actor() TO readonly_user;
GRANT EXECUTE ON FUNCTION public.request_user_id() TO app_service;
GRANT EXECUTE ON FUNCTION public.request_user_id() TO authenticated;
GRANT EXECUTE ON FUNCTION public.request_user_id() TO readonly_user;
GRANT EXECUTE ON FUNCTION public.roll_up_ai_usage() TO app_service;
GRANT EXECUTE ON FUNCTION public.roll_up_usage() TO app_service;
GRANT EXECUTE ON FUNCTION public.usage_period_end(text,timestamp with time zone,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.usage_period_end(text,timestamp with time zone,timestamp with time zone) TO authenticated;
GRANT EXECUTE ON FUNCTION public.usage_period_end(text,timestamp with time zone,timestamp with time zone) TO readonly_user;
GRANT EXECUTE ON FUNCTION public.usage_period_index(timestamp with time zone,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.usage_period_index(timestamp with time zone,timestamp with time zone) TO authenticated;
GRANT EXECUTE ON FUNCTION public.usage_period_index(timestamp with time zone,timestamp with time zone) TO readonly_user;
GRANT EXECUTE ON FUNCTION public.usage_period_start(text,timestamp with time zone,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.usage_period_start(text,timestamp with time zone,timestamp with time zone) TO authenticated;
GRANT EXECUTE ON FUNCTION public.usage_period_start(text,timestamp with time zone,timestamp with time zone) TO readonly_user;
GRANT EXECUTE ON FUNCTION public.usage_tally(uuid,text,text,timestamp with time zone,timestamp with time zone) TO app_service;
GRANT EXECUTE ON FUNCTION public.usage_tally(uuid,text,text,timestamp with time zone,timestamp with time zone) TO authenticated;
