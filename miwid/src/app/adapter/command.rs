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
        let args: String = process.args.iter().map(|it| format!(" {}", quoted(it))).collect();
        vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("exec {command}{args}")]
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
        base: None,
        gates: Vec::new(),
    })
}

/// `command` is for the shell to read; an argument stays one argument, whatever is in it.
fn quoted(arg: &str) -> String {
    format!("'{}'", arg.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn an_argument_reaches_the_program_as_it_was_written() {
        for arg in ["plain", "two words", "it's", "$(reboot)", "a;b", "", "\"q\""] {
            let script = format!("printf %s {}", quoted(arg));
            let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), arg);
        }
    }
}
