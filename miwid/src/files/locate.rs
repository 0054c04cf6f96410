//! From the path of a request to a path below a root: pure, no disk.
//!
//! What comes out of here never leaves the root by its text: it is relative, and no segment of it is `..`. Only a
//! symbolic link can still lead outside, which is the affair of `open`. A path is decoded exactly once: `%252e` is the
//! name `%2e`, not a dot.

use percent_encoding::percent_decode_str;

/// Why a path names nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a path at all (a broken escape, a control byte): 400, as nginx answers.
    Malformed,
    /// A path that we do not want to understand (`..`, an encoded slash, a backslash) or to show (dotfiles): 404.
    NotShown,
}

/// A path below the root: segments joined by single slashes; empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub relative: Vec<u8>,
    /// The path ended with a slash: it asks for a directory.
    pub slash: bool,
}

/// Empty segments and `.` collapse. A `..` is refused even where it would stay below the root: clients resolve it
/// before they send, so one that arrives is a probe, or would make the route that was matched a lie.
pub fn locate(path: &str) -> Result<Located, Refusal> {
    let mut relative = Vec::with_capacity(path.len());
    let mut slash = true;
    for segment in path.split('/') {
        slash = segment.is_empty() || segment == ".";
        if slash {
            continue;
        }
        if !relative.is_empty() {
            relative.push(b'/');
        }
        let from = relative.len();
        decode(segment, &mut relative)?;
        match &relative[from..] {
            b"." => {
                slash = true;
                relative.truncate(from.saturating_sub(1));
            }
            b".." => return Err(Refusal::NotShown),
            name if dotfile(name) && !(from == 0 && name == b".well-known") => return Err(Refusal::NotShown),
            _ => {}
        }
    }
    Ok(Located { relative, slash })
}

pub(super) fn dotfile(name: &[u8]) -> bool {
    name.first() == Some(&b'.')
}

fn decode(segment: &str, into: &mut Vec<u8>) -> Result<(), Refusal> {
    let from = into.len();
    if !segment.contains('%') {
        into.extend_from_slice(segment.as_bytes());
    } else if escapes_are_whole(segment.as_bytes()) {
        into.extend(percent_decode_str(segment));
    } else {
        return Err(Refusal::Malformed);
    }
    let decoded = &into[from..];
    if decoded.iter().any(u8::is_ascii_control) {
        return Err(Refusal::Malformed);
    }
    if decoded.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
        return Err(Refusal::NotShown);
    }
    Ok(())
}

fn escapes_are_whole(segment: &[u8]) -> bool {
    segment.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        segment.get(at + 1).is_some_and(u8::is_ascii_hexdigit) && segment.get(at + 2).is_some_and(u8::is_ascii_hexdigit)
    })
}

/// The `hidden` globs: names that are never served, listed or fallen back to.
///
/// A pattern without a slash is matched against every segment, so a hidden directory hides all that is below it. One
/// with a slash is matched against the path from the root. `*` and `?` stay within a segment, `**` does not.
pub(super) struct Hidden(Vec<Box<[u8]>>);

impl Hidden {
    pub(super) fn new(patterns: &[String]) -> Self {
        let trimmed = |pattern: &String| {
            let inner = pattern.trim_end_matches('/');
            let rest = inner.trim_start_matches('/');
            // A leading slash alone anchors a name to the root; it is kept as the sign of that.
            let anchored = inner.len() > rest.len() && !rest.contains('/');
            let text = if anchored { format!("/{rest}") } else { rest.to_owned() };
            text.into_bytes().into_boxed_slice()
        };
        Self(patterns.iter().map(trimmed).filter(|pattern| !pattern.is_empty()).collect())
    }

    pub(super) fn hides(&self, located: &Located) -> bool {
        !self.0.is_empty() && self.hides_path(&located.relative)
    }

    /// `relative` and every directory that leads to it are asked.
    fn hides_path(&self, relative: &[u8]) -> bool {
        let mut from = 0;
        relative.split(|&byte| byte == b'/').any(|name| {
            let until = from + name.len();
            from = until + 1;
            self.hides_entry(name, &relative[..until])
        })
    }

    /// One entry of a directory that is itself shown.
    pub(super) fn hides_entry(&self, name: &[u8], path: &[u8]) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_prefix(b"/") {
            Some(anchored) => glob(anchored, path),
            None if pattern.contains(&b'/') => glob(pattern, path),
            None => glob(pattern, name),
        })
    }
}

/// Walks the pattern once and keeps the set of places in the text that it can have reached, so that no pattern and no
/// path can make it slow: backtracking could.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    if !pattern.iter().any(|byte| matches!(byte, b'*' | b'?')) {
        return pattern == text;
    }
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let Some(&first) = rest.first() {
        let (taken, next): (usize, Vec<bool>) = if rest.starts_with(b"**/") {
            // Any number of whole directories, none included.
            (3, spread(&reached, text, |seen, here, before| here || (seen && before == Some(b'/'))))
        } else if rest.starts_with(b"**") {
            (2, spread(&reached, text, |seen, here, _| seen || here))
        } else if first == b'*' {
            (1, spread_in_segment(&reached, text))
        } else {
            let fits = |at: usize| if first == b'?' { text[at] != b'/' } else { text[at] == first };
            (1, (0..=text.len()).map(|at| at > 0 && reached[at - 1] && fits(at - 1)).collect())
        };
        reached = next;
        rest = &rest[taken..];
    }
    reached[text.len()]
}

/// `decide(an earlier place was reached, this one was, the byte before it)`.
fn spread(reached: &[bool], text: &[u8], decide: impl Fn(bool, bool, Option<u8>) -> bool) -> Vec<bool> {
    let mut seen = false;
    let place = |(at, &here): (usize, &bool)| {
        let next = decide(seen, here, at.checked_sub(1).map(|before| text[before]));
        seen |= here;
        next
    };
    reached.iter().enumerate().map(place).collect()
}

fn spread_in_segment(reached: &[bool], text: &[u8]) -> Vec<bool> {
    let mut open = false;
    let place = |(at, &here): (usize, &bool)| {
        open = here || (open && text[at - 1] != b'/');
        open
    };
    reached.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_become_relative_or_are_refused() {
        let check = |path: &str, expected: Result<(&str, bool), Refusal>| {
            let found = locate(path).map(|it| (String::from_utf8_lossy(&it.relative).into_owned(), it.slash));
            assert_eq!(found, expected.map(|(relative, slash)| (relative.to_owned(), slash)), "{path}");
        };
        check("/", Ok(("", true)));
        check("", Ok(("", true)));
        check("/a", Ok(("a", false)));
        check("/a/", Ok(("a", true)));
        check("//a///b", Ok(("a/b", false)));
        check("/./a/./b/.", Ok(("a/b", true)));
        check("/a/%2e", Ok(("a", true)));
        check("/%2e/a", Ok(("a", false)));
        check("/a%20b/%C3%A9", Ok(("a b/é", false)));
        check("/a+b", Ok(("a+b", false)));
        // Decoded once, so this is the name `%2e%2e`.
        check("/%252e%252e/x", Ok(("%2e%2e/x", false)));
        check("/.well-known/acme", Ok((".well-known/acme", false)));
        check("/%2ewell-known/acme", Ok((".well-known/acme", false)));
        check("/...", Err(Refusal::NotShown));
        for hostile in [
            "/..",
            "/../etc/passwd",
            "/a/../b",
            "/a/..",
            "/%2e%2e/x",
            "/.%2e/x",
            "/%2E./x",
            "/a%2fb",
            "/..%2fx",
            "/%2f..",
            "/a%5cb",
            "/..%5cx",
            "/a\\b",
            "/.env",
            "/a/.git/config",
            "/%2eenv",
            "/a/.well-known/x",
            "/.well-known/.env",
            "/.well-known/..",
            "/.well-known2",
        ] {
            check(hostile, Err(Refusal::NotShown));
        }
        for broken in ["/%", "/%2", "/%zz", "/a%00b", "/%00", "/a%0ab", "/%7f", "/%2e%2e%00", "/%-1"] {
            check(broken, Err(Refusal::Malformed));
        }
    }

    #[test]
    fn hidden_globs_match_names_and_paths() {
        let check = |pattern: &str, path: &str, expected: bool| {
            let located = Located { relative: path.as_bytes().to_vec(), slash: false };
            assert_eq!(Hidden::new(&[pattern.to_owned()]).hides(&located), expected, "{pattern} on {path}");
        };
        check("*.bak", "a.bak", true);
        check("*.bak", "d/a.bak", true);
        check("*.bak", "a.bak2", false);
        check("*.bak", "d.bak/a", true);
        check("node_modules", "x/node_modules/y/z", true);
        check("node_modules/", "node_modules/y", true);
        check("node_modules", "node_modules2/y", false);
        check("secret?.txt", "secret1.txt", true);
        check("secret?.txt", "secret.txt", false);
        check("/build", "build/x", true);
        check("/build", "a/build/x", false);
        check("a/*.txt", "a/b.txt", true);
        check("a/*.txt", "a/b/c.txt", false);
        check("a/**/*.txt", "a/b/c.txt", true);
        check("a/**/*.txt", "a/c.txt", true);
        check("a/**", "a/b/c", true);
        check("a/**", "ab/c", false);
        check("**/x/y", "x/y", true);
        check("**/x/y", "ax/y", false);
        check("", "a", false);
        check("/", "a", false);
        // Would take longer than anybody waits if it backtracked.
        check(&"*a".repeat(40), &"a".repeat(39), false);
    }

    proptest! {
        #[test]
        fn nothing_located_leaves_the_root(path in "(/|[a-c]|\\.|%2[eEfF]|%5[cC]|%00|%25|%|\\\\|\\PC){0,24}") {
            if let Ok(located) = locate(&path) {
                let text = &located.relative;
                prop_assert!(!text.starts_with(b"/") && !text.ends_with(b"/"), "{:?}", located);
                prop_assert!(text.iter().all(|byte| !byte.is_ascii_control() && *byte != b'\\'));
                for (at, name) in text.split(|&byte| byte == b'/').enumerate().filter(|_| !text.is_empty()) {
                    prop_assert!(!name.is_empty() && name != b"." && name != b"..");
                    prop_assert!(!dotfile(name) || (at == 0 && name == b".well-known"));
                }
            }
        }
    }
}
