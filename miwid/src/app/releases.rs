//! Releases of an app: what `deploy` brought, each in a directory of its own below `STATE/apps/NAME/releases`, never
//! changed afterwards. A release comes in pieces from the client, who reads it with its own rights; here its paths are
//! taken as hostile. Blocking.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use config::{AppType, Backend};
use tokio::sync::mpsc;

use super::spec::User;

/// More than any app has, and an end to what a client can make us store.
const BYTES_MAX: u64 = 8 << 30;
const ENTRIES_MAX: usize = 1_000_000;
const PATH_BYTES_MAX: usize = 4_096;
/// Pieces that wait for the disk.
const QUEUE: usize = 8;
const VENVS: [&str; 3] = [".venv", "venv", "env"];

/// One piece on its way to the disk. `Data` belongs to the file that was begun last.
#[derive(Debug)]
pub enum Part {
    Directory(String),
    File {
        path: String,
        executable: bool,
    },
    Link {
        path: String,
        target: String,
    },
    Data(Bytes),
    /// Without it, all of it is thrown away.
    End,
}

/// What a release of this type of app is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One file, kept under this name.
    File(&'static str),
    Directory,
}

/// A release that is being received.
pub struct Upload {
    pub parts: mpsc::Sender<Part>,
    /// Its name, once it is whole.
    pub done: tokio::task::JoinHandle<io::Result<String>>,
}

// === impl Form ===

impl Form {
    pub fn of(app_type: AppType) -> Self {
        match app_type {
            AppType::Tomcat => Self::File("app.war"),
            AppType::Java => Self::File("app.jar"),
            _ => Self::Directory,
        }
    }
}

// === impl Upload ===

impl Upload {
    pub(super) fn begin(state_dir: &Path, app: &str, form: Form) -> Self {
        let (parts, inbox) = mpsc::channel(QUEUE);
        let place = place(state_dir, app);
        let done = tokio::task::spawn_blocking(move || receive(&place, form, inbox));
        Self { parts, done }
    }
}

/// Where an app's releases are.
pub(super) fn place(state_dir: &Path, app: &str) -> PathBuf {
    state_dir.join("apps").join(app).join("releases")
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

fn receive(place: &Path, form: Form, inbox: mpsc::Receiver<Part>) -> io::Result<String> {
    DirBuilder::new().recursive(true).mode(0o755).create(place)?;
    let name = fresh_name(place);
    let at = place.join(format!("{name}.new"));
    // Nobody else looks into it while it is made.
    DirBuilder::new().mode(0o700).create(&at)?;
    let received = Receiver { at: at.clone(), form, file: None, bytes: 0, entries: 0 }.run(inbox);
    match received.and_then(|()| fs::rename(&at, place.join(&name))) {
        Ok(()) => Ok(name),
        Err(error) => {
            let _ = fs::remove_dir_all(&at);
            Err(error)
        }
    }
}

/// The time in UTC, so that names sort by age: `20261127-065012-3f9a`.
fn fresh_name(place: &Path) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let names = std::iter::repeat_with(|| format!("{now}-{:04x}", fastrand::u16(..)));
    names.into_iter().find(|name| !place.join(name).exists()).unwrap_or(now)
}

struct Receiver {
    at: PathBuf,
    form: Form,
    file: Option<File>,
    bytes: u64,
    entries: usize,
}

impl Receiver {
    fn run(mut self, mut inbox: mpsc::Receiver<Part>) -> io::Result<()> {
        while let Some(part) = inbox.blocking_recv() {
            match part {
                Part::Data(bytes) => self.data(&bytes)?,
                Part::End => return self.end(),
                entry => self.entry(entry)?,
            }
        }
        Err(invalid("the upload broke off"))
    }

    fn entry(&mut self, part: Part) -> io::Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(invalid(format!("more than {ENTRIES_MAX} files")));
        }
        self.close()?;
        match (part, self.form) {
            (Part::File { executable, .. }, Form::File(name)) if self.entries == 1 => self.open(name, executable),
            (_, Form::File(_)) => Err(invalid("a release of this app is one file")),
            (Part::File { path, executable }, Form::Directory) => self.open(&path, executable),
            (Part::Directory(path), Form::Directory) => {
                let path = self.resolve(&path)?;
                DirBuilder::new().mode(0o750).create(path)
            }
            (Part::Link { path, target }, Form::Directory) => symlink(target, self.resolve(&path)?),
            (Part::Data(_) | Part::End, Form::Directory) => Ok(()),
        }
    }

    fn open(&mut self, path: &str, executable: bool) -> io::Result<()> {
        let path = self.resolve(path)?;
        let mode = if executable { 0o750 } else { 0o640 };
        self.file = Some(OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > BYTES_MAX {
            return Err(invalid("a release has at most 8 GiB"));
        }
        self.file.as_mut().ok_or_else(|| invalid("data without a file"))?.write_all(bytes)
    }

    fn close(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_data())
    }

    fn end(mut self) -> io::Result<()> {
        self.close()?;
        if self.entries == 0 {
            return Err(invalid("the release is empty"));
        }
        // The app's user must get in.
        fs::set_permissions(&self.at, fs::Permissions::from_mode(0o750))?;
        File::open(&self.at)?.sync_all()
    }

    /// A place inside that is not there yet, and whose parents are directories of this release: nothing is written through
    /// a link.
    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        let relative = Path::new(path);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains('\0') || !plain {
            return Err(invalid(format!("{path:?} is no path inside a release")));
        }
        let mut at = self.at.clone();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            if !at.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                return Err(invalid(format!("the parent of {path:?} is no directory of the release")));
            }
        }
        Ok(self.at.join(relative))
    }
}

/// Lets the app's user in. A directory becomes the user's, as `pre_deploy` and the app may write there; a file is only
/// readable, since the daemon itself reads it again at each start. The outermost comes last: until then nobody but us can
/// reach what is inside, so no link can lead us astray.
pub(super) fn give(at: &Path, form: Form, user: &User) -> io::Result<()> {
    match form {
        Form::File(name) => {
            lchown(at.join(name), None, Some(user.gid))?;
            lchown(at, None, Some(user.gid))
        }
        Form::Directory => give_tree(at, user),
    }
}

pub(super) fn give_tree(path: &Path, user: &User) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_tree(&entry?.path(), user)?;
        }
    }
    lchown(path, Some(user.uid), Some(user.gid))
}

/// The configuration with the release at `at` in the place of what it names.
pub(super) fn overlay(backend: &Backend, at: &Path) -> Backend {
    let mut backend = backend.clone();
    let Some(process) = &mut backend.process else { return backend };
    match Form::of(backend.app_type) {
        Form::File(name) if backend.app_type == AppType::Tomcat => process.tomcat.war = Some(at.join(name)),
        Form::File(name) => process.command = Some(at.join(name).display().to_string()),
        Form::Directory => {
            let has_venv =
                |dir: &Path| VENVS.iter().map(|name| dir.join(name)).find(|venv| venv.join("pyvenv.cfg").is_file());
            // An environment that every release shares: programs in one know where they lie, so it is not copied along.
            if process.python.venv.is_none() && has_venv(at).is_none() {
                process.python.venv = has_venv(&process.working_dir);
            }
            process.working_dir = at.to_owned();
        }
    }
    backend
}

/// Which release `backend` runs from, if any.
pub(super) fn release_of<'a>(backend: &'a Backend, place: &Path) -> Option<&'a str> {
    let process = backend.process.as_ref()?;
    let paths =
        [process.tomcat.war.as_deref(), process.command.as_deref().map(Path::new), Some(process.working_dir.as_path())];
    let inside = paths.into_iter().flatten().find_map(|path| path.strip_prefix(place).ok())?;
    inside.components().next()?.as_os_str().to_str()
}

/// Removes every release, and every upload that broke off, but `kept`.
pub(super) fn prune(place: &Path, kept: &BTreeSet<String>) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // An upload that still runs is younger than its app's last operation and is not looked at.
        if !kept.contains(&name) && !name.ends_with(".new") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Part {
        Part::File { path: path.into(), executable: false }
    }

    fn received(form: Form, parts: Vec<Part>) -> (tempfile::TempDir, io::Result<String>) {
        let directory = tempfile::tempdir().expect("a directory");
        let (sender, inbox) = mpsc::channel(100);
        for part in parts {
            sender.try_send(part).expect("room");
        }
        drop(sender);
        let name = receive(directory.path(), form, inbox);
        (directory, name)
    }

    #[test]
    fn a_release_is_there_as_a_whole_or_not_at_all() {
        let parts = || vec![Part::Directory("a".into()), file("a/b"), Part::Data("text".into())];
        let (directory, name) = received(Form::Directory, parts().into_iter().chain([Part::End]).collect());
        let path = directory.path().join(name.expect("received")).join("a/b");
        assert_eq!(fs::read_to_string(path).expect("there"), "text");
        let (directory, name) = received(Form::Directory, parts());
        assert!(name.is_err() && fs::read_dir(directory.path()).expect("a directory").next().is_none());
    }

    #[test]
    fn nothing_is_written_outside_or_through_a_link() {
        for path in ["../x", "/etc/x", "a/../../x", "./x", "", "a\0b"] {
            assert!(received(Form::Directory, vec![file(path), Part::End]).1.is_err(), "{path}");
        }
        let link = Part::Link { path: "out".into(), target: "/tmp".into() };
        assert!(received(Form::Directory, vec![link, file("out/x"), Part::End]).1.is_err());
        assert!(received(Form::Directory, vec![file("a"), file("a"), Part::End]).1.is_err(), "twice");
        assert!(received(Form::Directory, vec![Part::End]).1.is_err(), "empty");
    }

    #[test]
    fn a_file_release_is_one_file_under_its_own_name() {
        let (directory, name) =
            received(Form::File("app.war"), vec![file("../shop-1.4.war"), Part::Data("x".into()), Part::End]);
        assert!(directory.path().join(name.expect("received")).join("app.war").is_file());
        assert!(received(Form::File("app.war"), vec![file("a"), file("b"), Part::End]).1.is_err());
    }

    #[test]
    fn a_release_takes_the_place_of_what_is_configured_and_is_known_again() {
        let text = "[backends.\"a.test\"]\napp_type = \"nodejs\"\nprocess = { working_dir = \"/srv/a\" }\n";
        let loaded = config::load_text(Path::new("m.toml"), text, &[], &config::Capabilities::default());
        let config = loaded.expect("a configuration").config;
        let backend = config.backends.values().next().expect("one");
        let place = Path::new("/state/apps/a/releases");
        assert_eq!(release_of(backend, place), None);
        let released = overlay(backend, &place.join("20261127-1"));
        assert_eq!(release_of(&released, place), Some("20261127-1"));
    }

    #[test]
    fn pruning_keeps_what_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["1", "2", "3", "4.new"] {
            fs::create_dir(directory.path().join(name)).expect("made");
        }
        prune(directory.path(), &BTreeSet::from(["2".to_owned()]));
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).expect("there").flatten().map(|it| it.file_name()).collect();
        left.sort();
        assert_eq!(left, ["2", "4.new"]);
    }
}
