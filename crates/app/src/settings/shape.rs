//! The shape of the settings: one struct a section, no unknown key anywhere, secrets in types that do not print.

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
    pub server: Server,
    pub database: Database,
    pub auth: Auth,
    pub admin: Admin,
    pub billing: Billing,
    pub api_keys: ApiKeys,
    pub idempotency: Idempotency,
    pub usage: Usage,
    pub rate_limits: RateLimits,
    pub metrics: Metrics,
    pub log: Log,
    pub telemetry: Telemetry,
    pub ai: Ai,
    pub stripe: Stripe,
}

impl Settings {
    /// Every secret that is set, for whoever keeps them out of the logs.
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
        all.into_iter().filter_map(Secret::expose)
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
pub struct Server {
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
pub struct Database {
    pub url: Secret,
    pub direct_url: Secret,
    pub pooler: Pooler,
    pub max_connections: u32,
    pub acquire_timeout_ms: u64,
    pub statement_timeout_ms: u32,
    pub lock_timeout_ms: u32,
    pub idle_in_transaction_timeout_ms: u32,
    pub migrate_on_start: bool,
    pub require_restricted_role: bool,
    pub embedded: Embedded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooler {
    None,
    Transaction,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    pub dir: PathBuf,
    pub bin: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub signing_key: Secret,
    pub access_token_ttl_seconds: u64,
    pub session_ttl_days: u16,
    pub session_max_days: u16,
    pub reauthentication_minutes: u32,
    pub require_admin_totp: bool,
    pub supabase: Supabase,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supabase {
    pub jwt_secret: Secret,
    pub jwks_url: String,
    pub issuer: String,
    pub audience: String,
}

impl Supabase {
    /// Whether Supabase is the identity provider.
    pub fn is_provider(&self) -> bool {
        self.jwt_secret.is_set() || !self.jwks_url.is_empty()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub email: String,
    pub password: Secret,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Billing {
    pub mode: BillingMode,
    pub past_due_grace_days: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    pub prefix: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    pub keep_hours: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    pub lanes: usize,
    pub queue: usize,
    pub batch: usize,
    pub keep_keys_days: u16,
    pub keep_reservations_days: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    pub logins_per_ip: u32,
    pub login_failures_per_account: u32,
    pub login_failures_before_delay: u32,
    /// Of earlier releases; it is read and means nothing.
    #[serde(default)]
    pub logins_per_account: Option<u32>,
    pub refreshes_per_ip: u32,
    pub signups_per_ip: u32,
    pub failures_per_ip: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    pub token: Secret,
    pub port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// Where calls of models are told to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
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
pub struct Ai {
    pub sandbox: Sandbox,
    pub retry_budget_ms: u64,
    pub resend_after_timeout: bool,
    pub breaker_failures: u32,
    pub breaker_callers: u32,
    pub breaker_open_seconds: u64,
    /// By the name of a model, those that answer in its place where it fails, in this order.
    pub fallbacks: BTreeMap<String, Vec<String>>,
    pub openai: AiProvider,
    pub claude: AiProvider,
    pub gemini: AiProvider,
    pub calls: AiCalls,
    pub body_limits: AiBodyLimits,
    /// Whether a provider's address may be plain HTTP in production.
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

/// How calls of models are held and followed.
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

/// Whether the sandbox answers for a provider that has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Everywhere but in production.
    Auto,
    On,
    Off,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiProvider {
    pub base_url: String,
    pub api_key: Secret,
    pub connect_timeout_ms: u64,
    pub first_byte_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub total_timeout_ms: u64,
    pub max_attempts: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stripe {
    pub base_url: String,
    pub secret_key: Secret,
    pub webhook_secret: Secret,
    /// Price ids by plan and interval, from `STRIPE_<PLAN>_<MONTHLY|YEARLY>_PRICE_ID`, as the seeds name them.
    #[serde(skip)]
    pub price_ids: BTreeMap<(String, String), String>,
}

/// A setting that must not be printed. Empty text is "not set".
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    pub fn is_set(&self) -> bool {
        !self.0.expose_secret().is_empty()
    }

    /// The secret, if there is one. For handing on, never for printing.
    pub fn expose(&self) -> Option<&str> {
        Some(self.0.expose_secret()).filter(|text| !text.is_empty())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.is_set() { "(set)" } else { "(not set)" })
    }
}

/// Text that may be left out: empty is `None`.
pub fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}
