//! Configuration to wishes: which certificates are to be requested, for which hosts, from whom. Pure.

use config::{Backend, Config, Issuer, Ssl};

use super::hosts;
use crate::tls::store::Wish;

/// Days that Origin CA is asked for when nothing else is said.
pub(super) const DAYS: u32 = 90;
/// Every certificate of the global table is called so, wherever it comes from.
const DEFAULT: &str = "default";

/// Who signs, once `auto` is understood.
pub(super) fn issuer(config: &Config, ssl: &Ssl) -> Issuer {
    match ssl.issuer {
        Issuer::Auto if config.cloudflare.api_token.is_some() && cfg!(feature = "cloudflare") => {
            Issuer::CloudflareOrigin
        }
        Issuer::Auto if config.acme.is_some() => Issuer::Acme,
        Issuer::Auto => Issuer::Local,
        other => other,
    }
}

/// Whether this table's certificates are requested from somebody: a stand-in is shown only until they are there.
pub(in crate::tls) fn is_managed(config: &Config, ssl: &Ssl) -> bool {
    ssl.auto_cert && matches!(issuer(config, ssl), Issuer::CloudflareOrigin | Issuer::Acme)
}

/// At most one for each table that asks for some.
pub(super) fn wishes(config: &Config) -> Vec<Wish> {
    let mut wishes = Vec::new();
    let sites: Vec<(&Backend, &Ssl)> = config.backends.values().filter_map(|it| Some((it, it.ssl.as_ref()?))).collect();
    let is_apart = |ssl: &Ssl| ssl.domains != config.ssl.domains || ssl.auto_cert != config.ssl.auto_cert;
    if is_managed(config, &config.ssl) {
        let mut names = config.ssl.domains.clone();
        if names.is_empty() {
            let common = config.backends.values().filter(|it| {
                it.ssl.as_ref().is_none_or(|ssl| ssl.cert.is_none() && !is_apart(ssl) && is_managed(config, ssl))
            });
            names = common.flat_map(public_hosts).collect();
        }
        wishes.extend(wish(config, &config.ssl, DEFAULT, names));
    }
    for (backend, ssl) in sites {
        if is_managed(config, ssl) && is_apart(ssl) && ssl.cert.is_none() {
            let names = if ssl.domains.is_empty() { public_hosts(backend).collect() } else { ssl.domains.clone() };
            wishes.extend(wish(config, ssl, &backend.name, names));
        }
    }
    wishes
}

fn public_hosts(backend: &Backend) -> impl Iterator<Item = String> {
    std::iter::once(&backend.host).chain(&backend.aliases).filter(|it| hosts::is_public(it)).cloned()
}

/// Hosts that cannot be in a certificate stay in the wish: that it fails is where the operator reads why.
fn wish(config: &Config, ssl: &Ssl, name: &str, mut names: Vec<String>) -> Option<Wish> {
    names.sort();
    names.dedup();
    // An ACME authority decides by itself for how long it signs.
    let (issuer, days) = match issuer(config, ssl) {
        Issuer::Acme => ("acme", None),
        _ => ("cloudflare-origin", Some(config.cloudflare.origin_ca_validity_days.unwrap_or(DAYS))),
    };
    let (issuer, origin) = (issuer.to_owned(), "configuration".to_owned());
    (!names.is_empty()).then(|| Wish { name: name.to_owned(), hosts: names, issuer, origin, days })
}

#[cfg(all(test, feature = "cloudflare"))]
mod tests {
    use std::path::Path;

    use super::*;

    fn wanted(text: &str) -> Vec<(String, Vec<String>)> {
        let loaded = config::load_text(Path::new("m.toml"), text, &[], &config::Capabilities::default());
        let config = loaded.expect("a configuration").config;
        wishes(&config).into_iter().map(|it| (it.name, it.hosts)).collect()
    }

    fn expected(wishes: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        wishes
            .iter()
            .map(|(name, hosts)| ((*name).to_owned(), hosts.iter().map(|it| (*it).to_owned()).collect()))
            .collect()
    }

    const TOKEN: &str = "[cloudflare]\napi_token = \"cfut_x\"\n";
    const SITES: &str =
        "[backends.\"b.test\"]\nroot = \"/\"\naliases = [\"localhost\", \"a.test\"]\n[backends._]\nroot = \"/\"\n";

    #[test]
    fn domains_win_over_the_hosts_of_sites() {
        let text = format!("[ssl]\nauto_cert = true\ndomains = [\"x.test\", \"*.x.test\"]\n{TOKEN}{SITES}");
        assert_eq!(wanted(&text), expected(&[("default", &["*.x.test", "x.test"])]));
        let text = format!("[ssl]\nauto_cert = true\n{TOKEN}{SITES}");
        assert_eq!(wanted(&text), expected(&[("default", &["a.test", "b.test"])]));
    }

    #[test]
    fn without_a_token_or_the_switch_nothing_is_wanted() {
        assert_eq!(wanted(&format!("[ssl]\nauto_cert = true\n{SITES}")), []);
        assert_eq!(wanted(&format!("{TOKEN}{SITES}")), []);
        assert_eq!(wanted(&format!("[ssl]\nauto_cert = true\nissuer = \"local\"\n{TOKEN}{SITES}")), []);
    }

    #[test]
    fn a_site_may_have_one_of_its_own() {
        let own = "[backends.\"c.test\"]\nname = \"shop\"\nroot = \"/\"\n[backends.\"c.test\".ssl]\n";
        let text = format!("[ssl]\nauto_cert = true\n{TOKEN}{SITES}{own}domains = [\"c.test\", \"www.c.test\"]\n");
        assert_eq!(wanted(&text), expected(&[("default", &["a.test", "b.test"]), ("shop", &["c.test", "www.c.test"])]));
        let text = format!("{TOKEN}{SITES}{own}auto_cert = true\n");
        assert_eq!(wanted(&text), expected(&[("shop", &["c.test"])]));
        let text = format!("[ssl]\nauto_cert = true\n{TOKEN}{SITES}{own}auto_cert = false\n");
        assert_eq!(wanted(&text), expected(&[("default", &["a.test", "b.test"])]));
    }
}
