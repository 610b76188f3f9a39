-- Policies, one section per table, each in a transaction of its own (CREATE POLICY takes ACCESS EXCLUSIVE). Every
-- CREATE POLICY is preceded by its DROP POLICY IF EXISTS, which the runner writes. To remove a policy, write its DROP
-- POLICY IF EXISTS here. (select auth.uid()) is evaluated once per statement; auth.uid() once per row: 16 times slower
-- over a million rows.

-- @ plans
-- All roles see the plans on sale, and a user also the own plan when it is no longer sold. One policy per role: each
-- further one is evaluated for every row too.
CREATE POLICY plans_select_active ON public.plans FOR SELECT TO anon USING (is_active);
CREATE POLICY plans_select_own ON public.plans FOR SELECT TO authenticated USING (is_active OR id IN (
    SELECT u.plan_id FROM public.users u WHERE u.id = (select auth.uid())
    UNION ALL SELECT s.plan_id FROM public.user_subscriptions s WHERE s.user_id = (select auth.uid())));
CREATE POLICY plans_service ON public.plans TO app_service USING (true) WITH CHECK (true);
CREATE POLICY plans_readonly ON public.plans FOR SELECT TO readonly_user USING (true);

-- @ features
CREATE POLICY features_select_active ON public.features FOR SELECT TO anon, authenticated USING (is_active);
CREATE POLICY features_service ON public.features TO app_service USING (true) WITH CHECK (true);
CREATE POLICY features_readonly ON public.features FOR SELECT TO readonly_user USING (true);

-- @ plan_features
-- The plans and features used here are themselves read through their policies.
CREATE POLICY plan_features_select_visible ON public.plan_features FOR SELECT TO anon, authenticated
    USING (plan_id IN (SELECT p.id FROM public.plans p) AND feature_id IN (SELECT f.id FROM public.features f));
CREATE POLICY plan_features_service ON public.plan_features TO app_service USING (true) WITH CHECK (true);
CREATE POLICY plan_features_readonly ON public.plan_features FOR SELECT TO readonly_user USING (true);

-- @ users
CREATE POLICY users_select_own ON public.users FOR SELECT TO authenticated USING ((select auth.uid()) = id);
-- The columns that may be changed are granted one by one: name and wallet_address.
CREATE POLICY users_update_own ON public.users FOR UPDATE TO authenticated
    USING ((select auth.uid()) = id) WITH CHECK ((select auth.uid()) = id);
CREATE POLICY users_service ON public.users TO app_service USING (true) WITH CHECK (true);
CREATE POLICY users_readonly ON public.users FOR SELECT TO readonly_user USING (true);

-- @ deleted_profiles
CREATE POLICY deleted_profiles_service ON public.deleted_profiles TO app_service USING (true) WITH CHECK (true);

-- @ address_digests
CREATE POLICY address_digests_service ON public.address_digests TO app_service USING (true) WITH CHECK (true);

-- @ organizations
CREATE POLICY organizations_select_member ON public.organizations FOR SELECT TO authenticated
    USING (id IN (SELECT public.member_organizations()));
CREATE POLICY organizations_service ON public.organizations TO app_service USING (true) WITH CHECK (true);

-- @ organization_members
CREATE POLICY organization_members_select_member ON public.organization_members FOR SELECT TO authenticated
    USING (organization_id IN (SELECT public.member_organizations()));
CREATE POLICY organization_members_service ON public.organization_members TO app_service USING (true) WITH CHECK (true);

-- @ feature_overrides
CREATE POLICY feature_overrides_select_own ON public.feature_overrides FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY feature_overrides_service ON public.feature_overrides TO app_service USING (true) WITH CHECK (true);
CREATE POLICY feature_overrides_readonly ON public.feature_overrides FOR SELECT TO readonly_user USING (true);

-- @ sessions
CREATE POLICY sessions_select_own ON public.sessions FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY sessions_service ON public.sessions TO app_service USING (true) WITH CHECK (true);

-- @ refresh_tokens
CREATE POLICY refresh_tokens_service ON public.refresh_tokens TO app_service USING (true) WITH CHECK (true);

-- @ second_factors
CREATE POLICY second_factors_service ON public.second_factors TO app_service USING (true) WITH CHECK (true);

-- @ signing_keys
CREATE POLICY signing_keys_service ON public.signing_keys TO app_service USING (true) WITH CHECK (true);

-- @ runtime_settings
-- effective_plan runs as its caller and needs this policy.
CREATE POLICY runtime_settings_select_rules ON public.runtime_settings FOR SELECT TO authenticated USING (name = 'past_due_grace_days');
CREATE POLICY runtime_settings_service ON public.runtime_settings TO app_service USING (true) WITH CHECK (true);
CREATE POLICY runtime_settings_readonly ON public.runtime_settings FOR SELECT TO readonly_user USING (true);

-- @ replaceable_checksums
CREATE POLICY replaceable_checksums_service ON public.replaceable_checksums FOR SELECT TO app_service USING (true);

-- @ product_base_migrations
CREATE POLICY product_base_migrations_service ON public.product_base_migrations FOR SELECT TO app_service USING (true);

-- @ user_subscriptions
CREATE POLICY user_subscriptions_select_own ON public.user_subscriptions FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY user_subscriptions_service ON public.user_subscriptions TO app_service USING (true) WITH CHECK (true);
CREATE POLICY user_subscriptions_readonly ON public.user_subscriptions FOR SELECT TO readonly_user USING (true);

-- @ scheduled_plan_changes
CREATE POLICY scheduled_plan_changes_select_own ON public.scheduled_plan_changes FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY scheduled_plan_changes_service ON public.scheduled_plan_changes TO app_service USING (true) WITH CHECK (true);
CREATE POLICY scheduled_plan_changes_readonly ON public.scheduled_plan_changes FOR SELECT TO readonly_user USING (true);

-- @ stripe_events
CREATE POLICY stripe_events_service ON public.stripe_events TO app_service USING (true) WITH CHECK (true);

-- @ token_transactions
CREATE POLICY token_transactions_select_own ON public.token_transactions FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY token_transactions_service_select ON public.token_transactions FOR SELECT TO app_service USING (true);
CREATE POLICY token_transactions_service_insert ON public.token_transactions FOR INSERT TO app_service WITH CHECK (true);

-- @ billing_records
CREATE POLICY billing_records_select_own ON public.billing_records FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY billing_records_service ON public.billing_records TO app_service USING (true) WITH CHECK (true);

-- @ usage_counters
CREATE POLICY usage_counters_select_own ON public.usage_counters FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY usage_counters_service ON public.usage_counters TO app_service USING (true) WITH CHECK (true);
CREATE POLICY usage_counters_readonly ON public.usage_counters FOR SELECT TO readonly_user USING (true);

-- @ usage_events
CREATE POLICY usage_events_select_own ON public.usage_events FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY usage_events_service ON public.usage_events TO app_service USING (true) WITH CHECK (true);

-- @ usage_reservations
CREATE POLICY usage_reservations_select_own ON public.usage_reservations FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY usage_reservations_service ON public.usage_reservations TO app_service USING (true) WITH CHECK (true);

-- @ idempotency_keys
CREATE POLICY idempotency_keys_service ON public.idempotency_keys TO app_service USING (true) WITH CHECK (true);

-- @ idempotent_answers
CREATE POLICY idempotent_answers_service ON public.idempotent_answers TO app_service USING (true) WITH CHECK (true);

-- @ api_keys
CREATE POLICY api_keys_select_own ON public.api_keys FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY api_keys_service ON public.api_keys TO app_service USING (true) WITH CHECK (true);

-- @ api_key_counters
CREATE POLICY api_key_counters_service ON public.api_key_counters TO app_service USING (true) WITH CHECK (true);

-- @ generated_apis
CREATE POLICY generated_apis_select_own ON public.generated_apis FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY generated_apis_service ON public.generated_apis TO app_service USING (true) WITH CHECK (true);

-- @ api_usage
CREATE POLICY api_usage_select_own ON public.api_usage FOR SELECT TO authenticated
    USING (api_id IN (SELECT g.id FROM public.generated_apis g WHERE g.user_id = (select auth.uid())));
CREATE POLICY api_usage_service ON public.api_usage TO app_service USING (true) WITH CHECK (true);

-- @ ai_usage_logs
CREATE POLICY ai_usage_logs_select_own ON public.ai_usage_logs FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
-- The seed's policy; the right to INSERT is not granted, so that a user cannot write their own bill.
CREATE POLICY ai_usage_logs_insert_own ON public.ai_usage_logs FOR INSERT TO authenticated WITH CHECK ((select auth.uid()) = user_id);
CREATE POLICY ai_usage_logs_service ON public.ai_usage_logs TO app_service USING (true) WITH CHECK (true);
CREATE POLICY ai_usage_logs_readonly ON public.ai_usage_logs FOR SELECT TO readonly_user USING (true);

-- @ chat_sessions
CREATE POLICY chat_sessions_select_own ON public.chat_sessions FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY chat_sessions_update_own ON public.chat_sessions FOR UPDATE TO authenticated
    USING ((select auth.uid()) = user_id) WITH CHECK ((select auth.uid()) = user_id);
CREATE POLICY chat_sessions_delete_own ON public.chat_sessions FOR DELETE TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY chat_sessions_service ON public.chat_sessions TO app_service USING (true) WITH CHECK (true);

-- @ chat_messages
CREATE POLICY chat_messages_select_own ON public.chat_messages FOR SELECT TO authenticated
    USING (session_id IN (SELECT c.id FROM public.chat_sessions c WHERE c.user_id = (select auth.uid())));
CREATE POLICY chat_messages_service ON public.chat_messages TO app_service USING (true) WITH CHECK (true);

-- @ learning_progress
CREATE POLICY learning_progress_select_own ON public.learning_progress FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY learning_progress_insert_own ON public.learning_progress FOR INSERT TO authenticated WITH CHECK ((select auth.uid()) = user_id);
CREATE POLICY learning_progress_update_own ON public.learning_progress FOR UPDATE TO authenticated
    USING ((select auth.uid()) = user_id) WITH CHECK ((select auth.uid()) = user_id);
CREATE POLICY learning_progress_delete_own ON public.learning_progress FOR DELETE TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY learning_progress_service ON public.learning_progress TO app_service USING (true) WITH CHECK (true);

-- @ tutorial_completion
CREATE POLICY tutorial_completion_select_own ON public.tutorial_completion FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY tutorial_completion_insert_own ON public.tutorial_completion FOR INSERT TO authenticated WITH CHECK ((select auth.uid()) = user_id);
CREATE POLICY tutorial_completion_update_own ON public.tutorial_completion FOR UPDATE TO authenticated
    USING ((select auth.uid()) = user_id) WITH CHECK ((select auth.uid()) = user_id);
CREATE POLICY tutorial_completion_delete_own ON public.tutorial_completion FOR DELETE TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY tutorial_completion_service ON public.tutorial_completion TO app_service USING (true) WITH CHECK (true);

-- @ audit_logs
CREATE POLICY audit_logs_service_select ON public.audit_logs FOR SELECT TO app_service USING (true);
CREATE POLICY audit_logs_service_insert ON public.audit_logs FOR INSERT TO app_service WITH CHECK (true);

-- @ outbox
CREATE POLICY outbox_service ON public.outbox TO app_service USING (true) WITH CHECK (true);

-- @ usage_alerts
CREATE POLICY usage_alerts_select_own ON public.usage_alerts FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY usage_alerts_service ON public.usage_alerts TO app_service USING (true) WITH CHECK (true);

-- @ webhook_endpoints
CREATE POLICY webhook_endpoints_select_own ON public.webhook_endpoints FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY webhook_endpoints_service ON public.webhook_endpoints TO app_service USING (true) WITH CHECK (true);

-- @ webhook_deliveries
CREATE POLICY webhook_deliveries_select_own ON public.webhook_deliveries FOR SELECT TO authenticated
    USING (endpoint_id IN (SELECT w.id FROM public.webhook_endpoints w WHERE w.user_id = (select auth.uid())));
CREATE POLICY webhook_deliveries_service ON public.webhook_deliveries TO app_service USING (true) WITH CHECK (true);

-- @ usage_rollups
CREATE POLICY usage_rollups_select_own ON public.usage_rollups FOR SELECT TO authenticated USING ((select auth.uid()) = user_id);
CREATE POLICY usage_rollups_service ON public.usage_rollups TO app_service USING (true) WITH CHECK (true);
CREATE POLICY usage_rollups_readonly ON public.usage_rollups FOR SELECT TO readonly_user USING (true);

-- @ rollup_watermarks
CREATE POLICY rollup_watermarks_service ON public.rollup_watermarks TO app_service USING (true) WITH CHECK (true);

-- @ ai_providers
CREATE POLICY ai_providers_service_select ON public.ai_providers FOR SELECT TO app_service USING (true);
CREATE POLICY ai_providers_service_insert ON public.ai_providers FOR INSERT TO app_service WITH CHECK (true);

-- @ model_prices
CREATE POLICY model_prices_service ON public.model_prices TO app_service USING (true) WITH CHECK (true);

-- @ ai_answers
CREATE POLICY ai_answers_service ON public.ai_answers TO app_service USING (true) WITH CHECK (true);

-- @ usage_totals
CREATE POLICY usage_totals_service ON public.usage_totals TO app_service USING (true) WITH CHECK (true);

-- @ ai_usage_totals
CREATE POLICY ai_usage_totals_service ON public.ai_usage_totals TO app_service USING (true) WITH CHECK (true);

-- @ usage_seals
CREATE POLICY usage_seals_service ON public.usage_seals TO app_service USING (true) WITH CHECK (true);

-- @ sealed_usage
CREATE POLICY sealed_usage_service ON public.sealed_usage TO app_service USING (true) WITH CHECK (true);

-- @ integrity_pieces
CREATE POLICY integrity_pieces_service ON public.integrity_pieces TO app_service USING (true) WITH CHECK (true);

-- @ ledger_heads
-- A trigger of the ledger writes it, as the owner.
CREATE POLICY ledger_heads_service_select ON public.ledger_heads FOR SELECT TO app_service USING (true);
