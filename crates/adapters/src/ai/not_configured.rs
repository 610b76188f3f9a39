//! A provider without an API key, where the sandbox may not replace it.

use async_trait::async_trait;
use ports::ai::{AiProvider, CallReservation, CallUnanswered, ProviderCall, ProviderFault, ProviderReply};

/// Fails each call with the name of the missing setting.
#[derive(Clone, Debug)]
pub struct KeylessProvider {
    setting: String,
}

impl KeylessProvider {
    pub const fn new(setting: String) -> Self {
        Self { setting }
    }
}

#[async_trait]
impl AiProvider for KeylessProvider {
    async fn send(&self, hold: CallReservation, _: &ProviderCall) -> Result<ProviderReply, CallUnanswered> {
        Err((hold, ProviderFault::NoKey { setting: self.setting.clone() }))
    }

    fn is_sandbox(&self) -> bool {
        false
    }
}
