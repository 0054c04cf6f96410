//! Certificates on disk. A crash at any step leaves what was there before, or what was to be there: never half of it.
//!
//! ```text
//! STORAGE/                       0700
//!   locks/NAME                   held while a certificate is requested: one request, however many daemons
//!   pending/NAME/                key and request, on the disk before the request goes out
//!   certs/NAME/
//!     v-MILLISECONDS-RANDOM/     key.pem, chain.pem, meta.json; never changed once it has this name
//!     current                    names the version that counts
//!     state.json                 who wants it, and how the last attempt went
//!   accounts/DIRECTORY/           of ACME authorities, with their keys
//!   quarantine/                  versions that cannot be used
//! ```

mod accounts;
mod disk;
mod lock;
mod names;
mod pending;
mod record;
mod versions;

pub(super) use lock::Lock;
pub(super) use pending::{Asked, Pending};
pub(super) use record::{Advice, Meta, Record, Wish};
pub(super) use versions::{Bundle, Loaded, Store};
