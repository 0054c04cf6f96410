//! Patterns with `*` and `?`: of file names for `include`, within one segment of a path, and of apps.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// The files that the absolute `pattern` means, sorted. Names that begin with a dot only match when the pattern's do.
pub(crate) fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let Component::Normal(segment) = component else {
            found.iter_mut().for_each(|it| it.push(component));
            continue;
        };
        let segment = segment.to_string_lossy();
        let mut next = Vec::new();
        for dir in found {
            if !is_pattern(&segment) {
                next.push(dir.join(&*segment));
            } else if dir.is_dir() {
                next.extend(matching(&dir, &segment)?);
            }
        }
        found = next;
    }
    found.retain(|it| it.is_file());
    found.sort();
    Ok(found)
}

fn matching(dir: &Path, segment: &str) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if (segment.starts_with('.') || !name.starts_with('.')) && matches(segment.as_bytes(), name.as_bytes()) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Walks back to the last `*` on a mismatch, so it takes no more than the product of both lengths.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|it| *it == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
    }

    #[test]
    fn stars_and_question_marks_match() {
        check("*.toml", "shop.toml", true);
        check("*.toml", "shop.toml.bak", false);
        check("*", "", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("*a*b", "xaxxbxb", true);
        check("*a*b", "xbxa", false);
    }
}
