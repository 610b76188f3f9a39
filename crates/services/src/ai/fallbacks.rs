//! Fallbacks: the calls that are sent to other models where the first one fails.
//!
//! A native call goes to models of the same dialect as it is. To a model of another dialect it goes as a conversation,
//! if its body has nothing that only its own dialect knows. A fallback that cannot take the call is
//! passed over; the reason is logged once the first model has failed.

use std::fmt;
use std::sync::Arc;

use domain::ai::{Conversation, ProviderId, ProviderProfile};
use domain::prices::ModelPurpose;
use ports::ai::{AiOperation, CallContent, ProviderCall};
use thiserror::Error;
use tracing::warn;

use super::calls::{Call, ResolvedModel};
use super::errors::CallError;
use super::service::AiService;

/// Translates a native body into a conversation for another provider, or names the part that cannot be translated.
#[derive(Clone)]
pub struct CallTranslation(Arc<Translate>);

type Translate = dyn Fn(&str, ProviderId) -> Result<Conversation, String> + Send + Sync;

impl CallTranslation {
    pub fn by(translate: impl Fn(&str, ProviderId) -> Result<Conversation, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(translate))
    }
}

impl fmt::Debug for CallTranslation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CallTranslation(..)")
    }
}

impl PartialEq for CallTranslation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Why a fallback is passed over.
#[derive(Debug, Error)]
enum PassedOver {
    #[error(transparent)]
    Unknown(#[from] CallError),
    #[error("one of the two is answered by the sandbox")]
    Sandbox,
    #[error("it is the model that failed")]
    Itself,
    #[error("embeddings of one provider mean nothing to another")]
    Embeddings,
    #[error("the call cannot be translated for it: see `{0}`")]
    Untranslated(String),
}

impl AiService {
    /// The fallbacks that can take this call, in their order.
    pub(super) async fn fallbacks(&self, call: &Call) -> Vec<ProviderCall> {
        let mut calls = Vec::new();
        for name in self.named_fallbacks(call) {
            if let Ok(fallback) = self.fallback(call, name).await {
                calls.push(fallback);
            }
        }
        calls
    }

    /// Logs, once the first model of a call has failed, which fallbacks were passed over and why.
    pub(super) async fn tell_passed_over(&self, call: &Call) {
        for name in self.named_fallbacks(call) {
            if let Err(why) = self.fallback(call, name).await {
                warn!(model = %call.target.model, fallback = name, %why, "a fallback is passed over");
            }
        }
    }

    fn named_fallbacks(&self, call: &Call) -> impl Iterator<Item = &str> {
        let names = self.parts.settings.fallbacks.get(call.target.model.as_str());
        names.into_iter().flatten().map(String::as_str)
    }

    async fn fallback(&self, call: &Call, name: &str) -> Result<ProviderCall, PassedOver> {
        let purpose = match &call.content {
            CallContent::Native(native) if native.operation == AiOperation::Embeddings => ModelPurpose::Embedding,
            CallContent::Native(_) | CallContent::Conversation(_) => ModelPurpose::Chat,
        };
        let target = self.target(name, None, purpose).await?;
        if (target.provider.id, &target.model) == (call.target.provider.id, &call.target.model) {
            return Err(PassedOver::Itself);
        }
        if target.is_sandbox != call.target.is_sandbox {
            return Err(PassedOver::Sandbox);
        }
        Ok(provider_call(call, &target, content(call, target.provider)?))
    }
}

/// The content for a model of this provider.
fn content(call: &Call, provider: ProviderProfile) -> Result<CallContent, PassedOver> {
    match &call.content {
        CallContent::Native(native)
            if native.operation == AiOperation::Embeddings && provider.id != call.target.provider.id =>
        {
            Err(PassedOver::Embeddings)
        }
        CallContent::Native(native) if provider.dialect != call.target.provider.dialect => {
            let translation = call.translation.as_ref().ok_or(PassedOver::Embeddings)?;
            let translated = (translation.0)(&native.body, provider.id).map_err(PassedOver::Untranslated)?;
            Ok(CallContent::Conversation(translated))
        }
        content => Ok(content.clone()),
    }
}

/// The call as it is sent to a model.
pub(super) fn provider_call(call: &Call, target: &ResolvedModel, content: CallContent) -> ProviderCall {
    ProviderCall {
        provider: target.provider,
        model: target.model.clone(),
        content,
        streamed: call.streamed,
        max_output_tokens: None,
    }
}
