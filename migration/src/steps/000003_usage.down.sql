DROP TABLE public.idempotent_answers;
DROP TABLE public.idempotency_keys;
DROP TABLE public.usage_reservations;
DROP TABLE public.usage_events;
DROP TABLE public.usage_counters;
