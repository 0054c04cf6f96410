//! What an engine gets when it asks, and what it does not when it is another account than the warden.

use std::os::fd::OwnedFd;

use super::{
    children::Instance,
    engine::{Stub, launch},
    run::Warden,
    succession,
};
use crate::link::{Identity, ToEngine, ToWarden};

impl Warden {
    /// What an engine that is not trusted may not say.
    pub(super) fn oversteps(&self, message: &ToWarden) -> Option<String> {
        let identity = self.identity.as_ref()?;
        match message {
            ToWarden::Keep { key } if !identity.allows(key) => Some(format!("keep {key:?}")),
            ToWarden::Notify { text } if !Identity::may_tell(text) => {
                Some(format!("tell the service manager {text:?}"))
            }
            _ => None,
        }
    }

    pub(super) fn launch(&mut self, number: succession::Engine, id: u64, name: String, descriptors: Vec<OwnedFd>) {
        let Some(engine) = self.engines.get_mut(&number) else { return };
        let Ok([stdin, stdout, stderr, read_out, read_err]) = <[OwnedFd; 5]>::try_from(descriptors) else {
            // Five were sent; the kernel leaves out those for which we have no room.
            engine.tell(ToEngine::NotLaunched { id, errno: nix::errno::Errno::EMFILE as i32 }, Vec::new());
            return;
        };
        let stub = match &self.identity {
            Some(identity) => Stub::As(engine.program.as_ref().unwrap_or(&self.program), identity),
            None => Stub::OfEngine(engine.pid),
        };
        match launch(stub, [stdin, stdout, stderr]) {
            Ok(pid) => {
                let pipes = [read_out, read_err];
                self.children.instances.insert(pid, Instance { name, launched_by: number, pipes, exit: None });
                engine.tell(ToEngine::Launched { id, pid }, Vec::new());
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or_default();
                engine.tell(ToEngine::NotLaunched { id, errno }, Vec::new());
            }
        }
    }
}
