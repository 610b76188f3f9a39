-- $1 the user. No row without a profile.
SELECT p.plan_id, p.status, now() AS as_of,
    s.id AS subscription_id, s.plan_id AS subscription_plan_id, s.status AS subscription_status, s.stripe_subscription_id,
    s.trial_end, s.current_period_start, s.current_period_end, s.cancel_at_period_end,
    c.plan_id AS scheduled_plan_id, c.effective_at AS scheduled_at
FROM effective_plan($1) AS p
LEFT JOIN user_subscriptions AS s ON s.id = p.subscription_id
LEFT JOIN scheduled_plan_changes AS c ON c.user_id = $1
