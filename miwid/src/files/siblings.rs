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

    /// In the order of `[compression]`, where there is one. What it does not name comes last: it is there, after all.
    pub(super) fn preferring(mut self, rules: Option<&Rules>) -> Self {
        if let Some(rules) = rules {
            let place = |it: &Coding| rules.codings().iter().position(|named| named == it);
            self.codings.sort_by_key(|it| place(it).unwrap_or(usize::MAX));
        }
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_configuration_and_nothing_is_left_out() {
        let ordered = |algorithms: &[&str]| {
            let rules = Rules::new(&config::Compression {
                enabled: true,
                algorithms: algorithms.iter().map(|it| (*it).to_owned()).collect(),
                level: None,
                min_size: config::ByteSize::kib(1),
                types: Vec::new(),
            });
            Siblings::new(true).preferring(rules.as_deref()).codings
        };
        assert_eq!(*ordered(&[]), PREFERENCE);
        assert_eq!(*ordered(&["gzip"]), [Coding::Gzip, Coding::Brotli, Coding::Zstd]);
        assert_eq!(*ordered(&["zstd", "gzip", "br"]), [Coding::Zstd, Coding::Gzip, Coding::Brotli]);
        assert!(Siblings::new(false).preferring(None).codings.is_empty());
    }

    #[test]
    fn what_is_compressed_by_nature_has_none() {
        for (kind, path, expected) in [
            ("text/html", "a.html", false),
            ("image/svg+xml", "a.svg", false),
            ("application/wasm", "a.wasm", false),
            ("image/png", "a.png", true),
            ("video/mp4", "a.mp4", true),
            ("font/woff2", "a.woff2", true),
            ("application/octet-stream", "a.js.br", true),
            ("application/gzip", "a.tar.gz", true),
        ] {
            assert_eq!(is_compressed(kind.as_bytes(), path.as_bytes()), expected, "{path}");
        }
    }
}
