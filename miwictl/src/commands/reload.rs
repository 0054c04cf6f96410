//! `miwictl reload`: waits, then says what changed or every problem.

use proto::v1::{Problem, ReloadReport, ReloadRequest};

use super::{connect, request_id};
use crate::{
    cli::{Globals, ReloadArgs},
    error::{Error, Result},
    follow::{follow, verdict},
    output,
};

pub(super) async fn run(globals: &Globals, args: &ReloadArgs) -> Result {
    let path = args.config.as_ref().map(std::path::absolute).transpose();
    let path = path.map_err(|error| Error::unexpected(error.to_string()))?;
    let request = ReloadRequest {
        request_id: request_id(globals),
        path: path.map(|path| path.display().to_string()),
        dry_run: args.dry_run,
        allow_failing_apps: args.allow_failing_apps,
    };
    let client = connect(globals).await?;
    let begun = client.daemon().reload(request).await?.into_inner();
    let ended = follow(&client, globals, begun).await?;
    let Some(report) = &ended.reload else {
        if globals.no_wait {
            output::document(globals, &ended, |operation| operation.id.clone());
        }
        return verdict(&ended);
    };
    output::document(globals, report, if args.dry_run { would_change } else { changes });
    for problem in &report.problems {
        output::complaint(&render(problem));
    }
    verdict(&ended).map_err(Error::answered)
}

/// A rehearsal has a result too, and must not be taken for the real thing.
fn would_change(report: &ReloadReport) -> String {
    format!("dry run, nothing was changed; a reload would be {}", changes(report))
}

fn changes(report: &ReloadReport) -> String {
    let mut text = format!("{} (generation {})\n", report.result, report.config_generation);
    for change in &report.changes {
        text.push_str(&format!("  {} {}: {}\n", change.kind, change.name, change.action));
    }
    text
}

fn render(problem: &Problem) -> String {
    let Problem { severity, file, line, column, key, message, hint } = problem;
    let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{file}:{line}:{column}: {severity}: {key}: {message}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_where_an_editor_finds_it() {
        let problem = Problem {
            severity: "error".into(),
            file: "miwid.toml".into(),
            line: 3,
            column: 7,
            key: "server.http_port".into(),
            message: "too large".into(),
            hint: Some("at most 65535".into()),
        };
        assert_eq!(render(&problem), "miwid.toml:3:7: error: server.http_port: too large\nhint: at most 65535");
    }
}
