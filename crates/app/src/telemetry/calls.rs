//! Model calls as metrics, under the names of `OpenTelemetry`'s conventions for `GenAI` (status: Development, November
//! 2026), in the form that Prometheus gives them. They have no content, and every label has few values.

use std::sync::Arc;
use std::time::Duration;

use domain::ai::{ModelId, ProviderId};
use domain::prices::PriceKind;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use ports::ai::{AiOperation, CallObserver, CallReport};
use ports::clock::Clock;

use super::export::CallExport;

/// Tokens of a call, by `gen_ai_token_type`.
pub const TOKEN_USAGE: &str = "gen_ai_client_token_usage";
/// From the caller's request to the end of the answer.
pub const DURATION: &str = "gen_ai_server_request_duration_seconds";
/// From the caller's request to the first piece of the answer.
pub const FIRST_TOKEN: &str = "gen_ai_server_time_to_first_token_seconds";
/// What calls cost, in billionths of a dollar.
pub const COST: &str = "gen_ai_cost_nano_usd_total";
/// Calls that were refused before they were made, by reason.
pub const REFUSALS: &str = "gen_ai_refusals_total";

/// Events of providers that could not be parsed; they were passed on and billed by their text.
pub const UNREAD: &str = "ai_unread_events_total";

/// Kinds of tokens that were billed at another kind's price, since they have no price.
pub const ASSUMED_PRICES: &str = "ai_assumed_prices_total";

/// Calls that used more than was reserved for them.
pub const BEYOND_HOLD: &str = "ai_beyond_hold_total";

/// Requests that an SDK retried by itself.
pub const SDK_RETRIES: &str = "ai_sdk_retries_total";

/// Bounds of the histogram of tokens: powers of four, as in the conventions.
pub const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

pub fn describe() {
    describe_histogram!(TOKEN_USAGE, "Tokens of calls of models, by provider, model and type.");
    describe_histogram!(DURATION, Unit::Seconds, "How long calls of models took, by provider, model and error.");
    describe_histogram!(FIRST_TOKEN, Unit::Seconds, "How long the first piece of an answer took.");
    describe_counter!(COST, "What calls of models cost, in billionths of a dollar.");
    describe_counter!(SDK_RETRIES, "Requests that an SDK sent once more by itself, as it says.");
    describe_counter!(UNREAD, "Events of providers that were not understood, by provider.");
    describe_counter!(
        ASSUMED_PRICES,
        "Calls with a kind of tokens that has no price and was billed as another, by kind."
    );
    describe_counter!(BEYOND_HOLD, "Calls that used more tokens, or cost more, than was held for them.");
    describe_counter!(REFUSALS, "Calls of models that were refused before they were made, by reason.");
}

/// Registers the counters of the providers at zero.
pub fn register_providers(providers: impl IntoIterator<Item = ProviderId>) {
    for provider in providers {
        for name in [UNREAD, BEYOND_HOLD] {
            counter!(name, "gen_ai_provider_name" => provider_name(&provider).to_owned()).increment(0);
        }
        for kind in PriceKind::ALL {
            assumed_prices(provider, kind, 0);
        }
    }
}

/// Records metrics of calls, logs a line for each, and sends them to a collector if one is set.
pub struct CallMetrics {
    pub clock: Arc<dyn Clock>,
    pub export: Option<Arc<CallExport>>,
}

impl CallObserver for CallMetrics {
    fn ended(&self, report: &CallReport) {
        if let Some(export) = &self.export {
            export.ended(report, self.clock.now().into());
        }
        let labels = [
            ("gen_ai_operation_name", operation_name(report.operation).to_owned()),
            ("gen_ai_provider_name", provider_name(&report.provider).to_owned()),
            ("gen_ai_request_model", report.model.to_string()),
        ];
        let error = [("error_type", report.error.unwrap_or_default().to_owned())];
        let whole: Vec<_> = labels.iter().chain(&error).cloned().collect();
        histogram!(DURATION, &whole).record(seconds(report.whole));
        if let Some(first) = report.first_piece {
            histogram!(FIRST_TOKEN, &labels).record(seconds(first));
        }
        let tokens = report.usage.as_ref().map(|usage| usage.tokens);
        let (input, output) = tokens.map_or((0, 0), |tokens| (tokens.input(), tokens.output()));
        for (kind, count) in [("input", input), ("output", output)] {
            let typed: Vec<_> = labels.iter().cloned().chain([("gen_ai_token_type", kind.to_owned())]).collect();
            histogram!(TOKEN_USAGE, &typed).record(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
        if let Some(cost) = report.cost {
            counter!(COST, &labels).increment(u64::try_from(cost.0).unwrap_or_default());
        }
        if report.unread > 0 {
            counter!(UNREAD, "gen_ai_provider_name" => provider_name(&report.provider).to_owned())
                .increment(report.unread);
        }
        tracing::info!(
            operation = operation_name(report.operation),
            provider = provider_name(&report.provider),
            model = %report.model,
            provider_request = report.request_id.as_deref(),
            finish = report.finish.map(domain::ai::FinishReason::as_str),
            session = report.session_id.map(|id| id.to_string()),
            input_tokens = input,
            output_tokens = output,
            cost_nano_usd = report.cost.map(|cost| cost.0),
            streamed = report.streamed,
            first_piece_ms = report.first_piece.map(millis),
            duration_ms = millis(report.whole),
            error = report.error,
            unread_events = report.unread,
            "a call of a model ended"
        );
    }

    fn refused(&self, provider: ProviderId, model: &ModelId, why: &'static str) {
        let labels = [
            ("gen_ai_provider_name", provider_name(&provider).to_owned()),
            ("gen_ai_request_model", model.to_string()),
            ("reason", why.to_owned()),
        ];
        counter!(REFUSALS, &labels).increment(1);
    }

    fn assumed_prices(&self, provider: ProviderId, kinds: &[PriceKind]) {
        for kind in kinds {
            assumed_prices(provider, *kind, 1);
        }
    }

    fn beyond_hold(&self, provider: ProviderId) {
        counter!(BEYOND_HOLD, "gen_ai_provider_name" => provider_name(&provider).to_owned()).increment(1);
    }
}

fn assumed_prices(provider: ProviderId, kind: PriceKind, more: u64) {
    let labels = [("gen_ai_provider_name", provider_name(&provider).to_owned()), ("kind", kind.as_str().to_owned())];
    counter!(ASSUMED_PRICES, &labels).increment(more);
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The name of a provider in the conventions; of one that they do not know, its own.
pub fn provider_name(provider: &ProviderId) -> &str {
    match *provider {
        ProviderId::OPENAI => "openai",
        ProviderId::CLAUDE => "anthropic",
        ProviderId::GEMINI => "gcp.gemini",
        _ => provider.as_str(),
    }
}

pub(super) const fn operation_name(operation: AiOperation) -> &'static str {
    match operation {
        AiOperation::Chat => "chat",
        AiOperation::Embeddings => "embeddings",
        AiOperation::CountTokens => "count_tokens",
    }
}

#[cfg(test)]
mod tests {
    use domain::ai::{CallUsage, TokenUsage};
    use domain::prices::NanoUsd;

    use adapters::clock::SystemClock;

    use super::super::install_metrics;
    use super::*;

    #[test]
    fn a_call_is_counted_by_its_provider_and_model() {
        let handle = install_metrics().unwrap();
        register_providers(ProviderId::BUILT_IN);
        let model = ModelId::parse("observed-model").unwrap();
        let tokens = TokenUsage { uncached_input: 10, cache_read: 5, visible_output: 3, ..TokenUsage::default() };
        let observer = CallMetrics { clock: Arc::new(SystemClock), export: None };
        observer.ended(&CallReport {
            provider: ProviderId::CLAUDE,
            model: model.clone(),
            operation: AiOperation::Chat,
            streamed: true,
            usage: Some(CallUsage::standard(tokens)),
            cost: Some(NanoUsd(1_234)),
            finish: None,
            request_id: None,
            session_id: None,
            first_piece: Some(Duration::from_millis(30)),
            whole: Duration::from_millis(300),
            error: None,
            unread: 3,
        });
        observer.refused(ProviderId::CLAUDE, &model, "limit_reached");
        observer.assumed_prices(ProviderId::CLAUDE, &[PriceKind::CacheWriteShort]);
        let text = handle.render();
        let of = |name: &str, rest: &str| {
            let labels = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"anthropic\",gen_ai_request_model=\"observed-model\"";
            assert!(text.contains(&format!("{name}{{{labels}{rest}")), "{name} {rest} in {text}");
        };
        of("gen_ai_client_token_usage_sum", ",gen_ai_token_type=\"input\"} 15");
        of("gen_ai_client_token_usage_bucket", ",gen_ai_token_type=\"output\",le=\"4\"} 1");
        of("gen_ai_server_time_to_first_token_seconds_bucket", ",le=\"0.05\"} 1");
        of("gen_ai_server_request_duration_seconds_count", ",error_type=\"\"} 1");
        of("gen_ai_cost_nano_usd_total", "} 1234");
        for (provider, unread) in [("anthropic", 3), ("openai", 0), ("gcp.gemini", 0)] {
            let line = format!("ai_unread_events_total{{gen_ai_provider_name=\"{provider}\"}} {unread}");
            assert!(text.contains(&line), "{line} in {text}");
        }
        for line in [
            "ai_assumed_prices_total{gen_ai_provider_name=\"anthropic\",kind=\"cache_write_short\"} 1",
            "ai_assumed_prices_total{gen_ai_provider_name=\"openai\",kind=\"audio_input\"} 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("observed-model\",reason=\"limit_reached\"} 1"), "{text}");
    }
}
