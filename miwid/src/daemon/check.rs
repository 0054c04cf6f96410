//! `miwid check`: everything that could keep this configuration from running, all at once.

use std::{collections::HashMap, io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use config::{Account, Config, Origin, Problem, Severity, Target};

use super::start::INVALID;
use crate::{
    app,
    cli::{Check, Output},
    control,
    net::bind_group,
    reload::Source,
    server::addresses,
    snapshot::{Lasting, build, capabilities},
    tls::Tls,
    upstream::Address,
};

pub fn check(check: &Check) -> ExitCode {
    let problems = find(check);
    let failing = |it: &Problem| it.severity == Severity::Error || check.strict;
    let failed = problems.iter().any(failing);
    match check.output {
        Output::Text if problems.is_empty() => eprintln!("the configuration is valid"),
        Output::Text => print(&problems),
        Output::Json => print_json(&problems, !failed),
    }
    if failed { ExitCode::from(INVALID) } else { ExitCode::SUCCESS }
}

fn find(check: &Check) -> Vec<Problem> {
    let source = match Source::find(check.config.clone(), Vec::new()) {
        Ok(source) => source,
        Err(error) => return vec![refused(error.path.clone(), error.to_string())],
    };
    let loaded = match source.load(&capabilities()) {
        Ok(loaded) => loaded,
        Err(problems) => return problems,
    };
    let mut problems = loaded.warnings;
    match build(&loaded.config, 0, &Lasting::default(), Tls::rehearsal().terminator(&loaded.config)) {
        Ok(snapshot) => problems.extend(snapshot.tls.iter().flat_map(|it| it.warnings()).cloned()),
        Err(more) => problems.extend(more),
    }
    problems.extend(ports(&loaded.config));
    problems.extend(roots(&loaded.config));
    problems.extend(accounts(&loaded.config));
    problems.extend(preflight(loaded.config));
    problems
}

/// Ports that somebody else has. Our own daemon may be running while its next configuration is checked.
fn ports(config: &Config) -> Vec<Problem> {
    let taken = |address: SocketAddr| {
        let source = bind_group(address, 1).err()?.source;
        let owner = app::sockets::owner(&Address::Tcp(address));
        if owner.as_ref().is_some_and(|it| it.command.contains("miwid")) {
            return None;
        }
        let holder =
            owner.map(|it| format!(" (pid {} \"{}\", user {})", it.pid, it.command, it.user)).unwrap_or_default();
        Some(Problem {
            severity: Severity::Warning,
            file: config.path.clone().unwrap_or_default(),
            line: 0,
            column: 0,
            key: "server.http_port".to_owned(),
            message: format!("cannot listen on {address}: {source}{holder}"),
            hint: Some("end who holds it, or choose another port".to_owned()),
        })
    };
    addresses(config).iter().filter_map(|it| taken(it.address)).collect()
}

/// Directories that are to be served and are not there. They may appear later, so this is only a warning.
pub(super) fn roots(config: &Config) -> Vec<Problem> {
    let missing = |target: &Target, origin: &Origin, key: &str| match target {
        Target::Files(files) if !files.root.is_dir() => Some(Problem {
            severity: Severity::Warning,
            file: origin.file.clone(),
            line: origin.line,
            column: origin.column,
            key: format!("{key}.root"),
            message: format!(
                "the directory {} does not exist; until it does, every request gets 404",
                files.root.display()
            ),
            hint: None,
        }),
        _ => None,
    };
    let of_backend = |backend: &config::Backend| {
        let key = format!("backends.\"{}\"", backend.host);
        let routes = backend.routes.iter().filter(|it| it.target != backend.target);
        let routes: Vec<_> = routes
            .filter_map(|it| missing(&it.target, &it.origin, &format!("{key}.routes.\"{}\"", it.prefix)))
            .collect();
        missing(&backend.target, &backend.origin, &key).into_iter().chain(routes)
    };
    config.backends.values().flat_map(of_backend).collect()
}

/// Accounts that may do something and that nobody has. They may be made later, so this is only a warning.
pub(super) fn accounts(config: &Config) -> Vec<Problem> {
    let unknown = config.control.acl.iter().flatten().filter(|(account, _)| !control::exists(account));
    let told = unknown.map(|(account, grant)| Problem {
        severity: Severity::Warning,
        file: grant.origin.file.clone(),
        line: grant.origin.line,
        column: grant.origin.column,
        key: format!("control.acl.\"{account}\""),
        message: match account {
            Account::User(name) => format!("there is no user {name:?} on this machine"),
            Account::Group(name) => format!("there is no group {name:?} on this machine"),
        },
        hint: None,
    });
    told.collect()
}

/// A broken app must not keep the others from starting, so what is wrong with one is a warning here.
fn preflight(config: Config) -> Vec<Problem> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![refused(PathBuf::new(), format!("cannot check the apps: {error}"))],
    };
    let mut problems = runtime.block_on(app::Handle::preflight(Arc::new(config)));
    for problem in &mut problems {
        problem.severity = Severity::Warning;
    }
    problems
}

fn refused(file: PathBuf, message: String) -> Problem {
    Problem { severity: Severity::Error, file, line: 0, column: 0, key: String::new(), message, hint: None }
}

/// To standard error, with the lines they speak of.
pub(super) fn print(problems: &[Problem]) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let mut sources: HashMap<PathBuf, Option<String>> = HashMap::new();
    for problem in problems {
        let source = sources.entry(problem.file.clone()).or_insert_with(|| std::fs::read_to_string(&problem.file).ok());
        eprintln!("{}", problem.render(source.as_deref(), color));
    }
    let count = |severity| problems.iter().filter(|it| it.severity == severity).count();
    eprintln!("{} errors, {} warnings", count(Severity::Error), count(Severity::Warning));
}

#[expect(clippy::print_stdout, reason = "standard output is this command's data")]
fn print_json(problems: &[Problem], valid: bool) {
    println!("{}", serde_json::json!({ "schema": "miwi/v1", "valid": valid, "problems": problems }));
}
