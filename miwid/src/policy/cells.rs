//! What is remembered of clients that are counted (hot): one number each, in a table of a fixed size that all workers and all
//! policies share. A known client costs one compare-and-swap.
//!
//! What a newcomer would get wrong: a number that is in the past says nothing, so its place is free without anybody having to
//! sweep. When no place is free, the client that is the nearest to being forgotten anyway makes room, and is counted: those
//! who ask the most are remembered the longest.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{Pace, TooEarly};

/// With `SETS`: 262,144 clients in 4 MiB. A number is kept for some six seconds after the last request.
const WAYS: usize = 8;
const SETS: usize = 1 << 15;

/// The table as it outlives configurations; there is none before somebody asks for a limit. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clients(Arc<OnceLock<Cells>>);

pub struct Cells {
    sets: Box<[Set]>,
    hasher: RandomState,
    began: Instant,
}

/// Where a client can stand: two cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Set([Cell; WAYS]);

#[derive(Default)]
struct Cell {
    /// 0: nobody.
    client: AtomicU64,
    due: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    pub result: Result<(), TooEarly>,
    /// Another client had to be forgotten.
    pub evicted: bool,
}

// === impl Clients ===

impl Clients {
    pub fn cells(&self) -> &Cells {
        self.0.get_or_init(|| Cells::new(SETS))
    }
}

// === impl Cells ===

impl Cells {
    fn new(sets: usize) -> Self {
        let sets = (0..sets.next_power_of_two()).map(|_| Set::default()).collect();
        Self { sets, hasher: RandomState::new(), began: Instant::now() }
    }

    /// The number by which the clients of a policy are told from those of others, as long as the process lives.
    pub fn scope(&self, identity: &str) -> u64 {
        self.hasher.hash_one(identity)
    }

    /// Who owns a /64 has all its addresses. The hash is keyed, so nobody can choose whom to share a number with.
    pub fn client(&self, scope: u64, ip: IpAddr) -> u64 {
        let whose = match ip {
            IpAddr::V4(ip) => (false, u64::from(ip.to_bits())),
            IpAddr::V6(ip) => (true, (ip.to_bits() >> 64) as u64),
        };
        self.hasher.hash_one((scope, whose)).max(1)
    }

    pub fn time(&self, at: Instant) -> u64 {
        // From 1 on, so that a new cell is in the past.
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX / 2) + 1
    }

    /// Two workers that meet a client for the first time in the same instant may each give it a place; the second one lapses.
    pub fn charge(&self, client: u64, pace: Pace, now: u64) -> Charged {
        let set = &self.sets[client as usize & (self.sets.len() - 1)];
        loop {
            if let Some(cell) = set.0.iter().find(|it| it.client.load(Relaxed) == client) {
                return Charged { result: cell.charge(pace, now, 0), evicted: false };
            }
            let Some((cell, held, due)) = set.lightest() else {
                return Charged { result: Ok(()), evicted: false };
            };
            if cell.client.compare_exchange(held, client, Relaxed, Relaxed).is_ok() {
                return Charged { result: cell.charge(pace, now, due), evicted: due > now };
            }
        }
    }
}

impl Set {
    /// Who is forgotten first: the place, who has it, and until when it means something.
    fn lightest(&self) -> Option<(&Cell, u64, u64)> {
        let told = |cell: &Cell| (cell.client.load(Relaxed), cell.due.load(Relaxed));
        let cells = self.0.iter().map(|it| (it, told(it)));
        cells.map(|(cell, (client, due))| (cell, client, due)).min_by_key(|it| it.2)
    }
}

impl Cell {
    /// `anothers`: what stood here for the client before, and is not held against this one.
    fn charge(&self, pace: Pace, now: u64, anothers: u64) -> Result<(), TooEarly> {
        let mut due = self.due.load(Relaxed);
        loop {
            let next = pace.step(if due == anothers { 0 } else { due }, now)?;
            match self.due.compare_exchange_weak(due, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => due = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn passed(cells: &Cells, client: u64, pace: Pace, now: u64, times: usize) -> usize {
        (0..times).filter(|_| cells.charge(client, pace, now).result.is_ok()).count()
    }

    #[test]
    fn each_client_has_a_bucket_and_each_policy_its_own() {
        let (cells, pace) = (Cells::new(64), Pace::per_minute(100));
        let (here, there) = (cells.scope("security"), cells.scope("backends.\"a\".security"));
        let now = SECOND;
        for (scope, ip, expected) in [
            (here, "192.0.2.1", 10),
            (here, "192.0.2.2", 10),
            (here, "192.0.2.1", 0),
            (there, "192.0.2.1", 10),
            (here, "2001:db8:0:1::1", 10),
            (here, "2001:db8:0:1:ffff::2", 0),
            (here, "2001:db8:0:2::1", 10),
        ] {
            let client = cells.client(scope, ip.parse().expect("an address"));
            assert_eq!(passed(&cells, client, pace, now, 50), expected, "{ip}");
        }
        assert_eq!(cells.scope("security"), here, "a reload finds the same clients");
    }

    #[test]
    fn places_are_free_again_when_their_time_has_come() {
        let (cells, pace) = (Cells::new(1), Pace::per_minute(600));
        for round in 1..100 {
            for client in 1..=WAYS as u64 {
                let charged = cells.charge(round * 100 + client, pace, round * 60 * SECOND);
                assert_eq!(charged, Charged { result: Ok(()), evicted: false });
            }
        }
    }

    #[test]
    fn a_full_table_forgets_the_lightest_and_remembers_who_asks_the_most() {
        let (cells, pace, now) = (Cells::new(1), Pace::per_minute(1000), SECOND);
        assert_eq!(passed(&cells, 7, pace, now, 500), 100);
        for client in 100..10_000 {
            let charged = cells.charge(client, pace, now);
            assert!(charged.result.is_ok(), "a new client is not held responsible for others");
            assert_eq!(charged.evicted, client >= 100 + WAYS as u64 - 1, "{client}");
        }
        assert_eq!(passed(&cells, 7, pace, now, 500), 0, "the flood did not free it");
    }

    #[test]
    fn threads_that_charge_one_client_let_no_more_pass_than_one_would() {
        let (cells, pace) = (Cells::new(64), Pace::per_minute(10_000));
        let now = SECOND;
        cells.charge(5, pace, now).result.expect("the first passes");
        let passing = || passed(&cells, 5, pace, now, 2000);
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(passing)).collect();
            threads.into_iter().map(|it| it.join().expect("it counts")).sum()
        });
        assert_eq!(total, 999);
    }
}
