-- $1 the plan.
SELECT (SELECT count(*) FROM users WHERE plan_id = $1)
     + (SELECT count(*) FROM user_subscriptions WHERE plan_id = $1)
     + (SELECT count(*) FROM scheduled_plan_changes WHERE plan_id = $1)
