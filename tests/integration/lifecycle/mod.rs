//! The life of an app under miwid, with `chaos-app` in the leading part.

mod containment;
mod deploy;
mod exit;
mod health;
mod many;
mod output;
mod probes;
mod recycle;
mod restart;
mod start;
mod stop;

/// An app named `chaos` on an address that miwid assigns.
pub(crate) fn managed(flags: &[&str], process: &str) -> String {
    app("chaos", "", flags, process)
}

/// An app named `chaos` on the fixed port `{port2}`.
pub(crate) fn fixed(flags: &[&str], process: &str) -> String {
    let mut all = vec!["--listen", "{port2}"];
    all.extend(flags);
    app("chaos", "url = \"http://127.0.0.1:{port2}\"", &all, process)
}

/// An app by name, with lines for its backend and for its process.
pub(crate) fn app(name: &str, backend: &str, flags: &[&str], process: &str) -> String {
    let args = flags.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ");
    let head = backend_of(name, backend);
    format!("{head}command = \"{{chaos}}\"\nargs = [{args}]\n{process}\n")
}

/// An app by name that is not the chaos app: `process` has its command.
pub(crate) fn other(name: &str, backend: &str, process: &str) -> String {
    format!("{}{process}\n", backend_of(name, backend))
}

fn backend_of(name: &str, backend: &str) -> String {
    let health = if backend.contains("health_check") { "" } else { "health_check = \"/health\"\n" };
    format!(
        "[backends.\"{name}.test\"]\nname = \"{name}\"\napp_type = \"command\"\n{health}{backend}\n\n\
         [backends.\"{name}.test\".process]\nsettle_time = \"200ms\"\n"
    )
}
