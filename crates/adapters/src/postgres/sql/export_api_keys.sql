SELECT id, user_id, name, key_prefix, last_four, permissions, on_behalf, is_active, last_used_at, expires_at, rotated_to,
    revoked_at, requests_per_minute, tokens_per_minute, monthly_cost_nano_usd, created_at
FROM api_keys WHERE user_id = $1 ORDER BY created_at DESC, id DESC
