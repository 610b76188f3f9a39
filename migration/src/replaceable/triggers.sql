-- Triggers, one section per table: a section is applied in a transaction of its own when its text has changed.
-- @ plans
CREATE OR REPLACE TRIGGER update_plans_updated_at BEFORE UPDATE ON public.plans
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER audit_plans AFTER INSERT OR UPDATE OR DELETE ON public.plans
    FOR EACH ROW EXECUTE FUNCTION public.audit_row('id');
CREATE OR REPLACE TRIGGER notify_plans AFTER INSERT OR UPDATE OR DELETE ON public.plans
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');

-- @ features
CREATE OR REPLACE TRIGGER update_features_updated_at BEFORE UPDATE ON public.features
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER audit_features AFTER INSERT OR UPDATE OR DELETE ON public.features
    FOR EACH ROW EXECUTE FUNCTION public.audit_row('id');
CREATE OR REPLACE TRIGGER notify_features AFTER INSERT OR UPDATE OR DELETE ON public.features
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');

-- @ plan_features
CREATE OR REPLACE TRIGGER update_plan_features_updated_at BEFORE UPDATE ON public.plan_features
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER audit_plan_features AFTER INSERT OR UPDATE OR DELETE ON public.plan_features
    FOR EACH ROW EXECUTE FUNCTION public.audit_row('plan_id,feature_id');
CREATE OR REPLACE TRIGGER notify_plan_features AFTER INSERT OR UPDATE OR DELETE ON public.plan_features
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');

-- @ users
-- The hot path changes only balances, which fires no AFTER trigger here.
CREATE OR REPLACE TRIGGER update_users_updated_at BEFORE UPDATE ON public.users
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER apply_users_tombstone BEFORE INSERT ON public.users
    FOR EACH ROW EXECUTE FUNCTION public.apply_tombstone();
CREATE OR REPLACE TRIGGER record_users_starting_balance AFTER INSERT ON public.users
    FOR EACH ROW WHEN (NEW.token_balance > 0)
    EXECUTE FUNCTION public.record_starting_balance();
CREATE OR REPLACE TRIGGER hand_over_users_organizations BEFORE DELETE ON public.users
    FOR EACH ROW EXECUTE FUNCTION public.hand_over_organizations();
CREATE OR REPLACE TRIGGER keep_users_tombstone AFTER DELETE ON public.users
    FOR EACH ROW EXECUTE FUNCTION public.keep_tombstone();
CREATE OR REPLACE TRIGGER check_user_plan_change BEFORE UPDATE ON public.users
    FOR EACH ROW WHEN (OLD.plan_id IS DISTINCT FROM NEW.plan_id)
    EXECUTE FUNCTION public.check_plan_change_consistency();
CREATE OR REPLACE TRIGGER audit_users_role AFTER UPDATE ON public.users
    FOR EACH ROW WHEN (OLD.role IS DISTINCT FROM NEW.role)
    EXECUTE FUNCTION public.audit_row('id', 'role');
CREATE OR REPLACE TRIGGER notify_users AFTER UPDATE ON public.users
    FOR EACH ROW WHEN (OLD.plan_id IS DISTINCT FROM NEW.plan_id OR OLD.role IS DISTINCT FROM NEW.role)
    EXECUTE FUNCTION public.notify_change('user', 'id');
CREATE OR REPLACE TRIGGER notify_users_deleted AFTER DELETE ON public.users
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'id');

-- @ feature_overrides
CREATE OR REPLACE TRIGGER update_feature_overrides_updated_at BEFORE UPDATE ON public.feature_overrides
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER audit_feature_overrides AFTER INSERT OR UPDATE OR DELETE ON public.feature_overrides
    FOR EACH ROW EXECUTE FUNCTION public.audit_row('user_id,feature_id');
CREATE OR REPLACE TRIGGER notify_feature_overrides AFTER INSERT OR UPDATE OR DELETE ON public.feature_overrides
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'user_id');

-- @ runtime_settings
CREATE OR REPLACE TRIGGER update_runtime_settings_updated_at BEFORE UPDATE ON public.runtime_settings
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER notify_runtime_settings AFTER INSERT OR UPDATE OR DELETE ON public.runtime_settings
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');

-- @ user_subscriptions
CREATE OR REPLACE TRIGGER update_user_subscriptions_updated_at BEFORE UPDATE ON public.user_subscriptions
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER set_user_subscriptions_times BEFORE INSERT OR UPDATE ON public.user_subscriptions
    FOR EACH ROW EXECUTE FUNCTION public.set_subscription_times();
-- When a live subscription ends or is deleted, another one is promoted. Other changes need nothing.
CREATE OR REPLACE TRIGGER promote_user_subscriptions AFTER UPDATE OF status ON public.user_subscriptions
    FOR EACH ROW WHEN (OLD.status IN ('trialing', 'active', 'past_due') AND NOT OLD.is_duplicate
        AND NEW.status NOT IN ('trialing', 'active', 'past_due'))
    EXECUTE FUNCTION public.promote_subscription();
CREATE OR REPLACE TRIGGER promote_user_subscriptions_deleted AFTER DELETE ON public.user_subscriptions
    FOR EACH ROW WHEN (OLD.status IN ('trialing', 'active', 'past_due') AND NOT OLD.is_duplicate)
    EXECUTE FUNCTION public.promote_subscription();
-- Stripe still charges for a subscription whose row was deleted with its user: the audit trail keeps which one it was.
CREATE OR REPLACE TRIGGER audit_user_subscriptions_deleted AFTER DELETE ON public.user_subscriptions
    FOR EACH ROW WHEN (OLD.stripe_subscription_id IS NOT NULL AND OLD.status IN ('trialing', 'active', 'past_due'))
    EXECUTE FUNCTION public.audit_row('id', 'user_id,plan_id,stripe_subscription_id,status,current_period_end');
CREATE OR REPLACE TRIGGER notify_user_subscriptions AFTER INSERT OR UPDATE OR DELETE ON public.user_subscriptions
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'user_id');

-- @ scheduled_plan_changes
CREATE OR REPLACE TRIGGER notify_scheduled_plan_changes AFTER INSERT OR UPDATE OR DELETE ON public.scheduled_plan_changes
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('user', 'user_id');

-- @ token_transactions
CREATE OR REPLACE TRIGGER chain_token_transactions BEFORE INSERT ON public.token_transactions
    FOR EACH ROW EXECUTE FUNCTION public.chain_token_transaction();
CREATE OR REPLACE TRIGGER note_token_transactions_head AFTER INSERT ON public.token_transactions
    FOR EACH ROW EXECUTE FUNCTION public.note_ledger_head();
CREATE OR REPLACE TRIGGER refuse_token_transactions_update BEFORE UPDATE ON public.token_transactions
    FOR EACH ROW EXECUTE FUNCTION public.refuse_update();

-- @ usage_reservations
CREATE OR REPLACE TRIGGER update_usage_reservations_updated_at BEFORE UPDATE ON public.usage_reservations
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

-- @ api_keys
-- last_used_at is written in batches and is not part of any cached snapshot.
CREATE OR REPLACE TRIGGER update_api_keys_updated_at BEFORE UPDATE ON public.api_keys
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE OR REPLACE TRIGGER notify_api_keys AFTER UPDATE ON public.api_keys
    FOR EACH ROW WHEN (
        (OLD.key_hash, OLD.permissions, OLD.on_behalf, OLD.is_active, OLD.expires_at, OLD.rotated_to, OLD.revoked_at,
            OLD.requests_per_minute, OLD.tokens_per_minute, OLD.monthly_cost_nano_usd)
        IS DISTINCT FROM (NEW.key_hash, NEW.permissions, NEW.on_behalf, NEW.is_active, NEW.expires_at, NEW.rotated_to, NEW.revoked_at,
            NEW.requests_per_minute, NEW.tokens_per_minute, NEW.monthly_cost_nano_usd)
    )
    EXECUTE FUNCTION public.notify_change('key', 'id');
-- A key's limits also apply to the keys that it made, so cached entries of all keys of the user are stale.
CREATE OR REPLACE TRIGGER notify_api_keys_limits AFTER UPDATE ON public.api_keys
    FOR EACH ROW WHEN (
        (OLD.requests_per_minute, OLD.tokens_per_minute, OLD.monthly_cost_nano_usd)
        IS DISTINCT FROM (NEW.requests_per_minute, NEW.tokens_per_minute, NEW.monthly_cost_nano_usd)
    )
    EXECUTE FUNCTION public.notify_change('user', 'user_id');
CREATE OR REPLACE TRIGGER audit_api_keys_limits AFTER UPDATE ON public.api_keys
    FOR EACH ROW WHEN (
        (OLD.name, OLD.requests_per_minute, OLD.tokens_per_minute, OLD.monthly_cost_nano_usd)
        IS DISTINCT FROM (NEW.name, NEW.requests_per_minute, NEW.tokens_per_minute, NEW.monthly_cost_nano_usd)
    )
    EXECUTE FUNCTION public.audit_row('id', 'name,requests_per_minute,tokens_per_minute,monthly_cost_nano_usd');
CREATE OR REPLACE TRIGGER notify_api_keys_deleted AFTER DELETE ON public.api_keys
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('key', 'id');

-- @ generated_apis
CREATE OR REPLACE TRIGGER update_generated_apis_updated_at BEFORE UPDATE ON public.generated_apis
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

-- @ chat_sessions
CREATE OR REPLACE TRIGGER update_chat_sessions_updated_at BEFORE UPDATE ON public.chat_sessions
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

-- @ ai_usage_logs
CREATE OR REPLACE TRIGGER check_ai_usage_logs_provider BEFORE INSERT OR UPDATE OF provider ON public.ai_usage_logs
    FOR EACH ROW EXECUTE FUNCTION public.check_ai_provider();

-- @ model_prices
-- The rows that a release's catalogue adds (some hundred) are in the release and are not audited; prices that end, and
-- all prices of other sources, are.
CREATE OR REPLACE TRIGGER price_model_anywhere BEFORE INSERT ON public.model_prices
    FOR EACH ROW EXECUTE FUNCTION public.price_anywhere();
CREATE OR REPLACE TRIGGER audit_model_prices_added AFTER INSERT ON public.model_prices
    FOR EACH ROW WHEN (NEW.source IS DISTINCT FROM 'catalogue')
    EXECUTE FUNCTION public.audit_row('id');
CREATE OR REPLACE TRIGGER audit_model_prices AFTER UPDATE OR DELETE ON public.model_prices
    FOR EACH ROW EXECUTE FUNCTION public.audit_row('id');
CREATE OR REPLACE TRIGGER notify_model_prices AFTER INSERT OR UPDATE OR DELETE ON public.model_prices
    FOR EACH ROW EXECUTE FUNCTION public.notify_change('catalogue');

-- @ audit_logs
CREATE OR REPLACE TRIGGER name_audit_logs_actor BEFORE INSERT ON public.audit_logs
    FOR EACH ROW EXECUTE FUNCTION public.name_the_actor();
CREATE OR REPLACE TRIGGER refuse_audit_logs_update BEFORE UPDATE ON public.audit_logs
    FOR EACH ROW EXECUTE FUNCTION public.refuse_update();

-- @ webhook_endpoints
CREATE OR REPLACE TRIGGER update_webhook_endpoints_updated_at BEFORE UPDATE ON public.webhook_endpoints
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

-- @ usage_rollups
-- The sums of all users follow every change of the sums per user. They are recomputed here under a lock on those.
CREATE OR REPLACE TRIGGER total_usage_rollups_added AFTER INSERT ON public.usage_rollups
    REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION public.total_usage_rollups();
CREATE OR REPLACE TRIGGER total_usage_rollups_changed AFTER UPDATE ON public.usage_rollups
    REFERENCING OLD TABLE AS gone NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION public.total_usage_rollups();
CREATE OR REPLACE TRIGGER total_usage_rollups_removed AFTER DELETE ON public.usage_rollups
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.total_usage_rollups();
SELECT public.refill_usage_totals();
