//! One record per exchange, three formats (`common`, `combined`, `json`), one writer thread per file.
//!
//! A worker formats into a buffer of its own and hands whole blocks to the writer's bounded queue: a full queue drops
//! the block and counts its lines, it never delays a request (unless `on_full = "block"`).

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use config::OnFull;

use super::{
    Logs, Metrics, RotatingFile,
    format::{Formatter, Layout},
};

/// The name under which the log is registered and counted.
const NAME: &str = "access";
/// Blocks that may wait for the writer; with `BLOCK_BYTES_MAX` this bounds the memory.
const QUEUE_BLOCKS: usize = 128;
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Everything that is known about an exchange when it has ended. Borrowed: writing it allocates nothing.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub started: SystemTime,
    pub duration: Duration,
    pub client_ip: IpAddr,
    /// The TCP peer, which is not the client behind a trusted proxy.
    pub peer_ip: IpAddr,
    pub method: &'a str,
    /// Request target as sent (path and query).
    pub target: &'a str,
    /// `HTTP/1.1`, `HTTP/2.0`, `HTTP/3.0`.
    pub protocol: &'a str,
    pub scheme: &'a str,
    pub host: &'a str,
    pub status: u16,
    /// Bytes of response body sent.
    pub bytes_sent: u64,
    /// Bytes of request body received.
    pub bytes_received: u64,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
    /// Empty: the writer makes one.
    pub request_id: &'a str,
    /// Name of the site; empty when none matched.
    pub site: &'a str,
    /// Address of the endpoint that answered; empty when miwid answered itself.
    pub upstream: &'a str,
    /// Until the upstream's response head.
    pub upstream_duration: Option<Duration>,
    /// The `miwi-reason` token of an error that miwid made; else empty.
    pub reason: &'a str,
    /// The name of the request at Cloudflare; empty when it did not come from there.
    pub ray: &'a str,
    /// The client went away before the end.
    pub aborted: bool,
}

/// The access log as configured: cheap to clone, one `AccessBuffer` per worker.
#[derive(Clone)]
pub struct AccessLog {
    setup: Arc<ArcSwap<Setup>>,
    /// Serializes `reconfigure`; holds the file that the writer has now.
    file: Arc<Mutex<Option<Arc<RotatingFile>>>>,
    logs: Logs,
    metrics: Metrics,
}

/// What buffers need to know; replaced whole by `reconfigure`.
struct Setup {
    layout: Layout,
    lines_max: usize,
    on_full: OnFull,
    /// `None`: the log is disabled.
    queue: Option<SyncSender<Message>>,
}

enum Message {
    Block {
        bytes: Vec<u8>,
        lines: u64,
    },
    /// Answered when everything before it is written.
    Close(SyncSender<()>),
}

impl AccessLog {
    /// Opens the file (and its directory, 0750), registers it in `logs` under the name `access` and starts its writer
    /// thread. Disabled: records go nowhere.
    pub fn open(config: &config::Logging, logs: &Logs, metrics: &Metrics) -> io::Result<Self> {
        let layout = Layout::new(config.access_log.format, &[])?;
        let setup = Setup { layout, lines_max: 1, on_full: OnFull::Drop, queue: None };
        let log = Self {
            setup: Arc::new(ArcSwap::from_pointee(setup)),
            file: Arc::default(),
            logs: logs.clone(),
            metrics: metrics.clone(),
        };
        log.reconfigure(config)?;
        Ok(log)
    }

    /// The buffer of one worker thread.
    pub fn buffer(&self) -> AccessBuffer {
        AccessBuffer {
            setup: self.setup.load_full(),
            newest: arc_swap::Cache::new(Arc::clone(&self.setup)),
            metrics: self.metrics.clone(),
            formatter: Formatter::default(),
            block: Vec::new(),
            lines: 0,
        }
    }

    /// Takes over a changed `[logging]` (path, format, fields, rotation): buffers notice at their next record.
    pub fn reconfigure(&self, config: &config::Logging) -> io::Result<()> {
        let access = &config.access_log;
        let layout = Layout::new(access.format, &access.fields)?;
        let mut current = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = current.as_ref().filter(|file| access.enabled && file.path() == access.path);
        let queue = match unchanged {
            _ if !access.enabled => {
                *current = None;
                self.logs.unregister(NAME);
                None
            }
            Some(file) => {
                file.set_rotation(config.rotation.clone());
                self.setup.load().queue.clone()
            }
            None => {
                let (file, queue) = self.start_writer(config)?;
                *current = Some(file);
                Some(queue)
            }
        };
        let lines_max = access.buffer_size.max(1);
        // The writer of an earlier path ends when the last buffer has let go of its queue.
        self.setup.store(Arc::new(Setup { layout, lines_max, on_full: access.on_full, queue }));
        Ok(())
    }

    fn start_writer(&self, config: &config::Logging) -> io::Result<(Arc<RotatingFile>, SyncSender<Message>)> {
        let path = config.access_log.path.clone();
        let file = match RotatingFile::open(path.clone(), config.rotation.clone()) {
            // A pipe whose reader has not come yet, or a full disk: the writer tries again.
            Err(error) if is_passing(&error) => RotatingFile::open_lazily(path, config.rotation.clone()),
            opened => opened?,
        };
        let file = Arc::new(file);
        let (queue, messages) = mpsc::sync_channel(QUEUE_BLOCKS);
        let writer = Writer { file: Arc::clone(&file), logs: self.logs.clone(), metrics: self.metrics.clone() };
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(&messages))?;
        self.logs.register(NAME, Arc::clone(&file));
        Ok((file, queue))
    }

    /// Writes what the writer holds; at most `deadline` long. Called last at shutdown, after the buffers are flushed.
    pub fn close(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let Some(queue) = self.setup.load().queue.clone() else { return };
        let (done, written) = mpsc::sync_channel(1);
        let mut message = Message::Close(done);
        while let Err(TrySendError::Full(back)) = queue.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn is_passing(error: &io::Error) -> bool {
    let no_reader = rustix::io::Errno::NXIO.raw_os_error();
    error.kind() == io::ErrorKind::StorageFull || error.raw_os_error() == Some(no_reader)
}

/// Lines of one worker on their way to the writer. Not `Sync`: each worker has its own.
pub struct AccessBuffer {
    /// What the held lines were formatted for.
    setup: Arc<Setup>,
    newest: arc_swap::Cache<Arc<ArcSwap<Setup>>, Arc<Setup>>,
    metrics: Metrics,
    formatter: Formatter,
    block: Vec<u8>,
    lines: usize,
}

impl AccessBuffer {
    pub fn record(&mut self, record: &Record<'_>) {
        if self.is_wanted() {
            self.put(record);
        }
    }

    /// For a record that is some work to make: nobody makes it where there is no log.
    pub fn record_with<'a>(&mut self, record: impl FnOnce() -> Record<'a>) {
        if self.is_wanted() {
            self.put(&record());
        }
    }

    fn is_wanted(&mut self) -> bool {
        if !Arc::ptr_eq(self.newest.load(), &self.setup) {
            self.flush();
        }
        self.setup.queue.is_some()
    }

    fn put(&mut self, record: &Record<'_>) {
        self.formatter.line(&mut self.block, &self.setup.layout, record);
        self.lines += 1;
        if self.lines >= self.setup.lines_max || self.block.len() >= BLOCK_BYTES_MAX {
            self.flush();
        }
    }

    /// Hands over what is held. Workers call it every second, so that no line waits longer.
    pub fn flush(&mut self) {
        if self.lines > 0 {
            self.hand_over();
        }
        // An idle worker must let go of the queue of a log that is gone.
        let newest = self.newest.load();
        if !Arc::ptr_eq(newest, &self.setup) {
            self.setup = Arc::clone(newest);
        }
    }

    fn hand_over(&mut self) {
        let Some(queue) = &self.setup.queue else { return };
        let capacity = self.block.len();
        let bytes = std::mem::replace(&mut self.block, Vec::with_capacity(capacity));
        let lines = std::mem::take(&mut self.lines) as u64;
        let message = Message::Block { bytes, lines };
        let lost = match self.setup.on_full {
            OnFull::Drop => queue.try_send(message).is_err(),
            OnFull::Block => queue.send(message).is_err(),
        };
        if lost {
            self.metrics.log_dropped(NAME, lines);
        }
    }
}

struct Writer {
    file: Arc<RotatingFile>,
    logs: Logs,
    metrics: Metrics,
}

impl Writer {
    /// Ends when every sender is gone, and for no error.
    fn run(&self, messages: &Receiver<Message>) {
        let mut outage = None;
        for message in messages {
            match message {
                Message::Close(done) => {
                    let _ = done.send(());
                }
                Message::Block { bytes, lines } => match self.file.write(&bytes) {
                    Ok(()) => outage = None,
                    Err(error) => {
                        self.metrics.log_dropped(NAME, lines);
                        // One event for each outage, not for each block.
                        if outage.replace(()).is_none() {
                            let path = self.file.path().display();
                            self.logs.announce("log.dropped", NAME, format!("{path}: {error}; lines are dropped"));
                        }
                    }
                },
            }
        }
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
