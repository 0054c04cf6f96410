//! From a checked tree to `Config`: defaults are filled in here, and what several keys mean together is judged.

mod backend;
mod destination;
mod logging;
mod policy;
mod process;
mod proxy;
mod server;
mod tls;

use std::{cell::RefCell, path::PathBuf};

use crate::{Config, section::Section, source::Sources, tree::Entries};

/// Never fails: problems gather in `sources`, and the caller throws the result away if there are any.
pub(crate) fn config(
    sources: &RefCell<Sources>,
    entries: &Entries,
    path: Option<PathBuf>,
    files: Vec<PathBuf>,
) -> Config {
    let root = Section::root(sources, entries);
    let ssl = tls::ssl(&root.section("ssl"), None);
    let compression = policy::compression(&root.section("compression"), None);
    let cache = policy::cache(&root.section("cache"), None);
    let security = policy::security(&root.section("security"), None);
    let above = backend::Above { ssl: &ssl, compression: &compression, cache: &cache, security: &security };
    let backends = backend::backends(&root.section("backends"), &above);
    Config {
        path,
        files,
        server: server::server(&root.section("server")),
        admin: server::admin(&root.section("admin")),
        control: server::control(&root.section("control")),
        cloudflare: tls::cloudflare(&root.section("cloudflare")),
        acme: tls::acme(&root.section("acme")),
        logging: logging::logging(&root.section("logging"), &root),
        tracing: server::tracing(&root.section("tracing")),
        metrics: server::metrics(&root.section("metrics")),
        ssl,
        compression,
        cache,
        security,
        backends,
    }
}
