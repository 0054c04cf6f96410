//! The loop: signals, what engines say, children that ended, deadlines; and what `succession` makes of them, carried out.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    children::{Children, kill_all, raw, reap},
    engine::{Engine, Program},
    ladder::Step,
    manager::Manager,
    store::Store,
    succession::{self, Effect, Event, Report, Succession, words},
    trouble::Trouble,
    voice,
};
use crate::link::{Answers, Exit, Identity, Kept, Mode, Packet, ToEngine, ToWarden};

/// An engine that says so rarely that it lives is stuck.
const SILENCE: Duration = Duration::from_secs(30);
/// How often is looked for that.
const LOOK: Duration = Duration::from_secs(1);
/// More in one packet is split.
const DESCRIPTORS: usize = 64;

/// Becomes the warden; `arguments` are what engines are started with, `identity` who they are if not what this process is. Returns
/// when everything has ended.
pub fn run(arguments: Vec<OsString>, identity: Option<Identity>) -> ExitCode {
    match Warden::begin(arguments, identity) {
        Ok(warden) => warden.run(),
        Err(error) => {
            voice::warn(&format!("cannot begin: {error}"));
            ExitCode::FAILURE
        }
    }
}

pub(super) struct Warden {
    pub(super) begun: Instant,
    signals: SignalFd,
    pub(super) arguments: Vec<OsString>,
    /// Who engines and apps are; `None`: what this process is, and apps what their engine asks for.
    pub(super) identity: Option<Identity>,
    pub(super) program: Program,
    /// Of an upgrade that is not confirmed.
    candidate: Option<Program>,
    pub(super) succession: Succession,
    pub(super) engines: BTreeMap<succession::Engine, Engine>,
    pub(super) alive: BTreeMap<succession::Engine, Instant>,
    pub(super) children: Children,
    pub(super) kept: Kept,
    pub(super) store: Store,
    /// What the engine that has the apps said of them last.
    pub(super) state: Option<OwnedFd>,
    /// What engines serve, as they said; what has proved itself; and the program before with the same. All unread.
    pub(super) configured: BTreeMap<succession::Engine, OwnedFd>,
    pub(super) good: Option<OwnedFd>,
    pub(super) before: Option<(Program, Option<OwnedFd>)>,
    pub(super) trouble: Trouble,
    /// Never read here.
    pub(super) secrets: Option<OwnedFd>,
    /// How the engine that has paused had answered.
    answers: Answers,
    pub(super) manager: Manager,
    watchdog: Option<Duration>,
    pinged: Instant,
}

impl Warden {
    fn begin(arguments: Vec<OsString>, identity: Option<Identity>) -> io::Result<Self> {
        let mut manager = Manager::of_environment();
        let (store, kept) = Store::open(&mut manager);
        let mut warden = Self::new(arguments, manager, store, kept)?;
        warden.identity = identity;
        Ok(warden)
    }

    /// Nothing runs yet.
    pub(super) fn new(arguments: Vec<OsString>, manager: Manager, store: Store, kept: Kept) -> io::Result<Self> {
        let wanted =
            [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGCHLD];
        let mask: SigSet = wanted.into_iter().collect();
        mask.thread_block()?;
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Self {
            begun: Instant::now(),
            signals: SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            arguments,
            identity: None,
            program: Program::open(Path::new("/proc/self/exe"))?,
            candidate: None,
            succession: Succession::default(),
            engines: BTreeMap::new(),
            alive: BTreeMap::new(),
            children: Children::default(),
            kept,
            store,
            state: None,
            configured: BTreeMap::new(),
            good: None,
            before: None,
            trouble: Trouble::default(),
            secrets: None,
            answers: Answers::default(),
            manager,
            watchdog: sd_notify::watchdog_enabled(),
            pinged: Instant::now(),
        })
    }

    /// Until everything has ended.
    pub(super) fn run(mut self) -> ExitCode {
        ExitCode::from(self.serve())
    }

    fn serve(&mut self) -> u8 {
        // One that was another program goes on.
        let mut code = if self.succession.current().is_none() { self.feed(Event::Begin) } else { None };
        while code.is_none() {
            self.renew();
            self.wait();
            code = self
                .signals()
                .or_else(|| self.ended_children())
                .or_else(|| self.messages())
                .or_else(|| self.feed(Event::Tick));
            self.watch_over();
        }
        self.children.kill(None);
        kill_all();
        self.trouble.clear();
        self.manager.flush();
        code.unwrap_or_default()
    }

    fn wait(&self) {
        let until = self.succession.wakes_at().map(|at| at.saturating_duration_since(Instant::now()));
        let wakes = [until, self.store.wakes_in(), self.manager.wakes_in(), Some(LOOK)];
        // A millisecond late rather than early: the deadline must have come.
        let time = wakes.into_iter().flatten().min().unwrap_or(LOOK) + Duration::from_millis(1);
        let mut polled = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        for engine in self.engines.values() {
            let events = if engine.is_behind() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            polled.push(PollFd::new(engine.link().as_fd(), events));
        }
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut polled, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    }

    fn signals(&mut self) -> Option<u8> {
        while let Ok(Some(told)) = self.signals.read_signal() {
            let signal = i32::try_from(told.ssi_signo).ok().and_then(|it| Signal::try_from(it).ok());
            let code = match signal {
                Some(Signal::SIGTERM | Signal::SIGINT) => self.feed(Event::Stop),
                Some(Signal::SIGCHLD) | None => None,
                Some(other) => {
                    let current = self.succession.current().and_then(|it| self.engines.get(&it));
                    current.map(|engine| kill(raw(engine.pid), other));
                    None
                }
            };
            if code.is_some() {
                return code;
            }
        }
        None
    }

    fn ended_children(&mut self) -> Option<u8> {
        let mut ended: Vec<_> = std::iter::from_fn(reap).collect();
        // Engines first: one that is gone will not hear of the others.
        ended.sort_by_key(|(pid, _)| !self.engines.values().any(|it| it.pid == *pid));
        for (pid, exit) in ended {
            if self.children.ended(pid, exit) {
                self.tell_end(pid, exit);
                continue;
            }
            let number = self.engines.iter().find(|(_, it)| it.pid == pid).map(|(number, _)| *number);
            let Some(number) = number else { continue };
            // What it said before it died still counts.
            self.listen_to(number);
            self.engines.remove(&number);
            self.alive.remove(&number);
            self.configured.remove(&number);
            // The first one says by itself why it cannot begin.
            if exit.code != Some(0) && (number > 1 || exit.signal.is_some()) {
                voice::warn(&format!("engine {number} (pid {pid}) {}", words(exit)));
            }
            let code = self.feed(Event::Ended(number, exit));
            if code.is_some() {
                return code;
            }
        }
        None
    }

    fn tell_end(&mut self, pid: u32, exit: Exit) {
        for engine in self.engines.values_mut().filter(|it| it.went) {
            engine.tell(ToEngine::Exited { pid, exit }, Vec::new());
        }
    }

    fn messages(&mut self) -> Option<u8> {
        let numbers: Vec<_> = self.engines.keys().copied().collect();
        numbers.into_iter().find_map(|number| {
            self.engines.get_mut(&number).map(Engine::flush);
            self.listen_to(number)
        })
    }

    fn listen_to(&mut self, number: succession::Engine) -> Option<u8> {
        while let Some(packet) = self.engines.get(&number).and_then(Engine::hear) {
            let code = self.heard(number, packet);
            if code.is_some() {
                return code;
            }
        }
        None
    }

    fn heard(&mut self, number: succession::Engine, packet: Packet<ToWarden>) -> Option<u8> {
        let mut descriptors = packet.descriptors;
        if let Some(what) = self.oversteps(&packet.message) {
            voice::warn(&format!("engine {number} may not {what}"));
            return None;
        }
        match packet.message {
            ToWarden::Ready { confirm_ms } => {
                return self.feed(Event::Ready(number, Duration::from_millis(confirm_ms)));
            }
            ToWarden::Serving => return self.feed(Event::Serving(number)),
            ToWarden::Paused { answers } => {
                self.answers = answers;
                return self.feed(Event::Paused(number));
            }
            ToWarden::Unfit { why } => return self.feed(Event::Unfit(number, why)),
            ToWarden::Upgrade { program } => match Program::open(&program) {
                Ok(opened) if self.identity.is_some() && !opened.is_roots() => {
                    let why = format!("{} is not root's alone to write", program.display());
                    self.tell(number, ToEngine::NotUpgraded { why, busy: false }, Vec::new());
                }
                Ok(program) => {
                    // One that is under way keeps its own.
                    self.candidate.get_or_insert(program);
                    return self.feed(Event::Upgrade(number));
                }
                Err(error) => {
                    let why = format!("{}: {error}", program.display());
                    self.tell(number, ToEngine::NotUpgraded { why, busy: false }, Vec::new());
                }
            },
            ToWarden::Keep { key } => {
                self.trouble.clear_beside(&key);
                self.kept.entry(key).or_default().append(&mut descriptors);
                self.store.changed();
            }
            ToWarden::Drop { key, ending } => {
                self.kept.remove(&key);
                if ending { self.store.end() } else { self.store.changed() }
            }
            ToWarden::State => {
                self.state = descriptors.pop();
                // What it was told has come into what it says.
                self.children.forget_ended();
            }
            ToWarden::Launch { id, name } => self.launch(number, id, name, descriptors),
            // An engine that is on its way out has nothing to say of the whole, and nobody waits for its word.
            ToWarden::Notify { .. } | ToWarden::Secrets | ToWarden::Alive
                if self.engines.range(number + 1..).any(|(_, it)| it.went) => {}
            ToWarden::Alive => drop(self.alive.insert(number, Instant::now())),
            ToWarden::Notify { text } => self.manager.tell(self.trouble.joined(text)),
            ToWarden::Configured { digest, reloaded } => {
                self.configured.extend(descriptors.pop().map(|it| (number, it)));
                return self.feed(Event::Configured(number, digest, reloaded));
            }
            ToWarden::Secrets => self.secrets = descriptors.pop(),
            ToWarden::Unknown => {}
        }
        None
    }

    fn feed(&mut self, event: Event) -> Option<u8> {
        let effects = self.succession.step(event, Instant::now());
        effects.into_iter().find_map(|effect| self.perform(effect))
    }

    fn perform(&mut self, effect: Effect) -> Option<u8> {
        match effect {
            Effect::Start(number, mode) => return self.start(number, mode),
            Effect::Go(number) => self.go(number),
            Effect::Pause(number) => self.tell(number, ToEngine::Pause, Vec::new()),
            Effect::Resume(number) => {
                self.hand_over_kept(number);
                self.tell(number, ToEngine::Resume, Vec::new());
            }
            Effect::Drain(number) => {
                // It may be silent for as long as its tunnels last.
                self.alive.remove(&number);
                self.tell(number, ToEngine::Drain, Vec::new());
            }
            Effect::TakeQuic(number) => self.tell(number, ToEngine::TakeQuic, Vec::new()),
            Effect::Terminate(number) => self.signal(number, Signal::SIGTERM),
            Effect::Kill(number) => self.signal(number, Signal::SIGKILL),
            Effect::KillLaunched(number) => self.children.kill(Some(number)),
            Effect::KeepProgram => {
                if let Some(program) = self.candidate.take() {
                    let old = std::mem::replace(&mut self.program, program);
                    self.before = Some((old, self.good.take()));
                }
            }
            Effect::KeepConfiguration(number) => {
                voice::info("the configuration has lasted: a later one that does not gives way to it");
                self.good = self.configured.get(&number).and_then(|it| it.try_clone().ok());
            }
            Effect::FallBack(Step::Configuration) => {}
            Effect::FallBack(Step::Program) => {
                if let Some((program, good)) = self.before.take() {
                    (self.program, self.good) = (program, good);
                }
            }
            Effect::Trouble(why) => self.trouble.begin(why, &self.kept, &mut self.manager),
            Effect::Recovered => self.trouble.end(),
            Effect::ForgetProgram => self.candidate = None,
            Effect::Tell(number, Report::Line(line)) => self.tell(number, ToEngine::Upgrading { line }, Vec::new()),
            Effect::Tell(number, Report::Done(engine)) => {
                voice::info(&format!("engine {engine} has taken over"));
                self.tell(number, ToEngine::Upgraded { engine }, Vec::new());
            }
            Effect::Tell(number, Report::Failed(why)) => self.not_upgraded(number, why, false),
            Effect::Tell(number, Report::Refused(why)) => self.not_upgraded(number, why, true),
            Effect::Exit(code) => return Some(code),
        }
        None
    }

    fn not_upgraded(&mut self, number: succession::Engine, why: String, busy: bool) {
        voice::warn(&format!("no upgrade: {why}"));
        self.tell(number, ToEngine::NotUpgraded { why, busy }, Vec::new());
    }

    fn start(&mut self, number: succession::Engine, mode: Mode) -> Option<u8> {
        let program = self.candidate.as_ref().filter(|_| mode == Mode::Beside).unwrap_or(&self.program);
        match Engine::start(program, &self.arguments, self.identity.as_ref()) {
            Ok(mut engine) => {
                let age_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or_default();
                engine.tell(ToEngine::Welcome { engine: number, mode, age_ms }, Vec::new());
                self.engines.insert(number, engine);
                self.hand_over_kept(number);
                self.hand_over_good(number, mode);
                self.tell(number, ToEngine::Begin, Vec::new());
                None
            }
            Err(error) => {
                voice::warn(&format!("engine {number} cannot be started: {error}"));
                self.feed(Event::Ended(number, Exit { code: Some(1), ..Exit::default() }))
            }
        }
    }

    fn hand_over_kept(&mut self, number: succession::Engine) {
        let Some(engine) = self.engines.get_mut(&number) else { return };
        for (key, sockets) in &self.kept {
            for some in sockets.chunks(DESCRIPTORS) {
                let copies = some.iter().filter_map(|it| it.try_clone().ok()).collect();
                engine.tell(ToEngine::Kept { key: key.clone() }, copies);
            }
        }
    }

    fn hand_over_good(&mut self, number: succession::Engine, mode: Mode) {
        let is_wanted = mode == Mode::Alone && self.succession.is_fallen();
        if let Some(good) = self.good.as_ref().filter(|_| is_wanted).and_then(|it| it.try_clone().ok()) {
            self.tell(number, ToEngine::Instead { why: self.trouble.why().unwrap_or_default().to_owned() }, vec![good]);
        }
    }

    fn go(&mut self, number: succession::Engine) {
        let Some(engine) = self.engines.get_mut(&number) else { return };
        if let Some(state) = self.state.as_ref().and_then(|it| it.try_clone().ok()) {
            engine.tell(ToEngine::State, vec![state]);
        }
        if let Some(secrets) = self.secrets.as_ref().and_then(|it| it.try_clone().ok()) {
            engine.tell(ToEngine::Secrets, vec![secrets]);
        }
        for (pid, it) in &self.children.instances {
            let pipes = it.pipes.iter().filter_map(|pipe| pipe.try_clone().ok()).collect();
            engine.tell(ToEngine::Instance { name: it.name.clone(), pid: *pid, exit: it.exit }, pipes);
        }
        engine.tell(ToEngine::Go { before: std::mem::take(&mut self.answers) }, Vec::new());
        engine.went = true;
    }

    fn tell(&mut self, number: succession::Engine, message: ToEngine, descriptors: Vec<OwnedFd>) {
        if let Some(engine) = self.engines.get_mut(&number) {
            engine.tell(message, descriptors);
        }
    }

    fn signal(&self, number: succession::Engine, signal: Signal) {
        if let Some(engine) = self.engines.get(&number) {
            // Not reaped yet, so the pid is still its own.
            let _ = kill(raw(engine.pid), signal);
        }
    }

    /// An engine that no longer says that it lives is ended, and the next one takes over. The service manager hears of none of it:
    /// it would end the apps, too, which are well.
    fn watch_over(&mut self) {
        let now = Instant::now();
        let stuck: Vec<_> =
            self.alive.iter().filter(|(_, at)| now > **at + SILENCE).map(|(number, _)| *number).collect();
        for number in stuck {
            voice::warn(&format!("engine {number} has not moved for {} s: it is ended", SILENCE.as_secs()));
            self.alive.remove(&number);
            self.signal(number, Signal::SIGABRT);
            // One that was stopped dies of it only when it runs.
            self.signal(number, Signal::SIGCONT);
        }
        if self.watchdog.is_some_and(|every| now >= self.pinged + every / 3) {
            self.pinged = now;
            self.manager.tell("WATCHDOG=1".to_owned());
        }
        self.store.settle(&self.kept, &mut self.manager);
        self.manager.flush();
    }
}
