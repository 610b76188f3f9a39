//! Exports model calls over OTLP (HTTP, protobuf) to a collector, if one is set: a span and three histograms, by the
//! names of `OpenTelemetry`'s conventions for `GenAI` (status: Development, November 2026). No content is sent.
//!
//! Promise: no call waits for the collector. Spans and sums are kept in memory, bounded, and sent by threads of the
//! exporter's own; what it does not accept is dropped.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use domain::ai::FinishReason;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, MeterProvider};
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, TracerProvider};
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use ports::ai::CallReport;

use super::calls::{operation_name, provider_name};

const SERVICE: &str = "product-base";

/// How long one export may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the stop waits for what is not sent yet.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Bounds of the histograms of seconds, as in the conventions.
const SECONDS: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

pub struct CallExport {
    spans: SdkTracerProvider,
    sums: SdkMeterProvider,
    tracer: SdkTracer,
    tokens: Histogram<u64>,
    duration: Histogram<f64>,
    first_token: Histogram<f64>,
}

impl CallExport {
    /// Sends spans to the collector at `endpoint`, such as `http://localhost:4318`; the sums every `interval`.
    pub fn start(endpoint: &str, interval: Duration) -> anyhow::Result<Self> {
        // The exporter's client needs to know the crypto provider of TLS, for a plain address too.
        rustls::crypto::ring::default_provider().install_default().ok();
        let endpoint = endpoint.trim_end_matches('/');
        let spans = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(TIMEOUT)
            .build()
            .with_context(|| format!("telemetry.otlp_endpoint `{endpoint}` cannot be used"))?;
        let sums = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{endpoint}/v1/metrics"))
            .with_timeout(TIMEOUT)
            .build()
            .with_context(|| format!("telemetry.otlp_endpoint `{endpoint}` cannot be used"))?;
        let resource = Resource::builder()
            .with_service_name(SERVICE)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let spans = SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone()).build();
        let reader = PeriodicReader::builder(sums).with_interval(interval).build();
        let sums = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
        let meter = sums.meter(SERVICE);
        let seconds =
            |name: &'static str| meter.f64_histogram(name).with_unit("s").with_boundaries(SECONDS.to_vec()).build();
        Ok(Self {
            tracer: spans.tracer(SERVICE),
            tokens: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_unit("{token}")
                .with_boundaries(super::calls::TOKENS.to_vec())
                .build(),
            duration: seconds("gen_ai.server.request.duration"),
            first_token: seconds("gen_ai.server.time_to_first_token"),
            spans,
            sums,
        })
    }

    /// Records a call that ended `now`.
    pub fn ended(&self, report: &CallReport, now: SystemTime) {
        let labels = vec![
            KeyValue::new("gen_ai.operation.name", operation_name(report.operation)),
            KeyValue::new("gen_ai.provider.name", provider_name(&report.provider).to_owned()),
            KeyValue::new("gen_ai.request.model", report.model.to_string()),
        ];
        self.count(report, &labels);
        let began = now.checked_sub(report.whole).unwrap_or(now);
        let span = SpanBuilder::from_name(format!("{} {}", operation_name(report.operation), report.model))
            .with_kind(SpanKind::Server)
            .with_start_time(began)
            .with_attributes(labels.into_iter().chain(details(report)));
        let mut span = span.start(&self.tracer);
        if let Some(error) = report.error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(now);
    }

    fn count(&self, report: &CallReport, labels: &[KeyValue]) {
        let mut with_error = labels.to_vec();
        with_error.extend(report.error.map(|error| KeyValue::new("error.type", error)));
        self.duration.record(report.whole.as_secs_f64(), &with_error);
        if let Some(first) = report.first_piece {
            self.first_token.record(first.as_secs_f64(), labels);
        }
        let Some(usage) = &report.usage else { return };
        for (kind, count) in [("input", usage.tokens.input()), ("output", usage.tokens.output())] {
            let mut typed = labels.to_vec();
            typed.push(KeyValue::new("gen_ai.token.type", kind));
            self.tokens.record(count, &typed);
        }
    }

    /// Sends what is left, and stops. It blocks for a few seconds at most.
    pub fn stop(&self) {
        for error in [
            self.spans.shutdown_with_timeout(STOP_PATIENCE).err(),
            self.sums.shutdown_with_timeout(STOP_PATIENCE).err(),
        ]
        .into_iter()
        .flatten()
        {
            tracing::warn!(%error, "the collector did not take the last of what was gathered for it");
        }
    }
}

/// The attributes of the span besides the labels.
fn details(report: &CallReport) -> Vec<KeyValue> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let mut details = Vec::new();
    if let Some(id) = &report.request_id {
        details.push(KeyValue::new("gen_ai.response.id", id.clone()));
    }
    if let Some(finish) = report.finish.map(FinishReason::as_str) {
        let reasons = opentelemetry::Array::String(vec![finish.into()]);
        details.push(KeyValue::new("gen_ai.response.finish_reasons", opentelemetry::Value::Array(reasons)));
    }
    if let Some(session) = report.session_id {
        details.push(KeyValue::new("gen_ai.conversation.id", session.to_string()));
    }
    if let Some(error) = report.error {
        details.push(KeyValue::new("error.type", error));
    }
    if let Some(usage) = &report.usage {
        let tokens = &usage.tokens;
        let written = tokens.cache_write_short.saturating_add(tokens.cache_write_long);
        details.push(KeyValue::new("gen_ai.usage.input_tokens", count(tokens.input())));
        details.push(KeyValue::new("gen_ai.usage.output_tokens", count(tokens.output())));
        details.push(KeyValue::new("gen_ai.usage.cache_read.input_tokens", count(tokens.cache_read)));
        details.push(KeyValue::new("gen_ai.usage.cache_creation.input_tokens", count(written)));
    }
    if let Some(cost) = report.cost {
        details.push(KeyValue::new("product_base.cost_nano_usd", cost.0));
    }
    details
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use domain::ai::{CallUsage, ModelId, ProviderId, TokenUsage};
    use domain::prices::NanoUsd;
    use ports::ai::AiOperation;

    use super::*;

    /// A collector that accepts everything, and returns the path and the bytes of each request.
    fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (mut connection, sender) = (connection.unwrap(), sender.clone());
                std::thread::spawn(move || {
                    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                    while let Ok(count) = connection.read(&mut buffer) {
                        read.extend_from_slice(&buffer[..count]);
                        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
                        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                        let length: usize = length.parse().unwrap();
                        if count == 0 || read.len() < end + 4 + length {
                            continue;
                        }
                        let path = head.split(' ').nth(1).unwrap().to_owned();
                        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                        sender.send((path, read.split_off(end + 4))).ok();
                        read.clear();
                    }
                });
            }
        });
        (format!("http://{address}/"), receiver)
    }

    #[test]
    fn a_call_gets_to_the_collector_without_its_content() {
        let (endpoint, received) = collector();
        let export = CallExport::start(&endpoint, Duration::from_mins(1)).unwrap();
        let tokens = TokenUsage { uncached_input: 10, cache_read: 5, visible_output: 3, ..TokenUsage::default() };
        export.ended(
            &CallReport {
                provider: ProviderId::GEMINI,
                model: ModelId::parse("exported-model").unwrap(),
                operation: AiOperation::Chat,
                streamed: true,
                usage: Some(CallUsage::standard(tokens)),
                cost: Some(NanoUsd(77)),
                finish: Some(FinishReason::Length),
                request_id: Some("req_exported".to_owned()),
                session_id: None,
                first_piece: Some(Duration::from_millis(30)),
                whole: Duration::from_millis(300),
                error: Some("timed_out"),
                unread: 0,
            },
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        );
        export.stop();
        let mut sent: Vec<(String, Vec<u8>)> = received.try_iter().collect();
        sent.sort();
        let [(metrics, sums), (traces, spans)] = &sent[..] else { panic!("{} requests", sent.len()) };
        assert_eq!((metrics.as_str(), traces.as_str()), ("/v1/metrics", "/v1/traces"));
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        for text in [
            "chat exported-model",
            "gen_ai.provider.name",
            "gcp.gemini",
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.response.finish_reasons",
            "length",
            "req_exported",
            "timed_out",
            "product-base",
        ] {
            assert!(has(spans, text), "{text} in the span");
        }
        for text in [
            "gen_ai.client.token.usage",
            "gen_ai.server.request.duration",
            "gen_ai.server.time_to_first_token",
            "output",
        ] {
            assert!(has(sums, text), "{text} in the metrics");
        }
    }

    #[test]
    fn a_collector_that_is_away_holds_nobody_up() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let export = CallExport::start(&format!("http://{closed}"), Duration::from_mins(1)).unwrap();
        export.stop();
        assert!(CallExport::start("no address", Duration::from_mins(1)).is_err());
    }
}
