//! A stand-in for the service manager's end of the `NOTIFY_SOCKET`.

use std::{io, os::unix::net::UnixDatagram, path::Path, path::PathBuf, time::Duration};

use crate::wait;

/// Receives what a daemon tells its service manager.
pub struct FakeNotify {
    path: PathBuf,
    socket: UnixDatagram,
    seen: Vec<String>,
}

impl FakeNotify {
    /// Binds `notify.sock` in `directory`.
    pub fn bind(directory: &Path) -> io::Result<Self> {
        let path = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { path, socket, seen: Vec::new() })
    }

    /// The value for `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every assignment received so far, in order: `READY=1`, `STATUS=...`, `WATCHDOG=1`.
    pub fn seen(&mut self) -> &[String] {
        let mut datagram = [0; 8192];
        while let Ok(count) = self.socket.recv(&mut datagram) {
            let text = String::from_utf8_lossy(&datagram[..count]);
            self.seen.extend(text.lines().map(str::to_owned));
        }
        &self.seen
    }

    /// Waits for an assignment that begins with `prefix` and returns it.
    pub async fn expect(&mut self, prefix: &str, deadline: Duration) -> String {
        self.expect_times(prefix, 1, deadline).await
    }

    /// Waits until `times` assignments began with `prefix` and returns the last.
    pub async fn expect_times(&mut self, prefix: &str, times: usize, deadline: Duration) -> String {
        let what = format!("{times} x {prefix} on the notify socket");
        let cell = std::cell::RefCell::new(self);
        wait::for_some(deadline, &what, || {
            let mut notify = cell.borrow_mut();
            let found: Vec<String> = notify.seen().iter().filter(|it| it.starts_with(prefix)).cloned().collect();
            std::future::ready((found.len() >= times).then(|| found.last().cloned()).flatten())
        })
        .await
    }
}
