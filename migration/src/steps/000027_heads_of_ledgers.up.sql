-- The last row of each user's ledger, kept outside of the ledger: a ledger that was cut short together with its balance, or
-- written anew from some row on, is found by it. A trigger on the ledger keeps it. It goes with the profile, as the ledger does.
CREATE TABLE public.ledger_heads (
    user_id uuid NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    balance bigint NOT NULL,
    CONSTRAINT ledger_heads_pkey PRIMARY KEY (user_id),
    CONSTRAINT check_ledger_head_seq CHECK (seq > 0)
) WITH (fillfactor = 70);
-- @ batches
INSERT INTO public.ledger_heads (user_id, seq, hash, balance)
SELECT t.user_id, t.seq, t.hash, t.balance_after
FROM (SELECT u.id FROM public.users u WHERE NOT EXISTS (SELECT FROM public.ledger_heads h WHERE h.user_id = u.id)
    AND EXISTS (SELECT FROM public.token_transactions e WHERE e.user_id = u.id) LIMIT 5000) u
CROSS JOIN LATERAL (SELECT r.* FROM public.token_transactions r WHERE r.user_id = u.id ORDER BY r.seq DESC LIMIT 1) t
ON CONFLICT (user_id) DO NOTHING;
