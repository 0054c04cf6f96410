//! Which endpoint next: pure, hot. Every function takes an iterator that is cheap to clone instead of a list, so that a
//! request allocates nothing to choose among the few endpoints that are left after filtering.

use std::net::IpAddr;

/// The `turn`-th candidate, round and round.
pub(super) fn round_robin<T>(candidates: impl Iterator<Item = T> + Clone, turn: usize) -> Option<T> {
    let count = candidates.clone().count();
    candidates.into_iter().nth(turn.checked_rem(count)?)
}

/// The candidate with the smallest load; equals take turns, so that an idle set does not send all to its first.
pub(super) fn least<T>(
    candidates: impl Iterator<Item = T> + Clone,
    turn: usize,
    load: impl Fn(&T) -> usize,
) -> Option<T> {
    let smallest = candidates.clone().map(|it| load(&it)).min()?;
    // Loads move under our feet: when none is as small any more, everybody is a candidate again.
    round_robin(candidates.clone().filter(|it| load(it) <= smallest), turn).or_else(|| round_robin(candidates, turn))
}

/// Two at random (`random` is any random number), the less loaded of them.
pub(super) fn two_choices<T>(
    candidates: impl Iterator<Item = T> + Clone,
    random: u64,
    load: impl Fn(&T) -> usize,
) -> Option<T> {
    let count = candidates.clone().count() as u64;
    let first = random.checked_rem(count)?;
    let second = (first + 1 + (random >> 32) % count.saturating_sub(1).max(1)) % count;
    let first = candidates.clone().nth(first as usize)?;
    let second = candidates.into_iter().nth(second as usize)?;
    Some(if load(&second) < load(&first) { second } else { first })
}

/// Highest random weight: losing a candidate moves only the clients that it had.
pub(super) fn rendezvous<T>(candidates: impl Iterator<Item = T>, key: u64, affinity: impl Fn(&T) -> u64) -> Option<T> {
    candidates.max_by_key(|it| mix(key ^ affinity(it)))
}

/// What identifies a client: its IPv4 address, or its IPv6 /64 (a household changes addresses within one).
pub(super) fn client_key(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => mix(u64::from(address.to_bits())),
        IpAddr::V6(address) => mix((address.to_bits() >> 64) as u64 ^ 0x6464),
    }
}

/// A stable number for a name: the same after a restart, so that clients stay where they were.
pub(super) fn affinity(label: &str) -> u64 {
    mix(label.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Spreads neighbouring numbers over the whole range (the finalizer of splitmix64).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_is_chosen_among_nobody() {
        let none: [u64; 0] = [];
        assert_eq!(round_robin(none.iter(), 3), None);
        assert_eq!(least(none.iter(), 3, |_| 0), None);
        assert_eq!(two_choices(none.iter(), 3, |_| 0), None);
        assert_eq!(rendezvous(none.iter(), 3, |it| **it), None);
    }

    #[test]
    fn clients_of_one_v6_network_stay_together_and_mapped_v4_is_v4() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    proptest! {
        #[test]
        fn round_robin_is_fair(count in 1_usize..20, start in 0_usize..1000) {
            let mut hits = vec![0; count];
            for turn in start..start + count * 3 {
                hits[round_robin(0..count, turn).unwrap()] += 1;
            }
            prop_assert!(hits.iter().all(|it| *it == 3));
        }

        #[test]
        fn least_takes_one_with_the_smallest_load(loads in prop::collection::vec(0_usize..5, 1..20), turn in 0_usize..99) {
            let chosen = least(0..loads.len(), turn, |it| loads[*it]).unwrap();
            prop_assert_eq!(Some(&loads[chosen]), loads.iter().min());
        }

        #[test]
        fn two_choices_never_takes_the_worst_of_distinct_loads(count in 2_usize..20, random: u64) {
            prop_assert_ne!(two_choices(0..count, random, |it| *it).unwrap(), count - 1);
        }

        #[test]
        fn losing_an_endpoint_moves_only_its_clients(count in 2_usize..10, lost in 0_usize..10, clients in prop::collection::vec(any::<u32>(), 50)) {
            let lost = lost % count;
            let weight = |it: &usize| affinity(&format!("app-{it}"));
            for client in clients {
                let key = client_key(IpAddr::V4(client.into()));
                let before = rendezvous(0..count, key, weight).unwrap();
                let after = rendezvous((0..count).filter(|it| *it != lost), key, weight).unwrap();
                prop_assert!(after == before || before == lost);
            }
        }
    }
}
