//! A provider whose key is not set, where the sandbox may not stand in for it.

use async_trait::async_trait;
use domain::ai::Provider;
use ports::ai::{AiProvider, CallHold, ProviderCall, ProviderFault, Reply, Unanswered};

/// Answers each call with the name of the setting that lacks.
#[derive(Clone, Copy, Debug)]
pub struct KeylessProvider {
    provider: Provider,
}

impl KeylessProvider {
    pub const fn new(provider: Provider) -> Self {
        Self { provider }
    }

    const fn setting(self) -> &'static str {
        match self.provider {
            Provider::OpenAi => "PB__AI__OPENAI__API_KEY",
            Provider::Claude => "PB__AI__CLAUDE__API_KEY",
            Provider::Gemini => "PB__AI__GEMINI__API_KEY",
        }
    }
}

#[async_trait]
impl AiProvider for KeylessProvider {
    async fn send(&self, hold: CallHold, _: &ProviderCall) -> Result<Reply, Unanswered> {
        Err((hold, ProviderFault::NoKey { setting: self.setting() }))
    }

    fn is_sandbox(&self) -> bool {
        false
    }
}
