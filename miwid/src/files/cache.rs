//! The files that one worker serves again and again: found, opened, judged and read once, looked at again a few times a
//! second. Only files that have been left alone for a while are kept: within one tick of a file system's clock content can
//! change without a trace in its times.

use std::{
    cell::{Cell, RefCell},
    hash::{Hash, Hasher},
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use foldhash::fast::RandomState;
use http::HeaderValue;
use quick_cache::{Equivalent, Weighter, unsync};
use rustix::fs::Stat;

use super::{conditional::Validators, locate::Located, mime, open::Opened};
use crate::exchange::{FRESH_FOR, Stored};

/// Files up to this size are kept in memory.
pub(super) const BYTES_MAX: u64 = 1 << 20;
/// Of all files that one worker keeps: each counts with its size, whether it has been read yet or not.
const WEIGHT_MAX: u64 = 32 << 20;
/// What a file weighs beside its content; it bounds how many are kept, and so how many descriptors they hold.
const WEIGHT_LEAST: u64 = 16 << 10;
const ENTRIES_EXPECTED: usize = 256;
/// A file that changed less than this ago may change again without being noticed.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// What nobody has asked for in so long is let go, and with it a descriptor that may hold the space of a deleted file.
const UNUSED_FOR: Duration = Duration::from_secs(10);

/// One state of one file, ready to be answered with.
pub(super) struct Hot {
    pub(super) stored: Rc<Stored>,
    pub(super) validators: Validators,
    pub(super) kind: HeaderValue,
    pub(super) path: Vec<u8>,
    pub(super) opened: Opened,
    identity: Identity,
    settled: bool,
    /// When the file was last found to be the same.
    checked: Cell<Instant>,
}

impl Hot {
    /// For one answer only.
    pub(super) fn passing(opened: Opened, path: Vec<u8>) -> Self {
        Self::new(opened, path, Duration::MAX)
    }

    fn new(opened: Opened, path: Vec<u8>, settled_after: Duration) -> Self {
        let now = SystemTime::now();
        let identity = Identity::of(&opened.stat);
        Self {
            stored: Rc::new(Stored::of_file(opened.file.clone(), opened.stat.st_size as u64)),
            validators: Validators::of(&opened.stat, now),
            kind: mime::content_type(&path),
            path,
            settled: identity.is_settled(now, settled_after),
            identity,
            opened,
            checked: Cell::new(Instant::now()),
        }
    }

    /// Until then it need not be looked at again.
    pub(super) fn fresh_until(&self) -> Instant {
        self.checked.get() + FRESH_FOR
    }

    /// Its content may be kept, and used for other requests.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Nothing has been written since it was opened.
    pub(super) fn is_unchanged(&self) -> bool {
        rustix::fs::fstat(&self.opened.file).is_ok_and(|it| Identity::of(&it) == self.identity)
    }
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    place: (u64, u64),
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        Self {
            place: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Neither time is recent, or in the future.
    fn is_settled(&self, now: SystemTime, after: Duration) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let old = |(seconds, nanos): (i64, u64)| {
            let then = Duration::new(seconds.try_into().unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
            now.checked_sub(then).is_some_and(|it| it >= after)
        };
        old(self.modified) && old(self.changed)
    }
}

struct Key {
    root: u64,
    slash: bool,
    relative: Box<[u8]>,
}

/// A key that owns nothing.
struct Lookup<'a> {
    root: u64,
    located: &'a Located,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.root, self.slash, &*self.relative).hash(state);
    }
}

impl Hash for Lookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.root, self.located.slash, &*self.located.relative).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root && self.slash == other.slash && self.relative == other.relative
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Lookup<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.root == key.root && self.located.slash == key.slash && *self.located.relative == *key.relative
    }
}

#[derive(Clone)]
struct Size;

impl Weighter<Key, Rc<Hot>> for Size {
    fn weight(&self, _: &Key, hot: &Rc<Hot>) -> u64 {
        let content = if hot.stored.length <= BYTES_MAX { hot.stored.length } else { 0 };
        content + WEIGHT_LEAST
    }
}

/// Of one worker.
pub struct Cache {
    entries: RefCell<unsync::Cache<Key, Rc<Hot>, Size, RandomState>>,
    settled_after: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        let hasher = RandomState::default();
        let entries = unsync::Cache::with(ENTRIES_EXPECTED, WEIGHT_MAX, Size, hasher, Default::default());
        Self { entries: RefCell::new(entries), settled_after: SETTLED_AFTER }
    }
}

impl Cache {
    /// For tests: keeps what has just been written.
    #[cfg(test)]
    pub(super) fn eager() -> Self {
        Self { settled_after: Duration::ZERO, ..Self::default() }
    }

    /// What was found there a moment ago.
    pub(super) fn fresh(&self, root: u64, located: &Located) -> Option<Rc<Hot>> {
        let entries = self.entries.borrow();
        entries.get(&Lookup { root, located }).filter(|it| it.fresh_until() > Instant::now()).cloned()
    }

    /// What was found there now: the state that is kept already, if it is still that.
    pub(super) fn found(&self, root: u64, located: &Located, opened: Opened, path: Vec<u8>) -> Rc<Hot> {
        let mut entries = self.entries.borrow_mut();
        let identity = Identity::of(&opened.stat);
        let same = |it: &&Rc<Hot>| it.identity == identity && it.path == path;
        if let Some(hot) = entries.get(&Lookup { root, located }).filter(same) {
            hot.checked.set(Instant::now());
            return hot.clone();
        }
        let hot = Rc::new(Hot::new(opened, path, self.settled_after));
        if hot.is_settled() {
            let key = Key { root, slash: located.slash, relative: located.relative.clone().into_boxed_slice() };
            entries.insert(key, hot.clone());
        } else {
            entries.remove(&Lookup { root, located });
        }
        hot
    }

    /// Lets go of what is not used any more. Called every second.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.entries.borrow_mut().retain(|_, hot| hot.fresh_until() + UNUSED_FOR > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seconds: i64) -> Identity {
        Identity { place: (0, 0), size: 0, modified: (seconds, 0), changed: (seconds, 5) }
    }

    #[test]
    fn only_what_was_left_alone_is_settled() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let check = |identity: Identity, expected: bool| {
            assert_eq!(
                identity.is_settled(now, SETTLED_AFTER),
                expected,
                "{:?} {:?}",
                identity.modified,
                identity.changed
            );
        };
        check(identity(997), true);
        check(identity(998), false);
        check(identity(1001), false);
        check(identity(-5), true);
        check(Identity { modified: (1, 0), ..identity(999) }, false);
        check(Identity { changed: (1, 0), ..identity(999) }, false);
    }
}
