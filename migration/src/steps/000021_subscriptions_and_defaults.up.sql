-- Subscriptions: by whose clock one ended, and a second live one beside the first. Defaults: two that tools cannot read.

-- When the end was written here. Stripe's ended_at is by another clock, and may be told late.
-- is_duplicate: another live subscription of the user counts already (trigger set_subscription_times).
ALTER TABLE public.user_subscriptions
    ADD COLUMN end_recorded_at timestamptz,
    ADD COLUMN is_duplicate boolean NOT NULL DEFAULT false;
DROP INDEX public.idx_user_subscriptions_live;
CREATE UNIQUE INDEX idx_user_subscriptions_live ON public.user_subscriptions (user_id)
    WHERE status IN ('trialing', 'active', 'past_due') AND NOT is_duplicate;

-- drizzle-kit writes `.default(')` and `.default(SESSION_USER)` for these, which is no TypeScript. Triggers fill them in.
ALTER TABLE public.model_prices ALTER COLUMN geo DROP DEFAULT;
ALTER TABLE public.audit_logs ALTER COLUMN actor_name DROP DEFAULT;
