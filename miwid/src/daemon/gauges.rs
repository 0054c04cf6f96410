//! What a scrape asks of the rooms that do not count for themselves: apps, upstreams and certificates.

use std::time::SystemTime;

use crate::{
    app,
    snapshot::Current,
    telemetry::{EndpointCounts, Gauges, Metrics, Renewal},
    tls,
    upstream::Directory,
};

pub(super) fn register(
    metrics: &Metrics,
    apps: app::Handle,
    directory: Directory,
    current: Current,
    keeper: tls::Handle,
) {
    metrics.on_scrape(Box::new(move |gauges| {
        for status in apps.statuses().iter() {
            let memory = status.instances.iter().map(|it| it.memory_bytes).sum();
            gauges.app(&status.name, status.state.as_str(), status.restarts, Some(memory));
        }
        upstreams(gauges, &directory);
        certificates(gauges, &current);
        renewals(gauges, &keeper);
    }));
}

fn certificates(gauges: &mut Gauges, current: &Current) {
    let now = SystemTime::now();
    for certificate in current.load().tls.iter().flat_map(|it| it.certificates()) {
        gauges.certificate(&certificate.name, seconds_until(certificate.not_after, now));
    }
}

fn renewals(gauges: &mut Gauges, keeper: &tls::Handle) {
    let now = SystemTime::now();
    for standing in keeper.standings().iter() {
        if let Some(certificate) = &standing.certificate {
            gauges.certificate(&standing.name, seconds_until(certificate.not_after, now));
        }
        let next_seconds = standing.next_renewal.map(|it| seconds_until(it, now));
        gauges.renewal(&standing.name, Renewal { next_seconds, failed_attempts: standing.attempts });
    }
}

/// Negative when it is over.
pub(super) fn seconds_until(at: SystemTime, now: SystemTime) -> i64 {
    match at.duration_since(now) {
        Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        Err(over) => i64::try_from(over.duration().as_secs()).map_or(i64::MIN, |it| -it),
    }
}

fn upstreams(gauges: &mut Gauges, directory: &Directory) {
    for set in directory.sets() {
        gauges.held(set.name(), set.held() as u64);
        for endpoint in set.endpoints() {
            let counts = EndpointCounts {
                in_flight: endpoint.in_flight() as u64,
                healthy: endpoint.is_healthy(),
                requests: endpoint.requests(),
                failures: endpoint.failures(),
            };
            gauges.upstream(set.name(), &endpoint.label, counts);
        }
    }
}
