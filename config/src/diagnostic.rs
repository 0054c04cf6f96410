//! What is wrong with a configuration, said so that the operator can mend it.

use std::path::PathBuf;

use serde::Serialize;

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
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
    /// Dotted path of the key, `backends."shop.example.com".url`.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    /// The problem as a terminal shows it; `source` is the text of its file, when at hand.
    pub fn render(&self, source: Option<&str>, color: bool) -> String {
        let (word, paint) = match self.severity {
            Severity::Error => ("error", "\x1b[1;31m"),
            Severity::Warning => ("warning", "\x1b[1;33m"),
        };
        let (paint, plain) = if color { (paint, "\x1b[0m") } else { ("", "") };
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let mut out = format!("{paint}{word}{plain}: {key}{}\n  --> {}", self.message, self.file.display());
        if self.line > 0 {
            out.push_str(&format!(":{}:{}", self.line, self.column));
        }
        out.push('\n');
        let line = (self.line as usize).checked_sub(1).and_then(|index| source?.lines().nth(index));
        if let Some(line) = line {
            let margin = " ".repeat(self.line.to_string().len());
            // Tabs stay tabs, so that the caret stands under its key.
            let before = line.chars().take(self.column.saturating_sub(1) as usize);
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            out.push_str(&format!("{margin} |\n{} | {line}\n{margin} | {indent}{paint}^{plain}\n", self.line));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("  = help: {hint}\n"));
        }
        out
    }
}

/// `2 errors, 1 warning`.
pub fn summary(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    format!("{}, {}", count(errors, "error"), count(problems.len() - errors, "warning"))
}
