//! How an app is launched, worked out once per generation: a template, because each attempt gets an address of its own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use config::{KillMode, Origin, Secret, Severity};

use crate::upstream::Address;

/// Immutable; equal specs mean that a reload need not touch the app. `{port}`, `{socket}`, `{host}`, `{instance}` and
/// `{base}` in `argv` and `env` stand for what `instantiate` fills in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaunchSpec {
    /// `argv[0]` is an absolute path.
    pub argv: Vec<String>,
    /// The complete environment: nothing is inherited.
    pub env: Vec<(String, Secret)>,
    pub working_dir: PathBuf,
    /// `None`: as the daemon itself.
    pub user: Option<User>,
    pub address: AddressPlan,
    pub kill_mode: KillMode,
    pub stop_signal: i32,
    pub start_timeout: Duration,
    /// How long an idle upstream connection may be kept: shorter than the app's own keep-alive.
    pub upstream_idle: Duration,
    /// A directory of its own for every attempt.
    pub base: Option<Base>,
    /// What must answer before an instance is ready, and as long as it is; before the check that the operator configured.
    pub gates: Vec<Gate>,
    pub autopsy: Autopsy,
    /// What the operator should know: `npm does not forward signals; put node in the script or set script =`.
    pub notices: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What is in an attempt's own directory, `{base}`: a copy of `template`, copies unless the template has them, texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Base {
    pub template: Option<PathBuf>,
    pub directories: Vec<PathBuf>,
    /// Relative path and where the file comes from: parts of an installed program.
    pub copies: Vec<(PathBuf, PathBuf)>,
    /// The same for what is the app's own.
    pub archive: Option<(PathBuf, PathBuf)>,
    /// Relative path and a text with the placeholders of the spec, which are escaped as XML wants it.
    pub texts: Vec<(PathBuf, String)>,
}

/// A check that an app type brings along.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// 200, or it will never be well: waiting for the start timeout would be in vain.
    Decisive { path: String, hint: &'static str },
    /// Anything but 404.
    Present { path: String },
}

/// What can be learnt of an instance that is not well before it is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Autopsy {
    #[default]
    Nothing,
    /// SIGQUIT prints what each thread does, and the program goes on (Java).
    Dump,
    /// SIGABRT prints it and ends the program (Python's fault handler): before SIGKILL only.
    Abort,
}

/// Where instances listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressPlan {
    /// A fresh port on 127.0.0.1 for every attempt.
    Tcp,
    /// A fresh socket path for every attempt.
    Unix,
    /// The configuration fixes it.
    Fixed(Address),
}

/// What one attempt adds to the spec.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    pub app: &'a str,
    pub slot: u32,
    pub generation: u64,
    pub address: &'a Address,
    /// Where its directory will be, if its spec has one.
    pub base: &'a Path,
}

/// Ready for the launcher.
#[derive(Clone, Debug)]
pub struct Launch {
    pub argv: Vec<String>,
    pub env: Vec<(String, Secret)>,
    pub working_dir: PathBuf,
    pub user: Option<User>,
    /// To be made before the start.
    pub base: Option<(PathBuf, Base)>,
    /// The control group that it joins.
    pub group: Option<PathBuf>,
}

/// One thing that a start would stumble over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// `app-cwd-missing` ...
    pub code: &'static str,
    pub message: String,
    pub hint: Option<String>,
    pub key: String,
    pub origin: Origin,
}

impl LaunchSpec {
    /// Fills in what only the attempt knows. `PORT` stays as the operator set it: then the address is fixed anyway.
    pub fn instantiate(&self, attempt: &Attempt<'_>) -> Launch {
        let (host, port, socket) = match attempt.address {
            Address::Tcp(address) => (address.ip().to_string(), address.port().to_string(), String::new()),
            Address::Unix(path) => (String::new(), path.display().to_string(), path.display().to_string()),
        };
        let slot = attempt.slot.to_string();
        let base = attempt.base.display().to_string();
        let values =
            [("{port}", &port), ("{socket}", &socket), ("{host}", &host), ("{instance}", &slot), ("{base}", &base)];
        let fill = |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        let mut env: Vec<(String, Secret)> =
            self.env.iter().map(|(key, value)| (key.clone(), Secret::new(fill(value.expose())))).collect();
        for (key, value) in [("PORT", &port), ("HOST", &host)] {
            if !value.is_empty() && !env.iter().any(|(present, _)| present == key) {
                env.push((key.to_owned(), Secret::new(value.clone())));
            }
        }
        let mut own = vec![
            ("MIWI_APP", attempt.app.to_owned()),
            ("MIWI_INSTANCE", slot.clone()),
            ("MIWI_GENERATION", attempt.generation.to_string()),
            ("NODE_APP_INSTANCE", slot.clone()),
        ];
        if !socket.is_empty() {
            own.push(("MIWI_SOCKET", socket.clone()));
        }
        for (key, value) in own {
            env.retain(|(present, _)| present != key);
            env.push((key.to_owned(), Secret::new(value)));
        }
        Launch {
            argv: self.argv.iter().map(|word| fill(word)).collect(),
            env,
            working_dir: self.working_dir.clone(),
            user: self.user.clone(),
            base: self.base.clone().map(|mut base| {
                for (_, text) in &mut base.texts {
                    for (name, value) in values {
                        *text = text.replace(name, &escaped(value));
                    }
                }
                (attempt.base.to_owned(), base)
            }),
            group: None,
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(address: &Address, env: &[(&str, &str)]) -> Launch {
        let spec = LaunchSpec {
            argv: vec!["/bin/x".to_owned(), "{host}:{port}".to_owned(), "{socket}".to_owned(), "{instance}".to_owned()],
            env: env.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect(),
            working_dir: PathBuf::from("/"),
            user: None,
            address: AddressPlan::Tcp,
            kill_mode: KillMode::Mixed,
            stop_signal: 15,
            start_timeout: Duration::from_secs(1),
            upstream_idle: Duration::from_secs(1),
            base: None,
            gates: Vec::new(),
            autopsy: Autopsy::Nothing,
            notices: Vec::new(),
        };
        spec.instantiate(&Attempt { app: "shop", slot: 2, generation: 7, address, base: Path::new("/base") })
    }

    fn value(launch: &Launch, key: &str) -> Option<String> {
        launch.env.iter().find(|(name, _)| name == key).map(|(_, value)| value.expose().to_owned())
    }

    #[test]
    fn an_attempt_fills_in_its_address_and_names_itself() {
        let tcp = launch(&Address::Tcp(([127, 0, 0, 1], 20017).into()), &[("AT", "{port}"), ("MIWI_APP", "forged")]);
        assert_eq!(tcp.argv, ["/bin/x", "127.0.0.1:20017", "", "2"]);
        let expected =
            [("PORT", "20017"), ("HOST", "127.0.0.1"), ("AT", "20017"), ("MIWI_APP", "shop"), ("MIWI_GENERATION", "7")];
        for (key, wanted) in expected {
            assert_eq!(value(&tcp, key).as_deref(), Some(wanted), "{key}");
        }
        assert_eq!(value(&tcp, "MIWI_SOCKET"), None);
    }

    #[test]
    fn over_a_unix_socket_the_port_is_its_path_and_the_operators_port_wins() {
        let address = Address::Unix(PathBuf::from("/run/a.sock"));
        assert_eq!(value(&launch(&address, &[]), "PORT").as_deref(), Some("/run/a.sock"));
        assert_eq!(value(&launch(&address, &[]), "MIWI_SOCKET").as_deref(), Some("/run/a.sock"));
        assert_eq!(value(&launch(&address, &[("PORT", "9")]), "PORT").as_deref(), Some("9"));
    }
}
