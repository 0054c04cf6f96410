//! The environment of an app: built from nothing, so that a stray variable of the daemon never reaches it.
//! Only the daemon's `PATH` is taken as the default, because that is where the operator's `node` and `python` are found.

use config::{Process, Secret};

use super::spec::User;

/// Wins when the daemon itself has no `PATH`.
const FALLBACK_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// One line of an env file that can't be read; the text is left out because it may hold a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) line: usize,
    pub(super) why: &'static str,
}

/// Later entries win: base, `file`, then `env` of the configuration.
pub(super) fn build(process: &Process, user: Option<&User>, file: &[(String, String)]) -> Vec<(String, Secret)> {
    let name = user.map(|user| user.name.clone());
    let account = match &name {
        Some(name) => nix::unistd::User::from_name(name),
        None => nix::unistd::User::from_uid(nix::unistd::geteuid()),
    }
    .ok()
    .flatten();
    let mut env = Vec::new();
    set(&mut env, "PATH", &std::env::var("PATH").unwrap_or_else(|_| FALLBACK_PATH.to_owned()));
    if let Some(account) = account {
        set(&mut env, "HOME", &account.dir.display().to_string());
        set(&mut env, "USER", &account.name);
        set(&mut env, "LOGNAME", &account.name);
        set(&mut env, "SHELL", &account.shell.display().to_string());
    }
    for key in ["LANG", "TZ"] {
        if let Ok(value) = std::env::var(key) {
            set(&mut env, key, &value);
        }
    }
    for (key, value) in file {
        set(&mut env, key, value);
    }
    for (key, value) in &process.env {
        set(&mut env, key, value.expose());
    }
    env
}

pub(super) fn set(env: &mut Vec<(String, Secret)>, key: &str, value: &str) {
    env.retain(|(present, _)| present != key);
    env.push((key.to_owned(), Secret::new(value)));
}

pub(super) fn value<'a>(env: &'a [(String, Secret)], key: &str) -> Option<&'a str> {
    env.iter().find(|(present, _)| present == key).map(|(_, value)| value.expose())
}

pub(super) fn valid_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `KEY=VALUE` lines with comments, quotes and an optional `export`.
pub(super) fn parse_file(text: &str) -> (Vec<(String, String)>, Vec<BadLine>) {
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line.strip_prefix("export ").unwrap_or(line)) {
            Ok(pair) => entries.push(pair),
            Err(why) => bad.push(BadLine { line: index + 1, why }),
        }
    }
    (entries, bad)
}

fn entry(line: &str) -> Result<(String, String), &'static str> {
    let (key, value) = line.split_once('=').ok_or("no \"=\" in the line")?;
    let (key, value) = (key.trim(), value.trim());
    if !valid_name(key) {
        return Err("the name may hold letters, digits and \"_\" only and not begin with a digit");
    }
    if value.contains('\0') {
        return Err("the value holds a NUL byte");
    }
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(&value[1..], quote)?,
        _ => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
    };
    Ok((key.to_owned(), value))
}

/// The text up to the closing quote; backslashes count inside double quotes only.
fn quoted(rest: &str, quote: char) -> Result<String, &'static str> {
    let mut out = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => {
                let tail = chars.as_str().trim_start();
                return if tail.is_empty() || tail.starts_with('#') {
                    Ok(out)
                } else {
                    Err("text after the closing quote")
                };
            }
            '\\' if quote == '"' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => break,
            },
            c => out.push(c),
        }
    }
    Err("the quote is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_env_file_knows_quotes_comments_and_export() {
        let (entries, bad) = parse_file("# c\nexport A=1\nB=\"x \\\"y\\\"\" # z\nC='#n'\nD=v # c\nE=\n");
        let expected = [("A", "1"), ("B", "x \"y\""), ("C", "#n"), ("D", "v"), ("E", "")];
        assert_eq!(entries, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(bad.is_empty());
    }

    #[test]
    fn bad_lines_are_named_by_number() {
        let (_, bad) = parse_file("A=1\nnonsense\n1B=2\nC=\"open\n");
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
