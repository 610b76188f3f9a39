//! Usage history: usage over time, of the caller, of another user, of all users.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::features::FeatureId;
use domain::identity::Permission;
use domain::usage::PeriodKind;
use domain::usage_history::{UsageBucket, UsageSum};
use domain::users::UserId;
use ports::store::Page;
use ports::usage_history::UsagePosition;
use serde::{Deserialize, Serialize};
use services::usage_history::{UsageHistoryError, UsageHistoryService, UsageQuestion};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{CheckUsage, PermittedCaller, ReadAnyUsage};
use super::pages::{PageQuery, PageView};
use super::plans::{PeriodName, feature_id};
use super::problem::{Problem, ProblemView, sentence};
use super::spawn::detached;
use super::validation::{ValidQuery, in_calendar};

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// The user; the caller by default. Another user needs `usage:check` with `on_behalf`, or an administrator.
    user_id: Option<Uuid>,
    /// Only usage of this feature.
    #[validate(length(max = 50))]
    #[param(max_length = 50)]
    feature_id: Option<String>,
    /// The length of each bucket, in UTC; `day` by default.
    #[param(value_type = Option<BucketName>)]
    bucket: Option<UsageBucket>,
    /// Only usage that was counted in this kind of period.
    #[param(value_type = Option<PeriodName>)]
    period: Option<PeriodKind>,
    /// From the bucket that contains this time; 30 days before `to` by default.
    #[validate(custom(function = "in_calendar"))]
    from: Option<DateTime<Utc>>,
    /// Up to this time, rounded up to the end of a bucket; now by default.
    #[validate(custom(function = "in_calendar"))]
    to: Option<DateTime<Utc>>,
    /// How many rows to show; 20 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[validate(length(max = 100))]
    #[param(pattern = r"^[0-9]{1,16}\.[a-z0-9_-]{1,50}\.[a-z_]{3,14}\.[0-9]{1,16}$")]
    cursor: Option<String>,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AllUsageQuery {
    /// Only usage of this feature.
    #[validate(length(max = 50))]
    #[param(max_length = 50)]
    feature_id: Option<String>,
    /// The length of each bucket, in UTC; `day` by default.
    #[param(value_type = Option<BucketName>)]
    bucket: Option<UsageBucket>,
    /// Only usage that was counted in this kind of period.
    #[param(value_type = Option<PeriodName>)]
    period: Option<PeriodKind>,
    /// From the bucket that contains this time; 30 days before `to` by default.
    #[validate(custom(function = "in_calendar"))]
    from: Option<DateTime<Utc>>,
    /// Up to this time, rounded up to the end of a bucket; now by default.
    #[validate(custom(function = "in_calendar"))]
    to: Option<DateTime<Utc>>,
    /// How many rows to show; 20 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[validate(length(max = 100))]
    #[param(pattern = r"^[0-9]{1,16}\.[a-z0-9_-]{1,50}\.[a-z_]{3,14}\.[0-9]{1,16}$")]
    cursor: Option<String>,
}

/// The length of a bucket, in UTC.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum BucketName {
    Hour,
    Day,
    Month,
}

/// The usage of a feature in a bucket, as it was counted in one period.
#[derive(Serialize, ToSchema)]
pub struct UsageSumView {
    pub feature_id: String,
    /// The start of the bucket.
    pub bucket: DateTime<Utc>,
    #[schema(value_type = PeriodName)]
    pub period: PeriodKind,
    pub period_start: DateTime<Utc>,
    /// The used amount, including `overage`.
    pub amount: i64,
    /// The part of it beyond the limit.
    pub overage: i64,
    /// The number of consumptions.
    pub events: i64,
}

impl From<&UsageSum> for UsageSumView {
    fn from(sum: &UsageSum) -> Self {
        Self {
            feature_id: sum.feature_id.to_string(),
            bucket: sum.bucket,
            period: sum.period,
            period_start: sum.period_start,
            amount: sum.amount,
            overage: sum.overage,
            events: sum.events,
        }
    }
}

impl From<UsageHistoryError> for Problem {
    fn from(error: UsageHistoryError) -> Self {
        match error {
            UsageHistoryError::Store(error) => error.into(),
            UsageHistoryError::Range(why) => Self::invalid_field("from", why.to_string()),
            absent => Self::not_found(sentence(&absent.to_string())),
        }
    }
}

/// Lists the usage of each feature, newest first. It includes all usage that was acknowledged before.
#[utoipa::path(get, path = "/api/usage", tag = "usage", operation_id = "list_usage", params(UsageQuery), responses(
    (status = 200, description = "A page of sums", body = PageView<UsageSumView>),
    (status = 404, description = "No such feature, or no such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn list_usage(
    asking: PermittedCaller<CheckUsage>,
    query: ValidQuery<UsageQuery>,
    history: Data<UsageHistoryService>,
) -> Result<Json<PageView<UsageSumView>>, Problem> {
    let UsageQuery { user_id, feature_id, bucket, period, from, to, limit, cursor } = query.0;
    let subject = asking.caller.acting_for(user_id.map(UserId), Permission::UsageCheck)?;
    let question = question(feature_id.as_deref(), bucket, period, (from, to))?;
    let paging = PageQuery { limit, cursor };
    let page = page_after(&paging)?;
    let history = history.into_inner();
    let sums = detached(async move { history.list(subject, &question, &page).await }).await?;
    Ok(Json(shown(&paging, &sums)))
}

/// Lists the usage of each feature by all users together, newest first.
#[utoipa::path(get, path = "/api/admin/usage", tag = "operators", operation_id = "list_all_usage", params(AllUsageQuery), responses(
    (status = 200, description = "A page of sums", body = PageView<UsageSumView>),
    (status = 404, description = "No such feature", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn list_all_usage(
    _admin: PermittedCaller<ReadAnyUsage>,
    query: ValidQuery<AllUsageQuery>,
    history: Data<UsageHistoryService>,
) -> Result<Json<PageView<UsageSumView>>, Problem> {
    let AllUsageQuery { feature_id, bucket, period, from, to, limit, cursor } = query.0;
    let question = question(feature_id.as_deref(), bucket, period, (from, to))?;
    let paging = PageQuery { limit, cursor };
    let page = page_after(&paging)?;
    let history = history.into_inner();
    let sums = detached(async move { history.list_all(&question, &page).await }).await?;
    Ok(Json(shown(&paging, &sums)))
}

fn question(
    feature: Option<&str>,
    bucket: Option<UsageBucket>,
    period: Option<PeriodKind>,
    (from, to): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
) -> Result<UsageQuestion, Problem> {
    let feature_id = feature.map(feature_id).transpose()?;
    Ok(UsageQuestion { feature_id, period, bucket: bucket.unwrap_or_default(), from, to })
}

/// The rows to read, one more than is shown. A cursor is the key of the last row that was shown.
fn page_after(paging: &PageQuery) -> Result<Page<UsagePosition>, Problem> {
    let unknown = || Problem::invalid_field("cursor", "is not one that this service gave; take `next_cursor` as it is");
    let after = paging.cursor.as_deref().map(|cursor| position(cursor).ok_or_else(unknown)).transpose()?;
    Ok(Page { after, limit: paging.rows() })
}

fn position(cursor: &str) -> Option<UsagePosition> {
    let mut parts = cursor.split('.');
    let position = UsagePosition {
        bucket: moment(parts.next()?)?,
        feature_id: FeatureId::parse(parts.next()?).ok()?,
        period: parts.next()?.parse().ok()?,
        period_start: moment(parts.next()?)?,
    };
    parts.next().is_none().then_some(position)
}

fn moment(micros: &str) -> Option<DateTime<Utc>> {
    let is_number = micros.len() <= 16 && micros.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| micros.parse().ok().and_then(DateTime::from_timestamp_micros)).flatten()
}

fn shown(paging: &PageQuery, sums: &[UsageSum]) -> PageView<UsageSumView> {
    let most = usize::try_from(paging.rows() - 1).unwrap_or(usize::MAX).min(sums.len());
    let (page, rest) = sums.split_at(most);
    let next_cursor = page.last().filter(|_| !rest.is_empty()).map(|last| {
        let UsageSum { bucket, feature_id, period, period_start, .. } = last;
        format!("{}.{feature_id}.{}.{}", bucket.timestamp_micros(), period.as_str(), period_start.timestamp_micros())
    });
    PageView { data: page.iter().map(UsageSumView::from).collect(), next_cursor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(seconds: i64, feature: &str) -> UsageSum {
        UsageSum {
            feature_id: FeatureId::parse(feature).unwrap(),
            bucket: DateTime::from_timestamp(seconds, 0).unwrap(),
            period: PeriodKind::BillingPeriod,
            period_start: DateTime::from_timestamp_micros(1).unwrap(),
            amount: 1,
            overage: 0,
            events: 1,
        }
    }

    #[test]
    fn a_cursor_leads_to_the_row_after_it() {
        let rows = [sum(3_600, "a-b_c"), sum(3_600, "b"), sum(0, "a")];
        let paging = PageQuery { limit: Some(2), cursor: None };
        let page = shown(&paging, &rows);
        assert_eq!(page.data.len(), 2);
        let next = PageQuery { limit: Some(2), cursor: page.next_cursor };
        let after = page_after(&next).unwrap().after.unwrap();
        assert_eq!(
            (after.bucket, after.feature_id, after.period),
            (rows[1].bucket, rows[1].feature_id.clone(), rows[1].period)
        );
        assert_eq!(after.period_start, rows[1].period_start);
        assert_eq!(shown(&paging, &rows[..2]).next_cursor, None);
    }

    #[test]
    fn a_cursor_of_ones_own_making_is_refused() {
        for cursor in [
            "",
            "x",
            "1.a.day",
            "1.a.day.1.1",
            "1.a.year.1",
            "1.A.day.1",
            "-1.a.day.1",
            "1.a.day.+1",
            "99999999999999999.a.day.1",
        ] {
            let paging = PageQuery { limit: None, cursor: Some(cursor.to_owned()) };
            assert_eq!(page_after(&paging).unwrap_err().status.as_u16(), 422, "{cursor}");
        }
    }
}
