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
