-- What a user may use now. plan_in_force, effective_plan and feature_entitlement are plain invoker SQL, so that the
-- planner inlines them and row-level security applies; the two check functions are definers with a guard.

-- Boundaries are computed in UTC, independent of the session's time zone, which makes these functions immutable. The
-- n-th boundary is always the anchor + n months: from the 31st it gives the last of February and then March 31st.
CREATE OR REPLACE FUNCTION public.usage_period_index(p_anchor timestamptz, p_at timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.months - CASE WHEN m.anchor + make_interval(months => m.months) > m.at THEN 1 ELSE 0 END
    FROM (
        SELECT a.anchor, a.at,
            ((date_part('year', a.at) - date_part('year', a.anchor)) * 12
                + date_part('month', a.at) - date_part('month', a.anchor))::integer AS months
        FROM (SELECT p_anchor AT TIME ZONE 'UTC' AS anchor, p_at AT TIME ZONE 'UTC' AS at) a
    ) m
$$;

CREATE OR REPLACE FUNCTION public.usage_period_start(p_period text, p_anchor timestamptz, p_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE p_period
        WHEN 'day' THEN date_trunc('day', p_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
        WHEN 'month' THEN date_trunc('month', p_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
        WHEN 'billing_period' THEN
            (p_anchor AT TIME ZONE 'UTC' + make_interval(months => public.usage_period_index(p_anchor, p_at))) AT TIME ZONE 'UTC'
        WHEN 'lifetime' THEN timestamp '1970-01-01 00:00:00' AT TIME ZONE 'UTC'
    END
$$;

CREATE OR REPLACE FUNCTION public.usage_period_end(p_period text, p_anchor timestamptz, p_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE p_period
        WHEN 'day' THEN (date_trunc('day', p_at AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC'
        WHEN 'month' THEN (date_trunc('month', p_at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
        WHEN 'billing_period' THEN
            (p_anchor AT TIME ZONE 'UTC' + make_interval(months => public.usage_period_index(p_anchor, p_at) + 1)) AT TIME ZONE 'UTC'
    END
$$;

-- The plan in force for a user whose row is given. Always one row.
-- - A due scheduled change wins, unless the live subscription is Stripe's, which decides by itself.
-- - A trial counts until its end, a past-due subscription until its grace period ends; after that the plan is 'free'.
-- - Without a live subscription the user's plan applies, unless the subscription that paid for it ended after the plan
--   was set. 'free' is not paid for, so ended subscriptions are read only for other plans. If the subscription existed
--   when the plan was set, the end counts as recorded by our own clock, whenever Stripe dates it.
CREATE OR REPLACE FUNCTION public.plan_in_force(p_user_id uuid, p_plan_id varchar, p_plan_changed_at timestamptz, p_at timestamptz)
RETURNS TABLE (
    plan_id varchar, status text, subscription_id uuid, current_period_start timestamptz,
    current_period_end timestamptz, trial_end timestamptz, cancel_at_period_end boolean
)
LANGUAGE sql STABLE
AS $$
    SELECT
        (CASE
            WHEN c.plan_id IS NOT NULL AND (s.id IS NULL OR s.stripe_subscription_id IS NULL) THEN c.plan_id
            WHEN s.status = 'active' THEN s.plan_id
            WHEN s.status = 'trialing' AND (s.trial_end IS NULL OR s.trial_end > p_at) THEN s.plan_id
            WHEN s.status = 'past_due' AND p_at < s.past_due_since + make_interval(hours => 24 * coalesce(
                (SELECT (r.value #>> '{}')::integer FROM public.runtime_settings r WHERE r.name = 'past_due_grace_days'), 7)) THEN s.plan_id
            WHEN s.id IS NOT NULL OR p_plan_id = 'free' THEN 'free'
            WHEN (
                SELECT e.plan_id = p_plan_id AND p_plan_changed_at
                    <= CASE WHEN e.created_at <= p_plan_changed_at THEN coalesce(e.end_recorded_at, e.ended_at) ELSE e.ended_at END
                FROM public.user_subscriptions e
                WHERE e.user_id = p_user_id AND e.status IN ('canceled', 'unpaid', 'incomplete_expired')
                ORDER BY e.ended_at DESC NULLS LAST LIMIT 1
            ) THEN 'free'
            ELSE p_plan_id
        END)::varchar,
        coalesce(s.status, 'active')::pg_catalog.text,
        s.id, s.current_period_start, s.current_period_end, s.trial_end, coalesce(s.cancel_at_period_end, false)
    FROM (SELECT) one
    LEFT JOIN public.user_subscriptions s ON s.user_id = p_user_id AND s.status IN ('trialing', 'active', 'past_due') AND NOT s.is_duplicate
    LEFT JOIN public.scheduled_plan_changes c ON c.user_id = p_user_id AND c.effective_at <= p_at
$$;

-- The same for a given user id: one row for a user that exists, else none.
CREATE OR REPLACE FUNCTION public.effective_plan(p_user_id uuid, p_at timestamptz DEFAULT now())
RETURNS TABLE (
    plan_id varchar, status text, subscription_id uuid, current_period_start timestamptz,
    current_period_end timestamptz, trial_end timestamptz, cancel_at_period_end boolean
)
LANGUAGE sql STABLE
AS $$
    SELECT p.plan_id, p.status, p.subscription_id, p.current_period_start, p.current_period_end, p.trial_end, p.cancel_at_period_end
    FROM public.users u
    CROSS JOIN LATERAL public.plan_in_force(u.id, u.plan_id, u.plan_changed_at, p_at) p
    WHERE u.id = p_user_id
$$;

-- The counter values of feature_entitlement for a period that is already known. Always one row. The text exists twice,
-- since another join would keep the planner from inlining feature_entitlement; a test compares the two.
CREATE OR REPLACE FUNCTION public.usage_tally(p_user_id uuid, p_feature_id text, p_period text, p_period_start timestamptz, p_at timestamptz)
RETURNS TABLE (used bigint, reserved bigint, overage bigint)
LANGUAGE sql STABLE
AS $$
    SELECT
        CASE WHEN n.superseded IS FALSE THEN n.used ELSE coalesce(n.used, 0) + greatest(0, coalesce((
            SELECT max(o.used - o.overage) FROM public.usage_counters o
            WHERE o.user_id = p_user_id AND o.feature_id = p_feature_id AND NOT o.superseded AND o.period_start <= p_at
              AND coalesce(o.period_end, public.usage_period_end(o.period, o.period_start, o.period_start), 'infinity') > p_at
        ), 0) - coalesce(n.used - n.overage, 0)) END,
        coalesce(n.reserved, 0), coalesce(n.overage, 0)
    FROM (SELECT) one
    LEFT JOIN public.usage_counters n ON n.user_id = p_user_id AND n.feature_id = p_feature_id
        AND n.period = p_period AND n.period_start = p_period_start
$$;

-- When the facts of feature_entitlement (except the end of its period) next change by time alone: a trial, a grace
-- period or an override ends, or a scheduled change becomes due. NULL: never. It covers the times that effective_plan
-- and feature_entitlement compare with p_at. Always one row.
CREATE OR REPLACE FUNCTION public.entitlement_changes_at(p_user_id uuid, p_feature_id text, p_at timestamptz DEFAULT now())
RETURNS TABLE (changes_at timestamptz)
LANGUAGE sql STABLE
AS $$
    SELECT least(
        CASE WHEN s.status = 'trialing' AND s.trial_end > p_at THEN s.trial_end END,
        CASE WHEN s.status = 'past_due' AND s.past_due_since + g.grace > p_at THEN s.past_due_since + g.grace END,
        c.effective_at, o.expires_at
    )
    FROM (SELECT) one
    LEFT JOIN public.user_subscriptions s ON s.user_id = p_user_id AND s.status IN ('trialing', 'past_due') AND NOT s.is_duplicate
    LEFT JOIN LATERAL (
        SELECT make_interval(hours => 24 * coalesce(
            (SELECT (r.value #>> '{}')::integer FROM public.runtime_settings r WHERE r.name = 'past_due_grace_days'), 7)) AS grace
    ) g ON s.status = 'past_due'
    LEFT JOIN public.scheduled_plan_changes c ON c.user_id = p_user_id AND c.effective_at > p_at
    LEFT JOIN public.feature_overrides o ON o.user_id = p_user_id AND o.feature_id = p_feature_id AND o.expires_at > p_at
$$;

-- All facts of one decision, in one statement. No row if there is no such user or no such feature. An override that has
-- not expired replaces `enabled` and `limit_value` together. If neither the plan nor an override has the feature, the
-- limit is 0, because NULL would mean unlimited.
CREATE OR REPLACE FUNCTION public.feature_entitlement(p_user_id uuid, p_feature_id text, p_at timestamptz DEFAULT now())
RETURNS TABLE (
    plan_id varchar, plan_status text, feature_active boolean, in_plan boolean, enabled boolean,
    limit_value bigint, limit_period varchar, overage varchar, kind varchar, unit varchar,
    source text, override_expires_at timestamptz, period_start timestamptz, period_end timestamptz,
    used bigint, reserved bigint, counter_overage bigint, token_balance bigint, token_reserved bigint, as_of timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT
        x.plan_id, x.plan_status, x.feature_active, x.in_plan, x.enabled,
        x.limit_value, x.limit_period, x.overage, x.kind, x.unit,
        x.source, x.override_expires_at, x.period_start,
        public.usage_period_end(x.limit_period, x.anchor, p_at),
        -- Where the kind or the anchor of the period has moved and nothing was counted since, what open_usage_counter will carry.
        CASE WHEN n.superseded IS FALSE THEN n.used ELSE coalesce(n.used, 0) + greatest(0, coalesce((
            SELECT max(o.used - o.overage) FROM public.usage_counters o
            WHERE o.user_id = p_user_id AND o.feature_id = p_feature_id AND NOT o.superseded AND o.period_start <= p_at
              AND coalesce(o.period_end, public.usage_period_end(o.period, o.period_start, o.period_start), 'infinity') > p_at
        ), 0) - coalesce(n.used - n.overage, 0)) END,
        coalesce(n.reserved, 0), coalesce(n.overage, 0),
        x.token_balance, x.token_reserved, p_at
    FROM (
        SELECT
            p.plan_id, p.status AS plan_status, f.is_active AS feature_active, pf.plan_id IS NOT NULL AS in_plan,
            coalesce(o.enabled, pf.enabled, false) AS enabled,
            CASE WHEN o.user_id IS NOT NULL THEN o.limit_value WHEN pf.plan_id IS NOT NULL THEN pf.limit_value ELSE 0 END AS limit_value,
            coalesce(pf.limit_period, 'month')::varchar AS limit_period,
            coalesce(pf.overage, 'block')::varchar AS overage,
            f.kind, f.unit,
            CASE WHEN o.user_id IS NOT NULL THEN 'override' ELSE 'plan' END AS source,
            o.expires_at AS override_expires_at,
            coalesce(p.current_period_start, u.created_at) AS anchor,
            public.usage_period_start(coalesce(pf.limit_period, 'month'), coalesce(p.current_period_start, u.created_at), p_at) AS period_start,
            u.token_balance, u.token_reserved
        FROM public.users u
        CROSS JOIN LATERAL public.plan_in_force(u.id, u.plan_id, u.plan_changed_at, p_at) p
        JOIN public.features f ON f.id = p_feature_id
        LEFT JOIN public.plan_features pf ON pf.plan_id = p.plan_id AND pf.feature_id = f.id
        LEFT JOIN public.feature_overrides o ON o.user_id = u.id AND o.feature_id = f.id AND (o.expires_at IS NULL OR o.expires_at > p_at)
        WHERE u.id = p_user_id
    ) x
    LEFT JOIN public.usage_counters n ON n.user_id = p_user_id AND n.feature_id = p_feature_id
        AND n.period = x.limit_period AND n.period_start = x.period_start
$$;

-- The plan of the live subscription, else of the latest one that ended, if it is not in good standing and includes the
-- feature. If another plan is in force, the trial, the grace period or the subscription is over. It returns a set (of
-- one row at most), since the planner inlines only set-returning functions; others would be planned at every call.
CREATE OR REPLACE FUNCTION public.lapsed_subscription(p_user_id uuid, p_feature_id text) RETURNS TABLE (plan_id varchar)
LANGUAGE sql STABLE
AS $$
    SELECT latest.plan_id
    FROM (
        SELECT s.plan_id, s.status FROM public.user_subscriptions s
        WHERE s.user_id = p_user_id AND s.status <> 'incomplete'
        ORDER BY s.status IN ('trialing', 'active', 'past_due') AND NOT s.is_duplicate DESC, s.ended_at DESC NULLS LAST, s.created_at DESC
        LIMIT 1
    ) latest
    JOIN public.plan_features paid_for ON paid_for.plan_id = latest.plan_id AND paid_for.feature_id = p_feature_id
    WHERE latest.status <> 'active' AND paid_for.enabled
$$;

-- The rule: whether `p_amount` more may be used, from the facts of this statement. No row if there is no such user or
-- no such feature. It does the same as domain::entitlements::decide and is the only text of the rule in SQL: checks and
-- consumption both use it. `may_cost_tokens` says whether a large amount could cost tokens, so that the balance is
-- locked first.
CREATE OR REPLACE FUNCTION public.usage_decision(p_user_id uuid, p_feature_id text, p_amount bigint)
RETURNS TABLE (
    reason text, used bigint, limit_value bigint, remaining bigint, reserved bigint, may_cost_tokens boolean, kind varchar,
    plan_id varchar, source text, period varchar, period_start timestamptz, period_end timestamptz, as_of timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT
        CASE
            WHEN NOT e.feature_active OR (e.source = 'override' AND NOT e.enabled) THEN 'feature_disabled'
            WHEN NOT e.enabled AND lapsed.plan_id <> e.plan_id THEN 'subscription_inactive'
            WHEN NOT e.enabled THEN 'feature_not_in_plan'
            WHEN l.remaining IS NULL OR p_amount <= l.remaining THEN 'ok'
            WHEN e.overage = 'block' THEN 'limit_reached'
            WHEN p_amount - l.remaining <= e.token_balance - e.token_reserved THEN 'ok'
            ELSE 'insufficient_tokens'
        END,
        e.used, e.limit_value, l.remaining, e.reserved,
        e.feature_active AND e.enabled AND e.limit_value IS NOT NULL AND e.overage = 'tokens',
        e.kind, e.plan_id, e.source, e.limit_period, e.period_start, e.period_end, e.as_of
    FROM public.feature_entitlement(p_user_id, p_feature_id) e
    LEFT JOIN LATERAL public.lapsed_subscription(p_user_id, p_feature_id) lapsed ON true
    -- numeric, since a counter at the end of its range and a hold add up to more than a bigint holds.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN e.limit_value IS NOT NULL
            THEN greatest(0, e.limit_value - (e.used::numeric - e.counter_overage + e.reserved))::bigint END AS remaining
    ) l
$$;

-- Whether the user has the feature at all, whatever was used of it; false if the identity is banned or deleted.
CREATE OR REPLACE FUNCTION public.check_feature_access(user_id uuid, feature_id text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT e.feature_active AND e.enabled FROM public.feature_entitlement($1, $2) e
        WHERE public.may_see_user($1)
          AND NOT EXISTS (SELECT FROM public.identity_states(ARRAY[$1]) s WHERE s.state IN ('banned', 'deleted'))
    ), false)
$$;

-- Whether one more unit may be used. `current` is all that was used, overage included; used - overage + reserved counts
-- against the limit. No row for an identity that is banned or deleted.
CREATE OR REPLACE FUNCTION public.check_usage_limit(user_id uuid, feature_id text)
RETURNS TABLE (allowed boolean, current bigint, "limit" bigint, remaining bigint, resets_at timestamptz, reason text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.reason = 'ok', d.used, d.limit_value, d.remaining, d.period_end, d.reason
    FROM public.usage_decision($1, $2, 1) d
    WHERE public.may_see_user($1)
      AND NOT EXISTS (SELECT FROM public.identity_states(ARRAY[$1]) s WHERE s.state IN ('banned', 'deleted'))
$$;
