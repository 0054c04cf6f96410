//! The texts that were read, and places in them.
//!
//! A place is a file and a byte. Every site and route is asked for its line, so where lines begin is known beforehand:
//! counting them anew each time made a file of ten thousand sites quadratic.

use std::path::{Path, PathBuf};

use crate::{Origin, Problem, Severity};

/// A place: the file by its number, the byte in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) file: usize,
    pub(crate) byte: usize,
}

#[derive(Debug)]
struct Source {
    name: PathBuf,
    /// Relative paths in this file start here.
    dir: PathBuf,
    text: String,
    /// The byte that each line begins with.
    lines: Vec<usize>,
}

/// All texts, and all that is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    sources: Vec<Source>,
    pub(crate) problems: Vec<Problem>,
    /// Files beside the sources whose content went into the configuration.
    pub(crate) secrets: Vec<PathBuf>,
    /// Lines (from, to) of a file that a mistake of syntax made doubtful: what the checks say about them is noise.
    pub(crate) doubtful: Vec<(PathBuf, u32, u32)>,
}

// === impl Sources ===

impl Sources {
    pub(crate) fn add(&mut self, name: PathBuf, dir: PathBuf, text: String) -> usize {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(byte, _)| byte + 1)).collect();
        self.sources.push(Source { name, dir, text, lines });
        self.sources.len() - 1
    }

    pub(crate) fn text(&self, file: usize) -> &str {
        self.sources.get(file).map_or("", |it| &it.text)
    }

    pub(crate) fn texts(&self) -> Vec<(PathBuf, String)> {
        self.sources.iter().map(|it| (it.name.clone(), it.text.clone())).collect()
    }

    pub(crate) fn origin(&self, at: At) -> Origin {
        let Some(source) = self.sources.get(at.file) else { return Origin::default() };
        let (line, column) = position(&source.text, &source.lines, at.byte);
        Origin { file: source.name.clone(), line, column }
    }

    /// `path` as written at `at`, made absolute.
    pub(crate) fn resolve(&self, at: At, path: &str) -> PathBuf {
        let dir = self.sources.get(at.file).map_or(Path::new(""), |it| &it.dir);
        absolute(&dir.join(path))
    }

    pub(crate) fn error(&mut self, at: At, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.problem(Severity::Error, at, key, message.into(), hint);
    }

    pub(crate) fn warning(&mut self, at: At, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.problem(Severity::Warning, at, key, message.into(), hint);
    }

    fn problem(&mut self, severity: Severity, at: At, key: &str, message: String, hint: Option<String>) {
        let Origin { file, line, column } = self.origin(at);
        self.problems.push(Problem { severity, file, line, column, key: key.to_owned(), message, hint });
    }
}

/// Without asking the disk; links stay as they are.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Line and column of a byte, both from 1; columns count characters. `lines`: the byte that each line begins with.
fn position(text: &str, lines: &[usize], byte: usize) -> (u32, u32) {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    // The first line begins with byte 0, so there is always one that begins at or before this byte.
    let line = lines.partition_point(|begin| *begin <= byte);
    let begin = lines.get(line.wrapping_sub(1)).copied().unwrap_or(0);
    let column = text[begin..byte].chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_line_and_column() {
        let check = |text: &str, byte: usize, expected: (u32, u32)| {
            let mut sources = Sources::default();
            let file = sources.add(PathBuf::from("a.toml"), PathBuf::new(), text.to_owned());
            let origin = sources.origin(At { file, byte });
            assert_eq!((origin.line, origin.column), expected, "byte {byte} of {text:?}");
        };
        check("", 0, (1, 1));
        check("a = 1\nb = 2\n", 0, (1, 1));
        check("a = 1\nb = 2\n", 4, (1, 5));
        // A line's end still belongs to it.
        check("a = 1\nb = 2\n", 5, (1, 6));
        check("a = 1\nb = 2\n", 6, (2, 1));
        check("a = 1\nb = 2\n", 12, (3, 1));
        // Columns count characters, and a byte inside one is its beginning.
        check("\u{e9}\u{e9} = 1", 4, (1, 3));
        check("\n\u{e9}x", 2, (2, 1));
        // Past the end is the end.
        check("ab", 99, (1, 3));
    }
}
