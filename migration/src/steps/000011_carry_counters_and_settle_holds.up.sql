-- When a plan change or a new subscription moves the kind or the anchor of a period, the open period's use is carried
-- into the counter that follows it. carried is the part of used that came so and has no events of its own; the counter
-- that it came from is superseded, and is raised again if it ever comes back into force. period_end is what the
-- period's end was when the counter was made; NULL for a lifetime, and for counters made before this step.
ALTER TABLE public.usage_counters
    ADD COLUMN carried bigint NOT NULL DEFAULT 0,
    ADD COLUMN period_end timestamptz,
    ADD COLUMN superseded boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT check_usage_counter_carried CHECK (carried BETWEEN 0 AND used);

-- What the hold came to: overage is the part of settled_amount beyond it; outcome is the answer to whoever ended it,
-- so that a repeat of the same is answered the same.
ALTER TABLE public.usage_reservations
    ADD COLUMN overage bigint NOT NULL DEFAULT 0,
    ADD COLUMN outcome jsonb,
    ADD CONSTRAINT check_reservation_overage CHECK (overage >= 0);

-- When the hold that was made under the key would have ended, as it was answered first.
ALTER TABLE public.idempotency_keys ADD COLUMN hold_expires_at timestamptz;
