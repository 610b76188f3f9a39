//! Calls: what is requested of a model, by which caller, and how large it may become.

pub use domain::ai::InputSize;
use domain::ai::{Dialect, Geo, ModelId, ProviderProfile, Tier};
use domain::api_keys::{ApiKeyId, KeyBudgets};
use domain::chat::ChatSessionId;
use domain::identity::{Caller, Credential, TokenLife};
use domain::usage::HoldId;
use domain::users::UserId;
use ports::ai::CallContent;

use super::fallbacks::CallTranslation;

/// The charged user, and the API key of the request with the budgets that its use counts towards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerContext {
    pub user_id: UserId,
    pub api_key_id: Option<ApiKeyId>,
    pub budgets: KeyBudgets,
    /// For an access token: how long it lasts.
    pub token: Option<TokenLife>,
}

impl From<&Caller> for CallerContext {
    fn from(caller: &Caller) -> Self {
        let (api_key_id, budgets) = match &caller.credential {
            Credential::Key { id, budgets, .. } => (Some(ApiKeyId(*id)), budgets.clone()),
            Credential::Token => (None, KeyBudgets::default()),
        };
        Self { user_id: caller.user_id, api_key_id, budgets, token: caller.token }
    }
}

/// A model that can be called, with what the catalogue and the prices say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    pub provider: ProviderProfile,
    pub model: ModelId,
    pub max_input_tokens: Option<u64>,
    pub max_output_tokens: Option<u64>,
    /// Whether the built-in provider answers in place of this one: it takes conversations only.
    pub is_sandbox: bool,
}

impl ResolvedModel {
    /// Whether a call in this dialect can be passed on as it came.
    pub fn takes_natively(&self, dialect: Dialect) -> bool {
        self.provider.dialect == dialect && !self.is_sandbox
    }
}

/// How much output is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBound {
    /// The caller's bound, for each answer.
    pub asked: Option<u64>,
    /// How many answers were requested (`n`, `candidateCount`): 1 or more.
    pub answers: u64,
    /// Whether the bound may be lowered to what can be paid. Otherwise the call is refused.
    pub may_be_lowered: bool,
    /// Whether all of the bound is reserved for a streamed call too, rather than a part of it.
    pub is_strict: bool,
}

/// What of a conversation is stored with the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTurn {
    pub session_id: ChatSessionId,
    /// The user's message.
    pub said: String,
    /// Its number of tokens, as counted.
    pub said_tokens: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub asking: CallerContext,
    pub target: ResolvedModel,
    pub content: CallContent,
    pub streamed: bool,
    pub input: InputSize,
    pub output: OutputBound,
    /// The requested tier; the provider reports which one it used.
    pub tier: Tier,
    /// The requested region.
    pub geo: Geo,
    /// The id of its reservation, where another part needs to know it; one is generated where none is given.
    pub hold_id: Option<HoldId>,
    /// The conversation that it belongs to, if any.
    pub keeping: Option<SessionTurn>,
    /// Whether the caller retries by itself: then each provider is sent the call once, so that retries do not multiply.
    pub retried_by_caller: bool,
    /// For a native call: translates it for another provider.
    pub translation: Option<CallTranslation>,
}
