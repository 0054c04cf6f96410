//! What an instance says of itself on its notify socket, in the words of `sd_notify`: `READY=1`, `STATUS=...`,
//! `WATCHDOG=1`. Whoever may write to the socket is believed: it lies in a directory of the app's own user.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::net::UnixDatagram;

use super::spec::User;

const MESSAGE_BYTES: usize = 4_096;
const STATUS_BYTES: usize = 200;

#[derive(Debug)]
pub(super) struct Notices {
    path: PathBuf,
    ready: AtomicBool,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    status: String,
    beat: Instant,
}

// === impl Notices ===

impl Notices {
    /// Binds the socket at `path`, in a directory that is there.
    pub(super) fn bind(path: &Path, user: Option<&User>) -> io::Result<(Self, UnixDatagram)> {
        // What an engine that is gone has bound hears nothing any more.
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        if let Some(user) = user {
            // Never through a link: the directory is the user's.
            std::os::unix::fs::lchown(path, Some(user.uid), None)?;
        }
        let said = Mutex::new(Said { status: String::new(), beat: Instant::now() });
        Ok((Self { path: path.to_owned(), ready: AtomicBool::new(false), said }, socket))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Hears until it is aborted.
    pub(super) async fn hear(&self, socket: UnixDatagram) {
        let mut buffer = vec![0; MESSAGE_BYTES];
        while let Ok(length) = socket.recv(&mut buffer).await {
            self.note(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn note(&self, message: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for line in message.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => self.ready.store(true, Relaxed),
                Some(("WATCHDOG", "1")) => said.beat = Instant::now(),
                Some(("STATUS", status)) => said.status = status.chars().take(STATUS_BYTES).collect(),
                _ => {}
            }
        }
    }

    /// It was said before we listened.
    pub(super) fn recall(&self) {
        self.ready.store(true, Relaxed);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    pub(super) fn beats_within(&self, time: Duration) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).beat.elapsed() <= time
    }

    /// What has not come, and what came last.
    pub(super) fn describe(&self, missing: &str) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let status = if said.status.is_empty() { String::new() } else { format!(" (status: {})", said.status) };
        format!("{missing} has not come{status}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_is_noted() {
        let directory = tempfile::tempdir().expect("a directory");
        let (notices, socket) = Notices::bind(&directory.path().join("notify"), None).expect("bound");
        assert!(!notices.is_ready() && notices.beats_within(Duration::from_secs(60)));
        let sender = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        sender.send_to(b"STATUS=loading 3/7\n", notices.path()).expect("sent");
        sender.send_to(b"X=1\nREADY=1\n", notices.path()).expect("sent");
        let heard = async {
            while !notices.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = notices.hear(socket) => panic!("it hears for ever"),
            () = heard => {}
        }
        assert_eq!(notices.describe("WATCHDOG=1"), "WATCHDOG=1 has not come (status: loading 3/7)");
    }
}
