//! Telemetry: log lines on stderr, and metrics for `/metrics`.
//!
//! Promise: both are set up once a process, however often that is requested: tests start many services in one. Secrets
//! are not logged, since the types that hold them do not print.

pub mod calls;
pub mod export;
pub mod redaction;
pub mod start_at_zero;

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use self::redaction::RedactingWriter;
use crate::settings::shape::{LogFormat, LogSettings, Settings};

/// Requests that were answered, by method, route and status.
pub const REQUESTS: &str = "http_requests_total";
/// How long responses took, by method and route.
pub const REQUEST_SECONDS: &str = "http_request_duration_seconds";
/// How many findings the last integrity check had.
pub const FINDINGS: &str = "integrity_findings";
/// How far the hourly sums of usage are behind.
pub const ROLLUP_LAG_SECONDS: &str = "usage_rollup_lag_seconds";
/// Runs of jobs that failed, by job.
pub const JOB_FAILURES: &str = "job_failures_total";

/// Connections that were refused, by reason.
pub const CONNECTIONS_REFUSED: &str = "http_connections_refused_total";
/// Requests that were refused since the memory for bodies was full, by bound.
pub const BODIES_REFUSED: &str = "http_bodies_refused_total";

/// The bounds of every histogram of seconds: from a cached read to the deadline of a request.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The framework logs an error if a client sends something that is not HTTP; no operator has to act on it.
const NO_HTTP: &str = "actix_http::h1::dispatcher=off";

/// At the level trace these log their inputs: addresses with passwords, headers, bodies. They do so only if the filter
/// names them.
const CAPPED: &str = "sqlx=debug,sea_orm=info,sea_orm_migration=info,hyper=info,hyper_util=info,h2=info,reqwest=info,\
    rustls=info,actix_http=info,actix_web=info,actix_server=info,actix_router=info,mio=info,tokio_util=info";

static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Writes log lines to stderr from now on. A second call changes nothing.
pub fn init_logs(log: &LogSettings) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter_text(&log.filter)).with_context(|| format!("log.filter is `{}`", log.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(RedactingWriter)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means that a subscriber is set already, which is as good.
    let _ = match log.format {
        LogFormat::Pretty => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).try_init(),
    };
    Ok(())
}

/// The filter with what is never logged, or only if it is named. A cap on libraries must not let through more than the
/// filter does.
fn filter_text(filter: &str) -> String {
    let is_loud = |part: &str| part.eq_ignore_ascii_case("trace") || part.eq_ignore_ascii_case("debug");
    let loud = filter.split(',').any(|part| is_loud(part.trim()));
    if loud { format!("{NO_HTTP},{CAPPED},{filter}") } else { format!("{NO_HTTP},{filter}") }
}

/// Keeps the secrets of these settings out of the log.
pub fn keep_out_secrets(settings: &Settings) {
    settings.secrets().for_each(redaction::keep_out);
    redaction::keep_out_keys(&settings.api_keys.prefix);
}

/// Records metrics from now on; the handle renders them. A second call returns the same handle.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let mut installed = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full(calls::TOKEN_USAGE.to_owned()), &calls::TOKENS)?
        .install_recorder()?;
    describe_counter!(REQUESTS, "Requests that were answered, by method, route and status.");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "How long answers took, by method and route.");
    describe_gauge!(FINDINGS, "What the last integrity check of this process found.");
    describe_gauge!(ROLLUP_LAG_SECONDS, Unit::Seconds, "How far the hourly sums of use are behind.");
    describe_counter!(JOB_FAILURES, "Runs of jobs that failed, by job.");
    describe_counter!(CONNECTIONS_REFUSED, "Connections that were turned away, by reason.");
    describe_counter!(BODIES_REFUSED, "Requests turned away for want of memory for bodies, by bound.");
    calls::describe();
    start_at_zero::register();
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram};

    use super::*;

    #[test]
    fn metrics_are_installed_once_and_rendered() {
        let handle = install_metrics().unwrap();
        install_metrics().unwrap();
        counter!(REQUESTS, "method" => "GET", "route" => "/telemetry", "status" => "200").increment(1);
        histogram!(REQUEST_SECONDS, "method" => "GET", "route" => "/telemetry").record(0.004);
        let text = handle.render();
        assert!(text.contains(r#"http_requests_total{method="GET",route="/telemetry",status="200"} 1"#), "{text}");
        assert!(text.contains(r#"route="/telemetry",le="0.005"} 1"#), "{text}");
        assert!(text.contains("# HELP http_requests_total"), "{text}");
    }

    #[test]
    fn libraries_are_capped_only_where_everything_would_be_printed() {
        assert!(filter_text("trace").contains("sea_orm=info") && filter_text("info, DEBUG").contains("hyper=info"));
        assert!(!filter_text("info,app=trace").contains("hyper") && !filter_text("warn").contains("hyper"));
        assert!(filter_text("trace,hyper=trace").ends_with("trace,hyper=trace"), "what is named has the last word");
    }

    #[test]
    fn logs_can_be_asked_for_twice_and_a_broken_filter_is_named() {
        let log = |filter: &str| LogSettings { format: LogFormat::Json, filter: filter.to_owned() };
        assert!(init_logs(&log("off")).is_ok() && init_logs(&log("off")).is_ok());
        assert!(init_logs(&log("info,sqlx=loud")).unwrap_err().to_string().contains("sqlx=loud"));
    }
}
