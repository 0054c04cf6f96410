//! `miwictl config`: judges text without a daemon; only `show` without a file asks it.

use std::{
    env,
    path::{Path, PathBuf},
};

use config::{Capabilities, Config, Problem, Severity};
use proto::v1::ConfigRequest;
use serde_json::{Value, json};

use super::connect;
use crate::{
    cli::{ConfigCommand, Globals},
    error::{Error, FAILED, NOT_FOUND, Result},
    output,
};

pub(super) async fn run(globals: &Globals, command: &ConfigCommand) -> Result {
    match command {
        ConfigCommand::Check { file, strict } => check(globals, file.as_deref(), *strict),
        ConfigCommand::Show { file: Some(file) } => {
            shown(globals, config::show(&loaded(file)?));
            Ok(())
        }
        ConfigCommand::Show { file: None } => running(globals).await,
        ConfigCommand::Diff { old, new } => diff(globals, old, new),
        ConfigCommand::Schema => {
            output::line(&format!("{:#}", config::json_schema()));
            Ok(())
        }
    }
}

fn check(globals: &Globals, file: Option<&Path>, strict: bool) -> Result {
    let path = match file {
        Some(file) => file.to_owned(),
        None => found(env::var_os("MIWID_CONFIG").map(PathBuf::from))?,
    };
    let (valid, problems) = match config::load(&path, &[], &Capabilities::default()) {
        Ok(loaded) => (true, loaded.warnings),
        Err(problems) => (false, problems),
    };
    let valid = valid && !(strict && problems.iter().any(|problem| problem.severity == Severity::Warning));
    for problem in &problems {
        output::complaint(&rendered(problem));
    }
    let report = json!({ "valid": valid, "file": path.display().to_string(), "problems": problems });
    output::document(globals, &report, |_| {
        let word = if valid { "valid" } else { "not valid" };
        format!("{}: {word}, {} problem(s)", path.display(), problems.len())
    });
    if valid { Ok(()) } else { Err(Error::new(FAILED, "invalid", "the configuration is not valid").answered()) }
}

/// With the line it speaks of, when the file can be read. Colours are taken out where there is no terminal.
fn rendered(problem: &Problem) -> String {
    let source = std::fs::read_to_string(&problem.file).ok();
    problem.render(source.as_deref(), true)
}

fn found(named: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path);
    }
    let places = ["./miwid.toml", "./config.toml", "/etc/miwid/miwid.toml"];
    places.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
        Error::new(NOT_FOUND, "not-found", "there is no configuration file here")
            .hint("name one: `miwictl config check FILE`")
    })
}

fn loaded(path: &Path) -> Result<Config> {
    config::load(path, &[], &Capabilities::default()).map(|loaded| loaded.config).map_err(|problems: Vec<Problem>| {
        for problem in &problems {
            output::complaint(&rendered(problem));
        }
        Error::new(FAILED, "invalid", format!("{} is not valid", path.display()))
    })
}

fn shown(globals: &Globals, config: Value) {
    output::document(globals, &json!({ "config": config }), |document| format!("{:#}", document["config"]));
}

async fn running(globals: &Globals) -> Result {
    let reply = connect(globals).await?.daemon().config(ConfigRequest {}).await?.into_inner();
    let config = serde_json::from_str(&reply.json).map_err(|error| Error::unexpected(error.to_string()))?;
    shown(globals, config);
    Ok(())
}

fn diff(globals: &Globals, old: &Path, new: &Path) -> Result {
    let changes = config::diff(&loaded(old)?, &loaded(new)?);
    output::document(globals, &json!({ "changes": changes }), |_| {
        let lines = changes.iter().map(|change| format!("{} {}: {}", change.kind, change.name, change.action));
        lines.collect::<Vec<_>>().join("\n")
    });
    Ok(())
}
