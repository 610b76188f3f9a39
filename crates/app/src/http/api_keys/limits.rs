//! The limits of an API key as JSON: money as text, null for a limit that is removed.

use domain::api_keys::{KeyLimits, LimitChanges};
use domain::prices::NanoUsd;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::super::problem::Problem;
use super::super::validation::{present, whole};

/// How much model calls by the key may use. An omitted limit is no limit, or in a change stays as it is.
#[derive(Clone, Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyLimitsIn {
    /// Calls a minute; null is no limit.
    #[serde(default, deserialize_with = "present_whole")]
    #[validate(range(min = 1))]
    #[schema(value_type = Option<i64>, minimum = 1)]
    requests_per_minute: Option<Option<i64>>,
    /// Tokens of prompts and answers a minute; null is no limit.
    #[serde(default, deserialize_with = "present_whole")]
    #[validate(range(min = 1))]
    #[schema(value_type = Option<i64>, minimum = 1)]
    tokens_per_minute: Option<Option<i64>>,
    /// US dollars a calendar month (UTC): above 0, at most nine decimals, as text; null is no limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, pattern = r"^(?=.*[1-9])[0-9]{1,9}(\.[0-9]{1,9})?$", example = "25.00")]
    monthly_cost_usd: Option<Option<Decimal>>,
}

fn present_whole<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Option<i64>>, D::Error> {
    whole(input).map(Some)
}

/// How much model calls by the key may use; null is no limit of the key's own.
#[derive(Serialize, ToSchema)]
pub struct KeyLimitsView {
    #[schema(required = true)]
    pub requests_per_minute: Option<i64>,
    #[schema(required = true)]
    pub tokens_per_minute: Option<i64>,
    /// US dollars a calendar month (UTC), as text.
    #[schema(required = true, example = "25")]
    pub monthly_cost_usd: Option<String>,
}

impl From<&KeyLimits> for KeyLimitsView {
    fn from(limits: &KeyLimits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            monthly_cost_usd: limits.monthly_cost.map(|cost| cost.to_string()),
        }
    }
}

/// The changes of the limits: without the field they stay, null removes all of them.
pub fn limit_changes(said: Option<Option<KeyLimitsIn>>) -> Result<LimitChanges, Problem> {
    let input = match said {
        None => return Ok(LimitChanges::default()),
        Some(None) => return Ok(LimitChanges::CLEAR),
        Some(Some(input)) => input,
    };
    Ok(LimitChanges {
        requests_per_minute: input.requests_per_minute,
        tokens_per_minute: input.tokens_per_minute,
        monthly_cost: input.monthly_cost_usd.map(monthly_cost).transpose()?,
    })
}

fn monthly_cost(usd: Option<Decimal>) -> Result<Option<NanoUsd>, Problem> {
    let refused = |why: String| Problem::invalid_field("limits.monthly_cost_usd", why);
    let Some(usd) = usd else { return Ok(None) };
    let cost = NanoUsd::from_usd(usd).map_err(|why| refused(format!("was refused: {why}")))?;
    if cost == NanoUsd(0) { Err(refused("is above 0; null is no limit".to_owned())) } else { Ok(Some(cost)) }
}
