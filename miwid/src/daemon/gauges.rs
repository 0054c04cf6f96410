//! What a scrape asks of the rooms that do not count for themselves: apps and upstreams.

use crate::{
    app,
    telemetry::{EndpointCounts, Gauges, Metrics},
    upstream::Directory,
};

pub(super) fn register(metrics: &Metrics, apps: app::Handle, directory: Directory) {
    metrics.on_scrape(Box::new(move |gauges| {
        for status in apps.statuses().iter() {
            let memory = status.instances.iter().map(|it| it.memory_bytes).sum();
            gauges.app(&status.name, status.state.as_str(), status.restarts, Some(memory));
        }
        upstreams(gauges, &directory);
    }));
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
