//! Providers of models, made from the settings: who answers for each of them, and how often it is tried.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use adapters::ai::sandbox::SandboxProvider;
use adapters::ai::token_counter::O200kCounter;
use adapters::ai::{HttpProvider, KeylessProvider, ProviderAccess, ProviderTimeouts};
use anyhow::Context;
use domain::ai::BreakerRules;
use ports::ai::{AiProvider, TokenCounter};
use ports::clock::Clock;
use ports::randomness::Randomness;
use services::ai::attempts::{AttemptRules, CallAttempts, TriedProvider};
use tracing::info;

use crate::settings::providers::{ConfiguredProvider, configured};
use crate::settings::shape::{Environment, SandboxMode, Settings};

/// The longest pause before a second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest wait for the next attempt, whatever the provider asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

pub struct ProviderSet {
    pub attempts: Arc<CallAttempts>,
    pub counter: Arc<dyn TokenCounter>,
}

impl ProviderSet {
    /// A provider with a key is called itself; without one the sandbox answers, or an error names the missing setting.
    pub fn new(settings: &Settings, clock: &Arc<dyn Clock>, randomness: Arc<dyn Randomness>) -> anyhow::Result<Self> {
        let counter: Arc<dyn TokenCounter> = Arc::new(O200kCounter);
        let sandbox: Option<Arc<dyn AiProvider>> = sandbox_answers(settings).then(|| {
            let sandbox: Arc<dyn AiProvider> = Arc::new(SandboxProvider::new(Arc::clone(&counter)));
            sandbox
        });
        let mut tried = HashMap::new();
        for of_settings in &configured(&settings.ai)? {
            let provider = answering(of_settings, sandbox.as_ref(), clock)?;
            let max_attempts = of_settings.settings.max_attempts;
            tried.insert(of_settings.profile.id, TriedProvider { provider, max_attempts });
        }
        let attempts = Arc::new(CallAttempts::new(tried, rules(settings), randomness));
        Ok(Self { attempts, counter })
    }
}

fn sandbox_answers(settings: &Settings) -> bool {
    match settings.ai.sandbox {
        SandboxMode::Auto => settings.environment != Environment::Production,
        SandboxMode::On => true,
        SandboxMode::Off => false,
    }
}

fn answering(
    provider: &ConfiguredProvider,
    sandbox: Option<&Arc<dyn AiProvider>>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn AiProvider>> {
    let (id, settings) = (provider.profile.id, &provider.settings);
    let Some(api_key) = settings.api_key.expose() else {
        return Ok(match sandbox {
            Some(sandbox) => {
                info!(provider = %id, "no key is set: the sandbox answers for this provider");
                Arc::clone(sandbox)
            }
            None => Arc::new(KeylessProvider::new(provider.key_variable())),
        });
    };
    let base_url = settings.base_url.trim();
    let timeouts = ProviderTimeouts {
        connect: Duration::from_millis(settings.connect_timeout_ms),
        first_byte: Duration::from_millis(settings.first_byte_timeout_ms),
        idle: Duration::from_millis(settings.idle_timeout_ms),
        total: Duration::from_millis(settings.total_timeout_ms),
    };
    let access = ProviderAccess {
        base_url,
        api_key: api_key.trim(),
        auth: provider.auth.as_ref(),
        headers: &provider.headers,
        query: &provider.query,
    };
    let made = HttpProvider::new(provider.profile, access, timeouts, Arc::clone(clock))
        .with_context(|| format!("the settings {} cannot be used", provider.section))?;
    Ok(Arc::new(made))
}

fn rules(settings: &Settings) -> AttemptRules {
    AttemptRules {
        first_pause: FIRST_PAUSE,
        longest_pause: LONGEST_PAUSE,
        time_budget: Duration::from_millis(settings.ai.retry_budget_ms),
        resend_after_timeout: settings.ai.resend_after_timeout,
        breaker: BreakerRules {
            failures: settings.ai.breaker_failures,
            callers: settings.ai.breaker_callers,
            open_for: Duration::from_secs(settings.ai.breaker_open_seconds),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use adapters::clock::SystemClock;
    use adapters::randomness::SystemRandomness;
    use domain::ai::{Conversation, ConversationTurn, ModelId, ProviderId, ProviderProfile, Speaker};
    use domain::usage::HoldId;
    use domain::users::UserId;
    use ports::ai::{CallContent, CallReservation, CommentSink, ProviderCall, ProviderFault};
    use services::ai::attempts::{AttemptTerms, CallFailure, SentCall, UnsentCall};
    use uuid::Uuid;

    use super::*;
    use crate::settings::load::load;

    fn made(variables: &[(&str, &str)]) -> anyhow::Result<ProviderSet> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let settings = load(&variables, Path::new("/nonexistent"))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        ProviderSet::new(&settings, &clock, Arc::new(SystemRandomness))
    }

    fn are_sandboxes(variables: &[(&str, &str)]) -> [bool; 3] {
        let made = made(variables).unwrap();
        ProviderId::BUILT_IN.map(|provider| made.attempts.is_sandbox(provider))
    }

    const PRODUCTION: [(&str, &str); 2] =
        [("PB__ENVIRONMENT", "production"), ("PB__AUTH__SIGNING_KEY", "a-key-that-stands-in-no-tutorial-at-all")];

    #[test]
    fn the_sandbox_answers_where_no_key_is_and_nobody_forbids_it() {
        assert_eq!(are_sandboxes(&[]), [true; 3]);
        assert_eq!(are_sandboxes(&[("PB__AI__CLAUDE__API_KEY", "k")]), [true, false, true]);
        assert_eq!(are_sandboxes(&[("PB__AI__SANDBOX", "off")]), [false; 3]);
        assert_eq!(are_sandboxes(&PRODUCTION), [false; 3]);
        let on = [PRODUCTION[0], PRODUCTION[1], ("PB__AI__SANDBOX", "on")];
        assert_eq!(are_sandboxes(&on), [true; 3]);
    }

    #[test]
    fn an_address_that_cannot_be_called_is_told_at_the_start() {
        let error = made(&[("PB__AI__OPENAI__API_KEY", "k"), ("PB__AI__OPENAI__BASE_URL", "api.openai.com")]).err();
        let error = format!("{:#}", error.unwrap());
        assert!(error.contains("ai.openai") && error.contains("base URL"), "{error}");
        let trailing = [("PB__AI__GEMINI__API_KEY", "k\n"), ("PB__AI__GEMINI__BASE_URL", "https://x.test/ ")];
        assert!(made(&trailing).is_ok());
    }

    struct Unheard;

    impl CommentSink for Unheard {
        fn comment(&self, _: Vec<u8>) {}
    }

    #[tokio::test]
    async fn a_call_is_answered_by_whoever_stands_there() {
        let call = ProviderCall {
            provider: ProviderProfile::CLAUDE,
            model: ModelId::parse("claude-sonnet-5").unwrap(),
            content: CallContent::Conversation(Conversation {
                turns: vec![ConversationTurn::text(Speaker::User, "hello")],
                ..Conversation::default()
            }),
            streamed: false,
            max_output_tokens: None,
        };
        let hold = || CallReservation::granted(HoldId(Uuid::nil()));
        let terms =
            AttemptTerms { user_id: UserId(Uuid::nil()), retried_by_caller: false, comments: Arc::new(Unheard) };
        let answered = made(&[]).unwrap().attempts.call(hold(), std::slice::from_ref(&call), &terms).await;
        assert!(matches!(answered, Ok(SentCall { place: 0, .. })));
        let off = made(&[("PB__AI__SANDBOX", "off")]).unwrap();
        let Err(UnsentCall { failure, .. }) = off.attempts.call(hold(), &[call], &terms).await else { panic!() };
        let fault = ProviderFault::NoKey { setting: "PB__AI__CLAUDE__API_KEY".to_owned() };
        assert_eq!(failure, CallFailure::Provider { provider: ProviderId::CLAUDE, fault });
    }
}
