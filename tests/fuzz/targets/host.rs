//! Authorities (the Host header, `:authority`, an absolute target) and the site that they lead to. One host has one
//! spelling inside; a second one would be a second site, a second log name, a second cache entry.
#![no_main]

use std::{net::Ipv6Addr, sync::Arc};

use http::uri::Authority;
use libfuzzer_sys::{Corpus, fuzz_target};
use miwid::routing::{Hosts, Site, host_of};

thread_local! {
    static HOSTS: Hosts = hosts();
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = str::from_utf8(data) else { return Corpus::Reject };
    if let Some(host) = host_of(text) {
        is_bare(&host);
        is_its_own_host(&host, text);
        is_what_the_crate_reads(&host, text);
        HOSTS.with(|hosts| leads_to_its_site(hosts, &host));
    }
    Corpus::Keep
});

fn is_bare(host: &str) {
    assert!(!host.is_empty() && !host.ends_with('.') && !host.starts_with('['), "{host:?}");
    assert!(host.bytes().all(|it| it.is_ascii_graphic() && !it.is_ascii_uppercase()), "{host:?}");
    assert!(!host.contains(['/', '\\', '@', '?', '#', '%', ',', '"', '\'', '*', '<', '>', '[', ']']), "{host:?}");
    assert!(!host.contains(':') || host.parse::<Ipv6Addr>().is_ok(), "{host:?} has a port");
}

/// Whatever its letters, dot and port.
fn is_its_own_host(host: &str, text: &str) {
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    assert_eq!(host_of(&bracketed).as_deref(), Some(host));
    assert_eq!(host_of(&bracketed.to_ascii_uppercase()).as_deref(), Some(host));
    assert_eq!(host_of(&format!("{bracketed}:8080")).as_deref(), Some(host));
    if !host.contains(':') {
        assert_eq!(host_of(&format!("{host}.:1")).as_deref(), Some(host));
    }
    assert_eq!(host_of(&text.to_ascii_lowercase()).as_deref(), Some(host));
}

/// An absolute target is read by the `http` crate: both see the same host.
fn is_what_the_crate_reads(host: &str, text: &str) {
    if let Ok(authority) = Authority::try_from(text) {
        let other = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        assert_eq!(other.strip_suffix('.').unwrap_or(&other), host);
    }
}

fn leads_to_its_site(hosts: &Hosts, host: &str) {
    let site = hosts.find(host).expect("the default site takes the rest");
    let below = host.strip_suffix(".example.com").is_some_and(|label| !label.contains('.'));
    let expected = match host {
        "shop.example.com" | "::1" => host,
        _ if below => "*.example.com",
        _ => "_",
    };
    assert_eq!(&*site.name, expected, "{host:?}");
    assert_eq!(hosts.named(host).is_some(), expected != "_", "{host:?}");
}

fn hosts() -> Hosts {
    let mut hosts = Hosts::default();
    for name in ["_", "*.example.com", "shop.example.com", "::1"] {
        hosts.insert(name, &Arc::new(Site { name: name.into(), routes: Vec::new() }));
    }
    hosts
}
