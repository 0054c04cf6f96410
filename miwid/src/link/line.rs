//! The engine's end: what it says goes out in order, what it hears is told apart into the ends of processes, which who started
//! them waits for, and orders, which are the roof's. A warden that is gone is the last order.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::Interest,
    net::UnixDatagram,
    sync::{mpsc, oneshot},
};
use zeroize::Zeroizing;

use super::{
    Kept,
    message::{Answers, Exit, Mode, ToEngine, ToWarden},
    packet::{DESCRIPTORS, Packet, memory, read_memory, receive, send},
};

/// Orders are few and heard at once.
const ORDERS: usize = 64;

/// Cheap to clone.
#[derive(Clone)]
pub struct Line {
    /// Bounded by what happens: listeners, launches, states that differ from the last.
    out: mpsc::UnboundedSender<(ToWarden, Vec<OwnedFd>)>,
    children: Arc<Mutex<Children>>,
    last: Arc<AtomicU64>,
}

#[derive(Default)]
struct Children {
    launches: HashMap<u64, oneshot::Sender<Result<Started, i32>>>,
    /// Of processes that run.
    exits: HashMap<u32, oneshot::Sender<Exit>>,
}

/// A process that the warden started.
pub(super) type Started = (u32, oneshot::Receiver<Exit>);

/// What an engine finds.
pub struct Beginning {
    pub line: Line,
    pub orders: mpsc::Receiver<Order>,
    pub engine: u64,
    pub mode: Mode,
    /// How long the warden has been there.
    pub age: Duration,
    pub kept: Kept,
    /// A configuration that is to be served whatever the files say.
    pub instead: Option<Instead>,
}

/// One that proved itself, and why it is wanted.
pub struct Instead {
    pub why: String,
    pub texts: Vec<(PathBuf, String)>,
}

/// What only the whole daemon can do.
#[derive(Debug)]
pub enum Order {
    Go(Takeover),
    Pause,
    Resume(Kept),
    Drain,
    TakeQuic,
    Upgrading(String),
    Upgraded(u64),
    NotUpgraded {
        why: String,
        busy: bool,
    },
    /// The warden is gone.
    Alone,
}

/// What the engine before left.
#[derive(Debug, Default)]
pub struct Takeover {
    pub state: Vec<u8>,
    pub secrets: Secrets,
    pub instances: Vec<Heir>,
    /// How it has answered lately.
    pub before: Answers,
}

/// What no log may have and no memory longer than needed.
#[derive(Default)]
pub struct Secrets(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secrets")
    }
}

impl std::ops::Deref for Secrets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A process that outlived its engine.
#[derive(Debug)]
pub struct Heir {
    pub name: String,
    pub pid: u32,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub exit: oneshot::Receiver<Exit>,
}

// === impl Line ===

impl Line {
    /// Hears the welcome, then goes on beside the caller.
    pub async fn begin(link: OwnedFd) -> io::Result<Beginning> {
        let link = watched(link)?;
        let (out, outbox) = mpsc::unbounded_channel();
        let line = Self { out, children: Arc::default(), last: Arc::default() };
        let (mut kept, mut welcome, mut instead) = (Kept::new(), None, None);
        loop {
            let packet = next(&link).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match packet.message {
                ToEngine::Welcome { engine, mode, age_ms } => {
                    welcome = Some((engine, mode, Duration::from_millis(age_ms)))
                }
                ToEngine::Kept { key } => kept.entry(key).or_default().extend(packet.descriptors),
                ToEngine::Instead { why } => {
                    let text = packet.descriptors.into_iter().next().map(read_memory).transpose()?.unwrap_or_default();
                    instead = Some(Instead { why, texts: serde_json::from_slice(&text)? });
                }
                ToEngine::Begin => break,
                _ => {}
            }
        }
        let (engine, mode, age) = welcome.ok_or(io::ErrorKind::InvalidData)?;
        let (orders, inbox) = mpsc::channel(ORDERS);
        let link = Arc::new(link);
        tokio::spawn(say(link.clone(), outbox));
        tokio::spawn(hear(link, line.children.clone(), orders));
        Ok(Beginning { line, orders: inbox, engine, mode, age, kept, instead })
    }

    pub fn say(&self, message: ToWarden) {
        self.say_with(message, Vec::new());
    }

    /// Listening sockets that must outlive this engine.
    pub fn keep(&self, key: &str, mut sockets: Vec<OwnedFd>) {
        while !sockets.is_empty() {
            let later = sockets.split_off(sockets.len().min(DESCRIPTORS));
            self.say_with(ToWarden::Keep { key: key.to_owned() }, sockets);
            sockets = later;
        }
    }

    /// What the next engine must know of the apps.
    pub fn remember(&self, state: &[u8]) {
        match memory(state) {
            Ok(memory) => self.say_with(ToWarden::State, vec![memory]),
            Err(error) => tracing::error!(%error, "the next engine will not know the apps"),
        }
    }

    /// What is served from now on. If it lasts, it is gone back to when a later one does not.
    pub fn configured(&self, texts: &[(PathBuf, String)], reloaded: bool) {
        let written = serde_json::to_vec(texts).map_err(io::Error::from);
        let memory = written.and_then(|it| memory(&it).map(|memory| (digest(&it), memory)));
        match memory {
            Ok((digest, memory)) => self.say_with(ToWarden::Configured { digest, reloaded }, vec![memory]),
            Err(error) => tracing::warn!(%error, "this configuration cannot be gone back to"),
        }
    }

    /// What the next engine needs and nobody else may know.
    pub fn entrust(&self, secrets: &[u8]) {
        match memory(secrets) {
            Ok(memory) => self.say_with(ToWarden::Secrets, vec![memory]),
            Err(error) => tracing::warn!(%error, "clients will not resume their sessions with the next engine"),
        }
    }

    /// Starts the launch stub with these as fd 0, 1 and 2; the warden keeps the last two, the ends that are read.
    pub async fn launch(&self, name: String, descriptors: [OwnedFd; 5]) -> Result<Started, i32> {
        let id = self.last.fetch_add(1, Relaxed);
        let (reply, answer) = oneshot::channel();
        lock(&self.children).launches.insert(id, reply);
        self.say_with(ToWarden::Launch { id, name }, descriptors.into());
        // Without an answer the warden is gone, and so is this engine soon.
        answer.await.unwrap_or(Err(nix::errno::Errno::EPIPE as i32))
    }

    fn say_with(&self, message: ToWarden, descriptors: Vec<OwnedFd>) {
        // Refused only when the warden has gone, which is an order of its own.
        let _ = self.out.send((message, descriptors));
    }
}

/// Not against anybody: the texts are ours.
fn digest(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A packet is a datagram that arrives in order: the runtime need not know the difference.
fn watched(link: OwnedFd) -> io::Result<UnixDatagram> {
    rustix::io::ioctl_fionbio(&link, true)?;
    UnixDatagram::from_std(link.into())
}

async fn next(link: &UnixDatagram) -> io::Result<Option<Packet<ToEngine>>> {
    link.async_io(Interest::READABLE, || receive(link.as_fd())).await
}

async fn say(link: Arc<UnixDatagram>, mut outbox: mpsc::UnboundedReceiver<(ToWarden, Vec<OwnedFd>)>) {
    while let Some((message, owned)) = outbox.recv().await {
        let descriptors: Vec<_> = owned.iter().map(AsFd::as_fd).collect();
        match link.async_io(Interest::WRITABLE, || send(link.as_fd(), &message, &descriptors)).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tracing::error!(%error, "the warden was not told");
            }
            // `hear` says that it is gone.
            Err(_) => return,
        }
    }
}

async fn hear(link: Arc<UnixDatagram>, children: Arc<Mutex<Children>>, orders: mpsc::Sender<Order>) {
    let (mut takeover, mut kept) = (Takeover::default(), Kept::new());
    loop {
        let packet = match next(&link).await {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(_) => {
                // Nobody tells of an end any more.
                *lock(&children) = Children::default();
                let _ = orders.send(Order::Alone).await;
                return;
            }
        };
        let mut descriptors = packet.descriptors.into_iter();
        let order = match packet.message {
            ToEngine::State => {
                takeover.state = descriptors.next().and_then(|it| read_memory(it).ok()).unwrap_or_default();
                None
            }
            ToEngine::Secrets => {
                let read = descriptors.next().and_then(|it| read_memory(it).ok());
                takeover.secrets = Secrets(Zeroizing::new(read.unwrap_or_default()));
                None
            }
            ToEngine::Instance { name, pid, exit } => {
                if let (Some(stdout), Some(stderr)) = (descriptors.next(), descriptors.next()) {
                    let exit = lock(&children).expect(pid, exit);
                    takeover.instances.push(Heir { name, pid, stdout, stderr, exit });
                }
                None
            }
            ToEngine::Kept { key } => {
                kept.entry(key).or_default().extend(descriptors);
                None
            }
            ToEngine::Go { before } => Some(Order::Go(Takeover { before, ..std::mem::take(&mut takeover) })),
            ToEngine::Pause => Some(Order::Pause),
            ToEngine::Resume => Some(Order::Resume(std::mem::take(&mut kept))),
            ToEngine::Drain => Some(Order::Drain),
            ToEngine::TakeQuic => Some(Order::TakeQuic),
            ToEngine::Upgrading { line } => Some(Order::Upgrading(line)),
            ToEngine::Upgraded { engine } => Some(Order::Upgraded(engine)),
            ToEngine::NotUpgraded { why, busy } => Some(Order::NotUpgraded { why, busy }),
            other => {
                lock(&children).hear(other);
                None
            }
        };
        if let Some(order) = order
            && orders.send(order).await.is_err()
        {
            return;
        }
    }
}

// === impl Children ===

impl Children {
    fn hear(&mut self, message: ToEngine) {
        match message {
            ToEngine::Launched { id, pid } => {
                let exit = self.expect(pid, None);
                if let Some(reply) = self.launches.remove(&id) {
                    let _ = reply.send(Ok((pid, exit)));
                }
            }
            ToEngine::NotLaunched { id, errno } => {
                if let Some(reply) = self.launches.remove(&id) {
                    let _ = reply.send(Err(errno));
                }
            }
            ToEngine::Exited { pid, exit } => {
                if let Some(waiting) = self.exits.remove(&pid) {
                    let _ = waiting.send(exit);
                }
            }
            _ => {}
        }
    }

    /// Where the end of `pid` will be told, or is at once.
    fn expect(&mut self, pid: u32, exit: Option<Exit>) -> oneshot::Receiver<Exit> {
        let (tell, told) = oneshot::channel();
        match exit {
            Some(exit) => drop(tell.send(exit)),
            None => drop(self.exits.insert(pid, tell)),
        }
        told
    }
}

fn lock(children: &Mutex<Children>) -> MutexGuard<'_, Children> {
    children.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::packet::pair;

    async fn heard(link: &UnixDatagram) -> Packet<ToWarden> {
        let heard = link.async_io(Interest::READABLE, || receive(link.as_fd())).await;
        heard.expect("received").expect("a packet")
    }

    #[tokio::test]
    async fn a_launch_hears_of_its_own_process_and_the_end_of_the_warden_is_an_order() {
        let (warden, engine) = pair().expect("a pair");
        let tell = |message: ToEngine| send(warden.as_fd(), &message, &[]).expect("sent");
        tell(ToEngine::Welcome { engine: 3, mode: Mode::Alone, age_ms: 0 });
        tell(ToEngine::Begin);
        let Beginning { line, mut orders, engine, .. } = Line::begin(engine).await.expect("a beginning");
        assert_eq!(engine, 3);
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("there is one"));
        let launching =
            tokio::spawn(async move { line.launch("a-0".into(), [null(), null(), null(), null(), null()]).await });
        let reading = watched(warden.try_clone().expect("a copy")).expect("watched");
        let asked = heard(&reading).await;
        assert_eq!((asked.message, asked.descriptors.len()), (ToWarden::Launch { id: 0, name: "a-0".into() }, 5));
        tell(ToEngine::Launched { id: 0, pid: 77 });
        let (pid, exit) = launching.await.expect("no panic").expect("launched");
        assert_eq!(pid, 77);
        let ended = Exit { code: Some(3), ..Exit::default() };
        tell(ToEngine::Exited { pid: 78, exit: Exit::default() });
        tell(ToEngine::Exited { pid: 77, exit: ended });
        assert_eq!(exit.await, Ok(ended));
        drop((warden, reading));
        assert!(matches!(orders.recv().await, Some(Order::Alone)));
    }
}
