//! Our types as the proto says them, by hand: the inner types may change shape without the API noticing.

use std::time::SystemTime;

use proto::v1;
use serde::Serialize;

use super::{Ending, NoUpgrade};
use crate::{
    app::{AppStatus, Done, Exit, InstanceStatus, Refusal, Tail},
    reload::{Change, Outcome, Report},
    server::{Binding, Kind},
    telemetry::{Event, LogFile, State},
    tls::{Certificate, Issued, Refused, Standing},
    upstream::{Availability, Endpoint, Set},
};

/// RFC 3339 in UTC; empty for a time that no calendar has.
pub(super) fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}

pub(super) fn app(status: &AppStatus, now: SystemTime) -> v1::App {
    v1::App {
        name: status.name.clone(),
        site: status.site.clone(),
        r#type: word(&status.app_type),
        state: status.state.as_str().to_owned(),
        ready: status.ready,
        desired: status.desired,
        generation: status.generation,
        restarts: status.restarts,
        strategy: word(&status.strategy),
        reason: status.reason.clone(),
        report: status.report.clone(),
        instances: status.instances.iter().map(|instance| self::instance(instance, now)).collect(),
        operation: status.operation.clone(),
        notices: status.notices.clone(),
        release: status.release.clone(),
    }
}

fn instance(status: &InstanceStatus, now: SystemTime) -> v1::Instance {
    let uptime = status.started.and_then(|started| now.duration_since(started).ok()).unwrap_or_default();
    v1::Instance {
        id: status.id.clone(),
        slot: status.slot,
        pid: status.pid,
        // Every state is one word.
        state: format!("{:?}", status.state).to_lowercase(),
        address: status.address.clone(),
        uptime_seconds: uptime.as_secs(),
        restarts: status.restarts,
        memory_bytes: status.memory_bytes,
        cpu_percent: status.cpu_percent,
        in_flight: status.in_flight as u64,
        last_exit: status.last_exit.as_ref().map(exit),
    }
}

fn exit(exit: &Exit) -> v1::Exit {
    v1::Exit {
        at: time(exit.at),
        code: exit.code,
        signal: exit.signal.clone(),
        core_dumped: exit.core_dumped,
        cause: exit.cause.clone(),
        last_lines: exit.last_lines.clone(),
    }
}

/// The word that a configuration enum is written as.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Ready => "ready",
        State::Degraded => "degraded",
        State::Draining => "draining",
    }
}

pub(super) fn listener(binding: Binding) -> v1::Listener {
    let mut protocols = match binding.kind {
        Kind::Http3 => vec!["h3".to_owned()],
        Kind::Http | Kind::Https => vec!["http/1.1".to_owned()],
    };
    if binding.http2 {
        protocols.push("h2".to_owned());
    }
    v1::Listener { address: binding.address.to_string(), protocols, tls: binding.kind != Kind::Http }
}

/// Only what the local CA signed is renewed by us; who wrote a file renews it.
pub(super) fn certificate(certificate: &Certificate, now: SystemTime) -> v1::Certificate {
    let is_local = certificate.issued == Issued::Local;
    let issuer = match certificate.issued {
        Issued::Local => "local".to_owned(),
        Issued::Cloudflare => "cloudflare-origin".to_owned(),
        Issued::Acme => "acme".to_owned(),
        Issued::File | Issued::Imported => certificate.issuer.clone(),
    };
    v1::Certificate {
        name: certificate.name.clone(),
        hosts: certificate.hosts.clone(),
        issuer,
        not_before: time(certificate.not_before),
        not_after: time(certificate.not_after),
        serial: certificate.serial.clone(),
        sha256: certificate.sha256.clone(),
        next_renewal: is_local.then(|| time(certificate.renewal())),
        last_error: None,
        state: if certificate.not_after > now { "ready" } else { "expired" }.to_owned(),
        origin: "configuration".to_owned(),
        attempts: 0,
    }
}

/// Of one that renews itself: what is there, or what is wanted as long as nothing is.
pub(super) fn standing(standing: &Standing, now: SystemTime) -> v1::Certificate {
    let there = standing.certificate.as_ref().map(|it| certificate(it, now));
    let wanted = || v1::Certificate {
        hosts: standing.hosts.clone(),
        issuer: standing.issuer.clone(),
        ..v1::Certificate::default()
    };
    v1::Certificate {
        name: standing.name.clone(),
        next_renewal: standing.next_renewal.map(time),
        last_error: standing.last_error.clone(),
        state: standing.state(now).to_owned(),
        origin: standing.origin.clone(),
        attempts: standing.attempts,
        ..there.unwrap_or_else(wanted)
    }
}

impl From<Result<String, Refused>> for Ending {
    fn from(result: Result<String, Refused>) -> Self {
        let empty = v1::OperationError::default();
        let error = match result {
            Ok(result) => return Self::Done { result, reload: None },
            Err(Refused::NotFound(name)) => v1::OperationError {
                code: "conflict".to_owned(),
                exit: 8,
                message: format!("`{name}` is not a certificate that was requested or imported"),
                hint: "those from files and from the local CA follow the configuration".to_owned(),
                ..empty
            },
            Err(Refused::Conflict { message, hint }) => {
                v1::OperationError { code: "conflict".to_owned(), exit: 8, message, hint, ..empty }
            }
            Err(Refused::Failed { code, message, hint }) => {
                v1::OperationError { code: code.to_owned(), exit: 6, message, hint, ..empty }
            }
        };
        Self::Failed { error, reload: None }
    }
}

pub(super) fn log_file(file: LogFile) -> v1::LogFile {
    v1::LogFile {
        name: file.name,
        path: file.path.display().to_string(),
        size_bytes: file.size_bytes,
        backups: u32::try_from(file.backups).unwrap_or(u32::MAX),
        dropped_lines: file.dropped_lines,
    }
}

pub(super) fn line(tail: &Tail) -> v1::LogLine {
    v1::LogLine {
        app: tail.app.clone(),
        slot: tail.slot,
        at: time(tail.at),
        stream: tail.stream.to_owned(),
        line: String::from_utf8_lossy(&tail.line).into_owned(),
        gap: 0,
        position: String::new(),
    }
}

pub(super) fn event(event: &Event) -> v1::Event {
    v1::Event {
        cursor: event.cursor,
        at: time(event.at),
        kind: event.kind.to_owned(),
        subject: event.subject.clone(),
        message: event.message.clone(),
        gap: 0,
    }
}

pub(super) fn upstream(set: &Set) -> v1::Upstream {
    v1::Upstream {
        name: set.name().to_owned(),
        availability: availability(&set.availability()).to_owned(),
        held: set.held() as u64,
        endpoints: set.endpoints().iter().map(|member| endpoint(member)).collect(),
    }
}

fn endpoint(endpoint: &Endpoint) -> v1::Endpoint {
    v1::Endpoint {
        address: endpoint.address.to_string(),
        label: endpoint.label.clone(),
        healthy: endpoint.is_healthy(),
        drained: endpoint.is_drained(),
        in_flight: endpoint.in_flight() as u64,
    }
}

fn availability(availability: &Availability) -> &'static str {
    match availability {
        Availability::Serving => "serving",
        Availability::Holding => "holding",
        Availability::Paused => "paused",
        Availability::Idle => "idle",
        Availability::Stopped => "stopped",
        Availability::Failed { .. } => "failed",
    }
}

pub(super) fn reload(report: &Report) -> v1::ReloadReport {
    v1::ReloadReport {
        result: outcome(report.outcome).to_owned(),
        config_generation: report.config_generation,
        changes: report.changes.iter().map(change).collect(),
        problems: report.problems.iter().map(problem).collect(),
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::Unchanged => "unchanged",
        Outcome::Rejected => "rejected",
        Outcome::Partial => "partial",
    }
}

fn change(change: &Change) -> v1::Change {
    v1::Change { kind: change.kind.to_owned(), name: change.name.clone(), action: change.action.to_owned() }
}

fn problem(problem: &config::Problem) -> v1::Problem {
    v1::Problem {
        severity: word(&problem.severity),
        file: problem.file.display().to_string(),
        line: problem.line,
        column: problem.column,
        key: problem.key.clone(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}

/// A reload that was rejected, or applied in part, is an operation that failed: it has an exit code.
pub(super) fn reload_ending(report: &Report) -> Ending {
    let result = outcome(report.outcome).to_owned();
    let (exit, message, hint) = match report.outcome {
        Outcome::Applied | Outcome::Unchanged => return Ending::Done { result, reload: Some(reload(report)) },
        Outcome::Rejected => {
            (6, "the configuration was rejected; the running one is unchanged", "mend the problems and reload again")
        }
        Outcome::Partial => {
            (9, "the configuration was applied in part", "`miwictl status` shows what still runs as before")
        }
    };
    let error = v1::OperationError {
        code: result,
        exit,
        message: message.to_owned(),
        hint: hint.to_owned(),
        ..v1::OperationError::default()
    };
    Ending::Failed { error, reload: Some(reload(report)) }
}

/// `None`: nobody answered.
pub(super) fn upgrade_ending(answer: Option<Result<String, NoUpgrade>>) -> Ending {
    let refused = match answer {
        Some(Ok(result)) => return Ending::Done { result, reload: None },
        Some(Err(refused)) => refused,
        None => NoUpgrade { exit: 1, message: "the daemon ended".to_owned(), hint: String::new() },
    };
    let error = v1::OperationError {
        code: "upgrade-failed".to_owned(),
        exit: refused.exit,
        message: refused.message,
        hint: refused.hint,
        ..v1::OperationError::default()
    };
    Ending::Failed { error, reload: None }
}

impl From<Result<Done, Refusal>> for Ending {
    fn from(result: Result<Done, Refusal>) -> Self {
        match result {
            Ok(done) => Self::Done { result: done.message, reload: None },
            Err(Refusal::Cancelled) => Self::Cancelled,
            Err(refusal) => Self::Failed { error: refused(refusal), reload: None },
        }
    }
}

fn refused(refusal: Refusal) -> v1::OperationError {
    let empty = v1::OperationError::default();
    match refusal {
        Refusal::NotFound { name, nearest } => v1::OperationError {
            code: "not-found".to_owned(),
            exit: 5,
            message: format!("there is no app `{name}`"),
            hint: nearest.map_or_else(
                || "`miwictl app list` shows what there is".to_owned(),
                |nearest| format!("did you mean `{nearest}`?"),
            ),
            ..empty
        },
        Refusal::Conflict(message) => v1::OperationError {
            code: "conflict".to_owned(),
            exit: 8,
            message,
            hint: "`miwictl op list` shows what runs".to_owned(),
            ..empty
        },
        Refusal::Failed { reason, report, last_lines } => {
            v1::OperationError { code: "failed".to_owned(), exit: 6, message: reason, report, last_lines, ..empty }
        }
        Refusal::Cancelled => v1::OperationError { code: "cancelled".to_owned(), exit: 8, ..empty },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::InstanceState;

    fn instance_started(started: Option<SystemTime>) -> InstanceStatus {
        InstanceStatus {
            id: "shop-0-1".into(),
            slot: 0,
            pid: Some(7),
            state: InstanceState::Ready,
            address: "127.0.0.1:9".into(),
            started,
            restarts: 2,
            memory_bytes: 3,
            cpu_percent: 0.5,
            in_flight: 4,
            last_exit: None,
        }
    }

    #[test]
    fn uptime_counts_from_the_start_and_is_zero_for_a_clock_that_ran_backwards() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (started, expected) in [(Some(900), 100), (Some(1100), 0), (None, 0)] {
            let started = started.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(instance(&instance_started(started), now).uptime_seconds, expected);
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)), "1970-01-02T00:00:00Z");
    }

    #[test]
    fn configuration_enums_are_said_as_they_are_written() {
        assert_eq!(word(&config::AppType::Nodejs), "nodejs");
        assert_eq!(word(&config::RestartStrategy::Rolling), "rolling");
    }

    #[test]
    fn every_refusal_has_its_exit_code() {
        let cases = [
            (Refusal::NotFound { name: "shp".into(), nearest: Some("shop".into()) }, 5, "did you mean `shop`?"),
            (Refusal::Conflict("busy".into()), 8, "`miwictl op list` shows what runs"),
            (Refusal::Failed { reason: "exit 1".into(), report: String::new(), last_lines: vec![] }, 6, ""),
        ];
        for (refusal, exit, hint) in cases {
            let error = refused(refusal);
            assert_eq!((error.exit, error.hint.as_str()), (exit, hint));
        }
    }

    #[test]
    fn reloads_end_with_their_exit_code_and_always_carry_the_report() {
        for (outcome, expected) in
            [(Outcome::Applied, 0), (Outcome::Unchanged, 0), (Outcome::Rejected, 6), (Outcome::Partial, 9)]
        {
            let report = Report { outcome, config_generation: 3, changes: Vec::new(), problems: Vec::new() };
            let (exit, reload) = match reload_ending(&report) {
                Ending::Done { reload, .. } => (0, reload),
                Ending::Failed { error, reload } => (error.exit, reload),
                Ending::Cancelled => (-1, None),
            };
            assert_eq!(exit, expected, "{outcome:?}");
            assert_eq!(reload.map(|reload| reload.config_generation), Some(3));
        }
    }
}
