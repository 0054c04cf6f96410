//! Before another program may go on with everything: it must be a miwid, speak with our warden, and find the configuration valid.
//! What comes then is the warden's: `warden::succession`.

use std::{io, path::PathBuf, process::ExitCode, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    process::Command,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    app::AppStatus,
    cli::Run,
    control::{NoUpgrade, Upgrade},
    link::{Line, PROTOCOL, ToWarden},
};

const HANDSHAKE: Duration = Duration::from_secs(5);
const CHECK: Duration = Duration::from_secs(60);
/// What of its words goes into an answer.
const WORDS_BYTES: usize = 2_000;
/// `miwictl`: the operation was refused or failed.
const FAILED: i32 = 6;
/// Somebody else is at it.
const CONFLICT: i32 = 8;
const HINT: &str = "the running one goes on; try the other by hand: PROGRAM check -c FILE";

#[derive(Serialize, Deserialize)]
struct Hands {
    program: String,
    version: String,
    protocol: u32,
}

/// `miwid handshake`.
#[expect(clippy::print_stdout, reason = "standard output is this command's data")]
pub fn handshake() -> ExitCode {
    let hands = Hands {
        program: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
    };
    println!("{}", serde_json::to_string(&hands).unwrap_or_default());
    ExitCode::SUCCESS
}

/// The program that may be started, with its version.
pub(super) async fn examine(binary: Option<PathBuf>, run: &Run) -> Result<(PathBuf, String), NoUpgrade> {
    let program = match binary {
        Some(binary) => binary,
        None => own_program().map_err(|error| refused(format!("where this program lies is unknown: {error}")))?,
    };
    let name = program.display().to_string();
    let said = said(Command::new(&program).arg("handshake"), HANDSHAKE).await;
    let said = said.map_err(|why| refused(format!("{name} {why}")))?;
    let hands: Hands =
        serde_json::from_str(&said).map_err(|_| refused(format!("{name} is not a miwid that can take over")))?;
    if hands.protocol != PROTOCOL {
        let (theirs, version) = (hands.protocol, hands.version);
        let message = format!(
            "{name} is miwid {version}, which speaks protocol {theirs} with its warden; this one speaks {PROTOCOL}"
        );
        return Err(NoUpgrade { hint: "restart the service: systemctl restart miwid".to_owned(), ..refused(message) });
    }
    let mut check = Command::new(&program);
    check.arg("check");
    if let Some(config) = &run.config {
        check.arg("--config").arg(config);
    }
    let checked = self::said(&mut check, CHECK).await;
    checked.map_err(|why| refused(format!("{name} check: it {why}")))?;
    Ok((program, hands.version))
}

/// The path that this process was started from; what lies there now may be something newer.
fn own_program() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or(path.clone(), PathBuf::from))
}

/// What a program prints before it ends well, or what went wrong.
async fn said(command: &mut Command, patience: Duration) -> Result<String, String> {
    let running =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(patience, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("cannot be run: {error}")),
        Err(_) => return Err(format!("has not ended within {} s", patience.as_secs())),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: String = words.trim().chars().take(WORDS_BYTES).collect();
    Err(format!("ended with {}: {words}", output.status))
}

/// At most one at a time: examined beside the daemon's loop, then in the warden's hands.
pub(super) struct Upgrades {
    run: Run,
    warden: Option<Line>,
    /// Whom to tell.
    asked: Option<Upgrade>,
    examining: Option<JoinHandle<Examined>>,
}

type Examined = Result<(PathBuf, String), NoUpgrade>;

impl Upgrades {
    pub(super) fn new(run: Run, warden: Option<Line>) -> Self {
        Self { run, warden, asked: None, examining: None }
    }

    pub(super) fn begin(&mut self, upgrade: Upgrade, apps: &[AppStatus]) {
        let busy = apps
            .iter()
            .filter(|it| !it.yields)
            .find_map(|it| it.operation.as_ref().map(|operation| (&it.name, operation)));
        let why = if self.warden.is_none() {
            Some(("it runs as a single process".to_owned(), "start it without --single-process"))
        } else if self.asked.is_some() {
            Some(("another upgrade is under way".to_owned(), "miwictl op list"))
        } else {
            busy.map(|(name, operation)| {
                (format!("app \"{name}\" is held by {operation}"), "wait for it: miwictl op list")
            })
        };
        if let Some((message, hint)) = why {
            let refused = self::busy(message, hint);
            tracing::warn!("no upgrade: {}", refused.message);
            let _ = upgrade.reply.send(Err(refused));
            return;
        }
        let (binary, run) = (upgrade.binary.clone(), self.run.clone());
        self.asked = Some(upgrade);
        self.examining = Some(tokio::spawn(async move { examine(binary, &run).await }));
    }

    /// Never, while nothing is examined.
    pub(super) async fn examined(&mut self) -> Examined {
        let Some(examining) = &mut self.examining else { return std::future::pending().await };
        let found = examining.await;
        self.examining = None;
        found.unwrap_or_else(|error| Err(refused(error.to_string())))
    }

    pub(super) fn go_on(&mut self, examined: Examined) {
        match (examined, &self.warden) {
            (Ok((program, version)), Some(warden)) => {
                let warden = warden.clone();
                self.say(format!("{} is miwid {version} and finds the configuration valid", program.display()));
                warden.say(ToWarden::Upgrade { program });
            }
            (Ok(_), None) => {}
            (Err(refused), _) => self.end(Err(refused)),
        }
    }

    pub(super) fn say(&self, line: String) {
        tracing::info!("upgrade: {line}");
        // Whoever asked may have left.
        self.asked.as_ref().map(|it| it.progress.send(line));
    }

    pub(super) fn end(&mut self, how: Result<String, NoUpgrade>) {
        match &how {
            Ok(line) => tracing::info!("upgrade: {line}"),
            Err(refused) => tracing::warn!("no upgrade: {}", refused.message),
        }
        if let Some(asked) = self.asked.take() {
            let _ = asked.reply.send(how);
        }
    }
}

/// A wish that came as a signal: the log hears how it goes.
pub(super) fn unheard() -> Upgrade {
    Upgrade { binary: None, progress: mpsc::unbounded_channel().0, reply: oneshot::channel().0 }
}

/// Not now.
pub(super) fn busy(message: String, hint: &str) -> NoUpgrade {
    NoUpgrade { exit: CONFLICT, message, hint: hint.to_owned() }
}

pub(super) fn refused(message: String) -> NoUpgrade {
    NoUpgrade { exit: FAILED, message, hint: HINT.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(program: &str) -> String {
        let refused = examine(Some(PathBuf::from(program)), &Run::default()).await.expect_err("no miwid");
        assert_eq!(refused.exit, FAILED);
        refused.message
    }

    #[tokio::test]
    async fn what_is_no_miwid_is_refused_with_the_reason() {
        assert!(refusal("/nonexistent/miwid").await.contains("cannot be run: No such file"), "missing");
        assert!(refusal("/bin/false").await.contains("ended with exit status: 1"), "it fails");
        assert!(refusal("/bin/true").await.contains("is not a miwid"), "it says nothing");
    }
}
