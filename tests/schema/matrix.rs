//! The matrix: what each role may do with the rows of each table.
//!
//! Four signs for each cell: SELECT, INSERT, UPDATE and DELETE. A capital: every row (and every column, for UPDATE). A
//! small letter: only some rows or columns, those of the user. `0`: the right exists, but row-level security leaves no
//! row. `-`: refused.

pub const ROLES: [Role; 7] = [
    Role { name: "anon", claims: "" },
    Role { name: "authenticated", claims: r#"{"sub":"00000000-0000-4000-8000-00000000000a","role":"authenticated"}"# },
    Role { name: "authenticated", claims: "" },
    Role { name: "app_service", claims: "" },
    Role { name: "readonly_user", claims: "" },
    Role { name: "app_user", claims: "" },
    Role { name: "service_role", claims: "" },
];

pub struct Role {
    pub name: &'static str,
    pub claims: &'static str,
}

/// Anonymous, Ann, a token without a user, the service, reports, the login before it takes a role, Supabase's own role.
pub const MATRIX: [(&str, [&str; 7]); 56] = [
    // The public catalogue.
    ("plans", ["S---", "S---", "S---", "SIUD", "S---", "0---", "----"]),
    ("features", ["S---", "S---", "S---", "SIUD", "S---", "0---", "----"]),
    ("plan_features", ["S---", "S---", "S---", "SIUD", "S---", "0---", "----"]),
    // The data of a user, and the parts that a user may change.
    ("users", ["----", "s-u-", "0-0-", "SIUD", "S---", "0-0-", "----"]),
    ("organizations", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("organization_members", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("feature_overrides", ["----", "s---", "0---", "SIUD", "S---", "----", "----"]),
    ("sessions", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("user_subscriptions", ["----", "s---", "0---", "SIUD", "S---", "0-0-", "----"]),
    ("scheduled_plan_changes", ["----", "s---", "0---", "SIUD", "S---", "----", "----"]),
    ("token_transactions", ["----", "s---", "0---", "SI--", "----", "----", "----"]),
    ("billing_records", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("usage_counters", ["----", "s---", "0---", "SIUD", "S---", "----", "----"]),
    ("usage_events", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("usage_reservations", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("usage_rollups", ["----", "s---", "0---", "SIUD", "S---", "----", "----"]),
    ("usage_alerts", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("api_keys", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("generated_apis", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("api_usage", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("ai_usage_logs", ["----", "s---", "0---", "SIUD", "S---", "0---", "----"]),
    ("chat_sessions", ["----", "s-ud", "0-00", "SIUD", "----", "----", "----"]),
    ("chat_messages", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("learning_progress", ["----", "siud", "0-00", "SIUD", "----", "----", "----"]),
    ("tutorial_completion", ["----", "siud", "0-00", "SIUD", "----", "----", "----"]),
    ("webhook_endpoints", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    ("webhook_deliveries", ["----", "s---", "0---", "SIUD", "----", "----", "----"]),
    // The service's own tables.
    ("deleted_profiles", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("ledger_heads", ["----", "----", "----", "S---", "----", "----", "----"]),
    ("address_digests", ["----", "----", "----", "S--D", "----", "----", "----"]),
    ("refresh_tokens", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("second_factors", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("signing_keys", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("stripe_events", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("idempotency_keys", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("idempotent_answers", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("ai_answers", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("outbox", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("audit_logs", ["----", "----", "----", "SI--", "----", "----", "----"]),
    ("product_base_locks", ["----", "----", "----", "----", "----", "----", "----"]),
    ("rollup_watermarks", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("usage_totals", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("ai_usage_totals", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("usage_seals", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("sealed_usage", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("integrity_pieces", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("api_key_counters", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("ai_providers", ["----", "----", "----", "SI--", "----", "----", "----"]),
    ("model_prices", ["----", "----", "----", "SIUD", "----", "----", "----"]),
    ("runtime_settings", ["----", "S---", "S---", "SIUD", "S---", "----", "----"]),
    ("replaceable_checksums", ["----", "----", "----", "S---", "----", "----", "----"]),
    ("product_base_migrations", ["----", "----", "----", "S---", "----", "----", "----"]),
    // Views read as their caller; service_role bypasses policies and lacks rights on the tables of plain Postgres.
    ("user_plan_summary", ["----", "s---", "0---", "S---", "S---", "----", "----"]),
    ("user_feature_access", ["----", "s---", "0---", "S---", "S---", "----", "----"]),
    ("ai_usage_monthly", ["----", "s---", "0---", "S---", "S---", "----", "----"]),
    ("integrity_findings", ["----", "----", "----", "S---", "----", "----", "----"]),
];

/// The only columns that users may change, in their own rows.
pub const USER_UPDATES: [&str; 14] = [
    "chat_sessions.ended_at",
    "chat_sessions.system",
    "chat_sessions.title",
    "learning_progress.completed_at",
    "learning_progress.id",
    "learning_progress.lesson_id",
    "learning_progress.started_at",
    "learning_progress.status",
    "tutorial_completion.completion_percentage",
    "tutorial_completion.id",
    "tutorial_completion.last_accessed",
    "tutorial_completion.tutorial_id",
    "users.name",
    "users.wallet_address",
];

/// Columns that users may not read even in their own rows.
pub const USER_CANNOT_READ: [&str; 3] =
    ["api_keys.key_hash", "usage_reservations.detail", "webhook_endpoints.sealed_secret"];
