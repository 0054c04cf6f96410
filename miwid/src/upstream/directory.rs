//! Every set by its identity, so that a reload carries them over. Usable without a runtime: addresses are published at
//! once, and host names when `maintain` has resolved them, so a name that does not resolve never fails a start.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Address, Feed, Prober, Set, set::Settings, workers::Workers};
use crate::telemetry::{Events, Metrics};

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    workers: Arc<Workers>,
}

struct Entry {
    set: Arc<Set>,
    /// Host names of a static set, which have to be looked up again and again.
    names: Vec<(String, u16)>,
}

/// An address that a static set should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub address: Address,
    pub alternates: Vec<SocketAddr>,
    pub label: String,
}

impl Directory {
    /// The set called `name`; made when it is new, reconfigured in place (strategy, hold bounds) when it exists.
    /// Static addresses are converged (unchanged endpoints keep their health and connections); a managed set (one with
    /// `hold`, or without addresses) keeps the endpoints that its app published.
    pub fn set(&self, name: &str, proxy: &config::Proxy, hold: Option<&config::Hold>) -> Arc<Set> {
        let settings = Settings::new(proxy, hold);
        let managed = settings.managed;
        let checked = settings.health.path.is_some();
        let mut entries = self.entries();
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

    pub(super) fn names(&self) -> Vec<(Arc<Set>, (String, u16))> {
        self.entries()
            .values()
            .flat_map(|entry| entry.names.iter().map(|name| (entry.set.clone(), name.clone())))
            .collect()
    }

    /// The addresses that a name has now. Those that it had before and has no more are withdrawn.
    pub(super) fn resolved(&self, set: &Arc<Set>, name: &(String, u16), addresses: &[SocketAddr]) {
        // The lock keeps a reload from converging the same set at the same time.
        let entries = self.entries();
        let current = entries.get(set.name()).is_some_and(|it| it.names.contains(name) && Arc::ptr_eq(&it.set, set));
        if !current {
            return;
        }
        let wanted: Vec<_> = addresses
            .iter()
            .map(|address| Wanted {
                address: Address::Tcp(*address),
                alternates: Vec::new(),
                label: format!("{}{address}", named(name)),
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
fn named((host, port): &(String, u16)) -> String {
    format!("{host}:{port} ")
}

/// Publishes what is wanted and missing, retires what is there and not wanted; `spare` names labels to leave alone.
fn converge(set: &Arc<Set>, wanted: &[Wanted], checked: bool, spare: impl Fn(&str) -> bool) {
    let present = set.endpoints();
    let same = |it: &Wanted, label: &str, address: &Address| it.label == label && it.address == *address;
    for endpoint in &present {
        let keep = wanted.iter().any(|it| same(it, &endpoint.label, &endpoint.address)) || spare(&endpoint.label);
        if !keep {
            set.discard(endpoint);
        }
    }
    for it in wanted {
        if !present.iter().any(|endpoint| same(it, &endpoint.label, &endpoint.address)) {
            // With a check configured, only its first good answer lets requests in.
            set.publish_with(it.address.clone(), it.alternates.clone(), it.label.clone(), !checked);
        }
    }
}

/// Addresses that are known as written, and names that are not.
fn split(urls: &[config::UpstreamUrl]) -> (Vec<Wanted>, Vec<(String, u16)>) {
    let (mut wanted, mut names) = (Vec::new(), Vec::new());
    for url in urls {
        let fixed = |address, alternates, label| Wanted { address, alternates, label };
        match url {
            config::UpstreamUrl::Unix { path } => {
                let address = Address::Unix(path.clone());
                let label = address.to_string();
                wanted.push(fixed(address, Vec::new(), label));
            }
            config::UpstreamUrl::Http { host, port } | config::UpstreamUrl::Https { host, port } => {
                let label = format!("{host}:{port}");
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                if host.eq_ignore_ascii_case("localhost") {
                    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, *port));
                    wanted.push(fixed(Address::Tcp((Ipv4Addr::LOCALHOST, *port).into()), vec![v6], label));
                } else if let Ok(ip) = bare.parse::<IpAddr>() {
                    wanted.push(fixed(Address::Tcp((ip, *port).into()), Vec::new(), label));
                } else {
                    names.push((host.clone(), *port));
                }
            }
        }
    }
    (wanted, names)
}
