//! Any program. `shell = true` is the only way to a shell: otherwise `command` and `args` are the argv as it stands.

use std::time::Duration;

use config::{KillMode, Process, Secret};

use super::{Obstacle, Recipe, resolve, tcp_unless_unix};

pub(super) fn recipe(process: &Process, env: &[(String, Secret)]) -> Result<Recipe, Obstacle> {
    let Some(command) = process.command.as_deref().filter(|command| !command.is_empty()) else {
        return Err(Obstacle::new(
            "app-command-missing",
            "command",
            "no command is given".to_owned(),
            "set command = \"/path/to/program\"".to_owned(),
        ));
    };
    let argv = if process.shell {
        let line =
            std::iter::once(command.to_owned()).chain(process.args.iter().cloned()).collect::<Vec<_>>().join(" ");
        vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("exec {line}")]
    } else {
        std::iter::once(resolve(command, process, env)?).chain(process.args.iter().cloned()).collect()
    };
    let default = if process.shell { KillMode::Group } else { KillMode::Mixed };
    Ok(Recipe {
        argv,
        env: Vec::new(),
        address: tcp_unless_unix(process.listen),
        kill_mode: process.kill_mode.unwrap_or(default),
        upstream_idle: Duration::from_secs(4),
        notices: Vec::new(),
    })
}
