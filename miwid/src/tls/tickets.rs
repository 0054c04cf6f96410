//! The keys of session tickets. They outlive reloads, and engines: the next one is given them by the warden, so that clients come
//! back to it as to the one before. They are in memory only, and no line of a log ever has them.
//!
//! One ring serves every policy. The policy is sealed into each ticket, so a ticket of one is worth nothing under another.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::{pki_types::UnixTime, server::ProducesTickets};
use zeroize::Zeroizing;

/// A key seals for so long, and opens for twice as long.
const TURN_SECONDS: u64 = 6 * 60 * 60;
const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const WRITTEN_BYTES: usize = NAME_BYTES + 8 + SECRET_BYTES;
/// The form in which keys travel; another one is not read.
const FORM: u8 = 1;

/// Who keeps the keys for the next engine.
type Keeper = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The first key is made for the first ticket.
#[derive(Default)]
pub(super) struct Keys {
    ring: ArcSwapOption<Ring>,
    /// Held while the ring is replaced.
    keeper: Mutex<Option<Keeper>>,
}

struct Ring {
    current: Key,
    before: Option<Key>,
}

#[derive(Clone)]
struct Key {
    name: [u8; NAME_BYTES],
    made: u64,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    cipher: Arc<RandomizedNonceKey>,
}

// === impl Keys ===

impl Keys {
    /// Goes on with the keys of the engine before, where there are any, and has them kept from now on.
    pub(super) fn inherit(&self, written: &[u8], keeper: impl Fn(&[u8]) + Send + Sync + 'static) {
        let mut kept = self.keeper();
        match Ring::read(written) {
            Some(ring) => self.ring.store(Some(Arc::new(ring))),
            None => drop(self.ring.load().as_ref().map(|ring| keeper(&ring.written()))),
        }
        *kept = Some(Box::new(keeper));
    }

    /// No ticket from before opens any more.
    pub(super) fn forget(&self) {
        let keeper = self.keeper();
        self.put(keeper.as_ref(), Key::random(now()).map(|current| Ring { current, before: None }));
    }

    fn at(&self, now: u64) -> Option<Arc<Ring>> {
        let serving = || self.ring.load_full().filter(|it| it.serves_at(now));
        if let Some(ring) = serving() {
            return Some(ring);
        }
        let keeper = self.keeper();
        // Somebody else may have been faster.
        serving().or_else(|| {
            let before = self.ring.load_full();
            self.put(keeper.as_ref(), Key::random(now).map(|key| Ring::following(before.as_deref(), key)))
        })
    }

    fn put(&self, keeper: Option<&Keeper>, ring: Option<Ring>) -> Option<Arc<Ring>> {
        let ring = ring.map(Arc::new);
        self.ring.store(ring.clone());
        if let (Some(ring), Some(keeper)) = (&ring, keeper) {
            keeper(&ring.written());
        }
        ring
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

// === impl Ring ===

impl Ring {
    fn following(ring: Option<&Self>, current: Key) -> Self {
        let made = current.made;
        Self {
            current,
            before: ring.map(|it| it.current.clone()).filter(|it| made.abs_diff(it.made) < 2 * TURN_SECONDS),
        }
    }

    /// A clock that was set back by hours counts as time that has passed.
    fn serves_at(&self, now: u64) -> bool {
        now.abs_diff(self.current.made) < TURN_SECONDS
    }

    fn find(&self, name: &[u8]) -> Option<&Key> {
        [Some(&self.current), self.before.as_ref()].into_iter().flatten().find(|it| it.name == name)
    }

    fn written(&self) -> Zeroizing<Vec<u8>> {
        let mut written = Zeroizing::new(Vec::with_capacity(1 + 2 * WRITTEN_BYTES));
        written.push(FORM);
        for key in [Some(&self.current), self.before.as_ref()].into_iter().flatten() {
            written.extend_from_slice(&key.name);
            written.extend_from_slice(&key.made.to_be_bytes());
            written.extend_from_slice(&key.secret[..]);
        }
        written
    }

    fn read(written: &[u8]) -> Option<Self> {
        let keys = written.strip_prefix(&[FORM])?.chunks(WRITTEN_BYTES).map(Key::read).collect::<Option<Vec<_>>>()?;
        let mut keys = keys.into_iter();
        Some(Self { current: keys.next()?, before: keys.next() })
    }
}

// === impl Key ===

impl Key {
    fn random(made: u64) -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME_BYTES], Zeroizing::new([0; SECRET_BYTES]));
        let filled = aws_lc_rs::rand::fill(&mut name).and_then(|()| aws_lc_rs::rand::fill(&mut secret[..]));
        if filled.is_err() {
            tracing::error!(target: "tls", "no randomness for ticket keys: clients begin anew");
        }
        filled.ok().and_then(|()| Self::new(name, made, secret))
    }

    fn new(name: [u8; NAME_BYTES], made: u64, secret: Zeroizing<[u8; SECRET_BYTES]>) -> Option<Self> {
        let cipher = Arc::new(RandomizedNonceKey::new(&AES_256_GCM, &secret[..]).ok()?);
        Some(Self { name, made, secret, cipher })
    }

    fn read(written: &[u8]) -> Option<Self> {
        let (name, rest) = written.split_first_chunk()?;
        let (made, rest) = rest.split_first_chunk()?;
        let secret: &[u8; SECRET_BYTES] = rest.try_into().ok()?;
        Self::new(*name, u64::from_be_bytes(*made), Zeroizing::new(*secret))
    }
}

/// The tickets of one policy.
pub(super) struct Tickets {
    keys: Arc<Keys>,
    policy: Vec<u8>,
}

// === impl Tickets ===

impl Tickets {
    pub(super) fn new(keys: Arc<Keys>, policy: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { keys, policy })
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let ring = self.keys.at(now)?;
        let mut sealed = plain.to_vec();
        let nonce = ring.current.cipher.seal_in_place_append_tag(Aad::from(&self.policy), &mut sealed).ok()?;
        Some([&ring.current.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.keys.at(now)?;
        let mut opened = sealed.to_vec();
        let cipher = &ring.find(name)?.cipher;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = cipher.open_in_place(nonce, Aad::from(&self.policy), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ticket keys")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * TURN_SECONDS as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: u64 = 1_000_000;

    fn tickets(keys: &Arc<Keys>) -> Arc<Tickets> {
        Tickets::new(keys.clone(), vec![1])
    }

    /// Keys that somebody keeps, and what was kept last.
    fn kept(written: &[u8]) -> (Arc<Keys>, Arc<Mutex<Vec<u8>>>) {
        let (keys, shelf) = (Arc::new(Keys::default()), Arc::new(Mutex::new(Vec::new())));
        let to = shelf.clone();
        keys.inherit(written, move |written| *to.lock().expect("no panic") = written.to_vec());
        (keys, shelf)
    }

    fn last(shelf: &Mutex<Vec<u8>>) -> Vec<u8> {
        shelf.lock().expect("no panic").clone()
    }

    #[test]
    fn the_next_engine_opens_what_the_one_before_has_sealed_and_seals_with_the_same_key() {
        let (keys, shelf) = kept(&[]);
        let ticket = tickets(&keys).seal(b"session", BEGIN).expect("a ticket");
        let (next, next_shelf) = kept(&last(&shelf));
        assert_eq!(tickets(&next).open(&ticket, BEGIN + 60).as_deref(), Some(&b"session"[..]));
        let theirs = tickets(&next).seal(b"another", BEGIN + 60).expect("a ticket");
        assert_eq!(tickets(&keys).open(&theirs, BEGIN + 60).as_deref(), Some(&b"another"[..]), "both go on");
        assert_eq!(last(&next_shelf), Vec::<u8>::new(), "nothing new to keep");
    }

    #[test]
    fn keys_from_before_somebody_kept_them_are_handed_over_too() {
        let keys = Arc::new(Keys::default());
        let ticket = tickets(&keys).seal(b"session", BEGIN).expect("a ticket");
        let shelf = Arc::new(Mutex::new(Vec::new()));
        let to = shelf.clone();
        keys.inherit(&[], move |written| *to.lock().expect("no panic") = written.to_vec());
        let (next, _) = kept(&last(&shelf));
        assert!(tickets(&next).open(&ticket, BEGIN).is_some());
    }

    #[test]
    fn a_key_seals_for_one_turn_and_opens_for_two_and_each_turn_is_kept() {
        let (keys, shelf) = kept(&[]);
        let tickets = tickets(&keys);
        let first = tickets.seal(b"1", BEGIN).expect("a ticket");
        let before = last(&shelf);
        let same = tickets.seal(b"1", BEGIN + TURN_SECONDS - 1).expect("a ticket");
        assert_eq!(first[..NAME_BYTES], same[..NAME_BYTES]);
        assert_ne!(first[NAME_BYTES..], same[NAME_BYTES..], "never the same nonce");
        let second = tickets.seal(b"2", BEGIN + TURN_SECONDS).expect("a ticket");
        assert_ne!(first[..NAME_BYTES], second[..NAME_BYTES]);
        assert_ne!(before, last(&shelf));
        assert!(tickets.open(&first, BEGIN + TURN_SECONDS + 1).is_some());
        assert!(tickets.open(&first, BEGIN + 2 * TURN_SECONDS).is_none());
        let (idle, _) = kept(&before);
        assert!(Tickets::new(idle, vec![1]).open(&first, BEGIN + 5 * TURN_SECONDS).is_none(), "also when nobody came");
    }

    #[test]
    fn what_is_forgotten_or_of_another_policy_or_bent_opens_for_nobody() {
        let (keys, shelf) = kept(&[]);
        let ticket = tickets(&keys).seal(b"session", now()).expect("a ticket");
        assert_eq!(Tickets::new(keys.clone(), vec![2]).open(&ticket, now()), None);
        for at in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[at] ^= 1;
            assert_eq!(tickets(&keys).open(&bent, now()), None, "byte {at}");
            assert_eq!(tickets(&keys).open(&ticket[..at], now()), None, "cut at {at}");
        }
        keys.forget();
        assert_eq!(tickets(&keys).open(&ticket, now()), None);
        let (next, _) = kept(&last(&shelf));
        assert_eq!(tickets(&next).open(&ticket, now()), None, "nor for the next engine");
    }

    #[test]
    fn what_is_no_ring_is_not_read() {
        let (keys, shelf) = kept(&[]);
        tickets(&keys).seal(b"session", BEGIN).expect("a ticket");
        let written = last(&shelf);
        assert!(Ring::read(&written).is_some());
        let other = [&[FORM + 1], &written[1..]].concat();
        for bad in [&[][..], &[FORM], &written[..written.len() - 1], &other] {
            assert!(Ring::read(bad).is_none(), "{} bytes", bad.len());
        }
    }
}
