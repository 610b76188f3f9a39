//! Calls: what is asked of a model, by whom, and how large it may become.

pub use domain::ai::InputSize;
use domain::ai::{ModelId, Provider, Tier};
use domain::api_keys::{ApiKeyId, KeyBudgets};
use domain::chat::ChatSessionId;
use domain::identity::{Caller, Credential};
use domain::usage::HoldId;
use domain::users::UserId;
use ports::ai::CallContent;

use super::fallbacks::Translation;

/// Who is charged, and the key by which it was asked, with the budgets that its use counts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    pub user_id: UserId,
    pub api_key_id: Option<ApiKeyId>,
    pub budgets: KeyBudgets,
}

impl From<&Caller> for Asking {
    fn from(caller: &Caller) -> Self {
        let (api_key_id, budgets) = match &caller.credential {
            Credential::Key { id, budgets, .. } => (Some(ApiKeyId(*id)), budgets.clone()),
            Credential::Token => (None, KeyBudgets::default()),
        };
        Self { user_id: caller.user_id, api_key_id, budgets }
    }
}

/// A model that can be called, as the catalogue and the prices know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub provider: Provider,
    pub model: ModelId,
    pub max_input_tokens: Option<u64>,
    pub max_output_tokens: Option<u64>,
    /// Whether the built-in provider answers in this one's name: it takes conversations only.
    pub is_sandbox: bool,
}

impl Target {
    /// Whether a call in the words of this provider can be passed on as it came.
    pub fn takes_natively(&self, dialect: Provider) -> bool {
        self.provider == dialect && !self.is_sandbox
    }
}

/// How much may come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBound {
    /// What the caller allowed, for each answer.
    pub asked: Option<u64>,
    /// How many answers were asked for (`n`, `candidateCount`): 1 or more.
    pub answers: u64,
    /// Whether the bound may be lowered to what can be paid, rather than the call refused.
    pub may_be_lowered: bool,
    /// Whether all of the bound is held before a streamed call too, rather than a first part that grows with the answer.
    pub is_strict: bool,
}

/// What of a conversation is kept with the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    pub session_id: ChatSessionId,
    /// What the user said.
    pub said: String,
    /// Its tokens, as they were counted.
    pub said_tokens: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub asking: Asking,
    pub target: Target,
    pub content: CallContent,
    pub streamed: bool,
    pub input: InputSize,
    pub output: OutputBound,
    /// The tier that was asked for; the provider says which one it was.
    pub tier: Tier,
    /// The id of its hold, where something else is to know it by that; one is made where none is given.
    pub hold_id: Option<HoldId>,
    /// The conversation to which it belongs, where it does.
    pub keeping: Option<Keeping>,
    /// Whether whoever asks tries again by itself: then each provider is sent the call once, so that retries do not
    /// multiply.
    pub retried_by_caller: bool,
    /// For a native call: how it is asked of another provider.
    pub translation: Option<Translation>,
}
