//! A provider without an API key, where the sandbox may not replace it.

use async_trait::async_trait;
use domain::ai::Provider;
use ports::ai::{AiProvider, CallReservation, CallUnanswered, ProviderCall, ProviderFault, ProviderReply};

/// Fails each call with the name of the missing setting.
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
    async fn send(&self, hold: CallReservation, _: &ProviderCall) -> Result<ProviderReply, CallUnanswered> {
        Err((hold, ProviderFault::NoKey { setting: self.setting() }))
    }

    fn is_sandbox(&self) -> bool {
        false
    }
}
