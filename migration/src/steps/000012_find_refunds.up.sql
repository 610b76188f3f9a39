-- A refund names the row of the use that it gives back; what was given back of it is summed under the user's lock, so
-- it must not take longer the longer the user's ledger is.
CREATE INDEX idx_token_transactions_refunds ON public.token_transactions (reference_id) WHERE type = 'refund';
