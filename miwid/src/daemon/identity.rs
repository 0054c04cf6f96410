//! `[server] user`: who engines and apps are when the daemon was started as root. It is settled once, by the warden, from files that only
//! root can have written; an engine can ask for nothing else.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, lchown},
    path::{Path, PathBuf},
    process::ExitCode,
};

use config::Config;

use super::start::{self, INVALID};
use crate::{
    cli::Run,
    control,
    link::Identity,
    reload::{Source, unsafe_reason},
    snapshot::capabilities,
};

/// Made for the daemon by its package, and so its own.
const OURS: [&str; 3] = ["/run/miwid", "/var/lib/miwid", "/var/log/miwid"];

/// Why the daemon does not start, and what to do.
#[derive(Debug)]
pub(super) struct Refusal {
    why: String,
    hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.why, self.hint)
    }
}

fn refuse<T>(why: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { why: why.into(), hint: hint.into() })
}

/// Who the warden's engines are to be; `None`: what the warden is. A configuration that cannot be loaded is the engine's to report.
pub fn identity(run: &Run) -> Result<Option<Identity>, ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let Ok(source) = Source::find(run.config.clone(), run.set.clone()) else { return Ok(None) };
    let Ok(loaded) = source.load(&capabilities()) else { return Ok(None) };
    let texts: Vec<PathBuf> = loaded.texts.0.iter().map(|(path, _)| path.clone()).collect();
    settle(run, &loaded.config, &texts).map_err(|refusal| {
        eprintln!("error: {refusal}");
        ExitCode::from(INVALID)
    })
}

fn settle(run: &Run, config: &Config, texts: &[PathBuf]) -> Result<Option<Identity>, Refusal> {
    let Some(name) = &config.server.user else { return Ok(None) };
    let mut identity = named(name, config.server.group.as_deref())?;
    if identity.uid == 0 {
        return refuse("server.user is root", "leave `user` away: without it everything runs as root");
    }
    if config.path.is_some() {
        for path in texts {
            trusted(path)?;
        }
    }
    one_account(config, &identity)?;
    let configured = run.socket.clone().or_else(|| config.control.socket.clone());
    identity.socket = control::choose(&control::Place::of_process(configured, config.control.group.clone()));
    places(config, &identity)?;
    Ok(Some(identity))
}

fn named(name: &str, group: Option<&str>) -> Result<Identity, Refusal> {
    let hint = "create it (`useradd --system NAME`, or `systemd-sysusers`), or name one that exists";
    Identity::of_account(name, group).or_else(|why| refuse(format!("server.user: {why}"), hint))
}

/// Whoever can write it would say who engines and apps are.
fn trusted(path: &Path) -> Result<(), Refusal> {
    let why = match unsafe_reason(path) {
        Ok(None) => return Ok(()),
        Ok(Some(why)) => why,
        Err(error) => format!("{}: {error}", path.display()),
    };
    let hint = "with `[server] user`, the file and its directory must be root's alone to write: chown root, chmod go-w";
    refuse(format!("will not take `[server] user` from {}: {why}", path.display()), hint)
}

/// An engine that is not root can neither signal nor look into the processes of other accounts.
fn one_account(config: &Config, identity: &Identity) -> Result<(), Refusal> {
    for (host, backend) in &config.backends {
        let Some(process) = &backend.process else { continue };
        let wanted = process.user.as_deref().unwrap_or(&identity.name);
        let group = process.group.as_deref();
        // One that does not exist is reported as the app's own problem.
        let Ok(account) = Identity::of_account(wanted, group) else { continue };
        if account.uid != identity.uid || (group.is_some() && account.gid != identity.gid) {
            let hint = "take `user` and `group` from the app, or `[server] user` away: then each app may have its own";
            let why = format!(
                "backends.{host:?}.process: with `[server] user = {:?}` every app runs as that account and its group, not as {wanted:?}",
                identity.name
            );
            return refuse(why, hint);
        }
    }
    Ok(())
}

/// What engines write to. The system's own places are given to them; what an operator has chosen is only made if it is not there.
fn places(config: &Config, identity: &Identity) -> Result<(), Refusal> {
    let socket = &identity.socket;
    let mut directories =
        vec![start::run_dir(socket), start::state_dir(config, socket), start::storage(config, socket)];
    let logging = &config.logging;
    let access = logging.access_log.enabled.then(|| logging.access_log.path.clone());
    // Beside the access log, whether there is one or not, unless they say where.
    let apps = config.backends.values().filter_map(|it| it.process.as_ref());
    let apps: Vec<&PathBuf> = apps.map(|it| it.logs.path.as_ref().unwrap_or(&logging.access_log.path)).collect();
    for file in logging.path.iter().chain(&access).chain(apps).filter(|it| it.is_absolute()) {
        directories.extend(file.parent().map(Path::to_path_buf));
    }
    for directory in directories {
        let failed = |error: io::Error| Refusal {
            why: format!("{} cannot be prepared for user {:?}: {error}", directory.display(), identity.name),
            hint: format!("mkdir -p {0} && chown {1} {0}", directory.display(), identity.name),
        };
        place(&directory, identity).map_err(failed)?;
    }
    for file in logging.path.iter().chain(&access) {
        if fs::metadata(file).is_ok_and(|it| it.is_file() && !may_write(&it, identity)) {
            let (file, name) = (file.display(), &identity.name);
            return refuse(format!("user {name:?} cannot write to {file}"), format!("chown {name} {file}"));
        }
    }
    Ok(())
}

fn place(directory: &Path, identity: &Identity) -> io::Result<()> {
    match fs::symlink_metadata(directory) {
        // Whoever has it already could have put anything there: nothing in it is touched.
        Ok(found) if found.uid() == identity.uid => Ok(()),
        Ok(found) if found.is_dir() && OURS.iter().any(|it| directory.starts_with(it)) => give(directory, identity),
        Ok(_) if fs::metadata(directory).is_ok_and(|it| it.is_dir() && may_write(&it, identity)) => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to somebody else")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = directory.parent().filter(|it| !it.as_os_str().is_empty()) else { return Err(error) };
            if !parent.exists() {
                place(parent, identity)?;
            }
            // In a place of its own the engine makes what it needs by itself: root keeps its hands off.
            if fs::metadata(parent).map_or(true, |it| it.uid() == identity.uid) {
                return Ok(());
            }
            fs::DirBuilder::new().mode(0o750).create(directory)?;
            lchown(directory, Some(identity.uid), Some(identity.gid))
        }
        Err(error) => Err(error),
    }
}

/// What root had made there while there was no `user`; from the leaves up, so that nobody else has a hand in it meanwhile.
fn give(at: &Path, identity: &Identity) -> io::Result<()> {
    let found = fs::symlink_metadata(at)?;
    if found.uid() != 0 {
        return Ok(());
    }
    if found.is_dir() {
        for entry in fs::read_dir(at)? {
            give(&entry?.path(), identity)?;
        }
    } else if found.nlink() > 1 {
        return Ok(());
    }
    lchown(at, Some(identity.uid), Some(identity.gid))
}

fn may_write(found: &fs::Metadata, identity: &Identity) -> bool {
    let bit = match () {
        () if found.uid() == identity.uid => 0o200,
        () if identity.groups.contains(&found.gid()) || found.gid() == identity.gid => 0o020,
        () => 0o002,
    };
    found.mode() & bit != 0
}

/// What an engine, or a daemon without a warden, makes of the key; `number` is the engine's.
pub(super) fn judge(config: &Config, number: Option<u64>) -> Result<(), Refusal> {
    let Some(name) = &config.server.user else { return Ok(()) };
    let own = nix::unistd::geteuid();
    let wanted = named(name, config.server.group.as_deref())?;
    if own.as_raw() == wanted.uid {
        return Ok(());
    }
    match number {
        _ if !own.is_root() => refuse(
            format!("server.user = {name:?} needs miwid to start as root (it runs as uid {own})"),
            format!("start it as root, or as {name:?}, or take `user` away"),
        ),
        None => refuse(
            "with --single-process, `[server] user` would leave nobody to hold what only root may",
            "start without --single-process, or as that user",
        ),
        // The key was not there when the daemon began, and stays without effect until it begins again.
        Some(number) if number > 1 => {
            tracing::warn!("this daemon runs as root: `[server] user` takes effect when it is restarted");
            Ok(())
        }
        Some(_) => refuse("the configuration changed while the daemon began", "start it again"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn loaded(text: &str) -> Config {
        config::load_text(Path::new("m.toml"), text, &[], &capabilities()).expect("a configuration").config
    }

    fn somebody(uid: u32) -> Identity {
        Identity { name: "web".into(), uid, gid: uid, groups: vec![uid, 27], socket: PathBuf::new() }
    }

    #[test]
    fn an_app_of_another_account_is_refused_and_one_without_is_not() {
        let app = |user: &str| loaded(&format!("[backends.a.process]\ncommand = \"/bin/true\"\n{user}\n"));
        let nobody = Identity::of_account("nobody", None).expect("nobody is everywhere");
        assert!(one_account(&app(""), &nobody).is_ok());
        assert!(one_account(&app("user = \"nobody\""), &nobody).is_ok());
        for other in ["user = \"daemon\"", "user = \"root\"\nallow_root = true", "user = \"nobody\"\ngroup = \"root\""]
        {
            let refusal = one_account(&app(other), &nobody).expect_err(other).to_string();
            assert!(refusal.contains("every app runs as that account") && refusal.contains("hint: "), "{refusal}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_names_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("miwid.toml");
        fs::write(&path, "").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("changed");
        let refusal = trusted(&path).expect_err("all can write it").to_string();
        assert!(refusal.contains("will not take `[server] user` from") && refusal.contains("chmod go-w"), "{refusal}");
    }

    #[test]
    fn what_an_account_may_write_is_decided_by_owner_then_group_then_the_rest() {
        let directory = tempfile::tempdir().expect("a directory");
        let mode = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("changed");
            fs::metadata(directory.path()).expect("there")
        };
        let own = somebody(nix::unistd::geteuid().as_raw());
        let mut other = somebody(own.uid + 1);
        assert!(may_write(&mode(0o700), &own) && !may_write(&mode(0o577), &own));
        assert!(!may_write(&mode(0o770), &other) && may_write(&mode(0o777), &other));
        other.groups.push(mode(0o700).gid());
        assert!(may_write(&mode(0o770), &other) && !may_write(&mode(0o757), &other));
    }

    #[test]
    fn nothing_is_made_in_a_place_that_is_the_accounts_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let own = somebody(nix::unistd::geteuid().as_raw());
        let wanted = directory.path().join("state/certificates");
        place(&wanted, &own).expect("the engine makes it");
        assert!(!directory.path().join("state").exists());
    }

    #[test]
    fn a_configured_directory_of_somebody_else_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let other = somebody(nix::unistd::geteuid().as_raw() + 1);
        let error = place(directory.path(), &other).expect_err("not theirs");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_ne!(fs::metadata(directory.path()).expect("there").uid(), other.uid);
    }
}
