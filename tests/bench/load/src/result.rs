//! What a load tells at its end, and how it counts on the way. One thread: cells are enough.

use std::{
    cell::{Cell, RefCell},
    io::{self, Write},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Counters of a load that runs until a moment.
pub(crate) struct Count {
    begun: Instant,
    pub(crate) end: Instant,
    requests: Cell<u64>,
    failed: Cell<u64>,
    /// The first failure in words: one is enough to see what is wrong.
    first: RefCell<Option<String>>,
}

// === impl Count ===

impl Count {
    pub(crate) fn until(seconds: f64) -> Self {
        let begun = Instant::now();
        Self {
            begun,
            end: begun + Duration::from_secs_f64(seconds),
            requests: Cell::new(0),
            failed: Cell::new(0),
            first: RefCell::new(None),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    pub(crate) fn answered(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    pub(crate) fn failed(&self, why: impl ToString) {
        self.failed.set(self.failed.get() + 1);
        let mut first = self.first.borrow_mut();
        if first.is_none() {
            *first = Some(why.to_string());
        }
    }

    /// The line for the benchmark, with whatever else the mode knows.
    pub(crate) fn tell(&self, more: &[(&str, f64)]) -> io::Result<()> {
        let mut line = json!({
            "requests": self.requests.get(),
            "failed": self.failed.get(),
            "seconds": self.begun.elapsed().as_secs_f64(),
        });
        for (name, value) in more {
            line[*name] = json!(value);
        }
        if let Some(why) = self.first.borrow().as_ref() {
            eprintln!("first failure: {why}");
        }
        print(&line)
    }
}

/// One line on standard output, at once: somebody waits for it.
pub(crate) fn print(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
