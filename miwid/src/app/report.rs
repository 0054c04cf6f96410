//! What went wrong, in words that an operator can act on: the cause of each exit as a sentence, and the start report.

use std::{fmt::Write, time::Duration};

use super::{
    Exit,
    lifecycle::{Cause, ExitStatus},
};
use crate::upstream::Address;

/// Lines of output that a report repeats.
const REPORT_LINES: usize = 12;

pub(super) fn signal_name(signo: i32) -> String {
    nix::sys::signal::Signal::try_from(signo)
        .map_or_else(|_| format!("signal {signo}"), |signal| signal.as_str().into())
}

pub(super) fn status_words(status: ExitStatus) -> String {
    match (status.code, status.signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signo)) => {
            let core = if status.core_dumped { ", core dumped" } else { "" };
            format!("{}{core}", signal_name(signo))
        }
        (None, None) => "status unknown".into(),
    }
}

fn seconds(time: Duration) -> String {
    if time.subsec_nanos() == 0 { format!("{} s", time.as_secs()) } else { format!("{:.1} s", time.as_secs_f64()) }
}

/// One sentence.
pub(super) fn sentence(cause: &Cause) -> String {
    match cause {
        Cause::Preflight(why) => why.clone(),
        Cause::Spawn(why) => format!("could not be started: {why}"),
        Cause::BeforeReady(status) => format!("exited before ready ({})", status_words(*status)),
        Cause::Daemonised => "the command daemonises (it exited with code 0 and left children)".into(),
        Cause::StartTimeout { after, probe } => {
            let last = probe.as_deref().map(|why| format!("; last probe: {why}")).unwrap_or_default();
            format!("not ready within {}{last}", seconds(*after))
        }
        Cause::NotOurs(why) | Cause::Hopeless(why) => why.clone(),
        Cause::Crashed(status) if status.signal == Some(nix::libc::SIGKILL) => {
            "killed by SIGKILL (not by miwid; perhaps out of memory)".into()
        }
        Cause::Crashed(status) if status.signal.is_some() => format!("killed by {}", status_words(*status)),
        Cause::Crashed(status) => format!("exited unexpectedly ({})", status_words(*status)),
        Cause::Completed(status) => format!("completed ({})", status_words(*status)),
        Cause::Stopped(status) => format!("stopped ({})", status_words(*status)),
        Cause::Ignored { signal, after } => {
            format!("killed (ignored {} for {})", signal_name(*signal), seconds(*after))
        }
        Cause::OutOfMemory { limit, peak } => {
            let words = |name: &str, bytes: &Option<u64>| bytes.map(|it| format!("{name} {} MiB", it >> 20));
            let known: Vec<String> = [words("limit", limit), words("peak", peak)].into_iter().flatten().collect();
            format!("killed by the kernel: out of memory ({})", known.join(", "))
        }
        Cause::KilledNow => "killed at the operator's word".into(),
    }
}

pub(super) fn is_failure(cause: &Cause) -> bool {
    !matches!(cause, Cause::Completed(_) | Cause::Stopped(_) | Cause::Ignored { .. } | Cause::KilledNow)
}

pub(super) fn exit(cause: &Cause, status: Option<ExitStatus>, last_lines: Vec<String>) -> Exit {
    Exit {
        at: std::time::SystemTime::now(),
        code: status.and_then(|status| status.code),
        signal: status.and_then(|status| status.signal).map(signal_name),
        core_dumped: status.is_some_and(|status| status.core_dumped),
        cause: sentence(cause),
        last_lines,
    }
}

/// What is known of an attempt that failed.
pub(super) struct Failed<'a> {
    pub(super) app: &'a str,
    pub(super) slot: u32,
    pub(super) attempt: u64,
    pub(super) next: Option<Duration>,
    /// Steps that went well, with their time and a detail.
    pub(super) steps: &'a [(&'static str, Duration, String)],
    pub(super) took: Duration,
    pub(super) cause: &'a Cause,
    pub(super) last_lines: &'a [String],
    pub(super) hints: Vec<String>,
}

/// The start report: each step, where it failed, what was printed last, what to do.
pub(super) fn start_report(failed: &Failed<'_>) -> String {
    let mut text = format!("app \"{}\" slot {} failed (attempt {}", failed.app, failed.slot, failed.attempt);
    if let Some(next) = failed.next {
        let _ = write!(text, ", next in {}", seconds(Duration::from_secs(next.as_secs_f64().ceil() as u64)));
    }
    text.push_str(")\n");
    for (step, took, detail) in failed.steps {
        let _ = writeln!(text, "  ok   {step:<20} {:>6} ms   {detail}", took.as_millis());
    }
    let _ = writeln!(text, "  FAIL {} ({} ms)", sentence(failed.cause), failed.took.as_millis());
    if !failed.last_lines.is_empty() {
        text.push_str("  last output:\n");
        for line in failed.last_lines.iter().skip(failed.last_lines.len().saturating_sub(REPORT_LINES)) {
            let _ = writeln!(text, "    {line}");
        }
    }
    for hint in &failed.hints {
        let _ = writeln!(text, "  hint: {hint}");
    }
    text
}

/// What the cause suggests; `listening` are the addresses that the process tree really listens on.
pub(super) fn hints(cause: &Cause, address: Option<&Address>, listening: &[Address]) -> Vec<String> {
    let mut hints = Vec::new();
    match cause {
        Cause::Daemonised => hints.push("the command daemonises; use its foreground flag".into()),
        Cause::StartTimeout { probe, .. } => {
            let expected = address.map(ToString::to_string).unwrap_or_default();
            for other in listening.iter().filter(|other| Some(*other) != address) {
                hints.push(format!(
                    "the process listens on {other}, not on {expected}: set url = \"http://{other}\" or make it read PORT"
                ));
            }
            hints.extend(probe.as_deref().and_then(health_path_hint));
        }
        Cause::BeforeReady(ExitStatus { code: Some(127), .. }) => {
            hints.push("exit code 127 usually means that a command was not found".into());
        }
        Cause::BeforeReady(ExitStatus { code: Some(126), .. }) => {
            hints.push("exit code 126 usually means that a file is not executable".into());
        }
        _ => {}
    }
    hints
}

fn health_path_hint(probe: &str) -> Option<String> {
    if ["301", "302", "307", "308"].iter().any(|code| probe.contains(code)) {
        return Some("the health path redirects; name the page it leads to, or list the status under `expect`".into());
    }
    probe.contains("404").then(|| "the health path does not exist in the app: set health_check to one that does".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i32) -> ExitStatus {
        ExitStatus { code: Some(code), signal: None, core_dumped: false }
    }

    #[test]
    fn causes_read_as_sentences() {
        assert_eq!(sentence(&Cause::BeforeReady(code(0))), "exited before ready (code 0)");
        let ignored = Cause::Ignored { signal: 15, after: Duration::from_secs(10) };
        assert_eq!(sentence(&ignored), "killed (ignored SIGTERM for 10 s)");
        let segv = ExitStatus { code: None, signal: Some(11), core_dumped: true };
        assert_eq!(sentence(&Cause::Crashed(segv)), "killed by SIGSEGV, core dumped");
    }

    #[test]
    fn a_start_timeout_names_the_port_it_really_listens_on() {
        let cause = Cause::StartTimeout { after: Duration::from_secs(1), probe: None };
        let wanted = Address::Tcp("127.0.0.1:20001".parse().expect("an address"));
        let real = Address::Tcp("0.0.0.0:8080".parse().expect("an address"));
        let hints = hints(&cause, Some(&wanted), &[real]);
        assert!(hints[0].contains("listens on 0.0.0.0:8080"), "{hints:?}");
    }

    #[test]
    fn a_report_shows_what_went_well_what_failed_and_the_last_output() {
        let cause = Cause::BeforeReady(code(3));
        let steps = [("preflight", Duration::from_millis(2), String::new())];
        let report = start_report(&Failed {
            app: "shop",
            slot: 0,
            attempt: 3,
            next: Some(Duration::from_secs(4)),
            steps: &steps,
            took: Duration::from_millis(612),
            cause: &cause,
            last_lines: &["ModuleNotFoundError: No module named 'shop'".into()],
            hints: Vec::new(),
        });
        assert!(
            report.starts_with("app \"shop\" slot 0 failed (attempt 3, next in 4 s)\n  ok   preflight"),
            "{report}"
        );
        assert!(report.contains("FAIL exited before ready (code 3)"), "{report}");
        assert!(report.contains("    ModuleNotFoundError"), "{report}");
    }
}
