//! The objects that `design/schema.md` and the seeds name, against the catalogue.

use std::collections::BTreeMap;

use harness::TestDatabase;

use crate::clusters::refusal;
use crate::columns::COLUMNS;

/// All tables, by the design's rooms. Only the names of those without columns in `columns.rs` are checked.
const TABLES: [&str; 36] = [
    "users",
    "organizations",
    "organization_members",
    "plans",
    "features",
    "plan_features",
    "feature_overrides",
    "user_subscriptions",
    "stripe_events",
    "token_transactions",
    "billing_records",
    "scheduled_plan_changes",
    "usage_counters",
    "usage_events",
    "usage_reservations",
    "idempotency_keys",
    "ai_usage_logs",
    "usage_rollups",
    "chat_sessions",
    "chat_messages",
    "api_keys",
    "generated_apis",
    "api_usage",
    "model_prices",
    "ai_answers",
    "refresh_tokens",
    "sessions",
    "signing_keys",
    "learning_progress",
    "tutorial_completion",
    "audit_logs",
    "outbox",
    "usage_alerts",
    "webhook_endpoints",
    "webhook_deliveries",
    "product_base_migrations",
];

/// Constraints of the seeds by their names, and those of the design by their definitions.
const CONSTRAINTS: [(&str, &str, &str); 33] = [
    ("users", "fk_users_auth", "FOREIGN KEY (id) REFERENCES auth.users(id) ON DELETE CASCADE"),
    ("users", "fk_users_plan", "FOREIGN KEY (plan_id) REFERENCES plans(id)"),
    ("plan_features", "fk_plan_features_plan", "FOREIGN KEY (plan_id) REFERENCES plans(id) ON DELETE CASCADE"),
    ("plan_features", "fk_plan_features_feature", "FOREIGN KEY (feature_id) REFERENCES features(id) ON DELETE CASCADE"),
    (
        "user_subscriptions",
        "fk_user_subscriptions_user",
        "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE",
    ),
    ("user_subscriptions", "fk_user_subscriptions_plan", "FOREIGN KEY (plan_id) REFERENCES plans(id)"),
    ("user_subscriptions", "check_subscription_status", "CHECK"),
    ("ai_usage_logs", "check_provider", "CHECK"),
    ("user_subscriptions", "", "UNIQUE (stripe_subscription_id)"),
    ("users", "", "PRIMARY KEY (id)"),
    ("plans", "", "PRIMARY KEY (id)"),
    ("features", "", "PRIMARY KEY (id)"),
    ("plan_features", "", "PRIMARY KEY (plan_id, feature_id)"),
    ("feature_overrides", "", "PRIMARY KEY (user_id, feature_id)"),
    ("organization_members", "", "PRIMARY KEY (organization_id, user_id)"),
    ("stripe_events", "", "PRIMARY KEY (id)"),
    ("usage_counters", "", "PRIMARY KEY (user_id, feature_id, period, period_start)"),
    ("usage_events", "", "PRIMARY KEY (id, created_at)"),
    ("ai_usage_logs", "", "PRIMARY KEY (id, created_at)"),
    ("idempotency_keys", "", "(user_id, key)"),
    ("token_transactions", "", "UNIQUE (user_id, seq)"),
    ("token_transactions", "", "UNIQUE (user_id, idempotency_key)"),
    ("billing_records", "", "UNIQUE (transaction_hash)"),
    ("api_keys", "", "UNIQUE (key_hash)"),
    ("api_usage", "", "UNIQUE (api_id, \"timestamp\")"),
    ("learning_progress", "", "UNIQUE (user_id, lesson_id)"),
    ("tutorial_completion", "", "UNIQUE (user_id, tutorial_id)"),
    ("chat_sessions", "", "FOREIGN KEY (api_key_id) REFERENCES api_keys(id) ON DELETE SET NULL"),
    ("chat_messages", "", "FOREIGN KEY (session_id) REFERENCES chat_sessions(id) ON DELETE CASCADE"),
    ("api_keys", "", "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE"),
    ("api_usage", "", "FOREIGN KEY (api_id) REFERENCES generated_apis(id) ON DELETE CASCADE"),
    ("organizations", "", "FOREIGN KEY (owner_id) REFERENCES users(id)"),
    ("token_transactions", "", "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE"),
];

/// The seeds' indexes, as Postgres prints them.
const INDEXES: [(&str, &str); 13] = [
    ("idx_users_plan_id", "users USING btree (plan_id)"),
    ("idx_users_stripe_customer_id", "users USING btree (stripe_customer_id) WHERE (stripe_customer_id IS NOT NULL)"),
    ("idx_user_subscriptions_user_id", "user_subscriptions USING btree (user_id)"),
    (
        "idx_user_subscriptions_stripe_id",
        "user_subscriptions USING btree (stripe_subscription_id) WHERE (stripe_subscription_id IS NOT NULL)",
    ),
    ("idx_user_subscriptions_status", "user_subscriptions USING btree (status)"),
    (
        "idx_subscriptions_active",
        "user_subscriptions USING btree (user_id, status) WHERE ((status)::text = ANY (ARRAY['active', 'trialing']))",
    ),
    (
        "idx_user_subscriptions_live",
        "user_subscriptions USING btree (user_id) WHERE (((status)::text = ANY (ARRAY['trialing', 'active', 'past_due'])) AND (NOT is_duplicate))",
    ),
    ("idx_ai_usage_logs_user_id", "ONLY ai_usage_logs USING btree (user_id)"),
    ("idx_ai_usage_logs_created_at", "ONLY ai_usage_logs USING btree (created_at)"),
    ("idx_ai_usage_logs_provider", "ONLY ai_usage_logs USING btree (provider)"),
    ("idx_ai_usage_user_date", "ONLY ai_usage_logs USING btree (user_id, created_at DESC)"),
    ("idx_plans_active", "plans USING btree (id) WHERE (is_active = true)"),
    ("idx_features_active", "features USING btree (id) WHERE (is_active = true)"),
];

const TRIGGERS: [(&str, &str, &str); 7] = [
    ("users", "update_users_updated_at", "update_updated_at_column"),
    ("plans", "update_plans_updated_at", "update_updated_at_column"),
    ("features", "update_features_updated_at", "update_updated_at_column"),
    ("plan_features", "update_plan_features_updated_at", "update_updated_at_column"),
    ("user_subscriptions", "update_user_subscriptions_updated_at", "update_updated_at_column"),
    ("users", "check_user_plan_change", "check_plan_change_consistency"),
    ("auth.users", "update_auth_users_updated_at", "update_updated_at_column"),
];

/// Statements that a constraint refuses, as the owner.
const REFUSED: [&str; 36] = [
    "INSERT INTO ai_usage_logs (user_id, provider) VALUES (gen_random_uuid(), 'mistral')",
    "INSERT INTO model_prices (provider, model, kind, usd_per_million, version) VALUES ('mistral', 'm', 'input', 3, 'v')",
    "INSERT INTO ai_providers (id) VALUES ('No Name')",
    "UPDATE users SET role = 'owner'",
    "UPDATE users SET token_balance = -1",
    "UPDATE users SET token_reserved = -1",
    "UPDATE users SET token_reserved = token_balance + 1",
    "UPDATE users SET plan_id = 'none'",
    "UPDATE plans SET price_monthly = -1",
    "UPDATE plans SET id = repeat('x', 51)",
    "UPDATE features SET kind = 'counted'",
    "UPDATE plan_features SET limit_value = -1",
    "UPDATE plan_features SET limit_period = 'week'",
    "UPDATE plan_features SET overage = 'allow'",
    "UPDATE feature_overrides SET limit_value = -1",
    "UPDATE organization_members SET role = 'guest'",
    "UPDATE user_subscriptions SET status = 'paused'",
    "UPDATE usage_counters SET period = 'year'",
    "UPDATE usage_counters SET used = -1",
    "UPDATE usage_reservations SET status = 'lost'",
    "UPDATE usage_reservations SET beyond = -1",
    "UPDATE ai_usage_logs SET provider = 'other'",
    "UPDATE ai_usage_logs SET source = 'guess'",
    "UPDATE ai_usage_logs SET unpaid_tokens = -1",
    "UPDATE chat_messages SET role = 'tool'",
    "UPDATE chat_messages SET cost_nano_usd = -1",
    "UPDATE chat_sessions SET cost_nano_usd = -1",
    "UPDATE chat_sessions SET system = repeat('é', 16385)",
    "UPDATE api_keys SET requests_per_minute = 0",
    "UPDATE api_keys SET tokens_per_minute = 0, requests_per_minute = NULL",
    "UPDATE api_keys SET monthly_cost_nano_usd = -1",
    "UPDATE api_key_counters SET period = 'day'",
    "UPDATE api_key_counters SET tokens = -1",
    "UPDATE api_key_counters SET cost_reserved_nano_usd = -1",
    "UPDATE tutorial_completion SET completion_percentage = 101",
    "INSERT INTO token_transactions (user_id, amount, type, balance_after) SELECT id, 1, 'gift', 1 FROM users",
];

/// A type or a default in the spelling of the seeds.
fn short(told: &str) -> String {
    let told = told.split("::").next().unwrap_or_default();
    told.replace("character varying", "varchar")
        .replace("timestamp with time zone", "timestamptz")
        .replace("numeric", "decimal")
        .replace("character(", "char(")
}

fn fits(expected: &str, found: &str) -> bool {
    match expected {
        "word" => found == "text" || found.starts_with("varchar") || found == "name",
        "number" => ["bigint", "integer", "smallint"].contains(&found) || found.starts_with("decimal"),
        exact => exact == found,
    }
}

#[tokio::test]
async fn every_table_of_the_design_is_there() {
    let database = TestDatabase::new().await;
    for table in TABLES {
        let there = format!("SELECT to_regclass('public.{table}') IS NOT NULL");
        assert!(database.query_scalar::<bool>(&there).await, "no table {table}");
    }
}

#[tokio::test]
async fn every_column_of_the_design_has_its_type_and_default() {
    let database = TestDatabase::new().await;
    let found: Vec<(String, String, String, bool, Option<String>)> = database
        .query_all(
            "SELECT CASE WHEN n.nspname = 'auth' THEN 'auth.' ELSE '' END || c.relname, a.attname::text, format_type(a.atttypid,
                a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE n.nspname IN ('public', 'auth') AND a.attnum > 0 AND NOT a.attisdropped",
        )
        .await;
    let found: BTreeMap<(String, String), (String, bool, Option<String>)> = found
        .into_iter()
        .map(|(table, column, kind, filled, default)| {
            ((table, column), (short(&kind), filled, default.map(|told| short(&told))))
        })
        .collect();
    let (mut wrong, mut table) = (Vec::new(), "");
    for line in COLUMNS.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("@ ") {
            table = name;
            continue;
        }
        let mut parts = line.split(' ');
        let (column, told) = (parts.next().unwrap(), parts.next().unwrap());
        let Some((kind, filled, default)) = found.get(&(table.to_owned(), column.to_owned())) else {
            wrong.push(format!("{table}.{column} is not there"));
            continue;
        };
        let expected = told.trim_end_matches(['!', '?']);
        let is_null_right = (!told.ends_with('!') || *filled) && (!told.ends_with('?') || !*filled);
        let is_default_right = parts.next().is_none_or(|expected| default.as_deref() == Some(expected));
        if !fits(expected, kind) || !is_null_right || !is_default_right {
            wrong.push(format!("{table}.{line}: found {kind}, not null {filled}, default {default:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
}

#[tokio::test]
async fn every_constraint_of_the_design_is_there() {
    let database = TestDatabase::new().await;
    let found: Vec<(String, String, String)> = database
        .query_all(
            "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace AND convalidated",
        )
        .await;
    for (table, name, says) in CONSTRAINTS {
        let is_it = |(on, called, told): &&(String, String, String)| {
            on == table && (name.is_empty() || called == name) && told.contains(says)
        };
        assert!(found.iter().any(|constraint| is_it(&constraint)), "{table} {name} {says}");
    }
}

#[tokio::test]
async fn every_index_of_the_seeds_is_there() {
    let database = TestDatabase::new().await;
    let found: Vec<(String, String)> = database
        .query_all(
            "SELECT c.relname::text, regexp_replace(pg_get_indexdef(c.oid), '^CREATE (UNIQUE )?INDEX \\w+ ON ', '')
            FROM pg_class c WHERE c.relkind IN ('i', 'I') AND c.relnamespace = 'public'::regnamespace",
        )
        .await;
    let found: BTreeMap<String, String> = found
        .into_iter()
        .map(|(name, told)| {
            (
                name,
                told.replace("::character varying", "")
                    .replace("::text[]", "")
                    .replace("(ARRAY", "ARRAY")
                    .replace("public.", ""),
            )
        })
        .collect();
    for (name, says) in INDEXES {
        let told = found.get(name).unwrap_or_else(|| panic!("no index {name}"));
        let plain = |text: &str| text.replace(['(', ')'], "");
        assert_eq!(plain(told), plain(says), "{name}");
    }
    assert!(!found.contains_key("idx_users_plan_status"), "it names columns that are not there");
}

#[tokio::test]
async fn the_seeds_triggers_and_their_functions_are_there() {
    let database = TestDatabase::new().await;
    let found: Vec<(String, String, String)> = database
        .query_all(
            "SELECT t.tgrelid::regclass::text, t.tgname::text, f.proname::text FROM pg_trigger t
            JOIN pg_proc f ON f.oid = t.tgfoid WHERE NOT t.tgisinternal AND t.tgenabled = 'O'",
        )
        .await;
    for (table, trigger, function) in TRIGGERS {
        let expected = (table.to_owned(), trigger.to_owned(), function.to_owned());
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    let deletes: i64 = database
        .query_scalar("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'token_transactions'::regclass AND NOT tgisinternal AND tgtype & 8 <> 0")
        .await;
    assert_eq!(deletes, 0, "a trigger on DELETE would stop the cascade from auth.users");
}

#[tokio::test]
async fn rows_that_the_design_forbids_are_refused() {
    let database = crate::rights::peopled().await;
    for statement in REFUSED {
        let (state, _) = refusal(&database.owner_url(), statement).await;
        assert!(["23514", "23503", "22001"].contains(&state.as_str()), "{statement}: {state}");
    }
}

#[tokio::test]
async fn the_seeds_are_three_plans_five_features_and_fifteen_pairs() {
    let database = TestDatabase::new().await;
    let counts: (i64, i64, i64) = database
        .query_one("SELECT (SELECT count(*) FROM plans), (SELECT count(*) FROM features), (SELECT count(*) FROM plan_features)")
        .await;
    assert_eq!(counts, (3, 5, 15));
    let plans: Vec<(String, String, String, String)> = database
        .query_all(
            "SELECT id::text, display_name::text, price_monthly::text, price_yearly::text FROM plans WHERE is_active
            AND currency = 'JPY' ORDER BY plans.price_monthly",
        )
        .await;
    let told: Vec<String> =
        plans.into_iter().map(|(id, name, month, year)| format!("{id} {name} {month} {year}")).collect();
    assert_eq!(
        told,
        ["free 無料プラン 0.00 0.00", "gold ゴールドプラン 980.00 9800.00", "platinum プラチナプラン 2980.00 29800.00"]
    );
    let pairs: Vec<(String, String)> = database
        .query_all(
            "SELECT feature_id::text, string_agg(plan_id || ':' || enabled::text || ':' || coalesce(limit_value::text, 'unlimited'),
                ' ' ORDER BY plan_id)
             FROM plan_features WHERE limit_period = 'month' AND overage = 'block' GROUP BY 1 ORDER BY 1",
        )
        .await;
    let told: Vec<String> = pairs.into_iter().map(|(feature, plans)| format!("{feature} {plans}")).collect();
    assert_eq!(
        told,
        [
            "ai_requests free:false:0 gold:true:1000 platinum:true:unlimited",
            "api_access free:false:0 gold:false:0 platinum:true:unlimited",
            "custom_theme free:false:0 gold:true:unlimited platinum:true:unlimited",
            "export_csv free:false:0 gold:true:unlimited platinum:true:unlimited",
            "priority_support free:false:0 gold:false:0 platinum:true:unlimited",
        ]
    );
}
