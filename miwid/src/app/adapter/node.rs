//! Node.js. A start script of the plain form `node [flags] file` is run without npm, because npm keeps signals to itself.

use std::time::Duration;

use config::{KillMode, Process, Secret};
use serde_json::Value;

use super::{Obstacle, Recipe, resolve, tcp_unless_unix};

const NPM_NOTICE: &str = "npm does not forward signals; put node in the script or set script =";

pub(super) fn recipe(process: &Process, env: &[(String, Secret)]) -> Result<Recipe, Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    let package = package(process).unwrap_or_else(|obstacle| {
        obstacles.push(obstacle);
        None
    });
    if let Some(package) = &package {
        obstacles.extend(dependencies(process, package));
    }
    let line = words(process, package.as_ref()).map_err(|obstacle| obstacles.push(obstacle)).ok();
    let argv = line.and_then(|(program, rest)| match resolve(&program, process, env) {
        Ok(program) => Some(std::iter::once(program).chain(rest).collect::<Vec<_>>()),
        Err(obstacle) => {
            obstacles.push(obstacle);
            None
        }
    });
    let Some(argv) = argv.filter(|_| obstacles.is_empty()) else { return Err(obstacles) };
    let through_npm = argv.get(1).is_some_and(|word| word == "run") && argv.get(2).is_some_and(|word| word == "start");
    let default = if through_npm { KillMode::Group } else { KillMode::Mixed };
    Ok(Recipe {
        argv,
        env: settings(process),
        address: tcp_unless_unix(process.listen),
        kill_mode: process.kill_mode.unwrap_or(default),
        upstream_idle: Duration::from_secs(4),
        notices: if through_npm { vec![NPM_NOTICE.to_owned()] } else { Vec::new() },
        base: None,
        gates: Vec::new(),
    })
}

/// Without the option Node lets its heap grow by what the host has, whatever limit the app was given.
fn settings(process: &Process) -> Vec<(String, String)> {
    let mut env = vec![("NODE_ENV".to_owned(), "production".to_owned())];
    if let Some(limit) = process.memory_limit {
        env.push(("NODE_OPTIONS".to_owned(), format!("--max-old-space-size={}", (limit.bytes() >> 20) * 3 / 4)));
    }
    env
}

fn package(process: &Process) -> Result<Option<Value>, Obstacle> {
    let path = process.working_dir.join("package.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let message = format!("{}:{}: package.json is not valid JSON", path.display(), error.line());
        Obstacle::new("app-node-package-json", "working_dir", message, None)
    })
}

fn dependencies(process: &Process, package: &Value) -> Option<Obstacle> {
    let needed = package.get("dependencies").and_then(Value::as_object).is_some_and(|map| !map.is_empty());
    // A workspace keeps node_modules in a parent directory, where node finds it too.
    let present = process.working_dir.ancestors().any(|dir| dir.join("node_modules").is_dir());
    (needed && !present).then(|| {
        let message = format!("package.json has dependencies but {:?} has no node_modules", process.working_dir);
        Obstacle::new("app-node-modules-missing", "working_dir", message, "run npm ci".to_owned())
    })
}

/// Program and arguments before the search in `PATH`.
fn words(process: &Process, package: Option<&Value>) -> Result<(String, Vec<String>), Obstacle> {
    let command = process.command.clone();
    if let Some(script) = &process.nodejs.script {
        if !process.working_dir.join(script).is_file() {
            let message = format!("script {script:?} does not exist in {:?}", process.working_dir);
            return Err(Obstacle::new("app-node-script-missing", "nodejs.script", message, None));
        }
        let rest = std::iter::once(script.clone()).chain(process.args.iter().cloned()).collect();
        return Ok((command.unwrap_or_else(|| "node".to_owned()), rest));
    }
    if let Some(command) = command {
        return Ok((command, process.args.clone()));
    }
    let start = package.and_then(|package| package.pointer("/scripts/start")).and_then(Value::as_str);
    let Some(start) = start else {
        let message =
            format!("no script, no command and no scripts.start in package.json of {:?}", process.working_dir);
        let hint = "set script = \"server.js\"".to_owned();
        return Err(Obstacle::new("app-node-script-missing", "nodejs.script", message, hint));
    };
    if let Some(mut plain) = plain_node(start) {
        plain.extend(process.args.iter().cloned());
        return Ok(("node".to_owned(), plain));
    }
    let declared = package.and_then(|package| package.get("packageManager")).and_then(Value::as_str);
    let declared = declared.map(|text| text.split('@').next().unwrap_or(text).to_owned());
    let runner = process.nodejs.package_manager.clone().or(declared).unwrap_or_else(|| "npm".to_owned());
    Ok((runner, vec!["run".to_owned(), "start".to_owned()]))
}

/// The words after `node`, when nothing in the line needs a shell.
fn plain_node(script: &str) -> Option<Vec<String>> {
    if script.contains(|c: char| "|&;<>()$`\\\"'*?[]#~{}!\n".contains(c)) {
        return None;
    }
    let mut words = script.split_whitespace().map(str::to_owned);
    (words.next()? == "node").then(|| words.collect::<Vec<_>>()).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::plain_node;

    #[test]
    fn only_a_plain_node_line_is_run_without_npm() {
        let plain = |text: &str| plain_node(text).map(|words| words.join(" "));
        assert_eq!(plain("node --enable-source-maps server.js").as_deref(), Some("--enable-source-maps server.js"));
        for other in ["next start", "node a.js && node b.js", "NODE_ENV=x node a.js", "node $FILE", "node"] {
            assert_eq!(plain(other), None, "{other}");
        }
    }
}
