//! What packages ship beside the binary: completions and manual pages.

use std::{fs, path::Path};

use clap::CommandFactory as _;

use crate::{
    cli::{Cli, Shell},
    error::{Error, Result},
    output,
};

pub(super) fn completions(shell: Shell) -> Result {
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut Cli::command(), "miwictl", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

pub(super) fn man(dir: &Path) -> Result {
    let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| Error::unexpected(format!("{} cannot be written: {error}", dir.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn there_is_a_manual_page_for_every_verb() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path()).unwrap();
        for page in ["miwictl.1", "miwictl-status.1", "miwictl-app-restart.1"] {
            assert!(dir.path().join(page).exists(), "{page}");
        }
    }
}
