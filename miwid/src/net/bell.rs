//! The word that it is time to finish, passed on within one worker: no atomics, no lock, sixteen bytes for each that
//! listens. `Drain` tells the workers; each rings for its own connections. Where there is time, it is announced first: answers say
//! that they are the last, and who would be asked at that very moment is not cut off.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use slab::Slab;

/// Cheap to clone. Rings once, for all that listen then or later.
#[derive(Clone, Default)]
pub struct Bell(Rc<Inner>);

#[derive(Default)]
struct Inner {
    announced: Cell<bool>,
    rung: Cell<bool>,
    listening: RefCell<Slab<Waker>>,
}

impl Bell {
    /// It will ring soon.
    pub fn announce(&self) {
        self.0.announced.set(true);
    }

    pub fn ring(&self) {
        self.announce();
        self.0.rung.set(true);
        let listening: Vec<Waker> = self.0.listening.borrow().iter().map(|(_, waker)| waker.clone()).collect();
        listening.into_iter().for_each(Waker::wake);
    }

    /// The next answer is the last.
    pub fn is_announced(&self) -> bool {
        self.0.announced.get()
    }

    /// Resolves when it has rung.
    pub fn rung(&self) -> Rung {
        Rung { bell: self.clone(), place: None }
    }
}

/// Listens for a `Bell`.
pub struct Rung {
    bell: Bell,
    place: Option<usize>,
}

impl Future for Rung {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.bell.0.rung.get() {
            return Poll::Ready(());
        }
        let inner = self.bell.0.clone();
        let mut listening = inner.listening.borrow_mut();
        match self.place {
            None => self.place = Some(listening.insert(cx.waker().clone())),
            Some(place) if !listening[place].will_wake(cx.waker()) => listening[place] = cx.waker().clone(),
            Some(_) => {}
        }
        Poll::Pending
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.bell.0.listening.borrow_mut().remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn all_hear_it_and_nobody_leaves_a_trace() {
        let bell = Bell::default();
        let mut early = bell.rung();
        assert!((&mut early).now_or_never().is_none() && !bell.is_announced());
        bell.announce();
        assert!((&mut early).now_or_never().is_none() && bell.is_announced());
        let gone = bell.rung();
        drop(gone);
        let ringer = bell.clone();
        tokio::join!(bell.rung(), async { ringer.ring() });
        early.await;
        bell.rung().await;
        assert!(bell.0.listening.borrow().is_empty());
    }
}
