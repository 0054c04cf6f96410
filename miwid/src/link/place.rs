//! Where a warden says that its engines do not last: `miwictl` looks there, too.

use std::path::{Path, PathBuf};

/// `control.sock` -> `control.sock.trouble`.
pub fn trouble_beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".trouble");
    PathBuf::from(name)
}
