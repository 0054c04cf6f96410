//! The service manager, which is told without waiting for it: what it does not take now, it gets at the next look, in order.

use std::{
    collections::VecDeque,
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// A manager that takes nothing for so long has other worries than what came first.
const WAITING_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Manager {
    /// `None`: nobody wants to hear.
    to: Option<(UnixDatagram, SocketAddr)>,
    waiting: VecDeque<String>,
}

impl Manager {
    /// As `NOTIFY_SOCKET` says; a name that begins with `@` is an abstract one.
    pub(super) fn of_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        let socket = UnixDatagram::unbound().and_then(|it| it.set_nonblocking(true).map(|()| it));
        Self { to: socket.ok().zip(address.ok()), waiting: VecDeque::new() }
    }

    pub(super) fn tell(&mut self, text: String) {
        if self.to.is_none() {
            return;
        }
        // Of signs of life one is as good as many.
        if self.waiting.back() != Some(&text) {
            if self.waiting.len() >= WAITING_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(text);
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let Some((socket, address)) = &self.to else { return };
        while let Some(text) = self.waiting.front() {
            match socket.send_to_addr(text.as_bytes(), address) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // A manager that is gone hears nothing, now or later.
                Ok(_) | Err(_) => drop(self.waiting.pop_front()),
            }
        }
    }
}
