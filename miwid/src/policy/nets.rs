//! Address ranges, compiled for one search per request (hot): sorted, merged, looked up by halves.

use std::net::IpAddr;

use ipnet::IpNet;

/// What a newcomer would get wrong: addresses are asked about in their canonical form, so a range of IPv4 addresses that was
/// written as IPv6 (`::ffff:10.0.0.0/104`) is kept as what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nets {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Nets {
    pub fn new(nets: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match (net.network().to_canonical(), net.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits())),
                // From before the mapped addresses to their end.
                _ => {
                    v4.push((0, u32::MAX));
                    if let IpNet::V6(net) = net {
                        v6.push((net.network().to_bits(), net.broadcast().to_bits()));
                    }
                }
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// `ip` is canonical.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => holds(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => holds(&self.v6, ip.to_bits()),
        }
    }
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], at: T) -> bool {
    let after = ranges.partition_point(|it| it.0 <= at);
    after > 0 && ranges[after - 1].1 >= at
}

/// By their first address, none within or across another.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut apart: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match apart.last_mut() {
            Some(before) if before.1 >= first => before.1 = before.1.max(last),
            _ => apart.push((first, last)),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn nets(written: &[&str]) -> Vec<IpNet> {
        written
            .iter()
            .map(|it| it.parse().unwrap_or_else(|_| IpNet::from(it.parse::<IpAddr>().expect("an address"))))
            .collect()
    }

    #[test]
    fn ranges_and_single_addresses_of_both_families() {
        let list = Nets::new(&nets(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "10.1.0.0/16"]));
        for (ip, expected) in [
            ("10.0.0.0", true),
            ("10.1.2.3", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("192.0.2.8", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::2", false),
            ("0.0.0.1", false),
        ] {
            assert_eq!(list.contains(ip.parse().expect("an address")), expected, "{ip}");
        }
        assert!(!list.is_empty() && Nets::new(&[]).is_empty());
    }

    #[test]
    fn everybody_is_a_range_too_and_mapped_ranges_mean_what_they_say() {
        let check = |range: &str, ip: &str, expected: bool| {
            let list = Nets::new(&nets(&[range]));
            assert_eq!(list.contains(ip.parse().expect("an address")), expected, "{ip} in {range}");
        };
        check("0.0.0.0/0", "203.0.113.1", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("::/0", "2001:db8::1", true);
        check("::/0", "203.0.113.1", false);
        check("::/80", "203.0.113.1", true);
        check("::ffff:10.0.0.0/104", "10.9.9.9", true);
        check("::ffff:10.0.0.0/104", "11.0.0.0", false);
        check("10.0.0.5/8", "10.200.0.1", true);
    }

    #[test]
    fn the_search_finds_what_a_walk_through_the_list_finds() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let written: Vec<IpNet> = (0..random.usize(0..30))
                .map(|_| {
                    let (v4, v6) = (random.u32(..) & 0x0f0f_00ff, random.u128(..) & (0xf << 124 | 0xff));
                    if random.bool() {
                        IpNet::new(Ipv4Addr::from_bits(v4).into(), random.u8(0..=32)).expect("a prefix")
                    } else {
                        IpNet::new(Ipv6Addr::from_bits(v6 | 1 << 127).into(), random.u8(1..=128)).expect("a prefix")
                    }
                })
                .collect();
            let list = Nets::new(&written);
            for _ in 0..200 {
                let ip: IpAddr = if random.bool() {
                    Ipv4Addr::from_bits(random.u32(..) & 0x0f0f_00ff).into()
                } else {
                    Ipv6Addr::from_bits(random.u128(..) & (0xf << 124 | 0xff)).into()
                };
                assert_eq!(list.contains(ip), written.iter().any(|it| it.contains(&ip)), "{ip} in {written:?}");
            }
        }
    }
}
