//! AI usage: what calls of models used and cost, for the caller, another user or all users, and what may still be used.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::ai::ProviderId;
use domain::ai_usage::{AiRangeRefused, AiUsageRange, AiUsageSums, range};
use domain::chat::ChatSessionId;
use domain::entitlements::Decision;
use domain::features::FeatureId;
use domain::identity::UsageSubject;
use ports::ai_usage::AiUsageFilter;
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;

use crate::entitlements::{EntitlementError, EntitlementService};

#[derive(Debug, Error)]
pub enum AiUsageError {
    #[error("there is no such user")]
    UnknownUser,
    #[error("the range {0}")]
    Range(#[from] AiRangeRefused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The requested calls and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AiUsageQuestion {
    pub provider: Option<ProviderId>,
    pub model: Option<String>,
    pub session_id: Option<ChatSessionId>,
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
}

/// How many more calls may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallsLeft {
    /// Whether one more is allowed now.
    Decided(Decision),
    /// An operator has deleted the feature, so there are none.
    NoFeature,
    /// The calls of all users were summed, and each user has a limit of their own.
    OfEverybody,
}

/// The sums, the time that they are of, and how many calls are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiUsage {
    pub range: AiUsageRange,
    pub sums: AiUsageSums,
    pub left: CallsLeft,
}

pub struct AiUsageService {
    pub store: Arc<dyn Store>,
    pub entitlements: Arc<EntitlementService>,
}

impl AiUsageService {
    /// The sums of one user's calls. What may still be used is at most a second behind the database.
    pub async fn sum(&self, subject: UsageSubject, question: &AiUsageQuestion) -> Result<AiUsage, AiUsageError> {
        let (range, sums) = self.read(Some(subject), question).await?;
        Ok(AiUsage { range, sums, left: self.left(subject).await? })
    }

    /// The sums of all users' calls.
    pub async fn sum_all(&self, question: &AiUsageQuestion) -> Result<AiUsage, AiUsageError> {
        let (range, sums) = self.read(None, question).await?;
        Ok(AiUsage { range, sums, left: CallsLeft::OfEverybody })
    }

    async fn read(
        &self,
        subject: Option<UsageSubject>,
        question: &AiUsageQuestion,
    ) -> Result<(AiUsageRange, AiUsageSums), AiUsageError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        if let Some(UsageSubject::Another(user_id)) = subject
            && work.users().find_role(user_id).await?.is_none()
        {
            return Err(AiUsageError::UnknownUser);
        }
        // The database's time is read only where the question gives no end.
        let now = match question.to {
            Some(to) => to,
            None => work.usage_history().now().await?,
        };
        let range = range(question.from, question.to, now)?;
        let filter = AiUsageFilter {
            user_id: subject.map(UsageSubject::user_id),
            provider: question.provider,
            model: question.model.clone(),
            session_id: question.session_id,
        };
        let sums = work.ai_usage().sum(&filter, &range).await?;
        work.commit().await?;
        Ok((range, sums))
    }

    async fn left(&self, subject: UsageSubject) -> Result<CallsLeft, AiUsageError> {
        match self.entitlements.check(subject, &FeatureId::ai_requests(), 1).await {
            Ok(decision) => Ok(CallsLeft::Decided(decision)),
            Err(EntitlementError::UnknownFeature(_) | EntitlementError::NoOverride(_)) => Ok(CallsLeft::NoFeature),
            Err(EntitlementError::UnknownUser) => Err(AiUsageError::UnknownUser),
            Err(EntitlementError::Store(error)) => Err(error.into()),
        }
    }
}
