//! Files that were compressed before: `app.js.br` beside `app.js` is the same content in another coding.
//!
//! A sibling is a representation of its own, with its own tag and length, and ranges of it are ranges of its bytes. One
//! that is older than its original belongs to an earlier state of it and is not used.

use std::rc::Rc;

use http::{HeaderMap, header};

use super::{
    cache::{Cache, Hot},
    locate::Located,
    open::{Found, Opened, Tree},
};
use crate::encoding::{Accepted, Coding, Rules, varies};

/// Best ratio first: nothing is encoded here while somebody waits.
const PREFERENCE: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// Whether and in what order siblings are looked for.
pub(super) struct Siblings {
    /// Empty: never.
    codings: Box<[Coding]>,
}

/// What was found for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sibling {
    /// None is looked for.
    Unasked,
    /// None that the client takes; another client may get one.
    Missing,
    Taken(Coding),
}

// === impl Siblings ===

impl Siblings {
    pub(super) fn new(precompressed: bool) -> Self {
        Self { codings: if precompressed { PREFERENCE.into() } else { Box::default() } }
    }

    /// In the order of `[compression]`, where there is one; a coding that it leaves out is not spoken.
    pub(super) fn preferring(self, rules: Option<&Rules>) -> Self {
        match rules {
            Some(rules) if !self.codings.is_empty() => Self { codings: rules.codings().into() },
            _ => self,
        }
    }

    /// The file to be served in place of `original`, or that one.
    pub(super) fn choose(
        &self,
        cache: &Cache,
        root: u64,
        tree: &Tree,
        original: &Rc<Hot>,
        headers: &HeaderMap,
    ) -> (Rc<Hot>, Sibling) {
        if self.codings.is_empty() || is_compressed(original.kind.as_bytes(), &original.path) {
            return (original.clone(), Sibling::Unasked);
        }
        for coding in Accepted::of(headers).ranked(&self.codings) {
            let name = [&original.path, coding.suffix().as_bytes()].concat();
            if let Some(found) = find(cache, root, tree, name)
                && is_current(&found.opened, &original.opened)
            {
                return (found, Sibling::Taken(coding));
            }
        }
        (original.clone(), Sibling::Missing)
    }
}

fn find(cache: &Cache, root: u64, tree: &Tree, name: Vec<u8>) -> Option<Rc<Hot>> {
    let located = Located { relative: name, slash: false };
    cache.fresh(root, &located).or_else(|| match tree.find(&located.relative) {
        Ok(Found::File(opened)) => Some(cache.found(root, &located, opened, located.relative.clone())),
        _ => None,
    })
}

/// Whole seconds would let a build that writes both at once lose its sibling to the order of its writes.
fn is_current(sibling: &Opened, original: &Opened) -> bool {
    sibling.stat.st_mtime >= original.stat.st_mtime
}

/// No sibling of these would be smaller, so none is looked for.
fn is_compressed(kind: &[u8], path: &[u8]) -> bool {
    let images = kind.starts_with(b"image/") && !kind.starts_with(b"image/svg");
    images
        || [&b"video/"[..], b"audio/", b"font/woff", b"application/zip"].iter().any(|it| kind.starts_with(it))
        || Coding::ALL.iter().any(|it| path.ends_with(it.suffix().as_bytes()))
}

// === impl Sibling ===

impl Sibling {
    /// Adds what an answer says of it.
    pub(super) fn mark(self, headers: &mut HeaderMap) {
        if let Self::Taken(coding) = self {
            headers.insert(header::CONTENT_ENCODING, coding.value());
        }
        self.mark_unmodified(headers);
    }

    /// A 304 names no coding, but says what the answer depends on.
    pub(super) fn mark_unmodified(self, headers: &mut HeaderMap) {
        if self != Self::Unasked {
            varies(headers);
        }
    }
}
