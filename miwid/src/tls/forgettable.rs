//! Ticket keys and remembered sessions that can be thrown away while running configurations go on using them: nobody may
//! resume what was settled under a certificate that counts no more.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    crypto::aws_lc_rs,
    server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions},
};

pub(super) struct Tickets(ArcSwap<Arc<dyn ProducesTickets>>);

impl Tickets {
    pub(super) fn new() -> Result<Arc<Self>, String> {
        let keys = aws_lc_rs::Ticketer::new().map_err(|error| format!("no ticket keys: {error}"))?;
        Ok(Arc::new(Self(ArcSwap::from_pointee(keys))))
    }

    pub(super) fn forget(&self) {
        match aws_lc_rs::Ticketer::new() {
            Ok(fresh) => self.0.store(Arc::new(fresh)),
            Err(error) => tracing::error!(target: "tls", %error, "old tickets stay good for some hours"),
        }
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
        self.0.load().lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.load().encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.load().decrypt(cipher)
    }
}

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
        let tickets = Tickets::new().expect("ticket keys");
        let ticket = tickets.encrypt(b"session").expect("a ticket");
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        tickets.forget();
        assert_eq!(tickets.decrypt(&ticket), None);
        let ticket = tickets.encrypt(b"session").expect("a ticket");
        assert!(tickets.decrypt(&ticket).is_some());

        let remembered = Remembered::new(8);
        remembered.put(b"id".to_vec(), b"session".to_vec());
        assert_eq!(remembered.get(b"id").as_deref(), Some(&b"session"[..]));
        remembered.forget();
        assert_eq!(remembered.get(b"id"), None);
        assert!(remembered.put(b"id".to_vec(), b"session".to_vec()) && remembered.take(b"id").is_some());
    }
}
