//! A row of Ann's and one of Bob's in every table, and a function to try a statement and roll it back.

/// The caller in the tests of rights.
pub const ANN: &str = "00000000-0000-4000-8000-00000000000a";
/// Another user.
pub const BOB: &str = "00000000-0000-4000-8000-00000000000b";

/// `trial.rows(statement)` runs a statement, rolls it back, and returns the number of rows; -1 if a right is missing,
/// -2 if another rule refused it. Every role may call it; it runs as its caller.
pub const HELPERS: &str = r"
CREATE SCHEMA trial;
GRANT USAGE ON SCHEMA trial TO PUBLIC;
CREATE FUNCTION trial.rows(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE reached bigint;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS reached = ROW_COUNT;
    RAISE EXCEPTION 'taken back' USING ERRCODE = 'ZZ001';
EXCEPTION
    WHEN SQLSTATE 'ZZ001' THEN RETURN reached;
    WHEN insufficient_privilege THEN RETURN -1;
    WHEN OTHERS THEN RETURN -2;
END $$;
CREATE VIEW trial.relations AS
    SELECT c.oid, c.relname::text AS name, c.relispartition AS is_partition, c.relkind FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v');
CREATE VIEW trial.columns AS
    SELECT r.name AS relation, a.attname::text AS name FROM trial.relations r JOIN pg_attribute a ON a.attrelid = r.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped;
-- The rows as JSON, so that a role that may insert them can insert them again.
CREATE TABLE trial.samples (relation text, image jsonb);
GRANT SELECT ON ALL TABLES IN SCHEMA trial TO PUBLIC;
";

/// The rows of one user; `$1` is the user's id, which also names the rows that need a name.
const OWN: &str = "
INSERT INTO auth.users (id, email) VALUES ($1, $1::text || '@example.com');
INSERT INTO users (id, name) VALUES ($1, 'ann');
INSERT INTO organizations (id, name, owner_id) VALUES ($1, 'o', $1);
INSERT INTO organization_members (organization_id, user_id, role) VALUES ($1, $1, 'owner');
INSERT INTO feature_overrides (user_id, feature_id, enabled) VALUES ($1, 'api_access', true);
INSERT INTO sessions (id, user_id, kind, expires_at) VALUES ($1, $1, 'api', now());
INSERT INTO second_factors (user_id, sealed_secret) VALUES ($1, 's');
INSERT INTO refresh_tokens (session_id, user_id, family, token_hash, expires_at) VALUES ($1, $1, $1, convert_to($1::text, 'UTF8'), now());
INSERT INTO user_subscriptions (id, user_id, plan_id, status, stripe_subscription_id) VALUES ($1, $1, 'gold', 'active', $1::text);
INSERT INTO scheduled_plan_changes (user_id, plan_id, effective_at) VALUES ($1, 'free', now() + interval '1 day');
INSERT INTO billing_records (user_id, amount) VALUES ($1, 980);
INSERT INTO usage_counters (user_id, feature_id, period, period_start, used) VALUES ($1, 'api_access', 'month', date_trunc('month', now(), 'UTC'), 1);
INSERT INTO usage_events (user_id, feature_id, period, period_start, amount) VALUES ($1, 'api_access', 'month', now(), 1);
INSERT INTO usage_events (user_id, feature_id, period, period_start, amount, created_at) VALUES ($1, 'api_access', 'month', now(), 1, '2001-01-01Z');
INSERT INTO usage_reservations (user_id, feature_id, period, period_start, amount, expires_at, status)
VALUES ($1, 'api_access', 'month', now(), 1, now(), 'settled');
INSERT INTO idempotency_keys (user_id, key, digest, feature_id, amount, allowed) VALUES ($1, 'k', 'd', 'api_access', 1, true);
INSERT INTO idempotent_answers (user_id, route, key_digest, fingerprint, expires_at) VALUES ($1, 'r', 'k', 'f', now());
INSERT INTO api_keys (id, user_id, key_hash, key_prefix, last_four, name) VALUES ($1, $1, $1::text, 'sk_live_', 'abcd', 'k');
INSERT INTO api_key_counters (api_key_id, period, period_start) VALUES ($1, 'minute', date_trunc('minute', now()));
INSERT INTO generated_apis (id, user_id, name) VALUES ($1, $1, 'a');
INSERT INTO api_usage (api_id, timestamp) VALUES ($1, now());
INSERT INTO ai_usage_logs (user_id, provider, model, tokens_used, cost, cost_nano_usd) VALUES ($1, 'claude', 'm', 7, 0.0001, 100000);
INSERT INTO chat_sessions (id, user_id, api_key_id) VALUES ($1, $1, $1);
INSERT INTO chat_messages (session_id, role, content) VALUES ($1, 'user', 'hello');
INSERT INTO learning_progress (user_id, lesson_id) VALUES ($1, 'l');
INSERT INTO tutorial_completion (user_id, tutorial_id) VALUES ($1, 't');
INSERT INTO usage_alerts (user_id, feature_id, period, period_start, threshold_percent, used, limit_value)
VALUES ($1, 'api_access', 'month', now(), 80, 8, 10);
INSERT INTO webhook_endpoints (id, user_id, url, sealed_secret) VALUES ($1, $1, 'https://example.com', 's');
INSERT INTO webhook_deliveries (endpoint_id, event_type, payload) VALUES ($1, 'e', '{}');
INSERT INTO usage_rollups (user_id, feature_id, period, period_start, bucket) VALUES ($1, 'api_access', 'month', now(), now());
INSERT INTO ai_answers (user_id, route, key_digest, fingerprint, expires_at) VALUES ($1, 'r', 'k', 'f', now());
";

/// Rows without a user. The catalogue comes from the seeds.
const NOBODYS: &str = "
INSERT INTO deleted_profiles (user_id) VALUES (gen_random_uuid());
INSERT INTO address_digests (digest, user_id) VALUES ('d', gen_random_uuid());
INSERT INTO usage_totals VALUES (now(), 'api_access', 'month', now(), 1, 0, 1);
INSERT INTO ai_usage_totals VALUES (now(), 'claude', 'm', 1, 1, 1, 0, 2, 1);
INSERT INTO usage_seals (hours_from, hours_to, amount, overage, events) VALUES (now(), now() + interval '1 hour', 1, 0, 1);
INSERT INTO sealed_usage VALUES (gen_random_uuid(), 'api_access', 'month', now(), 1, 0);
INSERT INTO integrity_pieces (name) VALUES ('catalogue');
INSERT INTO signing_keys (kid, algorithm, fingerprint) VALUES ('k', 'HS256', 'f');
INSERT INTO stripe_events (id, type, created, payload) VALUES ('evt_1', 't', now(), '{}');
INSERT INTO outbox (topic, payload) VALUES ('t', '{}');
INSERT INTO rollup_watermarks (name, reached_at) VALUES ('w', now());
INSERT INTO model_prices (provider, model, kind, usd_per_million, version) VALUES ('claude', 'm', 'input', 3, 'v');
";

/// Every table's rows as JSON. Partitions are included through their parents.
const COPY: &str = "
DO $$ DECLARE target record; BEGIN
    IF to_regclass('trial.samples') IS NULL THEN RETURN; END IF;
    FOR target IN SELECT name FROM trial.relations WHERE NOT is_partition AND relkind IN ('r', 'p') LOOP
        EXECUTE format('INSERT INTO trial.samples SELECT %L, to_jsonb(t) FROM public.%I t', target.name, target.name);
    END LOOP;
END $$;
";

pub fn rows() -> String {
    let own = |user: &str| OWN.replace("$1", &format!("'{user}'::uuid"));
    format!("{}{}{NOBODYS}{COPY}", own(ANN), own(BOB))
}
