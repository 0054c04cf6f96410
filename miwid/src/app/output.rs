//! What an app prints: read always, so that its pipe never fills; kept within bounds; written by a thread of its own, so
//! that a slow disk delays nobody. What does not fit is dropped and counted, and the file says so.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::{broadcast, watch},
};

use super::{
    Tail,
    lines::{Needle, Rate, Ring, Splitter},
};
use crate::telemetry::{Events, Logs, RotatingFile};

const READ_BYTES: usize = 64 << 10;
const RING_BYTES: usize = 4 << 20;
const BLOCK_BYTES: usize = 256 << 10;
const BYTES_PER_SECOND: u64 = 20_000_000;
const LINES_PER_SECOND: u32 = 50_000;
/// Lines of an instance that go into its exit and start reports.
const LAST_LINES: usize = 64;
/// Lines of an app that `logs` can show at once.
const RECENT_LINES: usize = 1_000;
/// An escaped grandchild may hold a pipe open after the exit: read on for so long.
const AFTER_EXIT: Duration = Duration::from_secs(1);
/// A file that cannot be opened or written is tried again this often.
const RETRY: Duration = Duration::from_secs(5);
/// How often the disk and the file's place are looked at while there is output.
const CHECK: Duration = Duration::from_secs(1);
/// Free space that is left to others; on a small disk a twentieth of it.
const RESERVED_BYTES: u64 = 64 << 20;
/// Lines that a slow follower may be behind before it gets a gap.
const FOLLOW_LINES: usize = 1_024;

/// Where one app's output goes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sink {
    pub(super) app: String,
    pub(super) path: PathBuf,
    pub(super) rotation: config::Rotation,
    pub(super) rate: Option<config::ByteSize>,
    pub(super) format: config::LogFormat,
}

/// A line as JSON. What is not UTF-8 is replaced, and said so.
#[derive(serde::Serialize)]
struct Record<'a> {
    ts: String,
    app: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<u32>,
    stream: &'a str,
    line: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lossy: bool,
}

/// One app's output; lives as long as the app is configured.
pub(super) struct Output {
    sink: Sink,
    pipe: Mutex<Pipeline>,
    wake: Condvar,
    follow: broadcast::Sender<Tail>,
    pub(super) dropped_lines: AtomicU64,
}

struct Pipeline {
    ring: Ring,
    rate: Rate,
    recent: VecDeque<Tail>,
    closed: bool,
}

/// The last lines of one instance, and what is looked for in all of them.
#[derive(Clone, Default)]
pub(super) struct LastLines {
    lines: Arc<Mutex<VecDeque<Bytes>>>,
    needle: Option<Arc<Needle>>,
}

impl LastLines {
    pub(super) fn looking_for(needle: Option<Arc<Needle>>) -> Self {
        Self { needle, ..Self::default() }
    }

    fn push(&self, line: Bytes) {
        if let Some(needle) = &self.needle {
            needle.look(&line);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(super) fn texts(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

// === impl Output ===

impl Output {
    /// Starts the writer thread. It ends after `close`, with everything written that can be.
    pub(super) fn start(sink: Sink, logs: Logs, events: Events) -> Arc<Self> {
        let rate = sink.rate.map_or(BYTES_PER_SECOND, config::ByteSize::bytes);
        let pipeline = Pipeline {
            ring: match sink.format {
                config::LogFormat::Text => Ring::new(RING_BYTES),
                config::LogFormat::Json => Ring::new(RING_BYTES).marked_by(json_marker),
            },
            rate: Rate::new(rate, LINES_PER_SECOND, Instant::now()),
            recent: VecDeque::new(),
            closed: false,
        };
        let output = Arc::new(Self {
            sink,
            pipe: Mutex::new(pipeline),
            wake: Condvar::new(),
            follow: broadcast::channel(FOLLOW_LINES).0,
            dropped_lines: AtomicU64::new(0),
        });
        let writer = output.clone();
        let spawned =
            std::thread::Builder::new().name("app-log".into()).spawn(move || writer.write_all(&logs, &events));
        if let Err(error) = spawned {
            tracing::error!(%error, app = output.sink.app, "no thread for the app's log: its output is dropped");
        }
        output
    }

    pub(super) fn sink(&self) -> &Sink {
        &self.sink
    }

    pub(super) fn close(&self) {
        self.pipeline().closed = true;
        self.wake.notify_all();
    }

    pub(super) fn follow(&self, lines: usize) -> (Vec<Tail>, broadcast::Receiver<Tail>) {
        let pipeline = self.pipeline();
        let skip = pipeline.recent.len().saturating_sub(lines);
        let recent = pipeline.recent.iter().skip(skip).cloned().collect();
        // Subscribed under the lock: no line is missed or doubled between the two.
        (recent, self.follow.subscribe())
    }

    fn pipeline(&self) -> std::sync::MutexGuard<'_, Pipeline> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, slot: u32, stream: &'static str, last: &LastLines, lines: Vec<Bytes>) {
        let (now, at) = (Instant::now(), SystemTime::now());
        let mut pipeline = self.pipeline();
        for line in lines {
            last.push(line.clone());
            if !pipeline.rate.admits(line.len() + 1, now) {
                pipeline.ring.drop_line(&line);
                continue;
            }
            pipeline.ring.push(self.written(&line, slot, stream, at));
            let tail = Tail { app: self.sink.app.clone(), slot, at, stream, line };
            if pipeline.recent.len() == RECENT_LINES {
                pipeline.recent.pop_front();
            }
            pipeline.recent.push_back(tail.clone());
            // Nobody follows: that is the usual case.
            let _ = self.follow.send(tail);
        }
        drop(pipeline);
        self.wake.notify_one();
    }

    /// The line as the file has it.
    fn written(&self, line: &Bytes, slot: u32, stream: &'static str, at: SystemTime) -> Bytes {
        if self.sink.format == config::LogFormat::Text {
            return line.clone();
        }
        let text = String::from_utf8_lossy(line);
        let lossy = matches!(&text, std::borrow::Cow::Owned(_));
        json(&Record { ts: time(at), app: &self.sink.app, instance: Some(slot), stream, line: text, lossy }).into()
    }

    /// Reads one stream to its end, but nothing while `ours` is false: then another engine reads it.
    pub(super) async fn read(
        self: Arc<Self>,
        mut pipe: pipe::Receiver,
        slot: u32,
        stream: &'static str,
        last: LastLines,
        exited: tokio_util::sync::CancellationToken,
        mut ours: watch::Receiver<bool>,
    ) {
        let mut splitter = Splitter::default();
        let mut buffer = vec![0; READ_BYTES];
        let late = async {
            exited.cancelled().await;
            tokio::time::sleep(AFTER_EXIT).await;
        };
        tokio::pin!(late);
        loop {
            let read = tokio::select! {
                biased;
                // Its sender lives as long as the supervisor.
                Ok(()) = ours.changed() => {
                    let _ = ours.wait_for(|it| *it).await;
                    continue;
                }
                read = pipe.read(&mut buffer) => read.unwrap_or(0),
                () = &mut late => 0,
            };
            let mut lines = Vec::new();
            splitter.push(&buffer[..read], |line| lines.push(line));
            if read == 0 {
                lines.extend(splitter.finish());
            }
            self.accept(slot, stream, &last, lines);
            if read == 0 {
                return;
            }
            // A flood must not keep the other tasks of this runtime waiting.
            tokio::task::yield_now().await;
        }
    }

    /// The writer thread.
    fn write_all(&self, logs: &Logs, events: &Events) {
        let mut file: Option<Arc<RotatingFile>> = None;
        let mut complained = false;
        let (mut checked, mut low) = (Instant::now(), self.is_disk_low());
        loop {
            if file.is_none() {
                file = self.open(logs);
            }
            let Some(open) = file.clone() else {
                if !std::mem::replace(&mut complained, true) {
                    let message = format!("cannot write {}: output is dropped", self.sink.path.display());
                    events.emit("log.failed", &self.sink.app, message);
                }
                if self.wait_for_retry() {
                    return;
                }
                continue;
            };
            let Some(block) = self.next_block(events) else {
                logs.unregister(&self.sink.app);
                return;
            };
            if checked.elapsed() >= CHECK {
                checked = Instant::now();
                low = self.is_disk_low();
                // Somebody took the file or its directory away: what is written to it now would be lost.
                if !self.sink.path.exists() {
                    file = self.open(logs);
                }
            }
            if low {
                self.dropped_lines.fetch_add(memchr::memchr_iter(b'\n', &block).count() as u64, Relaxed);
                if !std::mem::replace(&mut complained, true) {
                    let message = format!("the disk of {} is nearly full: output is dropped", self.sink.path.display());
                    events.emit("log.failed", &self.sink.app, message);
                }
                continue;
            }
            let open = file.clone().unwrap_or(open);
            match open.write(&block) {
                Ok(()) => complained = false,
                Err(_) => file = None,
            }
        }
    }

    /// The last room on a disk is not for the output of an app.
    fn is_disk_low(&self) -> bool {
        let Some(directory) = self.sink.path.parent() else { return false };
        let Ok(system) = nix::sys::statvfs::statvfs(directory) else { return false };
        let unit = system.fragment_size();
        let (free, all) = (system.blocks_available() * unit, system.blocks() * unit);
        all > 0 && free < RESERVED_BYTES.min(all / 20)
    }

    fn open(&self, logs: &Logs) -> Option<Arc<RotatingFile>> {
        if let Some(directory) = self.sink.path.parent() {
            // If it cannot be made, opening says why.
            let _ = std::fs::create_dir_all(directory);
        }
        let file = Arc::new(RotatingFile::open(self.sink.path.clone(), self.sink.rotation.clone()).ok()?);
        logs.register(&self.sink.app, file.clone());
        Some(file)
    }

    /// True: closed meanwhile.
    fn wait_for_retry(&self) -> bool {
        let pipeline = self.pipeline();
        let waited = self.wake.wait_timeout_while(pipeline, RETRY, |pipeline| !pipeline.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// The next lines to write; `None` when closed and empty.
    fn next_block(&self, events: &Events) -> Option<Vec<u8>> {
        let pipeline = self.pipeline();
        let waits = |pipeline: &mut Pipeline| pipeline.ring.is_empty() && !pipeline.closed;
        let mut pipeline = self.wake.wait_while(pipeline, waits).unwrap_or_else(PoisonError::into_inner);
        if pipeline.ring.is_empty() {
            return None;
        }
        let (block, dropped) = pipeline.ring.take(BLOCK_BYTES);
        drop(pipeline);
        if dropped > 0 && self.dropped_lines.fetch_add(dropped, Relaxed) == 0 {
            events.emit("log.dropped", &self.sink.app, format!("dropped {dropped} lines: the app writes too much"));
        }
        Some(block)
    }
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| format!("{at:.3}")).unwrap_or_default()
}

fn json(record: &Record<'_>) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default()
}

fn json_marker(lines: u64, bytes: u64) -> String {
    let line = format!("dropped {lines} lines ({bytes} bytes)").into();
    let record =
        Record { ts: time(SystemTime::now()), app: "miwid", instance: None, stream: "miwid", line, lossy: false };
    String::from_utf8(json(&record)).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_keeps_what_it_can_and_says_what_it_could_not() {
        let record = |line: &[u8]| {
            let text = String::from_utf8_lossy(line);
            let lossy = matches!(&text, std::borrow::Cow::Owned(_));
            let ts = time(SystemTime::UNIX_EPOCH);
            String::from_utf8(json(&Record { ts, app: "shop", instance: Some(1), stream: "stdout", line: text, lossy }))
        };
        let plain = r#"{"ts":"1970-01-01T00:00:00.000Z","app":"shop","instance":1,"stream":"stdout","line":"a \"b\""}"#;
        assert_eq!(record(b"a \"b\"").as_deref(), Ok(plain));
        assert!(record(b"\xff").is_ok_and(|it| it.ends_with(r#","lossy":true}"#)));
        assert!(json_marker(3, 70).contains("dropped 3 lines (70 bytes)"));
    }
}
