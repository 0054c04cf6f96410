//! Every key there is: one table from which the check of a file, the JSON Schema and REFERENCE.md are all made.
//!
//! A key that is not here does not exist, whatever a reader asks for; `Section` asserts that in debug builds.

mod backend;
mod logging;
mod policy;
mod process;
mod server;
mod tls;

pub(crate) use server::ROOT;

/// One key of a table.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The default as an operator would say it; empty = none.
    pub(crate) default: &'static str,
    pub(crate) doc: &'static str,
}

/// A table with fixed keys. Groups let a route share what a backend has without a second list.
pub(crate) struct Table {
    pub(crate) doc: &'static str,
    pub(crate) groups: &'static [&'static [Key]],
}

/// What a value may be.
pub(crate) enum Kind {
    Flag,
    Integer {
        min: i64,
        max: i64,
    },
    /// Takes integers too.
    Number {
        min: f64,
        max: f64,
    },
    Text,
    Secret,
    /// A path in the file system, relative to the file that writes it.
    Path,
    Size {
        min: u64,
    },
    Duration {
        min_millis: u64,
    },
    Choice(&'static [&'static str]),
    /// An IP address.
    Address,
    /// An IP address and a port.
    Socket,
    /// An address range.
    Net,
    /// Where an upstream listens.
    Upstream,
    /// An `http` or `https` address.
    WebUrl,
    /// A path (and query) on an HTTP server.
    HttpPath,
    /// A host name: exact, `*.example.com` or `_`.
    Host,
    Signal,
    HeaderValue,
    List(&'static Kind),
    /// A table whose keys the operator chooses.
    Map(&'static Kind),
    Table(&'static Table),
    /// Any of these.
    Either(&'static [Kind]),
}

/// How keys of a map may look.
pub(crate) const PORT: Kind = Kind::Integer { min: 0, max: 65535 };
pub(crate) const COUNT: Kind = Kind::Integer { min: 1, max: 1_000_000_000 };
pub(crate) const STATUS: Kind = Kind::Integer { min: 100, max: 599 };
pub(crate) const EXIT_CODE: Kind = Kind::Integer { min: 0, max: 255 };
pub(crate) const SIZE: Kind = Kind::Size { min: 1 };
pub(crate) const DURATION: Kind = Kind::Duration { min_millis: 0 };
pub(crate) const TIMEOUT: Kind = Kind::Duration { min_millis: 1 };
pub(crate) const TEXTS: Kind = Kind::List(&Kind::Text);
pub(crate) const NETS: Kind = Kind::List(&Kind::Net);

pub(crate) const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

// === impl Table ===

impl Table {
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|it| it.name == name)
    }
}
