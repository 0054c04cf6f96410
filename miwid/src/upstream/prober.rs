//! Checks the endpoints of static sets and resolves their names, for ever, on the control runtime. Endpoints of apps
//! are not its business: their supervisor probes them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    Directory, Endpoint, Set, Transport, Verdict,
    directory::Name,
    health::{Change, Check, Thresholds},
};
use crate::telemetry::Events;

const TICK: Duration = Duration::from_millis(500);
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an endpoint without a check of its own is tried when it has refused a connection.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

enum Finding {
    Checked(Arc<Set>, Arc<Endpoint>, Verdict),
    Resolved(Arc<Set>, Name, Result<Vec<SocketAddr>, String>),
}

struct Watched {
    thresholds: Thresholds,
    due: Instant,
    /// One check at a time: an endpoint that hangs must not collect connections.
    running: bool,
}

struct Lookup {
    due: Instant,
    failing: bool,
}

/// Checks the endpoints of static sets for ever, on the control runtime.
pub struct Prober {
    directory: Directory,
    events: Events,
    watched: HashMap<u64, Watched>,
    lookups: HashMap<(String, Name), Lookup>,
    running: JoinSet<Finding>,
}

impl Prober {
    pub(super) fn new(directory: Directory, events: Events) -> Self {
        Self { directory, events, watched: HashMap::new(), lookups: HashMap::new(), running: JoinSet::new() }
    }

    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.directory.suspicion() => {}
                Some(finding) = self.running.join_next() => match finding {
                    Ok(Finding::Checked(set, endpoint, verdict)) => self.checked(&set, &endpoint, &verdict),
                    Ok(Finding::Resolved(set, name, answer)) => self.resolved(&set, name, answer),
                    Err(error) => tracing::error!(%error, "a check ended early"),
                },
            }
            self.look_up();
            self.check();
        }
    }

    fn check(&mut self) {
        let now = Instant::now();
        let mut present = Vec::new();
        for set in self.directory.sets().into_iter().filter(|it| !it.is_managed()) {
            let health = set.settings().health.clone();
            for endpoint in set.endpoints() {
                // Without a configured check, only one that has refused a connection is looked at.
                if health.path.is_none() && endpoint.is_healthy() {
                    continue;
                }
                present.push(endpoint.id);
                if health.path.is_none() && !self.watched.contains_key(&endpoint.id) {
                    let message = format!("{}: refused a connection", endpoint.label);
                    self.events.emit("upstream.down", set.name(), message);
                }
                let watched = self.watched.entry(endpoint.id).or_insert_with(|| Watched {
                    thresholds: Thresholds::default(),
                    due: now,
                    running: false,
                });
                if watched.running || watched.due > now {
                    continue;
                }
                watched.running = true;
                watched.due = now + if health.path.is_some() { health.interval } else { RETRY_INTERVAL };
                let (set, health, transport) = (set.clone(), health.clone(), set.transport());
                self.running.spawn(async move {
                    let verdict = look(&endpoint, &health, transport).await;
                    Finding::Checked(set, endpoint, verdict)
                });
            }
        }
        self.watched.retain(|id, _| present.contains(id));
    }

    fn checked(&mut self, set: &Set, endpoint: &Endpoint, verdict: &Verdict) {
        let Some(watched) = self.watched.get_mut(&endpoint.id) else { return };
        watched.running = false;
        let subject = set.name();
        match watched.thresholds.step(endpoint.is_healthy(), verdict, Instant::now()) {
            Some(Change::Up) => {
                endpoint.set_healthy(true);
                self.events.emit("upstream.up", subject, format!("{} answers", endpoint.label));
            }
            Some(Change::Down) => {
                endpoint.set_healthy(false);
                let why = if let Verdict::Bad(why) = verdict { why } else { "" };
                self.events.emit("upstream.down", subject, format!("{}: {why}", endpoint.label));
            }
            None => {}
        }
    }

    fn look_up(&mut self) {
        let now = Instant::now();
        let names = self.directory.names();
        self.lookups.retain(|(set, name), _| names.iter().any(|(it, wanted)| it.name() == set && wanted == name));
        for (set, name) in names {
            let lookup = self
                .lookups
                .entry((set.name().to_owned(), name.clone()))
                .or_insert(Lookup { due: now, failing: false });
            if lookup.due > now {
                continue;
            }
            lookup.due = now + RESOLVE_INTERVAL;
            self.running.spawn(async move {
                let answer =
                    tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name.host.as_str(), name.port)));
                let answer = match answer.await {
                    Ok(Ok(addresses)) => Ok(addresses.collect()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("timed out".to_owned()),
                };
                Finding::Resolved(set, name, answer)
            });
        }
    }

    fn resolved(&mut self, set: &Arc<Set>, name: Name, answer: Result<Vec<SocketAddr>, String>) {
        let key = (set.name().to_owned(), name);
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                lookup.failing = false;
                self.directory.resolved(set, &key.1, &addresses);
            }
            // The addresses that it had stay: an old address is worth more than none.
            answer if !lookup.failing => {
                lookup.failing = true;
                let why = answer.err().unwrap_or_else(|| "no address".to_owned());
                self.events.emit("upstream.down", set.name(), format!("{} does not resolve: {why}", key.1.host));
            }
            _ => {}
        }
    }
}

/// One check of an endpoint and, if it refuses, of its alternate addresses.
async fn look(endpoint: &Endpoint, health: &config::Health, transport: Arc<Transport>) -> Verdict {
    let check = Check {
        // The label of a resolved address is `name:port address`; what precedes the blank is what a server expects.
        host: match &endpoint.address {
            super::Address::Unix(_) => "localhost",
            super::Address::Tcp(_) => endpoint.label.split(' ').next().unwrap_or("localhost"),
        },
        path: health.path.as_deref(),
        expect: &health.expect,
        timeout: health.timeout,
        tls_name: endpoint.tls_name.as_ref(),
        transport,
    };
    let mut verdict = check.run(&endpoint.address).await;
    for alternate in &endpoint.alternates {
        if verdict == Verdict::Good {
            break;
        }
        verdict = check.run(&super::Address::Tcp(*alternate)).await;
    }
    verdict
}
