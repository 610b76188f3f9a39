-- Subscriptions: by whose clock one ended, and a second live one beside the first. Defaults: two that tools cannot read.

-- When the end was written here. Stripe's ended_at is by another clock, and may be told late.
-- is_duplicate: another live subscription of the user counts already (trigger set_subscription_times).
ALTER TABLE public.user_subscriptions
    ADD COLUMN end_recorded_at timestamptz,
    ADD COLUMN is_duplicate boolean NOT NULL DEFAULT false;
-- @ concurrently
CREATE UNIQUE INDEX CONCURRENTLY idx_user_subscriptions_counts ON public.user_subscriptions (user_id)
    WHERE status IN ('trialing', 'active', 'past_due') AND NOT is_duplicate;
-- @ transaction
-- It locks the table for as long as two entries of the catalogue take to write.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX public.idx_user_subscriptions_live;
-- squawk-ignore renaming-object
ALTER INDEX public.idx_user_subscriptions_counts RENAME TO idx_user_subscriptions_live;
-- @ transaction
-- drizzle-kit writes `.default(')` and `.default(SESSION_USER)` for these, which is no TypeScript. Triggers fill them in.
-- squawk-ignore ban-drop-default
ALTER TABLE public.model_prices ALTER COLUMN geo DROP DEFAULT;
-- @ transaction
-- squawk-ignore ban-drop-default
ALTER TABLE public.audit_logs ALTER COLUMN actor_name DROP DEFAULT;
