//! The types of the settings: one struct a section, unknown keys are errors, secrets in types that do not print.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use domain::prices::ModelCatalogue;
use domain::subscriptions::BillingMode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub environment: Environment,
    pub server: ServerSettings,
    pub database: DatabaseSettings,
    pub auth: AuthSettings,
    pub admin: AdminSettings,
    pub billing: BillingSettings,
    pub api_keys: ApiKeysSettings,
    pub idempotency: IdempotencySettings,
    pub usage: UsageSettings,
    pub rate_limits: RateLimitsSettings,
    pub metrics: MetricsSettings,
    pub log: LogSettings,
    pub telemetry: TelemetrySettings,
    pub ai: AiSettings,
    pub stripe: StripeSettings,
}

impl Settings {
    /// Every secret that is set, to be kept out of the logs.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let Self { database, auth, admin, metrics, ai, stripe, .. } = self;
        let all = [
            &database.url,
            &database.direct_url,
            &auth.signing_key,
            &auth.supabase.jwt_secret,
            &admin.password,
            &metrics.token,
            &ai.openai.api_key,
            &ai.claude.api_key,
            &ai.gemini.api_key,
            &stripe.secret_key,
            &stripe.webhook_secret,
        ];
        let of_rows = ai.providers.values().filter_map(|row| row.api_key.as_ref());
        all.into_iter().chain(of_rows).filter_map(SecretText::expose)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    Local,
    Production,
    Test,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    pub host: IpAddr,
    pub port: u16,
    pub workers: usize,
    pub body_limit_bytes: usize,
    pub body_memory_bytes: usize,
    pub parse_memory_bytes: usize,
    pub connections_max: usize,
    pub connections_per_address: usize,
    pub head_timeout_seconds: u64,
    pub idle_timeout_seconds: u64,
    pub write_timeout_seconds: u64,
    pub request_timeout_seconds: u64,
    pub shutdown_delay_seconds: u64,
    pub shutdown_grace_seconds: u64,
    pub trusted_proxies: Vec<String>,
    pub cors_origins: Vec<String>,
    pub hsts_seconds: u64,
    pub docs: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    pub url: SecretText,
    pub direct_url: SecretText,
    pub pooler: PoolerKind,
    pub max_connections: u32,
    pub acquire_timeout_ms: u64,
    pub statement_timeout_ms: u32,
    pub lock_timeout_ms: u32,
    pub idle_in_transaction_timeout_ms: u32,
    pub migrate_on_start: bool,
    pub require_restricted_role: bool,
    pub embedded: PrivatePostgresSettings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolerKind {
    None,
    Transaction,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivatePostgresSettings {
    pub dir: PathBuf,
    pub bin: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    pub signing_key: SecretText,
    pub access_token_ttl_seconds: u64,
    pub session_ttl_days: u16,
    pub session_max_days: u16,
    pub reauthentication_minutes: u32,
    pub require_admin_totp: bool,
    pub supabase: SupabaseSettings,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupabaseSettings {
    pub jwt_secret: SecretText,
    pub jwks_url: String,
    pub issuer: String,
    pub audience: String,
}

impl SupabaseSettings {
    /// Whether Supabase is the identity provider.
    pub fn is_provider(&self) -> bool {
        self.jwt_secret.is_set() || !self.jwks_url.is_empty()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    pub email: String,
    pub password: SecretText,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BillingSettings {
    pub mode: BillingMode,
    pub past_due_grace_days: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeysSettings {
    pub prefix: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdempotencySettings {
    pub keep_hours: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageSettings {
    pub lanes: usize,
    pub queue: usize,
    pub batch: usize,
    pub keep_keys_days: u16,
    pub keep_reservations_days: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitsSettings {
    pub logins_per_ip: u32,
    pub login_failures_per_account: u32,
    pub login_failures_before_delay: u32,
    /// From earlier releases; it is read and has no effect.
    #[serde(default)]
    pub logins_per_account: Option<u32>,
    pub refreshes_per_ip: u32,
    pub signups_per_ip: u32,
    pub failures_per_ip: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    pub token: SecretText,
    pub port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    pub filter: String,
}

/// Where the telemetry of model calls is sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    pub otlp_endpoint: String,
    pub otlp_interval_seconds: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Pretty,
    Json,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiSettings {
    pub sandbox: SandboxMode,
    pub retry_budget_ms: u64,
    pub resend_after_timeout: bool,
    pub breaker_failures: u32,
    pub breaker_callers: u32,
    pub breaker_open_seconds: u64,
    /// For each model, those that answer in its place if it fails, in this order.
    pub fallbacks: BTreeMap<String, Vec<String>>,
    pub openai: AiProviderSettings,
    pub claude: AiProviderSettings,
    pub gemini: AiProviderSettings,
    /// Further providers, by name. A row for a built-in one changes its settings.
    pub providers: BTreeMap<String, AiProviderRow>,
    pub calls: AiCalls,
    pub body_limits: AiBodyLimits,
    /// Whether a provider's URL may be plain HTTP in production.
    pub allow_plain_http: bool,
    /// The models with their list prices, from `config/models.toml`.
    #[serde(skip)]
    pub models: ModelCatalogue,
}

/// How large a body in each provider's own dialect may be, in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiBodyLimits {
    pub openai: usize,
    pub claude: usize,
    pub gemini: usize,
}

/// How model calls are reserved and streamed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiCalls {
    pub hold_seconds: u16,
    pub assumed_output_tokens: u32,
    pub lower_max_tokens: bool,
    pub strict_holds: bool,
    pub drain_seconds: u16,
    pub head_wait_ms: u32,
    pub ping_ms: u32,
    pub context_messages: u16,
    pub default_model: String,
}

/// Whether the sandbox answers for a provider without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxMode {
    /// Everywhere except in production.
    Auto,
    On,
    Off,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiProviderSettings {
    pub base_url: String,
    pub api_key: SecretText,
    pub connect_timeout_ms: u64,
    pub first_byte_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub total_timeout_ms: u64,
    pub max_attempts: u32,
}

/// A row of `ai.providers`, as it is written. What it leaves out is the default of its dialect.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AiProviderRow {
    pub dialect: Option<String>,
    pub base_url: Option<String>,
    pub api_key: Option<SecretText>,
    pub auth: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub query: BTreeMap<String, String>,
    pub missing: Vec<String>,
    pub known_tokens: Option<bool>,
    pub connect_timeout_ms: Option<u64>,
    pub first_byte_timeout_ms: Option<u64>,
    pub idle_timeout_ms: Option<u64>,
    pub total_timeout_ms: Option<u64>,
    pub max_attempts: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripeSettings {
    pub base_url: String,
    pub secret_key: SecretText,
    pub webhook_secret: SecretText,
    /// Price ids by plan and interval, from `STRIPE_<PLAN>_<MONTHLY|YEARLY>_PRICE_ID`, as the seeds name them.
    #[serde(skip)]
    pub price_ids: BTreeMap<(String, String), String>,
}

/// A setting that must not be printed. Empty text is "not set".
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretText(SecretString);

impl SecretText {
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    pub fn is_set(&self) -> bool {
        !self.0.expose_secret().is_empty()
    }

    /// The secret, if it is set. To be passed on, never to be printed.
    pub fn expose(&self) -> Option<&str> {
        Some(self.0.expose_secret()).filter(|text| !text.is_empty())
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.is_set() { "(set)" } else { "(not set)" })
    }
}

/// Optional text: empty is `None`.
pub fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}
