//! What the warden says, on standard error and in the form of the other lines there: it has no log of its own.

use std::io::Write;

pub(super) fn info(line: &str) {
    say(" INFO", line);
}

pub(super) fn warn(line: &str) {
    say(" WARN", line);
}

fn say(level: &str, line: &str) {
    let now = jiff::Timestamp::now();
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "{now:.6} {level} miwid::warden: {line}");
}
