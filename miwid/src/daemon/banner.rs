//! What a person at a terminal sees at the start: where to look, what to try.

use std::path::Path;

use config::Config;

use crate::server::{Binding, Kind};

pub(super) fn print(config: &Config, listeners: &[Binding], socket: &Path, to_terminal: bool) {
    if !to_terminal && config.path.is_some() {
        return;
    }
    eprint!("{}", text(config, listeners, socket));
}

fn text(config: &Config, listeners: &[Binding], socket: &Path) -> String {
    let mut text = format!("miwid {}\n", env!("CARGO_PKG_VERSION"));
    match &config.path {
        Some(path) => text.push_str(&format!("  configuration  {}\n", path.display())),
        None => text.push_str("  configuration  built-in default (no file found)\n"),
    }
    for listener in listeners {
        let scheme = match listener.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Http3 => continue,
        };
        text.push_str(&format!("  {scheme:<13}  {scheme}://{}/\n", listener.address));
    }
    for backend in config.backends.values().filter(|it| it.process.is_some() && config.path.is_none()) {
        text.push_str(&format!("  app            http://{}:{}/\n", backend.host, config.server.http_port));
    }
    if let Some(admin) = config.admin.listen {
        text.push_str(&format!("  admin          http://{admin}/health\n"));
    }
    text.push_str(&format!("  control        {}\n", socket.display()));
    if config.path.is_none() {
        text.push_str("\nTry next:\n  miwictl status\n  miwictl app restart demo\n  miwictl app logs demo\n\n");
    }
    text
}
