//! Accounts of authorities, each with its key: one for each directory.

use std::{io, path::PathBuf};

use super::{disk, names::safe, versions::Store};

impl Store {
    fn account_place(&self, directory: &str) -> PathBuf {
        self.root().join("accounts").join(safe(directory))
    }

    pub(in crate::tls) fn account(&self, directory: &str) -> Option<String> {
        disk::read_private(&self.account_place(directory).join("account.json")).ok().map(|(text, _)| text)
    }

    pub(in crate::tls) fn put_account(&self, directory: &str, credentials: &str) -> io::Result<()> {
        self.prepare()?;
        let place = self.account_place(directory);
        disk::private_directory(&place)?;
        disk::replace(&place.join("account.json"), credentials.as_bytes())
    }

    pub(in crate::tls) fn drop_account(&self, directory: &str) -> io::Result<()> {
        disk::remove_tree(&self.account_place(directory))
    }
}
