//! What is left of an exchange when its connection has become a tunnel.

use std::{cell::RefCell, rc::Rc};

/// Bytes that went through a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct TunnelEnd {
    pub from_client: u64,
    pub to_client: u64,
}

/// Whoever runs a tunnel says here that it has ended; whoever answered says what is to be done then. A task that waits for it
/// would cost each tunnel as much as the rest of this.
#[derive(Clone, Default)]
pub struct Ending(Rc<RefCell<State>>);

#[derive(Default)]
enum State {
    #[default]
    Open,
    Awaited(Box<dyn FnOnce(TunnelEnd)>),
    Ended(TunnelEnd),
}

impl Ending {
    pub fn then(&self, act: impl FnOnce(TunnelEnd) + 'static) {
        let before = self.0.replace(State::Awaited(Box::new(act)));
        if let State::Ended(end) = before {
            self.end(end);
        }
    }

    pub fn end(&self, end: TunnelEnd) {
        match self.0.replace(State::Ended(end)) {
            State::Awaited(act) => act(end),
            State::Open | State::Ended(_) => {}
        }
    }
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ending")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_end_is_heard_once_whoever_comes_first() {
        for said_first in [true, false] {
            let (ending, heard) = (Ending::default(), Rc::new(Cell::new(0)));
            let (end, count) = (TunnelEnd { from_client: 1, to_client: 2 }, heard.clone());
            if said_first {
                ending.end(end);
            }
            ending.then(move |end| count.set(count.get() + end.to_client));
            if !said_first {
                ending.end(end);
            }
            assert_eq!(heard.get(), 2);
        }
    }
}
