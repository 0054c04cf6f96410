//! Peers that speak for others because of where they stand: the edge of the network in front of us. Pure, but for the one
//! cell that holds the ranges. Who they are is `cloudflare`'s to say; here an address is in a range or it is not.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Address ranges by family. A peer is looked for in some twenty of them, which costs less than a look at the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl Ranges {
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let mut ranges = Self::default();
        for net in nets {
            match net {
                IpNet::V4(net) => ranges.v4.push(net),
                IpNet::V6(net) => ranges.v6.push(net),
            }
        }
        ranges
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.iter().any(|it| it.contains(&ip)),
            IpAddr::V6(ip) => self.v6.iter().any(|it| it.contains(&ip)),
        }
    }
}

/// The ranges as they are now; they change while the daemon runs. Cheap to clone.
#[derive(Clone, Default)]
pub struct Known(Arc<ArcSwap<Ranges>>);

impl Known {
    pub fn replace(&self, ranges: Ranges) {
        self.0.store(Arc::new(ranges));
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.load().contains(ip)
    }
}

/// How peers that stand elsewhere are turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turning {
    /// The connection is closed before it is one.
    Away,
    /// With an answer.
    Answered,
}

/// What standing at the edge means.
#[derive(Clone)]
pub struct Edge {
    pub known: Known,
    /// Those at the edge say who their clients are.
    pub is_trusted: bool,
    /// Nobody else is served.
    pub only: Option<Only>,
}

#[derive(Clone)]
pub struct Only {
    pub exempt: Vec<IpNet>,
    pub turning: Turning,
}

impl Edge {
    pub fn speaks_for_others(&self, peer: IpAddr) -> bool {
        self.is_trusted && self.known.contains(peer)
    }

    /// How this peer is turned away, if it is.
    pub fn turns(&self, peer: IpAddr) -> Option<Turning> {
        let Only { exempt, turning } = self.only.as_ref()?;
        let peer = peer.to_canonical();
        (!exempt.iter().any(|it| it.contains(&peer)) && !self.known.contains(peer)).then_some(*turning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(is_trusted: bool, only: Option<Turning>) -> Edge {
        let known = Known::default();
        known.replace(Ranges::new(["104.16.0.0/13", "2606:4700::/32"].map(|it| it.parse().expect("a range"))));
        let exempt = vec!["192.0.2.0/24".parse().expect("a range")];
        Edge { known, is_trusted, only: only.map(|turning| Only { exempt, turning }) }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_addresses_in_the_ranges_stand_at_the_edge() {
        let edge = edge(true, None);
        for (peer, expected) in [
            ("104.16.0.1", true),
            ("104.23.255.255", true),
            ("104.24.0.0", false),
            ("::ffff:104.16.0.1", true),
            ("2606:4700::1", true),
            ("2606:4701::1", false),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(edge.speaks_for_others(ip(peer)), expected, "{peer}");
            assert_eq!(edge.turns(ip(peer)), None, "everybody is served");
        }
    }

    #[test]
    fn who_is_trusted_and_who_is_served_are_two_questions() {
        let edge = edge(false, Some(Turning::Answered));
        assert!(!edge.speaks_for_others(ip("104.16.0.1")));
        for (peer, expected) in [
            ("104.16.0.1", None),
            ("192.0.2.7", None),
            ("::ffff:192.0.2.7", None),
            ("198.51.100.1", Some(Turning::Answered)),
            ("127.0.0.1", Some(Turning::Answered)),
        ] {
            assert_eq!(edge.turns(ip(peer)), expected, "{peer}");
        }
    }

    #[test]
    fn new_ranges_count_at_once() {
        let edge = edge(true, None);
        edge.known.replace(Ranges::default());
        assert!(!edge.speaks_for_others(ip("104.16.0.1")));
    }
}
