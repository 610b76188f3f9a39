//! Metrics: `/metrics` in the text form of Prometheus.
//!
//! A caller may read it with `metrics.token`, or on the separate loopback port (`metrics.port`); others get a 404. A
//! peer on this machine proves nothing: it may be a proxy. The database is read at most every ten seconds; while it
//! does not answer, its numbers are absent.

use std::fmt::{Display, Write as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::Server;
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use adapters::postgres::{PgStore, PoolState};
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use ports::changes::ChangeListener;
use ports::maintenance::DatabaseState;
use services::ai::AiService;
use services::ai::attempts::{AttemptStatistics, ProviderStatistics};
use services::usage::{GroupCommitStatistics, UsageService};
use subtle::ConstantTimeEq;

use super::bodies::BodyMemory;
use super::connections::ConnectionAdmission;
use super::maintenance::DatabaseWatch;
use super::problem::{Problem, ProblemView};
use crate::settings::shape::{SecretText, Settings};
use crate::telemetry::calls::provider_name;

/// The media type of the text form.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How old the numbers of the database may be.
const DATABASE_AGE_MAX: Duration = Duration::from_secs(10);

pub struct MetricsSource {
    recorder: PrometheusHandle,
    store: Arc<PgStore>,
    database: Arc<DatabaseWatch>,
    changes: Arc<dyn ChangeListener>,
    usage: Arc<UsageService>,
    ai: Arc<AiService>,
    token: SecretText,
    load: Option<(Arc<ConnectionAdmission>, Arc<BodyMemory>)>,
    since: Instant,
}

impl MetricsSource {
    pub fn new(
        settings: &Settings,
        recorder: PrometheusHandle,
        store: Arc<PgStore>,
        database: Arc<DatabaseWatch>,
        changes: Arc<dyn ChangeListener>,
        usage: Arc<UsageService>,
        ai: Arc<AiService>,
    ) -> Self {
        Self {
            recorder,
            store,
            database,
            changes,
            usage,
            ai,
            token: settings.metrics.token.clone(),
            load: None,
            since: Instant::now(),
        }
    }

    /// Adds the numbers of connections and bodies.
    #[must_use]
    pub fn with_load(mut self, admission: Arc<ConnectionAdmission>, bodies: Arc<BodyMemory>) -> Self {
        self.load = Some((admission, bodies));
        self
    }

    async fn text(&self) -> String {
        let database = self.database.state(DATABASE_AGE_MAX).await.ok();
        let mut page = self.recorder.render();
        page.push_str(&pool_lines(self.store.pool_state()));
        page.push_str(&database_lines(database.as_deref()));
        page.push_str(&feed_lines(self.changes.is_fed()));
        page.push_str(&usage_lines(self.usage.statistics()));
        page.push_str(&attempt_lines(&self.ai.attempts()));
        if let Some((admission, bodies)) = &self.load {
            page.push_str(&load_lines(admission.open(), admission.bounds().all, bodies.taken()));
        }
        page.push_str(&process_lines(resident_bytes(), self.since.elapsed()));
        page
    }

    async fn answer(&self) -> HttpResponse {
        HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type(TEXT).body(self.text().await)
    }
}

/// The process's metrics, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "metrics", responses(
    (status = 200, description = "The numbers", body = String, content_type = "text/plain"),
    (status = 404, description = "Not for this caller", body = ProblemView),
))]
pub async fn render(source: Data<MetricsSource>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    if !may_read(&source.token, &request) {
        return Err(Problem::not_found("There is nothing at this path."));
    }
    Ok(source.answer().await)
}

async fn render_on_loopback(source: Data<MetricsSource>) -> HttpResponse {
    source.answer().await
}

/// The separate listener for a scraper on this machine; `None` if the settings disable it. The caller runs it.
pub fn loopback_server(source: Data<MetricsSource>, port: u16) -> anyhow::Result<Option<Server>> {
    if port == 0 {
        return Ok(None);
    }
    let app = move || App::new().app_data(source.clone()).route("/metrics", web::get().to(render_on_loopback));
    let server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        .bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("metrics.port: 127.0.0.1:{port} cannot be listened on"))?;
    Ok(Some(server.run()))
}

fn may_read(token: &SecretText, request: &HttpRequest) -> bool {
    let Some(token) = token.expose() else { return false };
    let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer =
        sent.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    bearer.is_some_and(|(_, sent)| sent.trim().as_bytes().ct_eq(token.as_bytes()).into())
}

fn pool_lines(pool: PoolState) -> String {
    let mut lines = String::new();
    gauge(&mut lines, "database_pool_connections", "Connections of the pool, at work or idle.", pool.size);
    gauge(&mut lines, "database_pool_idle_connections", "Connections of the pool that nobody uses.", pool.idle);
    gauge(&mut lines, "database_pool_max_connections", "How many connections the pool may have.", pool.max);
    lines
}

fn database_lines(database: Option<&DatabaseState>) -> String {
    let mut lines = String::new();
    let up = u8::from(database.is_some());
    gauge(&mut lines, "database_up", "Whether the database answers: 1 or 0.", up);
    if let Some(state) = database {
        gauge(&mut lines, "database_size_bytes", "The size of the database.", state.size_bytes);
        gauge(&mut lines, "database_connections", "Connections to the server, of all its clients.", state.connections);
        gauge(&mut lines, "database_max_connections", "How many connections the server takes.", state.connections_max);
    }
    lines
}

fn feed_lines(is_fed: bool) -> String {
    let mut lines = String::new();
    let help = "Whether changes of the database are heard, so that facts may be remembered: 1 or 0.";
    gauge(&mut lines, "change_feed_hearing", help, u8::from(is_fed));
    lines
}

/// Commands divided by batches is the mean size of a batch: how well group commit works.
fn usage_lines(statistics: GroupCommitStatistics) -> String {
    let GroupCommitStatistics { batches, commands, waiting } = statistics;
    let mut lines = String::new();
    counter(&mut lines, "usage_batches_total", "Transactions that consumed or held what they gathered.", batches);
    counter(&mut lines, "usage_commands_total", "Commands to consume or hold that went in a batch.", commands);
    gauge(&mut lines, "usage_commands_waiting", "Commands that were taken in and have no answer yet.", waiting);
    lines
}

/// The attempts, failures and circuit breakers of the AI providers.
fn attempt_lines(statistics: &AttemptStatistics) -> String {
    let mut lines = String::new();
    let help = "Calls of models that a fallback answered.";
    counter(&mut lines, "ai_fallbacks_total", help, statistics.fallbacks);
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&ProviderStatistics) -> u64| {
        describe(&mut lines, name, kind, help);
        for of_provider in &statistics.providers {
            let provider = provider_name(&of_provider.provider);
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name}{{gen_ai_provider_name=\"{provider}\"}} {}", value(of_provider));
        }
        lines.push('\n');
    };
    family("ai_attempts_total", "counter", "Calls that were sent to a provider.", &|of| of.attempts);
    family("ai_retries_total", "counter", "Calls that were sent to a provider once more.", &|of| of.retries);
    family("ai_failures_total", "counter", "Calls that failed by the provider's fault.", &|of| of.failures);
    let help = "Calls that were not sent, since the provider failed too often just before.";
    family("ai_held_back_total", "counter", help, &|of| of.held_back);
    let help = "How many models of a provider are left alone for a while.";
    family("ai_breaker_open", "gauge", help, &|of| of.resting_models);
    lines
}

fn load_lines(connections: usize, connections_max: usize, body_bytes: usize) -> String {
    let mut lines = String::new();
    gauge(&mut lines, "http_connections", "Connections of clients.", connections);
    gauge(&mut lines, "http_connections_max", "How many connections of clients there may be.", connections_max);
    gauge(&mut lines, "http_body_bytes", "Memory that the bodies of requests take.", body_bytes);
    lines
}

fn process_lines(resident_bytes: Option<u64>, uptime: Duration) -> String {
    let mut lines = String::new();
    if let Some(bytes) = resident_bytes {
        gauge(&mut lines, "process_resident_memory_bytes", "Memory of the process that is not swapped out.", bytes);
    }
    gauge(&mut lines, "process_uptime_seconds", "For how long the process has run.", uptime.as_secs());
    lines
}

/// Current values are written by hand: a registered gauge would outlive its source.
fn gauge(lines: &mut String, name: &str, help: &str, value: impl Display) {
    metric(lines, name, "gauge", help, value);
}

/// The same for values that are counted elsewhere and only rise.
fn counter(lines: &mut String, name: &str, help: &str, value: impl Display) {
    metric(lines, name, "counter", help, value);
}

fn metric(lines: &mut String, name: &str, kind: &str, help: &str, value: impl Display) {
    describe(lines, name, kind, help);
    let _ = write!(lines, "{name} {value}\n\n");
}

fn describe(lines: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(lines, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// `None` without /proc.
fn resident_bytes() -> Option<u64> {
    parse_resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn from(peer: &str) -> TestRequest {
        TestRequest::get().uri("/metrics").peer_addr(peer.parse().unwrap())
    }

    #[test]
    fn without_a_token_nobody_reads() {
        let none = SecretText::new("");
        for peer in ["127.0.0.1:5000", "[::1]:5000", "192.0.2.1:5000"] {
            for sent in ["Bearer ", "Bearer", ""] {
                let request = from(peer).insert_header(("authorization", sent)).to_http_request();
                assert!(!may_read(&none, &request), "{peer} {sent}");
            }
        }
    }

    #[test]
    fn with_a_token_only_its_bearer_reads() {
        let token = SecretText::new("scrape-me");
        for (sent, may) in [
            ("Bearer scrape-me", true),
            ("bearer scrape-me", true),
            ("Bearer scrape-m", false),
            ("Bearer scrape-me2", false),
            ("Basic scrape-me", false),
            ("scrape-me", false),
        ] {
            let request = from("192.0.2.1:5000").insert_header(("authorization", sent)).to_http_request();
            assert_eq!(may_read(&token, &request), may, "{sent}");
        }
        assert!(!may_read(&token, &from("127.0.0.1:5000").to_http_request()));
    }

    #[test]
    fn a_lost_database_is_absent_from_the_page() {
        let away = database_lines(None);
        assert!(away.contains("\ndatabase_up 0\n") && !away.contains("database_size_bytes"), "{away}");
        let state = DatabaseState {
            applied_steps: Vec::new(),
            excess_rights: Vec::new(),
            unsafe_settings: Vec::new(),
            size_bytes: 7,
            connections: 3,
            connections_max: 100,
        };
        assert!(database_lines(Some(&state)).contains("# TYPE database_size_bytes gauge\ndatabase_size_bytes 7\n"));
    }

    #[test]
    fn what_is_counted_is_a_counter_and_what_waits_a_gauge() {
        let lines = usage_lines(GroupCommitStatistics { batches: 2, commands: 9, waiting: 3 });
        assert!(lines.contains("# TYPE usage_batches_total counter\nusage_batches_total 2\n"), "{lines}");
        assert!(lines.contains("# TYPE usage_commands_total counter\nusage_commands_total 9\n"), "{lines}");
        assert!(lines.contains("# TYPE usage_commands_waiting gauge\nusage_commands_waiting 3\n"), "{lines}");
    }

    #[test]
    fn resident_memory_is_read_from_the_kernel_s_words() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2_097_152));
        assert_eq!(parse_resident("Name:\tx\n"), None);
    }
}
