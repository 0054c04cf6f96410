//! Remembered sessions that can be thrown away while running configurations go on using them: nobody may resume what was
//! settled under a certificate that counts no more.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// At most so many sessions.
pub(super) struct Remembered(ArcSwap<ServerSessionMemoryCache>, usize);

impl Remembered {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(ServerSessionMemoryCache::new(most)), most))
    }

    pub(super) fn forget(&self) {
        self.0.store(ServerSessionMemoryCache::new(self.1));
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("remembered sessions")
    }
}

impl StoresServerSessions for Remembered {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.load().put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.load().get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.load().take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_resumed_by_nobody_and_others_begin_anew() {
        let remembered = Remembered::new(8);
        remembered.put(b"id".to_vec(), b"session".to_vec());
        assert_eq!(remembered.get(b"id").as_deref(), Some(&b"session"[..]));
        remembered.forget();
        assert_eq!(remembered.get(b"id"), None);
        assert!(remembered.put(b"id".to_vec(), b"session".to_vec()) && remembered.take(b"id").is_some());
    }
}
