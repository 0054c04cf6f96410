//! Stand-in until the adapters arrive.

use super::spec::{Finding, LaunchSpec};

/// Stand-in.
pub fn plan_as(backend: &config::Backend, default_user: Option<&str>) -> (Option<LaunchSpec>, Vec<Finding>) {
    let _ = default_user;
    plan(backend)
}

/// Stand-in.
pub fn port_conflict(address: &crate::upstream::Address, own_pids: &[u32]) -> Option<Finding> {
    let _ = (address, own_pids);
    None
}

pub fn plan(backend: &config::Backend) -> (Option<LaunchSpec>, Vec<Finding>) {
    let Some(process) = &backend.process else { return (None, Vec::new()) };
    let program = process.command.clone().unwrap_or_default();
    if !std::path::Path::new(&program).exists() {
        let finding = Finding {
            severity: config::Severity::Error,
            code: "app-command-missing",
            message: format!("\"{program}\" does not exist"),
            hint: None,
            key: "command".into(),
            origin: process.origin.clone(),
        };
        return (None, vec![finding]);
    }
    let spec = LaunchSpec {
        argv: std::iter::once(program).chain(process.args.iter().cloned()).collect(),
        env: process.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        working_dir: process.working_dir.clone(),
        user: None,
        address: super::spec::AddressPlan::Tcp,
        kill_mode: process.kill_mode.unwrap_or(config::KillMode::Mixed),
        stop_signal: process.stop_signal,
        start_timeout: process.start_timeout,
        upstream_idle: std::time::Duration::from_secs(4),
        notices: Vec::new(),
    };
    (Some(spec), Vec::new())
}
