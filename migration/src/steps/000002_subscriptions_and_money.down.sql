DROP TABLE public.billing_records;
DROP TABLE public.token_transactions;
DROP TABLE public.stripe_events;
DROP TABLE public.scheduled_plan_changes;
DROP TABLE public.user_subscriptions;
