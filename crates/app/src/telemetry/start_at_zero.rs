//! Start at zero: counters exist with their labels when the process starts, not when they count first.
//!
//! Prometheus sees no increase from absent to one, so an alert on `increase(...) > 0` misses the first failure of a new
//! counter. Every label set that is known beforehand is registered: failures of each documented route, refused
//! connections and bodies, retries of SDKs, refused calls of each model of the catalogue. Jobs register their own.

use domain::prices::ModelCatalogue;
use metrics::counter;
use utoipa::OpenApi;
use utoipa::openapi::PathItem;

use super::calls::{REFUSALS, SDK_RETRIES, provider_name};
use super::{BODIES_REFUSED, CONNECTIONS_REFUSED, REQUESTS};
use crate::http::openapi::ApiDocument;

/// The statuses of requests that failed by our fault or a provider's.
const FAILURES: [&str; 4] = ["500", "502", "503", "504"];

/// Why a call of a model is refused before it is made (`CallError::word`).
const REASONS: [&str; 14] = [
    "unknown_model",
    "wrong_purpose",
    "unpriced",
    "unbounded_input",
    "input_too_long",
    "limit_reached",
    "insufficient_tokens",
    "not_in_plan",
    "key_limit_reached",
    "circuit_open",
    "not_configured",
    "broken_off",
    "session",
    "unavailable",
];

pub fn register() {
    for (path, item) in &ApiDocument::openapi().paths.paths {
        for method in methods(item) {
            for status in FAILURES {
                counter!(REQUESTS, "method" => method, "route" => path.clone(), "status" => status).increment(0);
            }
        }
    }
    for reason in ["full", "address"] {
        counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(0);
    }
    for bound in ["all", "caller", "parse"] {
        counter!(BODIES_REFUSED, "bound" => bound).increment(0);
    }
    counter!(SDK_RETRIES).increment(0);
}

/// Registers the refusals of the known models.
pub fn register_models(models: &ModelCatalogue) {
    for model in models.models() {
        for reason in REASONS {
            let labels = [
                ("gen_ai_provider_name", provider_name(&model.provider).to_owned()),
                ("gen_ai_request_model", model.id.to_string()),
                ("reason", reason.to_owned()),
            ];
            counter!(REFUSALS, &labels).increment(0);
        }
    }
}

fn methods(item: &PathItem) -> impl Iterator<Item = &'static str> {
    let documented = [
        ("GET", item.get.is_some()),
        ("POST", item.post.is_some()),
        ("PUT", item.put.is_some()),
        ("PATCH", item.patch.is_some()),
        ("DELETE", item.delete.is_some()),
    ];
    documented.into_iter().filter(|(_, is_there)| *is_there).map(|(method, _)| method)
}
