-- The second factor of an account: a secret that is sealed under a key of the service, the last step of time whose code was
-- used, and what is left of the recovery codes, as marks that nobody can read. confirmed_at is NULL until a code was shown.
CREATE TABLE public.second_factors (
    user_id uuid NOT NULL,
    sealed_secret bytea NOT NULL,
    confirmed_at timestamptz,
    last_step bigint,
    recovery_marks text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT second_factors_pkey PRIMARY KEY (user_id),
    CONSTRAINT fk_second_factors_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_recovery_marks CHECK (cardinality(recovery_marks) <= 10)
);
