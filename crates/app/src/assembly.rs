//! Assembly: every service with its ports, once a process.

use std::sync::Arc;
use std::time::Duration;

use adapters::cache::ProcessCache;
use adapters::postgres::PgStore;
use adapters::randomness::SystemRandomness;
use adapters::secrets::access_tokens::BuiltInTokens;
use adapters::secrets::api_keys::ApiKeys;
use adapters::secrets::passwords::{Argon2Passwords, CONCURRENCY};
use adapters::secrets::refresh_tokens::RefreshTokens;
use adapters::secrets::supabase::SupabaseTokens;
use adapters::secrets::totp::SealedTotp;
use adapters::secrets::verified::CachedVerifier;
use chrono::TimeDelta;
use ports::api_keys::KeyMint;
use ports::changes::ChangeListener;
use ports::clock::Clock;
use ports::entitlements::EntitlementCache;
use ports::identity::{CallerCache, TokenVerifier};
use ports::randomness::Randomness;
use ports::store::Store;
use services::ai::{AiCallSettings, AiParts, AiService, StreamPace};
use services::ai_usage::AiUsageService;
use services::api_keys::ApiKeyService;
use services::audit::AuditService;
use services::cache_loader::CacheLoader;
use services::chat::ChatService;
use services::entitlements::EntitlementService;
use services::features::FeatureService;
use services::identity::accounts::AccountService;
use services::identity::callers::CallerService;
use services::maintenance::MaintenanceService;
use services::plans::PlanService;
use services::prices::PriceService;
use services::replays::{ReplayService, ReplaySettings};
use services::tokens::TokenService;
use services::usage::{GroupCommitSettings, UsageService};
use services::usage_history::UsageHistoryService;
use services::users::{IdentityProvider, UserService};

use crate::http::server::Services;
use crate::preparation::admin_email;
use crate::providers::ProviderSet;
use crate::settings::providers::{configured, profiles};
use crate::settings::shape::{Settings, given};
use crate::telemetry::calls::CallMetrics;
use crate::telemetry::export::CallExport;

/// How many stored answers may run at once, and how many bytes of them may be in memory.
const REPLAYS_RUNNING: usize = 2_000;
const REPLAYS_BYTES: usize = 64 * 1024 * 1024;

/// The services, each with its ports.
pub fn rooms(
    settings: &Settings,
    pg: &Arc<PgStore>,
    clock: &Arc<dyn Clock>,
    signing_key: &str,
    export: Option<Arc<CallExport>>,
) -> anyhow::Result<Services> {
    let store: Arc<dyn Store> = Arc::<PgStore>::clone(pg);
    let provider =
        if settings.auth.supabase.is_provider() { IdentityProvider::Supabase } else { IdentityProvider::BuiltIn };
    let memory = Arc::new(process_cache(provider, clock));
    let cache: Arc<dyn CallerCache> = Arc::<ProcessCache>::clone(&memory);
    let changes: Arc<dyn ChangeListener> = Arc::<ProcessCache>::clone(&memory);
    let cache_loader =
        Arc::new(CacheLoader::new(Arc::clone(&store), Arc::clone(&cache), Arc::<ProcessCache>::clone(&memory) as _));
    let mint: Arc<dyn KeyMint> = Arc::new(ApiKeys::new(settings.api_keys.prefix.clone())?);
    let randomness: Arc<dyn Randomness> = Arc::new(SystemRandomness);
    let Identities { verifier, accounts } = identities(settings, &store, clock, &randomness, &cache, signing_key)?;
    let (models, providers) = (settings.ai.models.clone(), profiles(&configured(&settings.ai)?));
    let prices = Arc::new(PriceService::new(&store, clock, &randomness, models, providers));
    let admin_email = admin_email(settings)?.filter(|_| provider == IdentityProvider::Supabase);
    let remembered = || Arc::<ProcessCache>::clone(&memory) as Arc<dyn EntitlementCache>;
    let (listener, loader) = (Arc::clone(&changes), Arc::clone(&cache_loader));
    let entitlements = Arc::new(EntitlementService::new(Arc::clone(&store), remembered(), listener, loader));
    let lanes = group_commit_settings(settings);
    let usage = Arc::new(UsageService::start(Arc::clone(&store), Arc::clone(&randomness), remembered(), lanes));
    let tokens = Arc::new(TokenService { store: Arc::clone(&store), randomness: Arc::clone(&randomness) });
    let models = ProviderSet::new(settings, clock, Arc::clone(&randomness))?;
    let chat = Arc::new(ChatService { store: Arc::clone(&store) });
    let ai_usage = Arc::new(AiUsageService { store: Arc::clone(&store), entitlements: Arc::clone(&entitlements) });
    Ok(Services {
        callers: Arc::new(CallerService::new(
            Arc::clone(&store),
            Arc::clone(clock),
            verifier,
            Arc::clone(&mint),
            Arc::clone(&cache),
            Arc::clone(&cache_loader),
            provider,
        )),
        accounts,
        users: Arc::new(UserService { store: Arc::clone(&store), cache: Arc::clone(&cache), provider, admin_email }),
        plans: Arc::new(PlanService::new(Arc::clone(&store), settings.billing.mode, Arc::clone(&changes))),
        ai: Arc::new(AiService::new(AiParts {
            store: Arc::clone(&store),
            prices: Arc::clone(&prices),
            usage: Arc::clone(&usage),
            entitlements: Arc::clone(&entitlements),
            tokens: Arc::clone(&tokens),
            history: Arc::clone(&chat),
            statistics: Arc::clone(&ai_usage),
            attempts: models.attempts,
            counter: models.counter,
            observer: Arc::new(CallMetrics { clock: Arc::clone(clock), export }),
            clock: Arc::clone(clock),
            settings: ai_settings(settings),
        })),
        clock: Arc::clone(clock),
        prices,
        features: Arc::new(FeatureService { store: Arc::clone(&store), changes: Arc::clone(&changes) }),
        usage,
        ai_usage,
        entitlements,
        tokens,
        usage_history: Arc::new(UsageHistoryService { store: Arc::clone(&store) }),
        chat,
        replays: Arc::new(ReplayService::new(Arc::clone(&store), Arc::clone(&randomness), replay_settings(settings)?)),
        api_keys: Arc::new(ApiKeyService { store: Arc::clone(&store), clock: Arc::clone(clock), mint, cache }),
        audit: Arc::new(AuditService { store: Arc::clone(&store) }),
        maintenance: Arc::new(MaintenanceService { store }),
        changes,
        limits: Arc::new(crate::http::rate_limits::RateLimits::new(settings)?),
        randomness,
        store: Arc::clone(pg),
    })
}

fn process_cache(provider: IdentityProvider, clock: &Arc<dyn Clock>) -> ProcessCache {
    match provider {
        IdentityProvider::BuiltIn => ProcessCache::new(Arc::clone(clock)),
        IdentityProvider::Supabase => ProcessCache::for_identities_elsewhere(Arc::clone(clock)),
    }
}

/// What verifies access tokens, and the built-in accounts.
struct Identities {
    verifier: Arc<dyn TokenVerifier>,
    accounts: Option<Arc<AccountService>>,
}

fn identities(
    settings: &Settings,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    randomness: &Arc<dyn Randomness>,
    cache: &Arc<dyn CallerCache>,
    signing_key: &str,
) -> anyhow::Result<Identities> {
    if settings.auth.supabase.is_provider() {
        let verifier = Arc::new(CachedVerifier::new(supabase_tokens(settings, clock)?, Arc::clone(clock)));
        return Ok(Identities { verifier, accounts: None });
    }
    let built_in =
        || BuiltInTokens::new(signing_key.as_bytes(), settings.auth.access_token_ttl_seconds, Arc::clone(clock));
    let accounts = AccountService {
        store: Arc::clone(store),
        clock: Arc::clone(clock),
        randomness: Arc::clone(randomness),
        passwords: Arc::new(Argon2Passwords::new(CONCURRENCY)),
        tokens: Arc::new(built_in()?),
        secrets: Arc::new(RefreshTokens::new(signing_key.as_bytes())?),
        cache: Arc::clone(cache),
        session_ttl: TimeDelta::days(settings.auth.session_ttl_days.into()),
        second_factors: Arc::new(SealedTotp::new(signing_key.as_bytes())?),
        require_admin_totp: settings.auth.require_admin_totp,
        session_life: TimeDelta::days(settings.auth.session_max_days.max(1).into()),
    };
    let verifier = Arc::new(CachedVerifier::new(built_in()?, Arc::clone(clock)));
    Ok(Identities { verifier, accounts: Some(Arc::new(accounts)) })
}

fn ai_settings(settings: &Settings) -> AiCallSettings {
    let calls = &settings.ai.calls;
    AiCallSettings {
        hold_ttl: TimeDelta::seconds(calls.hold_seconds.max(3).into()),
        assumed_output_tokens: calls.assumed_output_tokens.max(1).into(),
        may_lower: calls.lower_max_tokens,
        strict_holds: calls.strict_holds,
        drain: Duration::from_secs(calls.drain_seconds.into()),
        stream_pace: StreamPace {
            head_wait: Duration::from_millis(calls.head_wait_ms.into()),
            ping_every: Duration::from_millis(calls.ping_ms.into()),
        },
        context_messages: calls.context_messages.into(),
        default_model: calls.default_model.clone(),
        fallbacks: settings.ai.fallbacks.clone().into_iter().collect(),
    }
}

/// A call takes the time of its attempts, and the last of them that of its answer. A stream has no limit; a repeat of
/// one that lasts longer gets the error that it is under way.
fn replay_settings(settings: &Settings) -> anyhow::Result<ReplaySettings> {
    let ai = &settings.ai;
    let providers = configured(ai)?;
    let of_providers = providers.iter().map(|provider| &provider.settings);
    let longest = of_providers.map(|one| one.total_timeout_ms.max(one.first_byte_timeout_ms)).max();
    Ok(ReplaySettings {
        keep: TimeDelta::hours(settings.idempotency.keep_hours.into()),
        call_time: Duration::from_millis(ai.retry_budget_ms.saturating_add(longest.unwrap_or_default())),
        running: REPLAYS_RUNNING,
        bytes: REPLAYS_BYTES,
    })
}

fn group_commit_settings(settings: &Settings) -> GroupCommitSettings {
    let usage = &settings.usage;
    let keep = TimeDelta::days(usage.keep_keys_days.into());
    let keep_reservations = TimeDelta::days(usage.keep_reservations_days.into());
    GroupCommitSettings { lanes: usage.lanes, queue: usage.queue, batch: usage.batch, keep, keep_reservations }
}

fn supabase_tokens(settings: &Settings, clock: &Arc<dyn Clock>) -> anyhow::Result<SupabaseTokens> {
    let supabase = &settings.auth.supabase;
    let (issuer, audience, clock) = (given(&supabase.issuer), supabase.audience.as_str(), Arc::clone(clock));
    Ok(match supabase.jwt_secret.expose() {
        Some(secret) => SupabaseTokens::with_secret(secret.as_bytes(), issuer, audience, clock)?,
        None => SupabaseTokens::with_jwks(&supabase.jwks_url, issuer, audience, clock)?,
    })
}
