-- Rights on tables, one section per table. The runner first revokes everything on the table and its partitions from
-- PUBLIC, anon, authenticated and our own roles, in the same transaction, since Supabase's default privileges grant ALL
-- on every new table to anon and authenticated. service_role has ALL by them too; from it the runner revokes TRIGGER
-- (its function would run as the writer of the row, the owner's functions included), TRUNCATE (no trigger sees it),
-- REFERENCES and MAINTAIN. The tables that our own promises depend on are read-only for it: see each section. Revoking
-- a right that does not exist has no effect, so plain Postgres ends the same. Columns are named one by one: a new
-- column is accessible to no role until it is named here. app_user gets what the seeds grant it; without a policy it
-- sees no row before SET ROLE.

-- @ plans
GRANT SELECT (id, name, display_name, description, price_monthly, price_yearly, currency, stripe_price_id_monthly,
    stripe_price_id_yearly, is_active, created_at, updated_at) ON public.plans TO anon, authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.plans TO app_service;
GRANT SELECT ON public.plans TO app_user;
GRANT SELECT ON public.plans TO readonly_user;

-- @ features
GRANT SELECT (id, name, display_name, description, kind, unit, is_active, created_at, updated_at) ON public.features TO anon, authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.features TO app_service;
GRANT SELECT ON public.features TO app_user;
GRANT SELECT ON public.features TO readonly_user;

-- @ plan_features
GRANT SELECT (plan_id, feature_id, enabled, limit_value, limit_period, overage, created_at, updated_at) ON public.plan_features TO anon, authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.plan_features TO app_service;
GRANT SELECT ON public.plan_features TO app_user;
GRANT SELECT ON public.plan_features TO readonly_user;

-- @ users
GRANT SELECT (id, name, role, plan_id, plan_changed_at, stripe_customer_id, wallet_address, token_balance, token_reserved,
    created_at, updated_at) ON public.users TO authenticated;
GRANT UPDATE (name, wallet_address) ON public.users TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.users TO app_service;
GRANT SELECT, INSERT, UPDATE ON public.users TO app_user;
GRANT SELECT ON public.users TO readonly_user;
-- Balances belong to the ledger. Changes of plan_id and role are audited.
DO $rights$ BEGIN
    IF pg_catalog.has_table_privilege('service_role', 'public.users', 'UPDATE') THEN
        REVOKE UPDATE ON public.users FROM service_role;
        GRANT UPDATE (name, role, plan_id, stripe_customer_id, wallet_address) ON public.users TO service_role;
    END IF;
END $rights$;

-- @ deleted_profiles
GRANT SELECT, INSERT, UPDATE, DELETE ON public.deleted_profiles TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.deleted_profiles FROM service_role;

-- @ address_digests
-- A trigger on users writes its rows.
GRANT SELECT, DELETE ON public.address_digests TO app_service;
REVOKE ALL ON public.address_digests FROM service_role;

-- @ organizations
GRANT SELECT (id, name, owner_id, created_at) ON public.organizations TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.organizations TO app_service;

-- @ organization_members
GRANT SELECT (organization_id, user_id, role, created_at) ON public.organization_members TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.organization_members TO app_service;

-- @ feature_overrides
GRANT SELECT (user_id, feature_id, enabled, limit_value, reason, expires_at, created_at, updated_at) ON public.feature_overrides TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.feature_overrides TO app_service;
GRANT SELECT ON public.feature_overrides TO readonly_user;

-- @ sessions
GRANT SELECT (id, user_id, kind, user_agent, created_at, last_seen_at, authenticated_at, network_mark,
    expires_at, revoked_at) ON public.sessions TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.sessions TO app_service;

-- @ refresh_tokens
GRANT SELECT, INSERT, UPDATE, DELETE ON public.refresh_tokens TO app_service;
-- Secrets or stored responses: for the service only.
REVOKE ALL ON public.refresh_tokens FROM service_role;

-- @ second_factors
GRANT SELECT, INSERT, UPDATE, DELETE ON public.second_factors TO app_service;
-- Secrets or stored responses: for the service only.
REVOKE ALL ON public.second_factors FROM service_role;

-- @ signing_keys
GRANT SELECT, INSERT, UPDATE, DELETE ON public.signing_keys TO app_service;
-- Secrets or stored responses: for the service only.
REVOKE ALL ON public.signing_keys FROM service_role;

-- @ runtime_settings
GRANT SELECT (name, value, updated_at) ON public.runtime_settings TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.runtime_settings TO app_service;
GRANT SELECT ON public.runtime_settings TO readonly_user;

-- @ replaceable_checksums
GRANT SELECT ON public.replaceable_checksums TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.replaceable_checksums FROM service_role;

-- @ product_base_migrations
GRANT SELECT ON public.product_base_migrations TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.product_base_migrations FROM service_role;

-- @ user_subscriptions
GRANT SELECT (id, user_id, plan_id, stripe_subscription_id, stripe_price_id, billing_interval, status, trial_start, trial_end,
    current_period_start, current_period_end, cancel_at_period_end, past_due_since, ended_at, end_recorded_at, is_duplicate, created_at,
    updated_at) ON public.user_subscriptions TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.user_subscriptions TO app_service;
GRANT SELECT, INSERT, UPDATE ON public.user_subscriptions TO app_user;
GRANT SELECT ON public.user_subscriptions TO readonly_user;

-- @ scheduled_plan_changes
GRANT SELECT (user_id, plan_id, effective_at, reason, requested_by, created_at) ON public.scheduled_plan_changes TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.scheduled_plan_changes TO app_service;
GRANT SELECT ON public.scheduled_plan_changes TO readonly_user;

-- @ stripe_events
GRANT SELECT, INSERT, UPDATE, DELETE ON public.stripe_events TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.stripe_events FROM service_role;

-- @ token_transactions
GRANT SELECT (id, user_id, amount, type, description, reference_id, balance_after, idempotency_key, seq, prev_hash, hash,
    created_at) ON public.token_transactions TO authenticated;
GRANT SELECT, INSERT ON public.token_transactions TO app_service;
-- Only this product writes the ledger.
REVOKE INSERT, UPDATE, DELETE ON public.token_transactions FROM service_role;

-- @ billing_records
GRANT SELECT (id, user_id, amount, currency, transaction_hash, kind, status, created_at) ON public.billing_records TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.billing_records TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.billing_records FROM service_role;

-- @ usage_counters
GRANT SELECT (user_id, feature_id, period, period_start, used, reserved, overage, carried, period_end, superseded)
    ON public.usage_counters TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_counters TO app_service;
GRANT SELECT ON public.usage_counters TO readonly_user;
REVOKE INSERT, UPDATE, DELETE ON public.usage_counters FROM service_role;

-- @ usage_events
GRANT SELECT (id, user_id, feature_id, period, period_start, amount, overage, idempotency_key, api_key_id, reservation_id,
    created_at) ON public.usage_events TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_events TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.usage_events FROM service_role;

-- @ usage_reservations
GRANT SELECT (id, user_id, feature_id, period, period_start, amount, beyond, tokens_reserved, settled_amount, overage, outcome,
    status, phase, idempotency_key, api_key_id, expires_at, settled_at, created_at, updated_at) ON public.usage_reservations TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_reservations TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.usage_reservations FROM service_role;

-- @ idempotency_keys
GRANT SELECT, INSERT, UPDATE, DELETE ON public.idempotency_keys TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.idempotency_keys FROM service_role;

-- @ idempotent_answers
GRANT SELECT, INSERT, UPDATE, DELETE ON public.idempotent_answers TO app_service;
-- Secrets or stored responses: for the service only.
REVOKE ALL ON public.idempotent_answers FROM service_role;

-- @ api_keys
GRANT SELECT (id, user_id, key_prefix, last_four, name, permissions, on_behalf, is_active, last_used_at, expires_at, rotated_to,
    revoked_at, requests_per_minute, tokens_per_minute, monthly_cost_nano_usd, lineage_id, makers, created_at, updated_at) ON public.api_keys TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.api_keys TO app_service;

-- @ api_key_counters
GRANT SELECT, INSERT, UPDATE, DELETE ON public.api_key_counters TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.api_key_counters FROM service_role;

-- @ generated_apis
GRANT SELECT (id, user_id, name, description, code, endpoint, is_active, created_at, updated_at) ON public.generated_apis TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.generated_apis TO app_service;

-- @ api_usage
GRANT SELECT (id, api_id, timestamp, request_count, response_time) ON public.api_usage TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.api_usage TO app_service;

-- @ ai_usage_logs
GRANT SELECT (id, user_id, provider, model, tokens_used, cost, input_tokens, output_tokens, cached_tokens, session_id,
    api_key_id, reservation_id, latency_ms, outcome, cost_nano_usd, unpaid_tokens, price_version, usage, source,
    created_at) ON public.ai_usage_logs TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.ai_usage_logs TO app_service;
GRANT SELECT, INSERT ON public.ai_usage_logs TO app_user;
GRANT SELECT ON public.ai_usage_logs TO readonly_user;
REVOKE INSERT, UPDATE, DELETE ON public.ai_usage_logs FROM service_role;

-- @ chat_sessions
GRANT SELECT (id, user_id, api_key_id, title, system, tokens_used, cost_nano_usd, model, created_at, updated_at, ended_at)
    ON public.chat_sessions TO authenticated;
GRANT UPDATE (title, system, ended_at) ON public.chat_sessions TO authenticated;
GRANT DELETE ON public.chat_sessions TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.chat_sessions TO app_service;

-- @ chat_messages
GRANT SELECT (id, session_id, role, content, tokens, cost_nano_usd, model, usage_log_id, seq, created_at) ON public.chat_messages TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.chat_messages TO app_service;
-- An identity column needs no right on its sequence; Supabase's default privileges grant one.
REVOKE ALL ON SEQUENCE public.chat_messages_seq_seq FROM PUBLIC, anon, authenticated, service_role;

-- @ learning_progress
GRANT SELECT (id, user_id, lesson_id, status, started_at, completed_at) ON public.learning_progress TO authenticated;
GRANT INSERT (id, user_id, lesson_id, status, started_at, completed_at) ON public.learning_progress TO authenticated;
-- The keys too: an upsert of PostgREST writes every column that it was sent. The policy limits it to the user's rows.
GRANT UPDATE (id, user_id, lesson_id, status, started_at, completed_at) ON public.learning_progress TO authenticated;
GRANT DELETE ON public.learning_progress TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.learning_progress TO app_service;

-- @ tutorial_completion
GRANT SELECT (id, user_id, tutorial_id, completion_percentage, last_accessed) ON public.tutorial_completion TO authenticated;
GRANT INSERT (id, user_id, tutorial_id, completion_percentage, last_accessed) ON public.tutorial_completion TO authenticated;
GRANT UPDATE (id, user_id, tutorial_id, completion_percentage, last_accessed) ON public.tutorial_completion TO authenticated;
GRANT DELETE ON public.tutorial_completion TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.tutorial_completion TO app_service;

-- @ audit_logs
GRANT SELECT, INSERT ON public.audit_logs TO app_service;
-- Only its triggers write the audit trail.
REVOKE INSERT, UPDATE, DELETE ON public.audit_logs FROM service_role;

-- @ outbox
GRANT SELECT, INSERT, UPDATE, DELETE ON public.outbox TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.outbox FROM service_role;

-- @ usage_alerts
GRANT SELECT (id, user_id, feature_id, period, period_start, threshold_percent, used, limit_value, acknowledged_at, created_at) ON public.usage_alerts TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_alerts TO app_service;

-- @ webhook_endpoints
GRANT SELECT (id, user_id, url, description, event_types, is_active, failure_count, disabled_at, created_at, updated_at) ON public.webhook_endpoints TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.webhook_endpoints TO app_service;

-- @ webhook_deliveries
GRANT SELECT (id, endpoint_id, event_type, payload, status, attempts, next_attempt_at, last_status, last_error, delivered_at,
    created_at) ON public.webhook_deliveries TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.webhook_deliveries TO app_service;

-- @ usage_rollups
GRANT SELECT (user_id, feature_id, period, period_start, bucket, amount, overage, events) ON public.usage_rollups TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_rollups TO app_service;
GRANT SELECT ON public.usage_rollups TO readonly_user;
REVOKE INSERT, UPDATE, DELETE ON public.usage_rollups FROM service_role;

-- @ rollup_watermarks
GRANT SELECT, INSERT, UPDATE, DELETE ON public.rollup_watermarks TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.rollup_watermarks FROM service_role;

-- @ ai_providers
GRANT SELECT, INSERT ON public.ai_providers TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.ai_providers FROM service_role;

-- @ model_prices
GRANT SELECT, INSERT, UPDATE, DELETE ON public.model_prices TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.model_prices FROM service_role;

-- @ ai_answers
GRANT SELECT, INSERT, UPDATE, DELETE ON public.ai_answers TO app_service;
-- Secrets or stored responses: for the service only.
REVOKE ALL ON public.ai_answers FROM service_role;

-- @ usage_totals
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_totals TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.usage_totals FROM service_role;

-- @ ai_usage_totals
GRANT SELECT, INSERT, UPDATE, DELETE ON public.ai_usage_totals TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.ai_usage_totals FROM service_role;

-- @ usage_seals
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_seals TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.usage_seals FROM service_role;

-- @ sealed_usage
GRANT SELECT, INSERT, UPDATE, DELETE ON public.sealed_usage TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.sealed_usage FROM service_role;

-- @ integrity_pieces
GRANT SELECT, INSERT, UPDATE, DELETE ON public.integrity_pieces TO app_service;
REVOKE INSERT, UPDATE, DELETE ON public.integrity_pieces FROM service_role;

-- @ ledger_heads
-- A trigger of the ledger writes its rows.
GRANT SELECT ON public.ledger_heads TO app_service;
REVOKE ALL ON public.ledger_heads FROM service_role;
