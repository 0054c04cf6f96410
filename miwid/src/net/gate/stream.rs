//! A client's byte stream as a sequence of messages. Pure: bytes in, how many of them may pass out.

use super::{
    Flaw, Rules, Verdict,
    chunks::{Chunks, Progress},
    line,
    lines::{Framing, Lines},
};

#[derive(Debug)]
pub(super) struct Gate {
    rules: Rules,
    state: State,
    /// Messages whose head has passed.
    requests: u64,
    upgrade: bool,
}

#[derive(Debug)]
enum State {
    Head(Lines),
    Length(u64),
    Chunked(Chunks),
    Trailers(Lines),
    /// Behind a message that asks for an upgrade, until it is answered.
    Waiting,
    /// After an upgrade: not HTTP any more.
    Open,
}

/// What became of some bytes: so many of them pass, the rest is held.
#[derive(Debug)]
pub(super) struct Step {
    pub passed: usize,
    pub stop: Option<Stop>,
}

#[derive(Debug)]
pub(super) enum Stop {
    /// The head behind what passed is refused; nothing after it is looked at.
    Refused(Box<Verdict>),
    /// The body of a request whose head has passed is broken.
    Broken(Flaw),
}

impl Gate {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, state: State::Head(Lines::head()), requests: 0, upgrade: false }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    pub(super) fn is_within_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_) | State::Trailers(_))
    }

    pub(super) fn is_within_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// The upgrade was accepted.
    pub(super) fn open(&mut self) {
        self.state = State::Open;
    }

    /// It was not: HTTP goes on.
    pub(super) fn resume(&mut self) {
        self.state = State::Head(Lines::head());
    }

    /// `bytes`: what is held from before, and what has come since.
    pub(super) fn feed(&mut self, bytes: &mut [u8]) -> Step {
        let mut passed = 0;
        loop {
            let rest = &mut bytes[passed..];
            match &mut self.state {
                State::Head(lines) => match lines.advance(rest, &self.rules) {
                    Ok(None) => return Step { passed, stop: None },
                    Ok(Some(whole)) => {
                        passed += whole.bytes;
                        self.requests += 1;
                        self.upgrade = whole.upgrade;
                        self.begin(whole.framing);
                    }
                    Err(flaw) => {
                        let (method, target) = line::guess(lines.opening(rest));
                        let verdict = Box::new(Verdict { flaw, method, target });
                        return Step { passed, stop: Some(Stop::Refused(verdict)) };
                    }
                },
                State::Length(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    passed += taken;
                    *left -= taken as u64;
                    if *left > 0 {
                        return Step { passed, stop: None };
                    }
                    self.end();
                }
                State::Chunked(chunks) => {
                    let (taken, progress) = chunks.advance(rest);
                    passed += taken;
                    match progress {
                        Ok(Progress::More) => return Step { passed, stop: None },
                        Ok(Progress::Last) => self.state = State::Trailers(Lines::trailers()),
                        Err(flaw) => return Step { passed, stop: Some(Stop::Broken(flaw)) },
                    }
                }
                State::Trailers(lines) => match lines.advance(rest, &self.rules) {
                    Ok(None) => return Step { passed, stop: None },
                    Ok(Some(whole)) => {
                        passed += whole.bytes;
                        self.end();
                    }
                    Err(flaw) => return Step { passed, stop: Some(Stop::Broken(flaw)) },
                },
                State::Waiting => return Step { passed, stop: None },
                State::Open => return Step { passed: bytes.len(), stop: None },
            }
        }
    }

    fn begin(&mut self, framing: Framing) {
        match framing {
            Framing::Length(0) => self.end(),
            Framing::Length(length) => self.state = State::Length(length),
            Framing::Chunked => self.state = State::Chunked(Chunks::new()),
        }
    }

    fn end(&mut self) {
        self.state = if self.upgrade { State::Waiting } else { State::Head(Lines::head()) };
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
