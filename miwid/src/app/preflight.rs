//! What a start would stumble over, found before anything is stopped. Reads the disk and blocks: not for a runtime's worker.
//! It collects every problem instead of ending at the first; values of the environment never enter a message.

use std::{ffi::CString, net::SocketAddr, path::Path};

use config::{Backend, Origin, Problem, Process, Severity, UpstreamUrl};
use nix::unistd;

use super::{
    adapter::{self, Obstacle},
    environment, sockets,
    spec::{AddressPlan, Autopsy, Finding, LaunchSpec, User},
};
use crate::{link::began_as_root, upstream::Address};

/// Who runs as root when nothing else was said, and no account of that name exists: root.
const DEFAULT_USER: &str = "miwid";
const ROOT_NOTICE: &str = "it runs as root, as the daemon does; set `user`, or add a `miwid` account to the system";
/// The longest path that a socket address holds.
const SOCKET_PATH_MAX: usize = 107;

pub fn plan(backend: &Backend) -> (Option<LaunchSpec>, Vec<Finding>) {
    plan_as(backend, None)
}

/// As `plan`; `default_user` counts when the process names none and the daemon runs as root.
pub fn plan_as(backend: &Backend, default_user: Option<&str>) -> (Option<LaunchSpec>, Vec<Finding>) {
    let Some(process) = &backend.process else { return (None, Vec::new()) };
    let mut obstacles = Vec::new();
    let user = user(process, default_user).unwrap_or_else(|obstacle| {
        obstacles.push(obstacle);
        None
    });
    let runs_as_root = user.is_none() && unistd::geteuid().is_root();
    let as_root = (runs_as_root && !process.allow_root).then(|| ROOT_NOTICE.to_owned());
    let enterable = directory(&process.working_dir, user.as_ref()).map_err(|obstacle| obstacles.push(obstacle)).is_ok();
    let file = env_file(process, &mut obstacles);
    names(process, &mut obstacles);
    let mut env = environment::build(process, user.as_ref(), &file);
    let fixed = fixed(backend, &env, &mut obstacles);
    // Without the directory every check of the adapter would only repeat that.
    let mut told = process.clone();
    // A command line must agree with the fixed address, whatever `listen` says.
    match &fixed {
        Some(Address::Tcp(_)) => told.listen = config::Listen::Tcp,
        Some(Address::Unix(_)) => told.listen = config::Listen::Unix,
        None => {}
    }
    let recipe = enterable
        .then(|| adapter::recipe(backend.app_type, &told, &env))
        .and_then(|recipe| recipe.map_err(|found| obstacles.extend(found)).ok());
    let spec = recipe.filter(|_| obstacles.is_empty()).map(|recipe| {
        for (key, value) in &recipe.env {
            if key == "PATH" || environment::value(&env, key).is_none() {
                environment::set(&mut env, key, value);
            }
        }
        LaunchSpec {
            argv: recipe.argv,
            env,
            working_dir: process.working_dir.clone(),
            user,
            address: fixed.map_or(recipe.address, AddressPlan::Fixed),
            kill_mode: recipe.kill_mode,
            stop_signal: process.stop_signal,
            start_timeout: process.start_timeout,
            upstream_idle: recipe.upstream_idle,
            base: recipe.base,
            gates: recipe.gates,
            autopsy: match backend.app_type {
                config::AppType::Java | config::AppType::Tomcat => Autopsy::Dump,
                config::AppType::Python => Autopsy::Abort,
                _ => Autopsy::Nothing,
            },
            notices: recipe.notices.into_iter().chain(as_root).collect(),
        }
    });
    let findings = obstacles.into_iter().map(|obstacle| finding(backend, process, obstacle)).collect();
    (spec, findings)
}

pub(super) struct Surroundings {
    pub(super) user: Option<User>,
    pub(super) env: Vec<(String, config::Secret)>,
}

/// Whom the app's files are to belong to, when it runs as somebody else than the daemon.
pub(super) fn owner(backend: &Backend, default_user: Option<&str>) -> Option<User> {
    backend.process.as_ref().and_then(|process| user(process, default_user).ok().flatten())
}

/// Who runs a command beside the app, and with which environment; as much of it as can be told without a start.
pub(super) fn surroundings(backend: &Backend, default_user: Option<&str>) -> Option<Surroundings> {
    let process = backend.process.as_ref()?;
    let user = user(process, default_user).ok()?;
    let file = env_file(process, &mut Vec::new());
    let mut env = environment::build(process, user.as_ref(), &file);
    let recipe = adapter::recipe(backend.app_type, process, &env);
    for (key, value) in recipe.map(|recipe| recipe.env).unwrap_or_default() {
        if key == "PATH" || environment::value(&env, &key).is_none() {
            environment::set(&mut env, &key, &value);
        }
    }
    Some(Surroundings { user, env })
}

pub fn to_problem(finding: &Finding) -> Problem {
    Problem {
        severity: finding.severity,
        file: finding.origin.file.clone(),
        line: finding.origin.line,
        column: 0,
        key: finding.key.clone(),
        message: format!("[{}] {}", finding.code, finding.message),
        hint: finding.hint.clone(),
    }
}

/// Whether someone other than `own_pids` listens on a fixed address. Key and origin are the caller's to fill in.
pub fn port_conflict(address: &Address, own_pids: &[u32]) -> Option<Finding> {
    let owner = sockets::owner(address);
    if owner.as_ref().is_some_and(|owner| own_pids.contains(&owner.pid)) {
        return None;
    }
    let who = match (&owner, address) {
        (Some(owner), _) => format!("pid {} {:?} (user {}), not by miwid", owner.pid, owner.command, owner.user),
        // The holder may be invisible to us; only a bind tells.
        (None, Address::Tcp(tcp)) if bind_refused(*tcp) => "a process that miwid may not look into".to_owned(),
        _ => return None,
    };
    let what = match address {
        Address::Tcp(tcp) => format!("port {}", tcp.port()),
        Address::Unix(path) => format!("socket {}", path.display()),
    };
    Some(Finding {
        severity: Severity::Error,
        code: "app-port-in-use",
        message: format!("{what} is in use by {who}"),
        hint: Some("stop that process, or leave url out so that miwid picks a free address".to_owned()),
        key: String::new(),
        origin: Origin::default(),
    })
}

fn bind_refused(address: SocketAddr) -> bool {
    std::net::TcpListener::bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

fn finding(backend: &Backend, process: &Process, obstacle: Obstacle) -> Finding {
    let origin = if obstacle.key == "working_dir" { &process.working_dir_origin } else { &process.origin };
    let dot = if obstacle.key.is_empty() { "" } else { "." };
    Finding {
        severity: Severity::Error,
        code: obstacle.code,
        message: format!("app {:?}: {}", backend.name, obstacle.message),
        hint: obstacle.hint,
        key: format!("backends.{:?}.process{dot}{}", backend.host, obstacle.key),
        origin: origin.clone(),
    }
}

fn user(process: &Process, default_user: Option<&str>) -> Result<Option<User>, Obstacle> {
    let own = unistd::geteuid();
    let wanted = process.user.as_deref().or(default_user.filter(|_| own.is_root()));
    let root = || {
        let hint = "set user =, or allow_root = true".to_owned();
        Obstacle::new("app-user-root", "user", "the app would run as root".to_owned(), hint)
    };
    let fallback = || unistd::User::from_name(DEFAULT_USER).ok().flatten().is_some_and(|_| own.is_root());
    let Some(name) = wanted.or_else(|| fallback().then_some(DEFAULT_USER)) else { return Ok(None) };
    let unknown =
        |kind, name: &str| Obstacle::new("app-user-unknown", kind, format!("{kind} {name:?} does not exist"), None);
    let account = unistd::User::from_name(name).ok().flatten().ok_or_else(|| unknown("user", name))?;
    let gid = match process.group.as_deref() {
        Some(group) => unistd::Group::from_name(group).ok().flatten().ok_or_else(|| unknown("group", group))?.gid,
        None => account.gid,
    };
    if account.uid.is_root() && !process.allow_root {
        return Err(root());
    }
    if !own.is_root() {
        let confined = began_as_root();
        // With a warden that is root the group is not the app's to choose; without one it never was.
        if account.uid == own && (!confined || gid == unistd::getegid()) {
            return Ok(None);
        }
        let (message, hint) = if confined {
            let message = format!("with `[server] user` every app runs as that account and its group, not as {name:?}");
            (message, Some("take `user` and `group` from the app".to_owned()))
        } else {
            (format!("user = {name:?} needs miwid to start as root (it runs as uid {own})"), None)
        };
        return Err(Obstacle::new("app-user-switch-denied", "user", message, hint));
    }
    let groups = CString::new(name).ok().and_then(|name| unistd::getgrouplist(&name, gid).ok()).unwrap_or_default();
    let groups = groups.into_iter().map(unistd::Gid::as_raw).collect();
    Ok(Some(User { name: name.to_owned(), uid: account.uid.as_raw(), gid: gid.as_raw(), groups }))
}

pub(super) fn directory(dir: &Path, user: Option<&User>) -> Result<(), Obstacle> {
    use std::os::unix::fs::MetadataExt;
    let fail = |code, message| Err(Obstacle::new(code, "working_dir", message, None));
    let mut parents: Vec<&Path> = dir.ancestors().filter(|parent| !parent.as_os_str().is_empty()).collect();
    parents.reverse();
    for parent in parents {
        let meta = match parent.metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return fail("app-cwd-denied", format!("miwid may not look at {parent:?}"));
            }
            Err(_) => {
                return fail("app-cwd-missing", format!("working_dir {dir:?} does not exist (nothing at {parent:?})"));
            }
        };
        if !meta.is_dir() {
            return fail("app-cwd-not-dir", format!("working_dir {dir:?}: {parent:?} is not a directory"));
        }
        let enters = match user {
            Some(user) if user.uid == 0 => true,
            Some(user) if user.uid == meta.uid() => meta.mode() & 0o100 != 0,
            Some(user) if user.gid == meta.gid() || user.groups.contains(&meta.gid()) => meta.mode() & 0o010 != 0,
            Some(_) => meta.mode() & 0o001 != 0,
            None => unistd::access(parent, unistd::AccessFlags::X_OK).is_ok(),
        };
        if !enters {
            let name = user.map_or("of miwid", |user| user.name.as_str());
            return fail(
                "app-cwd-denied",
                format!("user {name:?} may not enter {parent:?} (mode {:04o})", meta.mode() & 0o7777),
            );
        }
    }
    Ok(())
}

fn env_file(process: &Process, obstacles: &mut Vec<Obstacle>) -> Vec<(String, String)> {
    let Some(path) = process.env_file.as_ref().map(|path| process.working_dir.join(path)) else { return Vec::new() };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("env_file {path:?} can't be read: {}", error.kind());
            obstacles.push(Obstacle::new("app-env-file-missing", "env_file", message, None));
            return Vec::new();
        }
    };
    let (entries, bad) = environment::parse_file(&text);
    obstacles.extend(bad.into_iter().map(|bad| {
        Obstacle::new("app-env-file-line", "env_file", format!("{}:{}: {}", path.display(), bad.line, bad.why), None)
    }));
    entries
}

fn names(process: &Process, obstacles: &mut Vec<Obstacle>) {
    for (key, value) in &process.env {
        if !environment::valid_name(key) {
            let message =
                format!("env name {key:?} may hold letters, digits and \"_\" only and not begin with a digit");
            obstacles.push(Obstacle::new("app-env-name", "env", message, None));
        }
        if value.expose().contains('\0') {
            obstacles.push(Obstacle::new(
                "app-env-nul",
                "env",
                format!("the value of env.{key} holds a NUL byte"),
                None,
            ));
        }
    }
}

/// The address that the configuration fixes: `url`, else `PORT` of the app's environment.
fn fixed(backend: &Backend, env: &[(String, config::Secret)], obstacles: &mut Vec<Obstacle>) -> Option<Address> {
    let url = match &backend.target {
        config::Target::App(proxy) | config::Target::Proxy(proxy) => proxy.urls.first(),
        _ => None,
    };
    let address = match url {
        Some(UpstreamUrl::Unix { path }) => Address::Unix(path.clone()),
        Some(UpstreamUrl::Http { host, port } | UpstreamUrl::Https { host, port }) => {
            let host = if host == "localhost" { "127.0.0.1" } else { host.trim_matches(['[', ']']) };
            let Ok(ip) = host.parse() else {
                let message =
                    format!("url of a managed app names {host:?}: only an IP address or localhost can be its own");
                obstacles.push(Obstacle::new("app-url-not-local", "", message, None));
                return None;
            };
            Address::Tcp(SocketAddr::new(ip, *port))
        }
        // These servers are told their address by us, they don't read PORT.
        None if matches!(backend.app_type, config::AppType::Python | config::AppType::Tomcat) => return None,
        None => Address::Tcp(SocketAddr::from(([127, 0, 0, 1], environment::value(env, "PORT")?.parse().ok()?))),
    };
    match &address {
        Address::Unix(path) if path.as_os_str().len() > SOCKET_PATH_MAX => obstacles.push(Obstacle::new(
            "app-socket-too-long",
            "",
            format!("socket path {path:?} is longer than {SOCKET_PATH_MAX} bytes"),
            None,
        )),
        Address::Tcp(tcp) if tcp.port() < 1024 && !unistd::geteuid().is_root() => obstacles.push(Obstacle::new(
            "app-port-privileged",
            "",
            format!("port {} is below 1024 and miwid does not run as root", tcp.port()),
            "choose a port from 1024 up".to_owned(),
        )),
        _ => {}
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_must_exist_and_be_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("write");
        assert_eq!(directory(dir.path(), None), Ok(()));
        for (path, code) in [(dir.path().join("gone/deep"), "app-cwd-missing"), (file, "app-cwd-not-dir")] {
            let found = directory(&path, None).expect_err("an obstacle");
            assert_eq!((found.code, found.key), (code, "working_dir"), "{}", found.message);
        }
    }

    #[test]
    fn a_port_is_a_conflict_only_when_someone_else_holds_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = Address::Tcp(listener.local_addr().expect("address"));
        let me = std::process::id();
        let found = port_conflict(&address, &[]).expect("a conflict");
        assert_eq!(found.code, "app-port-in-use");
        assert!(found.message.contains(&format!("is in use by pid {me} ")), "{}", found.message);
        assert_eq!(port_conflict(&address, &[me]), None);
    }
}
