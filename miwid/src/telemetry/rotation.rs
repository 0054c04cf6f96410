//! A file that is renamed when it is big enough or when asked, and whose backups are numbered or timed, compressed, and
//! pruned. The plan (what to rename, compress, delete) is pure and lives in `plan`; this is the executor.
//!
//! The file is never truncated in place while it is read by others (no copytruncate): it is renamed and a new one is
//! created. What cannot be written is dropped and counted; opening is tried again every five seconds.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::plan::{self, Backup, Step};

const RETRY: Duration = Duration::from_secs(5);

/// One log file with its rotation. Writes are whole lines; one writer at a time (it locks).
pub struct RotatingFile {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    state: Mutex<State>,
    size: AtomicU64,
    dropped: AtomicU64,
}

struct State {
    rotation: config::Rotation,
    /// `None`: it could not be opened or written; `retry_at` says when to try again.
    file: Option<File>,
    retry_at: Instant,
    compressing: Compressing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compressing {
    Idle,
    Running,
}

impl RotatingFile {
    pub fn open(path: PathBuf, rotation: config::Rotation) -> io::Result<Self> {
        let file = open_append(&path)?;
        let size = length(&file)?;
        let state = State { rotation, file: Some(file), retry_at: Instant::now(), compressing: Compressing::Idle };
        let inner = Inner { path, state: Mutex::new(state), size: AtomicU64::new(size), dropped: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Like `open`, but a file that cannot be opened now is tried again later.
    pub fn open_lazily(path: PathBuf, rotation: config::Rotation) -> Self {
        let state = State { rotation, file: None, retry_at: Instant::now(), compressing: Compressing::Idle };
        let inner = Inner { path, state: Mutex::new(state), size: AtomicU64::new(0), dropped: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Appends `block` (whole lines); rotates first when it would not fit. On an error the whole block counts as dropped.
    pub fn write(&self, block: &[u8]) -> io::Result<()> {
        let mut state = self.inner.lock();
        let written = self.inner.write(&mut state, block);
        if written.is_err() {
            let lines = memchr::memchr_iter(b'\n', block).count() as u64;
            self.inner.dropped.fetch_add(lines, Ordering::Relaxed);
            if state.file.take().is_some() {
                state.retry_at = Instant::now() + RETRY;
            }
        }
        written
    }

    /// Renames the file now and begins a new one; `None` when it is empty (there is nothing to keep).
    pub fn rotate(&self) -> io::Result<Option<PathBuf>> {
        let mut state = self.inner.lock();
        self.inner.ensure_open(&mut state)?;
        self.inner.rotate(&mut state)
    }

    /// Opens the path anew. A file that nobody moved away is rotated first.
    pub fn reopen(&self) -> io::Result<()> {
        let mut state = self.inner.lock();
        state.retry_at = Instant::now();
        if let Some(file) = &state.file
            && is_still_at(file, &self.inner.path)
        {
            return self.inner.rotate(&mut state).map(|_| ());
        }
        state.file = None;
        self.inner.ensure_open(&mut state)
    }

    /// Takes over a changed rotation; it counts from the next write.
    pub fn set_rotation(&self, rotation: config::Rotation) {
        self.inner.lock().rotation = rotation;
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    pub fn size(&self) -> u64 {
        self.inner.size.load(Ordering::Relaxed)
    }

    /// Lines that could not be written since the start.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// How many backups exist now.
    pub fn backups(&self) -> usize {
        plan::backups(&self.inner.path).map_or(0, |found| found.len())
    }
}

// === impl Inner ===

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_open(&self, state: &mut State) -> io::Result<()> {
        if state.file.is_some() {
            return Ok(());
        }
        if Instant::now() < state.retry_at {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "waits before it is opened again"));
        }
        state.retry_at = Instant::now() + RETRY;
        let file = open_append(&self.path)?;
        self.size.store(length(&file)?, Ordering::Relaxed);
        state.file = Some(file);
        Ok(())
    }

    fn write(self: &Arc<Self>, state: &mut State, block: &[u8]) -> io::Result<()> {
        // Somebody deleted the file or its directory: what is written now would be lost without a trace.
        if state.file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.nlink() == 0)) {
            state.file = None;
            state.retry_at = Instant::now();
        }
        self.ensure_open(state)?;
        let size = self.size.load(Ordering::Relaxed);
        let rotation = &state.rotation;
        if rotation.enabled && size > 0 && size + block.len() as u64 > rotation.max_size.bytes() {
            // A file that grows too big is better than lines that are lost: the next write tries again.
            let rotated = self.rotate(state);
            if state.file.is_none() {
                rotated?;
            }
        }
        let Some(file) = state.file.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        let size = self.size.load(Ordering::Relaxed);
        if !file.metadata()?.is_file() {
            // A pipe takes a line whole or not at all, as long as it is no longer than PIPE_BUF.
            return block.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| file.write_all(line));
        }
        if let Err(error) = file.write_all(block) {
            // Half a line is worse than none: take back what did fit.
            let _ = file.set_len(size);
            return Err(error);
        }
        self.size.store(size + block.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn rotate(self: &Arc<Self>, state: &mut State) -> io::Result<Option<PathBuf>> {
        let regular = state.file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.is_file()));
        if !regular || self.size.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let now = SystemTime::now();
        let (steps, backup) = plan::rotate(&self.path, &plan::backups(&self.path)?, &state.rotation, now);
        // If renaming fails the old file is still open and still grows: nothing is lost.
        steps.iter().try_for_each(execute)?;
        state.file = None;
        state.retry_at = Instant::now();
        self.ensure_open(state)?;
        if state.rotation.compress && state.compressing == Compressing::Idle {
            state.compressing = Compressing::Running;
            let inner = Arc::clone(self);
            let spawned = std::thread::Builder::new().name("log-gzip".into()).spawn(move || inner.compress_all());
            if spawned.is_err() {
                state.compressing = Compressing::Idle;
            }
        }
        Ok(Some(backup))
    }

    /// Compresses backups, oldest first, until none is left. Renames may happen meanwhile, so a backup is known by its
    /// inode and not by its name.
    fn compress_all(&self) {
        let _ = rustix::process::setpriority_process(None, 10);
        loop {
            let picked = {
                let mut state = self.lock();
                let picked = plan::backups(&self.path).ok().and_then(plan::oldest_plain);
                let opened = picked.and_then(|backup| File::open(&backup.path).ok());
                if opened.is_none() {
                    state.compressing = Compressing::Idle;
                }
                opened
            };
            let Some(source) = picked else { return };
            if let Err(error) = self.compress(&source) {
                let _ = fs::remove_file(plan::with_suffix(&self.path, "gz.tmp"));
                tracing::warn!(path = %self.path.display(), %error, "a rotated log could not be compressed");
                self.lock().compressing = Compressing::Idle;
                return;
            }
        }
    }

    fn compress(&self, mut source: &File) -> io::Result<()> {
        let temporary = plan::with_suffix(&self.path, "gz.tmp");
        let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        let mut encoder = flate2::write::GzEncoder::new(io::BufWriter::new(target), flate2::Compression::default());
        io::copy(&mut source, &mut encoder)?;
        let target = encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        target.sync_all()?;
        let inode = source.metadata()?.ino();
        let _state = self.lock();
        let is_source = |backup: &&Backup| fs::metadata(&backup.path).is_ok_and(|meta| meta.ino() == inode);
        let found = plan::backups(&self.path)?;
        let Some(backup) = found.iter().find(is_source) else {
            // It was pruned while it was compressed.
            return fs::remove_file(&temporary);
        };
        fs::rename(&temporary, plan::with_suffix(&backup.path, "gz"))?;
        File::open(directory(&self.path))?.sync_all()?;
        fs::remove_file(&backup.path)
    }
}

fn execute(step: &Step) -> io::Result<()> {
    match step {
        Step::Rename { from, to } => fs::rename(from, to),
        Step::Delete(path) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Non-blocking, so that a pipe without a reader is an error and not a stop.
fn open_append(path: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory(path))?;
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

fn length(file: &File) -> io::Result<u64> {
    let meta = file.metadata()?;
    Ok(if meta.is_file() { meta.len() } else { 0 })
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
