//! The texts that were read, and places in them.
//!
//! A place is a file and a byte; lines and columns are only counted when somebody is to read them.

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
        self.sources.push(Source { name, dir, text });
        self.sources.len() - 1
    }

    pub(crate) fn text(&self, file: usize) -> &str {
        self.sources.get(file).map_or("", |it| &it.text)
    }

    pub(crate) fn origin(&self, at: At) -> Origin {
        let Some(source) = self.sources.get(at.file) else { return Origin::default() };
        let (line, column) = position(&source.text, at.byte);
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

/// Line and column of a byte, both from 1; columns count characters.
fn position(text: &str, byte: usize) -> (u32, u32) {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |it| it + 1);
    let line = before.bytes().filter(|it| *it == b'\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}
