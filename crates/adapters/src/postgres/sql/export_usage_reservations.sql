SELECT id, user_id, feature_id, period, period_start, amount, beyond, tokens_reserved, settled_amount, overage, status, phase,
    idempotency_key, api_key_id, expires_at, settled_at, created_at, updated_at
FROM usage_reservations WHERE user_id = $1 ORDER BY created_at DESC, id DESC
