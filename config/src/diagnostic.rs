//! What is wrong with a configuration, said so that the operator can mend it.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Error,
}

/// One problem. `line` and `column` count from 1; 0 = the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    #[serde(serialize_with = "as_shown")]
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
    /// Dotted path of the key, `backends."shop.example.com".url`.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
}

/// Names of files need not be text, JSON has nothing else.
fn as_shown<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// Terminal codes, all empty without colour.
struct Paint {
    head: &'static str,
    bold: &'static str,
    frame: &'static str,
    off: &'static str,
}

// === impl Problem ===

impl Problem {
    /// For a terminal: what, where, the line itself with the place marked, and what to do. `source` is the text of the
    /// file, if the caller still has it; without it the line is left out.
    pub fn render(&self, source: Option<&str>, color: bool) -> String {
        let Paint { head, bold, frame, off } = self.paint(color);
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut text = format!("{head}{word}{off}{bold}: {}{off}\n", self.summary());
        let line = source.and_then(|it| it.lines().nth(usize::try_from(self.line).ok()?.checked_sub(1)?));
        let margin = " ".repeat(self.line.to_string().len());
        let _ = writeln!(text, "{margin}{frame}-->{off} {}", self.place());
        if let Some(line) = line {
            let (indent, carets) = self.mark(line);
            let line = line.replace('\t', " ");
            let _ = writeln!(text, "{margin} {frame}|{off}");
            let _ = writeln!(text, "{frame}{} |{off} {line}", self.line);
            let _ = writeln!(text, "{margin} {frame}|{off} {indent}{head}{carets}{off}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "{margin} {frame}={off} {bold}help{off}: {hint}");
        }
        text
    }

    fn summary(&self) -> String {
        if self.key.is_empty() { self.message.clone() } else { format!("{}: {}", self.key, self.message) }
    }

    fn place(&self) -> String {
        match self.line {
            0 => self.file.display().to_string(),
            line => format!("{}:{line}:{}", self.file.display(), self.column),
        }
    }

    /// The space before the place in `line`, and as many carets as the word there is long.
    fn mark(&self, line: &str) -> (String, String) {
        let start = usize::try_from(self.column).unwrap_or(1).saturating_sub(1);
        let word: Vec<char> = line.chars().skip(start).collect();
        let length = match word.first() {
            Some(quote @ ('"' | '\'')) => {
                word.iter().skip(1).position(|it| it == quote).map_or(word.len(), |it| it + 2)
            }
            Some('[') => word.iter().position(|it| *it == ']').map_or(1, |it| it + 1),
            _ => word.iter().take_while(|it| !it.is_whitespace() && !"=,]}#".contains(**it)).count(),
        };
        (" ".repeat(start), "^".repeat(length.max(1)))
    }

    fn paint(&self, color: bool) -> Paint {
        match (color, self.severity) {
            (false, _) => Paint { head: "", bold: "", frame: "", off: "" },
            (true, Severity::Error) => {
                Paint { head: "\x1b[1;31m", bold: "\x1b[1m", frame: "\x1b[1;34m", off: "\x1b[0m" }
            }
            (true, Severity::Warning) => {
                Paint { head: "\x1b[1;33m", bold: "\x1b[1m", frame: "\x1b[1;34m", off: "\x1b[0m" }
            }
        }
    }
}
