-- A second live subscription cannot be said without the column: it ends here, and Stripe's word brings it back.
UPDATE public.user_subscriptions SET status = 'canceled' WHERE is_duplicate AND status IN ('trialing', 'active', 'past_due');
DROP INDEX public.idx_user_subscriptions_live;
ALTER TABLE public.user_subscriptions DROP COLUMN is_duplicate, DROP COLUMN end_recorded_at;
CREATE UNIQUE INDEX idx_user_subscriptions_live ON public.user_subscriptions (user_id) WHERE status IN ('trialing', 'active', 'past_due');
ALTER TABLE public.model_prices ALTER COLUMN geo SET DEFAULT '';
ALTER TABLE public.audit_logs ALTER COLUMN actor_name SET DEFAULT session_user;
