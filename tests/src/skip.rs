//! Tests that need what a machine may lack say so loudly; `tests/run` counts and lists these lines.

/// Leaves the test with `SKIPPED: reason`. Use it where root, systemd, cgroup v2 or an interpreter is missing.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skip::announce(format_args!($($reason)+));
        return;
    }};
}

/// Prints past the test runner's capture, so that a passing test cannot hide that it was skipped.
pub fn announce(reason: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let line = format!(
        "SKIPPED: {}: {reason}\n",
        std::thread::current().name().filter(|name| *name != "main").unwrap_or("test")
    );
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
