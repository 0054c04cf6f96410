//! How others speak with the one task that keeps certificates.

use std::sync::Arc;

use config::Config;
use tokio::sync::{mpsc, oneshot, watch};

use super::{job::Progress, standing::Standing};

/// What an operator asks for.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Empty: after the first host.
    pub name: Option<String>,
    pub hosts: Vec<String>,
    pub issuer: Option<String>,
    pub days: Option<u32>,
    /// Although there is one already.
    pub force: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound(String),
    Conflict {
        message: String,
        hint: String,
    },
    /// `code` is one word: `auth`, `config`, `throttled`, `transient`, `rejected`, `storage` ...
    Failed {
        code: &'static str,
        message: String,
        hint: String,
    },
}

pub(super) type Answer = Result<String, Refusal>;

pub(super) enum Command {
    Converge(Arc<Config>, oneshot::Sender<()>),
    Request(Order, Progress, oneshot::Sender<Answer>),
    Renew { name: String, force: bool, progress: Progress, reply: oneshot::Sender<Answer> },
    Revoke { name: String, force: bool, reply: oneshot::Sender<Answer> },
    Import { name: Option<String>, chain_pem: String, key_pem: String, reply: oneshot::Sender<Answer> },
    Remove { name: String, reply: oneshot::Sender<Answer> },
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) standings: watch::Receiver<Arc<Vec<Standing>>>,
}

type Steps = mpsc::UnboundedSender<String>;

impl Handle {
    /// From now on this configuration's certificates are wanted. Returns when that is understood, not when they are there.
    pub async fn converge(&self, config: Arc<Config>) {
        let (done, heard) = oneshot::channel();
        if self.commands.send(Command::Converge(config, done)).await.is_ok() {
            let _ = heard.await;
        }
    }

    pub async fn request(&self, order: Order, steps: Steps) -> Result<String, Refusal> {
        self.ask(|reply| Command::Request(order, Progress(Some(steps)), reply)).await
    }

    /// Not before it is due, unless by force.
    pub async fn renew(&self, name: &str, force: bool, steps: Steps) -> Result<String, Refusal> {
        let (name, progress) = (name.to_owned(), Progress(Some(steps)));
        self.ask(|reply| Command::Renew { name, force, progress, reply }).await
    }

    pub async fn revoke(&self, name: &str, force: bool) -> Result<String, Refusal> {
        let name = name.to_owned();
        self.ask(|reply| Command::Revoke { name, force, reply }).await
    }

    pub async fn import(&self, name: Option<String>, chain_pem: String, key_pem: String) -> Result<String, Refusal> {
        self.ask(|reply| Command::Import { name, chain_pem, key_pem, reply }).await
    }

    pub async fn remove(&self, name: &str) -> Result<String, Refusal> {
        let name = name.to_owned();
        self.ask(|reply| Command::Remove { name, reply }).await
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Answer>) -> Command) -> Answer {
        let gone = || Refusal::Failed {
            code: "internal",
            message: "the keeper of certificates has ended".to_owned(),
            hint: "the daemon's log says why".to_owned(),
        };
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    pub fn standings(&self) -> Arc<Vec<Standing>> {
        self.standings.borrow().clone()
    }

    /// Marked as changed whenever another certificate is shown, or how it stands with one is another.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Standing>>> {
        self.standings.clone()
    }
}
