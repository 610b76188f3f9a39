ALTER TABLE public.idempotency_keys DROP COLUMN hold_expires_at;

ALTER TABLE public.usage_reservations
    DROP CONSTRAINT check_reservation_overage,
    DROP COLUMN outcome,
    DROP COLUMN overage;

ALTER TABLE public.usage_counters
    DROP CONSTRAINT check_usage_counter_carried,
    DROP COLUMN superseded,
    DROP COLUMN period_end,
    DROP COLUMN carried;
