//! What handshakes find: one swap and every later handshake shows the new certificate; those under way keep what they have.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::{ArcSwap, Guard};

use crate::tls::{names::ByName, pair::Pair};

/// Cheap to clone. `maintain` alone writes.
#[derive(Clone, Default)]
pub(in crate::tls) struct Live(Arc<ArcSwap<Shown>>);

#[derive(Default)]
pub(in crate::tls) struct Shown {
    hosts: ByName<Pair>,
    names: BTreeMap<String, Pair>,
}

impl Shown {
    /// `host` is in lower case.
    pub(in crate::tls) fn find(&self, host: &str) -> Option<&Pair> {
        self.hosts.find(host)
    }

    pub(in crate::tls) fn named(&self, name: &str) -> Option<&Pair> {
        self.names.get(name)
    }
}

impl Live {
    /// No lock, no I/O.
    pub(in crate::tls) fn load(&self) -> Guard<Arc<Shown>> {
        self.0.load()
    }

    /// Of two for the same host the one that ends later is shown.
    pub(super) fn swap(&self, mut pairs: Vec<Pair>) {
        pairs.sort_by_key(|it| it.certificate.not_after);
        let mut shown = Shown::default();
        for pair in pairs {
            for host in pair.names.iter() {
                shown.hosts.insert(host, pair.clone());
            }
            shown.names.insert(pair.certificate.name.clone(), pair);
        }
        self.0.store(Arc::new(shown));
    }
}
