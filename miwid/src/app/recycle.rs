//! Replacing an instance that still runs: because its liveness probe says that it is not well. A replacement is a rollout of
//! one slot like any other: the new one proves itself first, where two can live side by side.

use tokio::sync::{mpsc, oneshot};

use super::{
    RestartOptions,
    operation::{Kind, Operation},
    spec::Autopsy,
    supervisor::Core,
};

impl Core {
    /// Liveness has failed: what can be learnt of the patient is written down first, then it is replaced. One at a time for
    /// each app; whoever is still ill then asks again.
    pub(super) fn unwell(&mut self, id: u64, why: String) {
        let Some(runner) = self.find_mut(id) else { return };
        let (slot, pid) = (runner.slot, runner.pid);
        let autopsy = runner.spec.as_ref().map(|spec| spec.autopsy).unwrap_or_default();
        runner.unwell = true;
        let Some(name) = self.app_of(id).map(|app| app.name.clone()) else { return };
        self.outside.events.emit("app.unwell", &name, format!("slot {slot}: {why}"));
        if let (Autopsy::Dump, Some(pid)) = (autopsy, pid) {
            // The machine prints what each of its threads does, and goes on.
            self.launcher.signal(pid, nix::libc::SIGQUIT, config::KillMode::Process);
        }
        self.replace(&name, slot, format!("miwid, because it was not well: {why}"));
    }

    /// False: something else runs on the app.
    pub(super) fn replace(&mut self, name: &str, slot: u32, holder: String) -> bool {
        let Some(app) = self.apps.get(name) else { return false };
        if app.operation.is_some() || app.stopped || app.leaving || self.closing {
            return false;
        }
        let operation = Operation::new(Kind::Replace, holder, mpsc::unbounded_channel().0, oneshot::channel().0);
        let options = RestartOptions {
            instance: Some(slot),
            on_failure: Some(config::OnFailure::Halt),
            ..RestartOptions::default()
        };
        let (backend, spec) = (app.generation.backend.clone(), app.generation.spec.clone());
        self.begin_rollout(name, &options, operation, backend, spec);
        true
    }
}
