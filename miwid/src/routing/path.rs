//! Paths as routes see them: percent-decoded where that is harmless, dot segments resolved, slashes merged. Otherwise
//! `/static/%2e%2e/admin` would match the route `/static/` and yet mean something else to whoever answers.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// `None`: the path climbs above the root or is not valid UTF-8 after decoding; nobody serves it.
pub fn normalized(path: &str) -> Option<Cow<'_, str>> {
    if !is_odd(path.as_bytes()) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop()?,
            _ => segments.push(segment),
        }
    }
    let is_directory = decoded.ends_with('/') || decoded.ends_with("/.") || decoded.ends_with("/..");
    let end = if is_directory && !segments.is_empty() { "/" } else { "" };
    Some(Cow::Owned(format!("/{}{end}", segments.join("/"))))
}

/// Whether something in it is encoded, doubled or relative.
fn is_odd(path: &[u8]) -> bool {
    path.iter().enumerate().any(|(at, byte)| match byte {
        b'%' => true,
        b'/' => matches!(path.get(at + 1), Some(b'/' | b'.')),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalized_for_matching() {
        let check = |path: &str, expected: Option<&str>| assert_eq!(normalized(path).as_deref(), expected, "{path}");
        check("/", Some("/"));
        check("/a/b", Some("/a/b"));
        check("/a//b/", Some("/a/b/"));
        check("/a/./b", Some("/a/b"));
        check("/static/../admin", Some("/admin"));
        check("/static/%2e%2e/admin", Some("/admin"));
        check("/%73tatic/x", Some("/static/x"));
        check("/a/..", Some("/"));
        check("/a/b/..", Some("/a/"));
        check("/..", None);
        check("/a/../../b", None);
        check("/%ff", None);
        check("//evil.example", Some("/evil.example"));
    }
}
