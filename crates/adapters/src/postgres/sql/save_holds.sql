-- Reservations, created or changed under their locks: $1 ids, $2 users, $3 features, $4 periods, $5 their starts,
-- $6 amounts, $7 the part of it beyond the limit and $8 the tokens reserved for that part, $9 the settled amount (-1
-- for none yet), $10 overage, $11 status, $12 idempotency keys ('' for none), $13 API keys (all zeros for none),
-- $14 expiries, $15 results as JSON ('' for none), and for a model call $16 its phase and $17 its terms as JSON ('' for
-- none).
-- Rows are found by the primary key; the owner, the meter and the key of a reservation never change.
INSERT INTO usage_reservations AS r (id, user_id, feature_id, period, period_start, amount, beyond, tokens_reserved, settled_amount,
    overage, status, idempotency_key, api_key_id, expires_at, outcome, phase, detail)
SELECT h.id, h.user_id, h.feature_id, h.period, h.period_start, h.amount, h.beyond, h.tokens_reserved, nullif(h.settled_amount, -1),
    h.overage, h.status, nullif(h.key, ''), nullif(h.api_key_id, '00000000-0000-0000-0000-000000000000'), h.expires_at,
    nullif(h.outcome, '')::jsonb, h.phase, nullif(h.detail, '')::jsonb
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::uuid[], $14::timestamptz[], $15::text[], $16::text[], $17::text[])
    AS h (id, user_id, feature_id, period, period_start, amount, beyond, tokens_reserved, settled_amount, overage, status, key,
        api_key_id, expires_at, outcome, phase, detail)
ON CONFLICT (id) DO UPDATE SET
    amount = excluded.amount, beyond = excluded.beyond, tokens_reserved = excluded.tokens_reserved,
    settled_amount = excluded.settled_amount, overage = excluded.overage, status = excluded.status,
    expires_at = excluded.expires_at, outcome = excluded.outcome, detail = excluded.detail,
    settled_at = CASE WHEN excluded.status = 'pending' THEN r.settled_at ELSE now() END,
    phase = CASE WHEN excluded.status = 'settled' THEN 'settled' ELSE excluded.phase END
