//! AI usage: the sums over the usage log of calls.

use async_trait::async_trait;
use domain::ai::ProviderId;
use domain::ai_usage::{AiUsageRange, AiUsageSums};
use domain::chat::ChatSessionId;
use domain::users::UserId;

use crate::store::StoreError;

/// Which calls are summed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AiUsageFilter {
    /// `None` is all users.
    pub user_id: Option<UserId>,
    pub provider: Option<ProviderId>,
    pub model: Option<String>,
    pub session_id: Option<ChatSessionId>,
}

#[async_trait]
pub trait AiUsageRepository: Send {
    /// The sums of the calls in the range, as far as their months are kept.
    async fn sum(&mut self, filter: &AiUsageFilter, range: &AiUsageRange) -> Result<AiUsageSums, StoreError>;
}
