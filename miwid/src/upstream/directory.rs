//! Every set by its identity, so that a reload carries them over. Usable without a runtime: addresses are published at
//! once, and host names when `maintain` has resolved them, so a name that does not resolve never fails a start.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Address, Endpoint, Feed, Prober, Set, Transport, endpoint::Place, set::Settings, transport::server_name,
    workers::Workers,
};
use crate::telemetry::{Events, Metrics};

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    workers: Arc<Workers>,
}

struct Entry {
    set: Arc<Set>,
    names: Vec<Name>,
}

/// A host name of a static set, which has to be looked up again and again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub host: String,
    pub port: u16,
    /// Its addresses are spoken to over TLS.
    pub secure: bool,
}

impl Directory {
    /// The set called `name`; made when it is new, reconfigured in place (strategy, hold bounds) when it exists.
    /// Static addresses are converged (unchanged endpoints keep their health and connections); a managed set (one with
    /// `hold`, or without addresses) keeps the endpoints that its app published.
    pub fn set(&self, name: &str, proxy: &config::Proxy, hold: Option<&config::Hold>) -> Arc<Set> {
        let mut entries = self.entries();
        let current = entries.get(name).map(|it| it.set.transport()).filter(|it| it.serves(proxy));
        let transport = current.unwrap_or_else(|| Arc::new(Transport::or_broken(proxy)));
        let settings = Settings::new(proxy, hold, transport);
        let managed = settings.managed;
        let checked = settings.health.path.is_some();
        if let Some(entry) = entries.get(name) {
            entry.set.configure(settings);
        } else {
            let set = Set::new(name, settings, self.workers.clone());
            entries.insert(name.to_owned(), Entry { set, names: Vec::new() });
        }
        let entry = entries.get_mut(name).expect("it was found or inserted above");
        if !managed {
            let (wanted, names) = split(&proxy.urls);
            converge(&entry.set, &wanted, checked, |label| names.iter().any(|it| label.starts_with(&named(it))));
            entry.names = names;
            self.workers.suspected();
        } else {
            entry.names.clear();
        }
        entry.set.clone()
    }

    /// Forgets the sets that `keep` does not name, withdrawing their endpoints.
    pub fn retain(&self, keep: &dyn Fn(&str) -> bool) {
        self.entries().retain(|name, entry| {
            if !keep(name) {
                entry.set.endpoints().iter().for_each(|it| entry.set.discard(it));
            }
            keep(name)
        });
    }

    pub fn sets(&self) -> Vec<Arc<Set>> {
        self.entries().values().map(|it| it.set.clone()).collect()
    }

    /// Registers a worker; its task must run `Feed::run` for ever.
    pub fn worker(&self) -> Feed {
        self.workers.register()
    }

    /// Resolves host names and checks static endpoints, for ever. Runs on the control runtime.
    pub fn maintain(&self, events: Events, metrics: Metrics) -> impl Future<Output = ()> + Send + use<> {
        let _ = metrics;
        Prober::new(self.clone(), events).run()
    }

    pub(super) async fn suspicion(&self) {
        self.workers.suspicion().await;
    }

    pub(super) fn names(&self) -> Vec<(Arc<Set>, Name)> {
        self.entries()
            .values()
            .flat_map(|entry| entry.names.iter().map(|name| (entry.set.clone(), name.clone())))
            .collect()
    }

    /// The addresses that a name has now. Those that it had before and has no more are withdrawn.
    pub(super) fn resolved(&self, set: &Arc<Set>, name: &Name, addresses: &[SocketAddr]) {
        // The lock keeps a reload from converging the same set at the same time.
        let entries = self.entries();
        let current = entries.get(set.name()).is_some_and(|it| it.names.contains(name) && Arc::ptr_eq(&it.set, set));
        if !current {
            return;
        }
        let wanted: Vec<_> = addresses
            .iter()
            .map(|address| Place {
                address: Address::Tcp(*address),
                alternates: Vec::new(),
                label: format!("{}{address}", named(name)),
                tls_name: if name.secure { server_name(&name.host) } else { None },
            })
            .collect();
        let checked = set.settings().health.path.is_some();
        converge(set, &wanted, checked, |label| !label.starts_with(&named(name)));
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the labels of a name's addresses begin.
fn named(name: &Name) -> String {
    format!("{}:{} ", name.host, name.port)
}

/// Publishes what is wanted and missing, retires what is there and not wanted; `spare` names labels to leave alone.
fn converge(set: &Arc<Set>, wanted: &[Place], checked: bool, spare: impl Fn(&str) -> bool) {
    let present = set.endpoints();
    let same = |it: &Place, endpoint: &Endpoint| {
        it.label == endpoint.label && it.address == endpoint.address && it.tls_name == endpoint.tls_name
    };
    for endpoint in &present {
        let keep = wanted.iter().any(|it| same(it, endpoint)) || spare(&endpoint.label);
        if !keep {
            set.discard(endpoint);
        }
    }
    for it in wanted {
        if !present.iter().any(|endpoint| same(it, endpoint)) {
            // With a check configured, only its first good answer lets requests in.
            set.publish_at(it.clone(), !checked);
        }
    }
}

/// Addresses that are known as written, and names that are not.
fn split(urls: &[config::UpstreamUrl]) -> (Vec<Place>, Vec<Name>) {
    let (mut wanted, mut names) = (Vec::new(), Vec::new());
    for url in urls {
        let (host, port, secure) = match url {
            config::UpstreamUrl::Unix { path } => {
                let address = Address::Unix(path.clone());
                let label = address.to_string();
                wanted.push(Place { address, alternates: Vec::new(), label, tls_name: None });
                continue;
            }
            config::UpstreamUrl::Http { host, port } => (host, *port, false),
            config::UpstreamUrl::Https { host, port } => (host, *port, true),
        };
        let tls_name = if secure { server_name(host) } else { None };
        if secure && tls_name.is_none() {
            // Refused when the configuration was loaded; never spoken to in clear.
            continue;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let label = if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{host}:{port}") };
        let place =
            |ip: IpAddr, alternates| Place { address: Address::Tcp((ip, port).into()), alternates, label, tls_name };
        if host.eq_ignore_ascii_case("localhost") {
            let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
            wanted.push(place(Ipv4Addr::LOCALHOST.into(), vec![v6]));
        } else if let Ok(ip) = bare.parse::<IpAddr>() {
            wanted.push(place(ip, Vec::new()));
        } else {
            names.push(Name { host: host.clone(), port, secure });
        }
    }
    (wanted, names)
}
