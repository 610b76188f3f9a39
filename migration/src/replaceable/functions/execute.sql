-- Who may call which function. All rights were revoked just before, in the same transaction. Trigger functions need no
-- right: it is checked only when the trigger is created.
GRANT EXECUTE ON FUNCTION public.request_user_id(), public.request_actor(), public.caller_role(),
    public.usage_period_index(timestamptz, timestamptz),
    public.usage_period_start(text, timestamptz, timestamptz),
    public.usage_period_end(text, timestamptz, timestamptz)
    TO authenticated, app_service, service_role, readonly_user;
-- Row-level security limits effective_plan to visible users, and plan_in_force to rows that its caller may see.
GRANT EXECUTE ON FUNCTION public.effective_plan(uuid, timestamptz),
    public.plan_in_force(uuid, varchar, timestamptz, timestamptz), public.identity_email(uuid)
    TO authenticated, app_service, service_role, readonly_user;
GRANT EXECUTE ON FUNCTION public.check_feature_access(uuid, text), public.check_usage_limit(uuid, text)
    TO authenticated, app_service, service_role;
GRANT EXECUTE ON FUNCTION public.member_organizations() TO authenticated;
-- It runs as its caller: a user gets a row only for themselves, and none for an inactive feature, whose row no policy
-- shows; app_service sees that feature as inactive.
GRANT EXECUTE ON FUNCTION public.feature_entitlement(uuid, text, timestamptz),
    public.lapsed_subscription(uuid, text), public.usage_tally(uuid, text, text, timestamptz, timestamptz),
    public.entitlement_changes_at(uuid, text, timestamptz) TO authenticated, app_service, service_role;
-- The functions that it calls to decide and to write are the owner's alone.
GRANT EXECUTE ON FUNCTION public.consume_usage(uuid, text, bigint, text) TO authenticated, app_service, service_role;
GRANT EXECUTE ON FUNCTION public.open_usage_counter(uuid, text, text, timestamptz, timestamptz) TO app_service;
GRANT EXECUTE ON FUNCTION public.identity_find(text), public.identity_exists(uuid), public.identity_states(uuid[]),
    public.identity_owns_address(uuid, text) TO app_service;
GRANT EXECUTE ON FUNCTION public.ledger_hash(bytea, uuid, uuid, bigint, bigint, text, bigint, text, uuid, text, timestamptz),
    public.roll_up_usage(), public.roll_up_ai_usage(), public.maintain_partitions(), public.integrity_findings(),
    public.claim_integrity_piece(timestamptz), public.check_integrity_piece(text, interval),
    public.delete_usage_keys(interval, bigint)
    TO app_service;
