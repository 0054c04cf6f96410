//! Python apps behind a production server of their virtual environment, one worker per instance.
//! The module is found by reading text: importing it would run the app.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Interface, KillMode, Listen, Process, Secret};

use super::{Obstacle, Recipe, command, executable, interpreter};
use crate::app::spec::AddressPlan;

const WSGI: [&str; 3] = ["gunicorn", "granian", "uwsgi"];
const ASGI: [&str; 4] = ["uvicorn", "granian", "hypercorn", "gunicorn"];

pub(super) fn recipe(process: &Process, env: &[(String, Secret)]) -> Result<Recipe, Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    let mut keep = |obstacle| obstacles.push(obstacle);
    if process.command.is_some() {
        let mut own = command::recipe(process, env).map_err(|obstacle| vec![obstacle])?;
        own.env = settings(None, env);
        own.upstream_idle = Duration::from_secs(1);
        return Ok(own);
    }
    let venv = venv(process).map_err(&mut keep).ok();
    let target = target(process).map_err(&mut keep).ok();
    let (Some(venv), Some((app, interface))) = (venv, target) else { return Err(obstacles) };
    let server = server(process, &venv, interface).map_err(|obstacle| vec![obstacle])?;
    let unix = process.listen != Listen::Tcp;
    Ok(Recipe {
        argv: line(&Serve { process, venv: &venv, server: &server, app: &app, interface, unix }),
        env: settings(Some(&venv), env),
        address: if unix { AddressPlan::Unix } else { AddressPlan::Tcp },
        kill_mode: process.kill_mode.unwrap_or(KillMode::Mixed),
        // uwsgi and granian are not told a keep-alive, so the careful value holds for them.
        upstream_idle: Duration::from_secs(if matches!(server.as_str(), "uwsgi" | "granian") { 1 } else { 60 }),
        notices: Vec::new(),
        base: None,
        gates: Vec::new(),
    })
}

fn settings(venv: Option<&Path>, env: &[(String, Secret)]) -> Vec<(String, String)> {
    let mut all =
        vec![("PYTHONUNBUFFERED".to_owned(), "1".to_owned()), ("PYTHONFAULTHANDLER".to_owned(), "1".to_owned())];
    if let Some(venv) = venv {
        let path = crate::app::environment::value(env, "PATH").unwrap_or_default();
        all.push(("VIRTUAL_ENV".to_owned(), venv.display().to_string()));
        all.push(("PATH".to_owned(), format!("{}:{path}", venv.join("bin").display())));
    }
    all
}

fn venv(process: &Process) -> Result<PathBuf, Obstacle> {
    let named = process.python.venv.as_ref().map(|venv| process.working_dir.join(venv));
    let candidates = match &named {
        Some(venv) => vec![venv.clone()],
        None => [".venv", "venv", "env"].iter().map(|name| process.working_dir.join(name)).collect(),
    };
    let Some(venv) = candidates.into_iter().find(|dir| dir.join("pyvenv.cfg").is_file()) else {
        let place = named.unwrap_or_else(|| process.working_dir.join(".venv"));
        let message = format!("no virtual environment: {place:?} has no pyvenv.cfg");
        let hint = "python3 -m venv .venv, or set python.venv".to_owned();
        return Err(Obstacle::new("app-venv-missing", "python.venv", message, hint));
    };
    let python = venv.join("bin/python");
    if python.exists() {
        return Ok(venv);
    }
    let end = fs::read_link(&python).map(|end| format!(" -> {}", end.display())).unwrap_or_default();
    let message = format!("{}{end} which does not exist", python.display());
    Err(Obstacle::new("app-venv-broken", "python.venv", message, "recreate the venv".to_owned()))
}

fn server(process: &Process, venv: &Path, interface: Interface) -> Result<String, Obstacle> {
    let known: &[&str] = if interface == Interface::Asgi { &ASGI } else { &WSGI };
    let fail = |code, message, hint: String| Err(Obstacle::new(code, "python.server", message, hint));
    let found = match process.python.server.as_deref() {
        Some(wanted) if !known.contains(&wanted) => {
            let what = if interface == Interface::Asgi { "ASGI" } else { "WSGI" };
            let message = format!("{what} app given to {wanted:?}, which can't serve it");
            return fail("app-python-interface", message, format!("set server to one of {}", known.join(", ")));
        }
        Some(wanted) => Some(wanted).filter(|name| executable(&venv.join("bin").join(name))),
        None => known.iter().copied().find(|name| executable(&venv.join("bin").join(name))),
    };
    let Some(found) = found else {
        let wanted = process.python.server.as_deref().unwrap_or(known[0]);
        let message = format!("{} has none of {}", venv.join("bin").display(), known.join(", "));
        return fail("app-python-server-missing", message, format!("{}/bin/pip install {wanted}", venv.display()));
    };
    interpreter(&venv.join("bin").join(found)).map(|()| found.to_owned()).map_err(|obstacle| Obstacle {
        code: "app-venv-broken",
        key: "python.venv",
        ..obstacle
    })
}

/// The app as `module:attribute` and its interface.
fn target(process: &Process) -> Result<(String, Interface), Obstacle> {
    let python = &process.python;
    let hits = scan(&process.working_dir, python.interface);
    let fail = |message, hint: &str| Err(Obstacle::new("app-python-app", "python.app", message, hint.to_owned()));
    let (app, seen) = match (&python.app, hits.as_slice()) {
        (Some(app), _) if !app.contains(':') => {
            return fail(
                format!("app = {app:?} is not of the form \"module:attribute\""),
                "app = \"shop.wsgi:application\"",
            );
        }
        (Some(app), _) => {
            let seen = hits.iter().find(|(name, _)| name == app).map(|(_, interface)| *interface);
            (app.clone(), seen)
        }
        (None, [(app, interface)]) => (app.clone(), Some(*interface)),
        (None, []) => {
            return fail(format!("no app found in {:?}", process.working_dir), "set app = \"module:attribute\"");
        }
        (None, several) => {
            let names = several.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            return fail(format!("several apps found: {names}"), "name one with app =");
        }
    };
    match (python.interface, seen) {
        (Interface::Wsgi, Some(Interface::Asgi)) => Err(Obstacle::new(
            "app-python-interface",
            "python.interface",
            format!("ASGI app {app:?} given to a WSGI server"),
            "set interface = \"asgi\"".to_owned(),
        )),
        (Interface::Auto, seen) => {
            Ok((app.clone(), seen.unwrap_or(if app.contains("asgi") { Interface::Asgi } else { Interface::Wsgi })))
        }
        (wanted, _) => Ok((app, wanted)),
    }
}

fn scan(dir: &Path, wanted: Interface) -> Vec<(String, Interface)> {
    let mut hits = Vec::new();
    if dir.join("manage.py").is_file() {
        let (file, interface) =
            if wanted == Interface::Asgi { ("asgi", Interface::Asgi) } else { ("wsgi", Interface::Wsgi) };
        let packages = fs::read_dir(dir).into_iter().flatten().flatten();
        hits.extend(
            packages
                .filter(|entry| entry.path().join(format!("{file}.py")).is_file())
                .map(|entry| (format!("{}.{file}:application", entry.file_name().to_string_lossy()), interface)),
        );
        hits.sort_by(|a, b| a.0.cmp(&b.0));
        return hits;
    }
    for module in ["app", "main", "wsgi", "asgi", "application"] {
        let text = fs::read_to_string(dir.join(format!("{module}.py"))).unwrap_or_default();
        hits.extend(text.lines().filter_map(assigned).map(|(name, interface)| (format!("{module}:{name}"), interface)));
    }
    hits
}

/// `app = FastAPI(` at the left margin.
fn assigned(line: &str) -> Option<(&str, Interface)> {
    let (name, value) = line.split_once('=')?;
    let name = name.split(':').next()?.trim_end();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let class = value.trim_start().split_once('(')?.0.rsplit('.').next()?;
    match class {
        "Flask" => Some((name, Interface::Wsgi)),
        "FastAPI" | "Starlette" => Some((name, Interface::Asgi)),
        _ => None,
    }
}

struct Serve<'a> {
    process: &'a Process,
    venv: &'a Path,
    server: &'a str,
    app: &'a str,
    interface: Interface,
    unix: bool,
}

fn line(serve: &Serve<'_>) -> Vec<String> {
    let python = &serve.process.python;
    let grace = serve.process.drain_timeout.as_secs() + 5;
    let (workers, threads) = (python.workers.unwrap_or(1), python.threads.unwrap_or(8));
    let bind = if serve.unix { "unix:{socket}" } else { "{host}:{port}" };
    let class = if serve.interface == Interface::Asgi {
        "uvicorn.workers.UvicornWorker".to_owned()
    } else {
        format!("gthread --threads {threads}")
    };
    let text = match (serve.server, serve.unix) {
        ("gunicorn", _) => {
            let control = if gunicorn_has_control_socket(serve.venv) { " --no-control-socket" } else { "" };
            format!(
                "--bind {bind} --workers {workers} --worker-class {class} --graceful-timeout {grace} --timeout 0 --keep-alive 75 --umask 7{control}"
            )
        }
        ("granian", unix) => {
            let interface = if serve.interface == Interface::Asgi { "asgi" } else { "wsgi" };
            let at = if unix { "--uds {socket} --uds-permissions 660" } else { "--host {host} --port {port}" };
            format!("--interface {interface} {at} --workers {workers} --workers-kill-timeout {grace}")
        }
        ("uvicorn", unix) => {
            // Forwarded headers of anyone are believed on the private socket only.
            let at = if unix {
                "--uds {socket} --proxy-headers --forwarded-allow-ips *"
            } else {
                "--host {host} --port {port} --proxy-headers --forwarded-allow-ips 127.0.0.1"
            };
            format!("{at} --timeout-graceful-shutdown {grace} --timeout-keep-alive 75 --no-server-header")
        }
        ("hypercorn", _) => format!("--bind {bind} --umask 7 --graceful-timeout {grace} --keep-alive 75"),
        (_, unix) => {
            let at = if unix { "--http-socket {socket} --chmod-socket=660" } else { "--http-socket {host}:{port}" };
            format!("{at} --master --die-on-term --need-app --enable-threads --vacuum --module")
        }
    };
    let program = serve.venv.join("bin").join(serve.server).display().to_string();
    std::iter::once(program)
        .chain(text.split(' ').map(str::to_owned))
        .chain(serve.process.args.iter().filter(|_| serve.server != "uwsgi").cloned())
        .chain(std::iter::once(serve.app.to_owned()))
        .chain(serve.process.args.iter().filter(|_| serve.server == "uwsgi").cloned())
        .collect()
}

/// Told by the name of the dist-info directory, so that nothing of the venv need run.
fn gunicorn_has_control_socket(venv: &Path) -> bool {
    let libs = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
    libs.flat_map(|lib| fs::read_dir(lib.path().join("site-packages")).into_iter().flatten().flatten())
        .filter_map(|entry| {
            let name = entry.file_name();
            let mut parts = name.to_str()?.strip_prefix("gunicorn-")?.split('.');
            Some((parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?))
        })
        // The option came with 25.1; an older gunicorn would refuse to start.
        .any(|version| version >= (25, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frameworks_are_told_apart_by_their_text() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("main.py"), "import x\napi: FastAPI = FastAPI(title='a')\n").expect("write");
        fs::write(dir.path().join("wsgi.py"), "    inner = Flask(__name__)\nsite = flask.Flask(__name__)\n")
            .expect("write");
        let expected = [("main:api".to_owned(), Interface::Asgi), ("wsgi:site".to_owned(), Interface::Wsgi)];
        assert_eq!(scan(dir.path(), Interface::Auto), expected);
    }

    #[test]
    fn the_control_socket_is_refused_only_where_gunicorn_has_one() {
        for (version, expected) in [("23.0.0", false), ("25.0.3", false), ("25.1.0", true)] {
            let dir = tempfile::tempdir().expect("a directory");
            let info = dir.path().join(format!("lib/python3.12/site-packages/gunicorn-{version}.dist-info"));
            fs::create_dir_all(info).expect("create");
            assert_eq!(gunicorn_has_control_socket(dir.path()), expected, "{version}");
        }
    }
}
