DROP TABLE public.ledger_heads;
