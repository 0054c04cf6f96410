//! Text files as well compressed as can be: encoded once, off the workers, and kept in memory for those who ask later.
//!
//! The first to ask gets the file as ever (encoded as it is sent) and so orders the variant. There is one store for the
//! process, because a file is the same whatever site and whatever generation of the configuration serves it: its key is
//! the state of the file itself. One thread at the lowest priority encodes, and only while there is something to encode.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustix::fs::{Stat, fstat};

use super::open::Opened;
use crate::encoding::{Coding, Encoder, Purpose};

/// The best that brotli and zstd do takes seconds per megabyte, and memory many times the file's.
const FILE_BYTES_MAX: u64 = 2 << 20;
const STORE_BYTES_MAX: u64 = 64 << 20;
/// Keys, links and counters of an entry; what keeps files that cannot be made smaller from filling the table.
const ENTRY_BYTES: u64 = 256;
/// Each holds its file open.
const QUEUE_MAX: usize = 64;
/// As nice as can be.
const NICE: i32 = 19;
const PIECE_BYTES: usize = 256 << 10;

static STORE: LazyLock<Arc<Store>> = LazyLock::new(|| Arc::new(Store::new(STORE_BYTES_MAX)));

/// The variant of this state of the file, if it is there already; else it is ordered.
pub(super) fn variant(opened: &Opened, coding: Coding) -> Option<Bytes> {
    STORE.variant(opened, coding)
}

/// One state of one file, in one coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    modified: (i64, u64),
    size: u64,
    coding: Coding,
}

impl Key {
    fn of(stat: &Stat, coding: Coding) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            size: stat.st_size as u64,
            coding,
        }
    }
}

struct Kept {
    /// `None`: it does not become smaller.
    bytes: Option<Bytes>,
    used: AtomicU64,
}

impl Kept {
    fn cost(&self) -> u64 {
        ENTRY_BYTES + self.bytes.as_ref().map_or(0, |it| it.len() as u64)
    }
}

type Table = HashMap<Key, Arc<Kept>>;

/// Readers take no lock: the one writer replaces the table.
struct Store {
    table: ArcSwap<Table>,
    clock: AtomicU64,
    bytes_max: u64,
    orders: Mutex<Orders>,
}

#[derive(Default)]
struct Orders {
    queue: VecDeque<(Key, Arc<File>)>,
    /// Those in the queue and the one in work.
    known: HashSet<Key>,
    at_work: bool,
}

// === impl Store ===

impl Store {
    fn new(bytes_max: u64) -> Self {
        Self { table: ArcSwap::default(), clock: AtomicU64::new(0), bytes_max, orders: Mutex::default() }
    }

    fn variant(self: &Arc<Self>, opened: &Opened, coding: Coding) -> Option<Bytes> {
        let key = Key::of(&opened.stat, coding);
        if key.size > FILE_BYTES_MAX {
            return None;
        }
        if let Some(kept) = self.table.load().get(&key) {
            // The clock moves only when something is kept, so that readers on other cores seldom write what they share.
            let now = self.clock.load(Ordering::Relaxed);
            if kept.used.load(Ordering::Relaxed) != now {
                kept.used.store(now, Ordering::Relaxed);
            }
            return kept.bytes.clone();
        }
        self.order(key, &opened.file);
        None
    }

    /// A full queue, or one that the thread holds (it may be long in coming back), forgets the order: whoever asks next
    /// makes it again.
    fn order(self: &Arc<Self>, key: Key, file: &Arc<File>) {
        let Ok(mut orders) = self.orders.try_lock() else { return };
        if orders.queue.len() >= QUEUE_MAX || !orders.known.insert(key) {
            return;
        }
        orders.queue.push_back((key, file.clone()));
        if !orders.at_work {
            let store = self.clone();
            let spawned = std::thread::Builder::new().name("miwid-variants".into()).spawn(move || store.work());
            orders.at_work = spawned.is_ok();
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: until nothing is left to encode.
    fn work(&self) {
        // Where that is not allowed it works as others do, alone and one at a time.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        loop {
            let mut orders = self.orders();
            let Some((key, file)) = orders.queue.pop_front() else {
                orders.at_work = false;
                return;
            };
            drop(orders);
            match encoded(&key, &file) {
                Ok(bytes) => self.keep(key, bytes),
                Err(error) => tracing::debug!(%error, "a file could not be encoded in advance"),
            }
            self.orders().known.remove(&key);
        }
    }

    /// Called by the thread alone. What was not asked for longest goes first.
    fn keep(&self, key: Key, bytes: Option<Bytes>) {
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed) + 1);
        let mut table = Table::clone(&self.table.load());
        table.insert(key, Arc::new(Kept { bytes, used }));
        let mut total: u64 = table.values().map(|it| it.cost()).sum();
        if total > self.bytes_max {
            let mut oldest: Vec<(u64, Key)> =
                table.iter().map(|(key, it)| (it.used.load(Ordering::Relaxed), *key)).collect();
            oldest.sort_unstable_by_key(|it| it.0);
            for (_, key) in oldest {
                if total <= self.bytes_max {
                    break;
                }
                total -= table.remove(&key).map_or(0, |it| it.cost());
            }
        }
        self.table.store(Arc::new(table));
    }
}

/// `None` when it does not become smaller. An error when the file is not any more what the key says.
fn encoded(key: &Key, file: &File) -> io::Result<Option<Bytes>> {
    let level = match key.coding {
        Coding::Zstd => 19,
        Coding::Brotli => 11,
        Coding::Gzip => 9,
    };
    let mut encoder = Encoder::new(key.coding, level, Purpose::Best, Some(key.size))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(0) => break,
            Ok(count) => {
                encoder.write(&piece[..count])?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if offset != key.size || Key::of(&fstat(file)?, key.coding) != *key {
        return Err(io::Error::other("the file has changed"));
    }
    encoder.finish()?;
    let bytes = encoder.take();
    // A copy has no room to spare, the encoder's own buffer may have as much again.
    Ok(((bytes.len() as u64) < key.size).then(|| Bytes::copy_from_slice(&bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use super::*;

    fn opened(bytes: &[u8]) -> Opened {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Opened { stat: fstat(&file).unwrap(), file: Arc::new(file) }
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0_u64..).flat_map(|it| format!("{} of many lines\n", it * it % 977).into_bytes()).take(bytes).collect()
    }

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "still not so: {what}");
            std::thread::yield_now();
        }
    }

    fn wait_for_rest(store: &Store) {
        wait_until("the thread has nothing left to do", || !store.orders().at_work);
    }

    #[test]
    fn who_asks_first_orders_and_who_asks_later_gets() {
        let (store, file) = (Arc::new(Store::new(1 << 20)), opened(&text(50_000)));
        assert!(store.variant(&file, Coding::Zstd).is_none());
        for coding in Coding::ALL {
            // An order may be forgotten, so it is asked for until it is there.
            wait_until("a variant", || store.variant(&file, coding).is_some_and(|it| it.len() < 25_000));
        }
        wait_for_rest(&store);
        assert!(store.orders().known.is_empty());
    }

    #[test]
    fn a_changed_file_is_another() {
        let (store, before) = (Arc::new(Store::new(1 << 20)), opened(&text(5000)));
        store.variant(&before, Coding::Gzip);
        wait_for_rest(&store);
        before.file.write_all_at(&text(6000), 0).unwrap();
        let after = Opened { stat: fstat(&before.file).unwrap(), file: before.file.clone() };
        assert!(store.variant(&after, Coding::Gzip).is_none());
        // One that changes between the order and the work is not kept under its old name.
        let stale = Key { size: 5000, ..Key::of(&after.stat, Coding::Brotli) };
        assert!(encoded(&stale, &after.file).is_err());
    }

    #[test]
    fn what_does_not_become_smaller_is_tried_once() {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(5000).collect();
        let (store, file) = (Arc::new(Store::new(1 << 20)), opened(&noise));
        assert!(store.variant(&file, Coding::Zstd).is_none());
        wait_for_rest(&store);
        assert!(store.variant(&file, Coding::Zstd).is_none());
        assert!(!store.orders().at_work && store.table.load().len() == 1);
    }

    #[test]
    fn the_store_is_bounded_and_lets_go_of_what_nobody_asks_for() {
        let store = Store::new(3 * (1000 + ENTRY_BYTES));
        let key = |size| Key { device: 1, inode: size, modified: (1, 1), size, coding: Coding::Gzip };
        let keep = |number| store.keep(key(number), Some(Bytes::from(vec![0; 1000])));
        (0..3).for_each(keep);
        store.table.load()[&key(0)].used.store(100, Ordering::Relaxed);
        keep(3);
        let table = store.table.load();
        assert_eq!((table.len(), table.contains_key(&key(0)), table.contains_key(&key(1))), (3, true, false));
    }

    #[test]
    fn what_is_too_large_is_not_ordered() {
        let store = Arc::new(Store::new(1 << 20));
        let mut large = opened(b"x");
        large.stat.st_size = FILE_BYTES_MAX as i64 + 1;
        assert!(store.variant(&large, Coding::Gzip).is_none());
        assert!(store.orders().known.is_empty() && !store.orders().at_work);
    }
}
