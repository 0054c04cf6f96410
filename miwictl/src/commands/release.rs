//! A release on its way to the daemon. It is read here, with the rights of whoever calls, and sent as a stream of entries:
//! the daemon opens no file that its caller names.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use proto::v1::{DeployEnd, DeployEntry, DeployHead, DeployRequest, deploy_request::Part};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::{Error, Result, USAGE};

const CHUNK: usize = 256 << 10;
const QUEUE: usize = 8;
/// What belongs to who makes releases and not to a release.
const LEFT_OUT: [&str; 3] = [".git", ".hg", ".svn"];

type Sender = mpsc::Sender<DeployRequest>;

/// Reads in a thread of its own. What cannot be read ends the stream early, and then the daemon throws away what it has.
pub(super) fn stream(path: &Path, head: DeployHead) -> Result<ReceiverStream<DeployRequest>> {
    let problem = |error: io::Error| Error::new(USAGE, "usage", format!("{}: {error}", path.display()));
    let path = path.canonicalize().map_err(problem)?;
    File::open(&path).map_err(problem)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send_all(&sender, &path, head) {
            // Nobody listens any more when the daemon has refused it: then its own words are shown.
            if error.kind() != io::ErrorKind::BrokenPipe {
                anstream::eprintln!("miwictl: {error}");
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

fn send(sender: &Sender, part: Part) -> io::Result<()> {
    sender.blocking_send(DeployRequest { part: Some(part) }).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

fn send_all(sender: &Sender, path: &Path, head: DeployHead) -> io::Result<()> {
    let is_directory = head.directory;
    send(sender, Part::Head(head))?;
    if is_directory {
        directory(sender, path, &PathBuf::new())?;
    } else {
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        file(sender, path, &name)?;
    }
    send(sender, Part::End(DeployEnd {}))
}

/// Its entries by name, so that a release is the same stream every time.
fn directory(sender: &Sender, from: &Path, to: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    let mut entries = fs::read_dir(from).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(named)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.iter().filter(|entry| !LEFT_OUT.iter().any(|name| entry.file_name() == *name)) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(named)?;
        if kind.is_dir() {
            let entry = DeployEntry { path: text(&target)?, directory: true, ..DeployEntry::default() };
            send(sender, Part::Entry(entry))?;
            directory(sender, &source, &target)?;
        } else if kind.is_symlink() {
            let link = text(&fs::read_link(&source).map_err(named)?)?;
            let entry = DeployEntry { path: text(&target)?, link: Some(link), ..DeployEntry::default() };
            send(sender, Part::Entry(entry))?;
        } else if kind.is_file() {
            file(sender, &source, &target)?;
        }
    }
    Ok(())
}

fn file(sender: &Sender, from: &Path, to: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    let mut content = File::open(from).map_err(named)?;
    let executable = content.metadata().map_err(named)?.permissions().mode() & 0o111 != 0;
    send(sender, Part::Entry(DeployEntry { path: text(to)?, executable, ..DeployEntry::default() }))?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = content.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).map_err(named)?;
        if read == 0 {
            return Ok(());
        }
        send(sender, Part::Data(chunk))?;
    }
}

fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is not UTF-8")))
}
