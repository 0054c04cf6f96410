//! Every metric family with its name and help, and the Prometheus text (0.0.4) they make.
//!
//! Written by hand and not by an OpenMetrics encoder: that one drops `_total` from the names in HELP and TYPE, which a
//! 0.0.4 parser (and `promtool check metrics`) takes for counters without help.

use std::{collections::BTreeMap, fmt::Write as _};

use super::metrics::{BUCKETS, CODINGS, HANDSHAKES, METHODS, REFUSED, STATUSES};

/// The shards, summed.
#[derive(Default)]
pub(super) struct Sums {
    /// By `method * STATUSES + status - 100`.
    pub(super) requests: BTreeMap<usize, u64>,
    pub(super) buckets: [u64; BUCKETS.len() + 1],
    pub(super) micros: u64,
    pub(super) faults: u64,
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) idle: u64,
    pub(super) shelved: u64,
    pub(super) handed_on: u64,
    pub(super) handshakes: [u64; HANDSHAKES.len()],
    pub(super) refused: [[u64; REFUSED.len()]; 2],
    pub(super) forgotten: u64,
    pub(super) compressed: [u64; CODINGS.len()],
    pub(super) reloads: BTreeMap<&'static str, u64>,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) cut: BTreeMap<&'static str, u64>,
    pub(super) certificate_requests: BTreeMap<&'static str, u64>,
    pub(super) panics: u64,
}

/// What other rooms tell at a scrape.
#[derive(Default)]
pub struct Gauges {
    apps: BTreeMap<String, App>,
    endpoints: BTreeMap<(String, String), EndpointCounts>,
    held: BTreeMap<String, u64>,
    certificates: BTreeMap<String, i64>,
    renewals: BTreeMap<String, Renewal>,
    token: Option<i64>,
}

/// How it stands with a certificate that renews itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Renewal {
    /// Seconds from now; negative when it is overdue.
    pub next_seconds: Option<i64>,
    pub failed_attempts: u32,
}

struct App {
    state: String,
    restarts: u64,
    memory_bytes: Option<u64>,
}

/// One endpoint of an upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointCounts {
    pub in_flight: u64,
    pub healthy: bool,
    pub requests: u64,
    pub failures: u64,
}

impl Gauges {
    pub fn app(&mut self, name: &str, state: &str, restarts: u64, memory_bytes: Option<u64>) {
        self.apps.insert(name.to_owned(), App { state: state.to_owned(), restarts, memory_bytes });
    }

    pub fn upstream(&mut self, upstream: &str, endpoint: &str, counts: EndpointCounts) {
        self.endpoints.insert((upstream.to_owned(), endpoint.to_owned()), counts);
    }

    /// Seconds until the certificate ends; negative when it has.
    pub fn certificate(&mut self, name: &str, expiry_seconds: i64) {
        let seconds = self.certificates.entry(name.to_owned()).or_insert(expiry_seconds);
        *seconds = expiry_seconds.min(*seconds);
    }

    pub fn renewal(&mut self, name: &str, renewal: Renewal) {
        self.renewals.insert(name.to_owned(), renewal);
    }

    /// Seconds until the token for Cloudflare's API ends; negative when it has.
    pub fn token(&mut self, expiry_seconds: i64) {
        self.token = Some(expiry_seconds);
    }

    pub fn held(&mut self, upstream: &str, requests: u64) {
        self.held.insert(upstream.to_owned(), requests);
    }
}

pub(super) fn render(sums: &Sums, gauges: &Gauges) -> String {
    let mut text = Text(String::with_capacity(8 << 10));
    requests(&mut text, sums);
    daemon(&mut text, sums);
    tls(&mut text, sums, gauges);
    apps(&mut text, gauges);
    upstreams(&mut text, gauges);
    text.0
}

fn requests(text: &mut Text, sums: &Sums) {
    text.family("http_requests_total", "counter", "Total HTTP requests");
    for (index, count) in &sums.requests {
        let status = (index % STATUSES + 100).to_string();
        text.sample("http_requests_total", &[("method", METHODS[index / STATUSES]), ("status", &status)], count);
    }
    let name = "http_request_duration_seconds";
    text.family(name, "histogram", "HTTP request latency");
    let mut below = 0;
    for (index, count) in sums.buckets.iter().enumerate() {
        below += count;
        let bound = BUCKETS.get(index).map_or("+Inf".to_owned(), |micros| seconds(*micros));
        text.sample("http_request_duration_seconds_bucket", &[("le", &bound)], below);
    }
    text.sample("http_request_duration_seconds_sum", &[], seconds(sums.micros));
    text.sample("http_request_duration_seconds_count", &[], below);
}

fn daemon(text: &mut Text, sums: &Sums) {
    text.family("miwid_connections", "gauge", "Client connections by state");
    text.sample("miwid_connections", &[("state", "open")], sums.opened.saturating_sub(sums.closed));
    text.sample("miwid_connections", &[("state", "idle")], sums.idle);
    text.family("miwid_connections_total", "counter", "Client connections accepted");
    text.sample("miwid_connections_total", &[], sums.opened);
    text.family("miwid_shelf_answers_total", "counter", "Answers that were at hand, without parser and file");
    text.sample("miwid_shelf_answers_total", &[], sums.shelved);
    text.family(
        "miwid_handed_on_answers_total",
        "counter",
        "Answers of upstreams that were handed on without a parser",
    );
    text.sample("miwid_handed_on_answers_total", &[], sums.handed_on);
    text.family("miwid_policy_refusals_total", "counter", "Requests that a policy refused, or would refuse");
    for (mode, counts) in ["enforce", "report"].iter().zip(sums.refused) {
        for (reason, count) in REFUSED.iter().zip(counts) {
            text.sample("miwid_policy_refusals_total", &[("reason", reason), ("mode", mode)], count);
        }
    }
    text.family("miwid_rate_limit_forgotten_total", "counter", "Clients whose count made room for another's");
    text.sample("miwid_rate_limit_forgotten_total", &[], sums.forgotten);
    text.family("miwid_compressed_answers_total", "counter", "Answers that were compressed on their way");
    for (coding, count) in CODINGS.iter().zip(sums.compressed) {
        text.sample("miwid_compressed_answers_total", &[("coding", coding)], count);
    }
    text.family("miwid_reloads_total", "counter", "Reloads of the configuration by result");
    for (result, count) in &sums.reloads {
        text.sample("miwid_reloads_total", &[("result", result)], count);
    }
    text.family("miwid_log_dropped_lines_total", "counter", "Log lines that could not be written");
    for (log, count) in &sums.dropped {
        text.sample("miwid_log_dropped_lines_total", &[("log", log)], count);
    }
    text.family("miwid_connections_cut_total", "counter", "Connections ended because of what their clients did");
    for (reason, count) in &sums.cut {
        text.sample("miwid_connections_cut_total", &[("reason", reason)], count);
    }
    text.family("miwid_faults_total", "counter", "Errors of 500 and more that miwid gave by itself");
    text.sample("miwid_faults_total", &[], sums.faults);
    text.family("miwid_panics_total", "counter", "Panics that ended a task");
    text.sample("miwid_panics_total", &[], sums.panics);
    text.family("miwid_build_info", "gauge", "Always 1; the labels say what was built");
    text.sample("miwid_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn tls(text: &mut Text, sums: &Sums, gauges: &Gauges) {
    text.family("miwid_tls_handshakes_total", "counter", "TLS handshakes by result");
    for (result, count) in HANDSHAKES.iter().zip(sums.handshakes) {
        text.sample("miwid_tls_handshakes_total", &[("result", result)], count);
    }
    text.family("miwid_certificate_expiry_seconds", "gauge", "Seconds until the certificate ends");
    for (name, seconds) in &gauges.certificates {
        text.sample("miwid_certificate_expiry_seconds", &[("name", name)], seconds);
    }
    text.family("miwid_certificate_renewal_seconds", "gauge", "Seconds until the certificate is requested again");
    for (name, renewal) in &gauges.renewals {
        if let Some(seconds) = renewal.next_seconds {
            text.sample("miwid_certificate_renewal_seconds", &[("name", name)], seconds);
        }
    }
    text.family(
        "miwid_certificate_failed_attempts",
        "gauge",
        "Requests for the certificate that failed since the last success",
    );
    for (name, renewal) in &gauges.renewals {
        text.sample("miwid_certificate_failed_attempts", &[("name", name)], renewal.failed_attempts);
    }
    text.family("miwid_cloudflare_token_expiry_seconds", "gauge", "Seconds until the API token ends, where it does");
    if let Some(seconds) = gauges.token {
        text.sample("miwid_cloudflare_token_expiry_seconds", &[], seconds);
    }
    text.family("miwid_certificate_requests_total", "counter", "Requests for certificates by result");
    for (result, count) in &sums.certificate_requests {
        text.sample("miwid_certificate_requests_total", &[("result", result)], count);
    }
}

fn apps(text: &mut Text, gauges: &Gauges) {
    text.family("miwid_app_state", "gauge", "1 for the state that the app is in");
    for (name, app) in &gauges.apps {
        text.sample("miwid_app_state", &[("app", name), ("state", &app.state)], 1);
    }
    text.family("miwid_app_restarts_total", "counter", "Restarts of the app");
    for (name, app) in &gauges.apps {
        text.sample("miwid_app_restarts_total", &[("app", name)], app.restarts);
    }
    text.family("miwid_app_memory_bytes", "gauge", "Memory that the app uses");
    for (name, app) in &gauges.apps {
        if let Some(bytes) = app.memory_bytes {
            text.sample("miwid_app_memory_bytes", &[("app", name)], bytes);
        }
    }
}

fn upstreams(text: &mut Text, gauges: &Gauges) {
    text.family("miwid_held_requests", "gauge", "Requests that wait for an endpoint");
    for (upstream, count) in &gauges.held {
        text.sample("miwid_held_requests", &[("upstream", upstream)], count);
    }
    type Value = fn(&EndpointCounts) -> u64;
    let families: [(&str, &str, &str, Value); 4] = [
        ("miwid_upstream_in_flight", "gauge", "Requests in flight to the endpoint", |counts| counts.in_flight),
        ("miwid_upstream_healthy", "gauge", "1 if the endpoint is healthy", |counts| counts.healthy.into()),
        ("miwid_upstream_requests_total", "counter", "Requests sent to the endpoint", |counts| counts.requests),
        ("miwid_upstream_failures_total", "counter", "Requests that the endpoint failed", |counts| counts.failures),
    ];
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for ((upstream, endpoint), counts) in &gauges.endpoints {
            text.sample(name, &[("upstream", upstream), ("endpoint", endpoint)], value(counts));
        }
    }
}

fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }
}
