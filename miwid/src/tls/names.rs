//! Names of certificates against names of hosts: exact, or `*.` for exactly one label. Pure.

use std::{collections::HashMap, net::IpAddr};

/// Whether a certificate with these names is good for `host` (lower case, without port and final dot).
pub(super) fn covered(names: &[String], host: &str) -> bool {
    names.iter().any(|name| covers(name, host))
}

/// An address is never covered by a wildcard: `*.0.0.1` is nobody's name.
fn covers(name: &str, host: &str) -> bool {
    if name == host {
        return true;
    }
    let (Some(parent), Some((label, rest))) = (name.strip_prefix("*."), host.split_once('.')) else { return false };
    !label.is_empty() && rest == parent && host.parse::<IpAddr>().is_err()
}

/// A name as it is looked up.
pub(super) fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Things by host name, found as a certificate's names are: exact first, then the wildcard one level up.
pub(super) struct ByName<T> {
    exact: HashMap<String, T>,
    /// By what follows `*.`.
    wildcard: HashMap<String, T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> ByName<T> {
    pub(super) fn insert(&mut self, name: &str, thing: T) {
        let (map, name) = self.place(name);
        map.insert(name, thing);
    }

    /// Like `insert`, but what was there before stays.
    pub(super) fn offer(&mut self, name: &str, thing: T) {
        let (map, name) = self.place(name);
        map.entry(name).or_insert(thing);
    }

    fn place(&mut self, name: &str) -> (&mut HashMap<String, T>, String) {
        let name = normalized(name);
        match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent.to_owned()),
            None => (&mut self.exact, name),
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values())
    }

    /// `host` is in lower case.
    pub(super) fn find(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| {
            let (_, parent) = host.split_once('.')?;
            self.wildcard.get(parent)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        for (name, host, expected) in [
            ("a.test", "a.test", true),
            ("a.test", "b.test", false),
            ("*.a.test", "x.a.test", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", "x.y.a.test", false),
            ("*.a.test", ".a.test", false),
            ("*.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
        ] {
            assert_eq!(covers(name, host), expected, "{name} {host}");
        }
    }

    #[test]
    fn exact_names_win_over_wildcards_and_earlier_ones_over_offers() {
        let mut table = ByName::default();
        table.insert("*.A.test", 1);
        table.insert("x.a.test.", 2);
        table.offer("x.a.test", 3);
        table.offer("b.test", 4);
        let find = |host: &str| table.find(host).copied();
        assert_eq!(find("x.a.test"), Some(2));
        assert_eq!(find("y.a.test"), Some(1));
        assert_eq!(find("b.test"), Some(4));
        assert_eq!(find("a.test"), None);
        assert_eq!(find("z.y.a.test"), None);
    }
}
