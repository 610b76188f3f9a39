-- Every list has the index of its order, and every sweep the index of what it removes.
-- @ concurrently
CREATE INDEX CONCURRENTLY idx_users_created_at ON public.users (created_at DESC, id DESC);
-- @ concurrently
CREATE INDEX CONCURRENTLY idx_api_keys_user_date ON public.api_keys (user_id, created_at DESC, id DESC);
-- @ concurrently
CREATE INDEX CONCURRENTLY idx_audit_logs_table_date ON public.audit_logs (table_name, created_at DESC, id DESC);
-- @ concurrently
CREATE INDEX CONCURRENTLY idx_model_prices_valid_from ON public.model_prices (valid_from DESC, id DESC);
-- @ concurrently
CREATE INDEX CONCURRENTLY idx_usage_reservations_ended ON public.usage_reservations (updated_at) WHERE status <> 'pending';
