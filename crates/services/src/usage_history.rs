//! Usage history: what was used when, for the caller, another user or all users, and the job that sums it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::features::FeatureId;
use domain::identity::UsageSubject;
use domain::usage::PeriodKind;
use domain::usage_history::{RangeRefused, UsageBucket, UsageSum, stretch};
use ports::store::{Page, Scope, Store, StoreError, UnitOfWork};
use ports::usage_history::{UsageFilter, UsagePosition};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum UsageHistoryError {
    #[error("there is no such user")]
    UnknownUser,
    #[error("there is no feature `{0}`")]
    UnknownFeature(FeatureId),
    #[error("the range {0}")]
    Range(#[from] RangeRefused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The requested use, buckets and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuestion {
    pub feature_id: Option<FeatureId>,
    pub period: Option<PeriodKind>,
    pub bucket: UsageBucket,
    pub from: Option<DateTime<Utc>>,
    /// If `None`: now, by the database's clock.
    pub to: Option<DateTime<Utc>>,
}

pub struct UsageHistoryService {
    pub store: Arc<dyn Store>,
}

impl UsageHistoryService {
    /// What one user used.
    pub async fn list(
        &self,
        subject: UsageSubject,
        question: &UsageQuestion,
        page: &Page<UsagePosition>,
    ) -> Result<Vec<UsageSum>, UsageHistoryError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        if let UsageSubject::Another(user_id) = subject
            && work.users().find_role(user_id).await?.is_none()
        {
            return Err(UsageHistoryError::UnknownUser);
        }
        let user_id = Some(subject.user_id());
        let filter = UsageFilter { user_id, feature_id: question.feature_id.clone(), period: question.period };
        let sums = read(&mut *work, &filter, question, page).await?;
        work.commit().await?;
        Ok(sums)
    }

    /// What all users used together.
    pub async fn list_all(
        &self,
        question: &UsageQuestion,
        page: &Page<UsagePosition>,
    ) -> Result<Vec<UsageSum>, UsageHistoryError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let filter = UsageFilter { user_id: None, feature_id: question.feature_id.clone(), period: question.period };
        let sums = read(&mut *work, &filter, question, page).await?;
        work.commit().await?;
        Ok(sums)
    }

    /// Sums a bounded part of what is not summed yet. Returns how many hours are left.
    pub async fn roll_up(&self) -> Result<i64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let hours_left = work.usage_history().roll_up().await?;
        work.commit().await?;
        Ok(hours_left)
    }

    /// The same for calls of models.
    pub async fn roll_up_calls(&self) -> Result<i64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let hours_left = work.usage_history().roll_up_calls().await?;
        work.commit().await?;
        Ok(hours_left)
    }

    /// How many seconds the sums are behind; `None` before the first roll-up.
    pub async fn lag_seconds(&self) -> Result<Option<i64>, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let lag = work.usage_history().lag_seconds().await?;
        work.commit().await?;
        Ok(lag)
    }
}

async fn read(
    work: &mut dyn UnitOfWork,
    filter: &UsageFilter,
    question: &UsageQuestion,
    page: &Page<UsagePosition>,
) -> Result<Vec<UsageSum>, UsageHistoryError> {
    if let Some(feature_id) = &filter.feature_id
        && work.features().find(feature_id).await?.is_none()
    {
        return Err(UsageHistoryError::UnknownFeature(feature_id.clone()));
    }
    // The database's time is read only where the question gives no end.
    let now = match question.to {
        Some(to) => to,
        None => work.usage_history().now().await?,
    };
    let stretch = stretch(question.bucket, question.from, question.to, now)?;
    Ok(work.usage_history().list(filter, &stretch, page).await?)
}
