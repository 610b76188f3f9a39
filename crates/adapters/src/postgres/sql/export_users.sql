SELECT id, identity_email(id) AS email, name, role, plan_id, wallet_address, stripe_customer_id, token_balance,
    token_reserved, created_at, updated_at
FROM users WHERE id = $1
