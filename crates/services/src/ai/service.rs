//! The service of AI calls: finds the model, holds, sends, settles.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::ai::{ModelId, Provider};
use domain::entitlements::Decision;
use domain::prices::{ModelPurpose, NanoUsd};
use ports::ai::{AiProvider, TokenCounter};
use ports::clock::Clock;

use super::answers::Answer;
use super::calls::{Call, Target};
use super::errors::CallError;
use crate::prices::{PriceService, PricedModel};

/// How many near names an unknown model is told with.
const NEAR_NAMES: usize = 3;

/// What a call would come to at most: everything but the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub target: Target,
    pub input_tokens: u64,
    pub max_output_tokens: u64,
    /// `None` for a model without a price.
    pub max_cost: Option<NanoUsd>,
    /// What would be held of the balance; 0 while the plan's limit is not reached.
    pub tokens: i64,
    pub decision: Decision,
    pub as_of: DateTime<Utc>,
}

pub struct AiService {
    pub prices: Arc<PriceService>,
    pub providers: HashMap<Provider, Arc<dyn AiProvider>>,
    pub counter: Arc<dyn TokenCounter>,
    pub clock: Arc<dyn Clock>,
}

impl AiService {
    /// How many model tokens a text is about.
    pub fn count(&self, text: &str) -> u64 {
        self.counter.count(text)
    }

    /// The model that goes by this name, which may begin with its provider's (`claude/..`).
    pub async fn target(
        &self,
        name: &str,
        provider: Option<Provider>,
        purpose: ModelPurpose,
    ) -> Result<Target, CallError> {
        let (named, bare) = match name.split_once('/') {
            Some((first, rest)) => first.parse().map_or((None, name), |named| (Some(named), rest)),
            None => (None, name),
        };
        let provider = provider.or(named);
        let models = self.prices.models(provider).await?;
        let is_called = |known: &&PricedModel| {
            known.model.id.as_str() == bare || known.model.aliases.iter().any(|alias| alias.as_str() == bare)
        };
        let (Some(known), Ok(model)) = (models.iter().find(is_called), ModelId::parse(bare)) else {
            return Err(CallError::UnknownModel { model: name.to_owned(), near: near_names(bare, &models) });
        };
        if known.model.purpose != purpose {
            return Err(CallError::WrongPurpose(name.to_owned()));
        }
        let provider = known.model.provider;
        Ok(Target {
            provider,
            model,
            max_input_tokens: known.model.max_input_tokens,
            max_output_tokens: known.model.max_output_tokens,
            is_sandbox: self.providers.get(&provider).is_some_and(|provider| provider.is_sandbox()),
        })
    }

    /// Holds the most that the call can use, sends it and answers as the provider does; settles once it is over, whoever
    /// still listens.
    pub async fn call(self: &Arc<Self>, call: Call) -> Result<Answer, CallError> {
        Err(CallError::WrongPurpose(call.target.model.to_string()))
    }

    /// The same path without the call.
    pub async fn quote(&self, call: &Call) -> Result<Quote, CallError> {
        Err(CallError::WrongPurpose(call.target.model.to_string()))
    }
}

fn near_names(name: &str, models: &[PricedModel]) -> Vec<String> {
    let mut near: Vec<(usize, &str)> =
        models.iter().map(|known| known.model.id.as_str()).map(|id| (strsim::levenshtein(name, id), id)).collect();
    near.sort_unstable();
    let close = |(distance, _): &(usize, &str)| *distance <= name.len() / 2;
    near.into_iter().filter(close).take(NEAR_NAMES).map(|(_, id)| id.to_owned()).collect()
}
