//! The way to the daemon: which socket, whether it may be trusted, and what to say when nobody answers. It never starts a
//! daemon by itself.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use hyper_util::rt::TokioIo;
use proto::v1::{
    apps_client::AppsClient, certificates_client::CertificatesClient, cloudflare_client::CloudflareClient,
    daemon_client::DaemonClient, events_client::EventsClient, logs_client::LogsClient,
    operations_client::OperationsClient, upstreams_client::UpstreamsClient,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::{DENIED, Error, Result, UNREACHABLE};

pub(crate) struct Client {
    channel: Channel,
}

/// Why the daemon does not last, in the words of its warden, which writes them beside the control socket.
pub(crate) fn trouble(socket: Option<&Path>) -> Option<Error> {
    let mut file = place(socket).ok()?.into_os_string();
    file.push(".trouble");
    let text = fs::read_to_string(file).ok()?;
    let hint = "the log says how they ended; correct the configuration and `miwictl reload`, or `miwictl upgrade`";
    Some(Error::new(UNREACHABLE, "crash-loop", text.trim()).hint(hint))
}

/// Nobody listens there, not even for somebody else. Where many wait already, somebody does.
pub(crate) async fn is_deserted(socket: Option<&Path>) -> bool {
    let Ok(path) = place(socket) else { return false };
    UnixStream::connect(path).await.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
}

fn place(socket: Option<&Path>) -> Result<PathBuf> {
    socket.map_or_else(found_socket, |path| Ok(path.to_owned()))
}

impl Client {
    pub(crate) async fn connect(socket: Option<&Path>) -> Result<Self> {
        let path = place(socket)?;
        // The first connection is made by hand, because tonic hides why one failed.
        UnixStream::connect(&path).await.map_err(|error| unreachable(&path, &error))?;
        // h2 refuses any authority but a host name, so a socket path cannot be the address.
        let endpoint = Endpoint::from_static("http://localhost");
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| {
            Error::new(UNREACHABLE, "unreachable", format!("the daemon does not answer: {error}"))
                .hint("`systemctl status miwid` shows whether it runs")
        })?;
        Ok(Self { channel })
    }

    pub(crate) fn daemon(&self) -> DaemonClient<Channel> {
        DaemonClient::new(self.channel.clone())
    }
    pub(crate) fn apps(&self) -> AppsClient<Channel> {
        AppsClient::new(self.channel.clone())
    }
    pub(crate) fn certificates(&self) -> CertificatesClient<Channel> {
        CertificatesClient::new(self.channel.clone())
    }
    pub(crate) fn cloudflare(&self) -> CloudflareClient<Channel> {
        CloudflareClient::new(self.channel.clone())
    }
    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }
    pub(crate) fn logs(&self) -> LogsClient<Channel> {
        LogsClient::new(self.channel.clone())
    }
    pub(crate) fn upstreams(&self) -> UpstreamsClient<Channel> {
        UpstreamsClient::new(self.channel.clone())
    }
    pub(crate) fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }
}

fn found_socket() -> Result<PathBuf> {
    let uid = nix::unistd::geteuid().as_raw();
    let places = places(uid, env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let found = places.iter().find(|path| path.exists() || is_hidden(path));
    let path = found.or(places.last()).cloned().unwrap_or_default();
    if path.starts_with("/tmp") {
        trust(&path, uid)?;
    }
    Ok(path)
}

fn places(uid: u32, runtime_dir: Option<PathBuf>) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("/run/miwid/control.sock")];
    places.extend(runtime_dir.map(|dir| dir.join("miwid/control.sock")));
    places.push(PathBuf::from(format!("/tmp/miwid-{uid}/control.sock")));
    places
}

/// There may be a socket, but this user may not look.
fn is_hidden(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Anyone can make a directory in /tmp, so one that is not ours could be a trap.
fn trust(path: &Path, uid: u32) -> Result {
    let Some(Ok(dir)) = path.parent().map(fs::symlink_metadata) else {
        return Ok(());
    };
    if dir.is_dir() && dir.uid() == uid {
        return Ok(());
    }
    Err(Error::new(DENIED, "permission-denied", format!("{} belongs to somebody else", path.display()))
        .hint("name the daemon's socket with --socket PATH"))
}

fn unreachable(path: &Path, error: &io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(UNREACHABLE, "unreachable", format!("there is no control socket at {shown}"))
                .hint("is miwid running? try `systemctl status miwid`, or name its socket with --socket PATH")
        }
        io::ErrorKind::ConnectionRefused => {
            Error::new(UNREACHABLE, "unreachable", format!("nobody listens on {shown}: a daemon left it behind"))
                .hint("start miwid; it replaces the stale socket")
        }
        io::ErrorKind::PermissionDenied => denied(path),
        _ => Error::new(UNREACHABLE, "unreachable", format!("{shown} cannot be reached: {error}")),
    }
}

fn denied(path: &Path) -> Error {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(String::new, |user| user.name);
    let gid = fs::metadata(path).map(|found| found.gid()).ok();
    let group = gid.and_then(|gid| nix::unistd::Group::from_gid(gid.into()).ok().flatten()).map(|group| group.name);
    let group = group.unwrap_or_else(|| "miwid".to_owned());
    let message = format!("permission denied: you are uid {uid} ({user}); {} belongs to group {group}", path.display());
    Error::new(DENIED, "permission-denied", message)
        .hint(format!("use sudo, or join the group: `sudo usermod -aG {group} {user}` and log in again"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_search_order_is_run_then_runtime_directory_then_tmp() {
        let expected = ["/run/miwid/control.sock", "/x/miwid/control.sock", "/tmp/miwid-7/control.sock"];
        assert_eq!(places(7, Some("/x".into())), expected.map(PathBuf::from));
    }

    #[tokio::test]
    async fn a_missing_and_a_stale_socket_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let missing = Client::connect(Some(&path)).await.err().unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let stale = Client::connect(Some(&path)).await.err().unwrap();
        assert_eq!((missing.exit, stale.exit), (3, 3));
        assert!(missing.message.contains("no control socket"), "{}", missing.message);
        assert!(stale.message.contains("nobody listens"), "{}", stale.message);
    }

    #[test]
    fn permission_denied_names_user_and_group() {
        let error = unreachable(Path::new("/nowhere/x.sock"), &io::ErrorKind::PermissionDenied.into());
        assert_eq!(error.exit, 4);
        assert!(error.message.contains("you are uid") && error.message.contains("group miwid"), "{}", error.message);
    }

    #[test]
    fn a_directory_in_tmp_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, uid) = (dir.path().join("x.sock"), nix::unistd::geteuid().as_raw());
        assert!(trust(&path, uid).is_ok());
        assert_eq!(trust(&path, uid + 1).unwrap_err().exit, 4);
    }
}
