-- Holds, made or changed under their locks: $1 ids, $2 users, $3 features, $4 periods, $5 their starts, $6 amounts, $7 the part
-- that lies on tokens, $8 what was settled (-1 for nothing yet), $9 overage, $10 status, $11 keys ('' for none), $12 API keys
-- (all zeros for none), $13 ends, $14 answers as JSON ('' for none). Through the primary key; who made a hold, where and
-- under which key never changes.
INSERT INTO usage_reservations AS r (id, user_id, feature_id, period, period_start, amount, tokens_reserved, settled_amount, overage,
    status, idempotency_key, api_key_id, expires_at, outcome)
SELECT h.id, h.user_id, h.feature_id, h.period, h.period_start, h.amount, h.tokens_reserved, nullif(h.settled_amount, -1), h.overage,
    h.status, nullif(h.key, ''), nullif(h.api_key_id, '00000000-0000-0000-0000-000000000000'), h.expires_at,
    nullif(h.outcome, '')::jsonb
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::text[], $11::text[], $12::uuid[], $13::timestamptz[], $14::text[])
    AS h (id, user_id, feature_id, period, period_start, amount, tokens_reserved, settled_amount, overage, status, key,
        api_key_id, expires_at, outcome)
ON CONFLICT (id) DO UPDATE SET
    amount = excluded.amount, tokens_reserved = excluded.tokens_reserved, settled_amount = excluded.settled_amount,
    overage = excluded.overage, status = excluded.status, expires_at = excluded.expires_at, outcome = excluded.outcome,
    settled_at = CASE WHEN excluded.status = 'pending' THEN r.settled_at ELSE now() END,
    phase = CASE WHEN excluded.status = 'settled' THEN 'settled' ELSE r.phase END
