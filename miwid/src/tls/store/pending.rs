//! Requests that are on their way. The key is on the disk before anything goes out: if the answer is lost, the certificate
//! that it would have brought can still be found by its key and used.

use std::{fs, io, path::PathBuf, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{disk, names::safe, versions::Store};

#[derive(Clone)]
pub(in crate::tls) struct Pending {
    pub(in crate::tls) key_pem: String,
    pub(in crate::tls) csr_pem: String,
    pub(in crate::tls) asked: Asked,
}

/// What the request was for: another wish needs another request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tls) struct Asked {
    pub(in crate::tls) issuer: String,
    pub(in crate::tls) hosts: Vec<String>,
    pub(in crate::tls) days: Option<u32>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({:?})", self.asked)
    }
}

impl Store {
    fn request_place(&self, name: &str) -> PathBuf {
        self.root().join("pending").join(safe(name))
    }

    /// `None` when there is none, or not the whole of it.
    pub(in crate::tls) fn pending(&self, name: &str) -> Option<Pending> {
        let place = self.request_place(name);
        let read = |file: &str| disk::read_private(&place.join(file)).ok().map(|(text, _)| text);
        let asked = serde_json::from_str(&read("request.json")?).ok()?;
        Some(Pending { key_pem: read("key.pem")?, csr_pem: read("csr.pem")?, asked })
    }

    /// On the disk when this returns.
    pub(in crate::tls) fn put_pending(&self, name: &str, pending: &Pending) -> io::Result<()> {
        self.prepare()?;
        let parent = self.root().join("pending");
        disk::private_directory(&parent)?;
        let fresh = parent.join(format!(".new-{}", safe(name)));
        disk::remove_tree(&fresh)?;
        disk::private_directory(&fresh)?;
        disk::write_new(&fresh.join("key.pem"), pending.key_pem.as_bytes())?;
        disk::write_new(&fresh.join("csr.pem"), pending.csr_pem.as_bytes())?;
        let asked = serde_json::to_vec_pretty(&pending.asked).map_err(io::Error::other)?;
        disk::write_new(&fresh.join("request.json"), &asked)?;
        disk::sync_directory(&fresh)?;
        let place = self.request_place(name);
        disk::remove_tree(&place)?;
        disk::rename(&fresh, &place)
    }

    pub(in crate::tls) fn drop_pending(&self, name: &str) -> io::Result<()> {
        disk::remove_tree(&self.request_place(name))
    }

    /// When the request was written down.
    pub(in crate::tls) fn pending_since(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.request_place(name).join("key.pem")).and_then(|it| it.modified()).ok()
    }
}
