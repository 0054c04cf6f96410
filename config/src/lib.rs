//! The configuration of miwid: TOML text -> tree (as written) -> `Config` (understood).
//!
//! No async, no TLS, no network: `miwictl config check` works offline. A load never stops at the first problem.

mod acl;
mod builtin;
mod capabilities;
mod check;
mod diagnostic;
mod diff;
mod gather;
mod glob;
mod keys;
mod model;
mod read;
mod schedule;
mod schema;
mod section;
mod show;
mod source;
mod tree;
mod units;
mod values;

use std::{
    cell::RefCell,
    fmt,
    path::{Path, PathBuf},
};

pub use acl::{Account, Grant, Role};
pub use builtin::builtin;
pub use capabilities::Capabilities;
pub use diagnostic::{Problem, Severity};
pub use diff::{Change, diff};
pub use model::*;
pub use schedule::{Minute, Schedule};
pub use schema::{json_schema, reference_page};
pub use show::show;
pub use units::{ByteSize, Secret};

use gather::Gathered;

/// A configuration that loaded, with the warnings it raised.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
    pub texts: Texts,
}

/// What was read: the main file and what it includes, each with its text. Secrets may stand in them.
#[derive(Clone, PartialEq, Eq)]
pub struct Texts(pub Vec<(PathBuf, String)>);

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(path, _)| path)).finish()
    }
}

/// Reads the file at `path` and everything it includes.
pub fn load(path: &Path, overrides: &[(String, String)], capabilities: &Capabilities) -> Result<Loaded, Vec<Problem>> {
    understand(gather::file(path, overrides)?, Some(source::absolute(path)), capabilities)
}

/// The same from what an earlier load has read, whatever the files say by now. What lies beside them (secrets, certificates) is
/// read anew.
pub fn load_texts(
    texts: &Texts,
    overrides: &[(String, String)],
    capabilities: &Capabilities,
) -> Result<Loaded, Vec<Problem>> {
    let path = texts.0.first().map(|(path, _)| source::absolute(path));
    understand(gather::texts(&texts.0, overrides), path, capabilities)
}

/// Reads `text` as if it stood in the file `name` (for tests, and for the built-in default): relative paths start at
/// the directory of `name`. `Config::path` stays `None`, for there is no file to read again.
pub fn load_text(
    name: &Path,
    text: &str,
    overrides: &[(String, String)],
    capabilities: &Capabilities,
) -> Result<Loaded, Vec<Problem>> {
    understand(gather::text(name, text, overrides), None, capabilities)
}

fn understand(gathered: Gathered, path: Option<PathBuf>, capabilities: &Capabilities) -> Result<Loaded, Vec<Problem>> {
    let Gathered { mut sources, mut entries, files, texts } = gathered;
    check::check(&mut sources, &keys::ROOT, &mut entries, "");
    capabilities::refuse(capabilities, &mut sources, &entries);
    let sources = RefCell::new(sources);
    let mut config = read::config(&sources, &entries, path, files);
    let mut sources = sources.into_inner();
    config.files.append(&mut sources.secrets);
    let noise = |it: &Problem| {
        let hit = |(file, from, to): &(PathBuf, u32, u32)| *file == it.file && (*from..=*to).contains(&it.line);
        !it.key.is_empty() && sources.doubtful.iter().any(hit)
    };
    let mut problems = sources.problems;
    problems.retain(|it| !noise(it));
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    problems.dedup();
    if problems.iter().any(|it| it.severity == Severity::Error) {
        return Err(problems);
    }
    Ok(Loaded { config, warnings: problems, texts: Texts(texts) })
}
