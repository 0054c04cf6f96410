//! Which engine serves, as a pure machine: events in, effects out, time as an argument.
//!
//! ```text
//! starting --ready, go--> serving --ends--> (a pause that grows) --> starting
//!                            |
//!                 upgrade:  next: starting --ready--> old: pausing --paused--> next: taking --serving--> confirming --> old drains
//!                              |failed: nothing has changed            |failed: killed, and the old one resumes
//! ```

mod parked;

use std::time::{Duration, Instant};

pub(super) use parked::Parked;

use super::ladder::{Digest, Ladder, Step};
use crate::link::{Exit, Mode};

/// An engine by its number, which no other has.
pub(super) type Engine = u64;

/// A new engine has built everything within so long.
const START: Duration = Duration::from_secs(60);
/// The old one has let go, the new one has begun to serve.
const PAUSE: Duration = Duration::from_secs(10);
const TAKE: Duration = Duration::from_secs(30);
/// QUIC connections of the old engine have so long to end: until then it reads the socket.
const QUIC: Duration = Duration::from_secs(6);
/// The pause before another engine after one that died: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A configuration has proved itself after so many times as long as an upgrade.
const PROVED: u32 = 6;
/// Who served so long was not the cause of its own end.
const STABLE: Duration = Duration::from_secs(60);
/// Old engines that still drain.
const LEAVING_MAX: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Begin,
    /// With how long an upgrade may be taken back.
    Ready(Engine, Duration),
    Serving(Engine),
    Paused(Engine),
    /// What it serves, and whether somebody wanted the files to be read.
    Configured(Engine, Digest, bool),
    Ended(Engine, Exit),
    /// It answers worse than the one before.
    Unfit(Engine, String),
    /// This engine asks for another one.
    Upgrade(Engine),
    Stop,
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Start(Engine, Mode),
    Go(Engine),
    Pause(Engine),
    Resume(Engine),
    Drain(Engine),
    TakeQuic(Engine),
    Terminate(Engine),
    Kill(Engine),
    /// What this engine started must not stay.
    KillLaunched(Engine),
    /// Engines are started from the new program from now on, or it is forgotten.
    KeepProgram,
    ForgetProgram,
    /// What this engine serves has proved itself.
    KeepConfiguration(Engine),
    FallBack(Step),
    /// Engines do not last, and why it matters.
    Trouble(String),
    /// One has lasted.
    Recovered,
    Tell(Engine, Report),
    /// Nothing is left to do.
    Exit(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Line(String),
    Done(Engine),
    Failed(String),
    /// It was not even tried.
    Refused(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Pausing,
    Taking,
    Confirming,
}

#[derive(Debug)]
struct Next {
    engine: Engine,
    stage: Stage,
    until: Instant,
    confirm: Duration,
    digest: Option<Digest>,
}

#[derive(Debug)]
struct Leaving {
    engine: Engine,
    /// When somebody else may read the QUIC sockets.
    quic: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Succession {
    last: Engine,
    current: Option<Engine>,
    serving_since: Option<Instant>,
    /// Some engine has served.
    proven: bool,
    next: Option<Next>,
    leaving: Vec<Leaving>,
    restart: Option<Instant>,
    failures: u32,
    ladder: Ladder,
    /// What the current engine serves, how long that must last, and until when.
    digest: Option<Digest>,
    prove: Duration,
    proving: Option<Instant>,
    /// Somebody was told that engines do not last.
    troubled: bool,
    stopping: bool,
    /// Engines are of another program than the warden, perhaps.
    renewal: bool,
}

// === impl Succession ===

impl Succession {
    /// Who is asked when something is to be done.
    pub(super) fn current(&self) -> Option<Engine> {
        self.current
    }

    /// Whether the next engine is to serve what has proved itself, whatever the files say.
    pub(super) fn is_fallen(&self) -> bool {
        self.ladder.is_fallen()
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let next = self.next.as_ref().map(|next| next.until);
        let quic = self.leaving.iter().filter_map(|it| it.quic).min();
        [self.restart, next, quic, self.proving].into_iter().flatten().min()
    }

    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Begin => self.start(&mut effects),
            Event::Ready(engine, confirm) => self.ready(engine, confirm, now, &mut effects),
            Event::Serving(engine) => self.serving(engine, now, &mut effects),
            Event::Paused(engine) => self.paused(engine, now, &mut effects),
            Event::Configured(engine, digest, reloaded) => self.configured(engine, digest, reloaded, now),
            Event::Ended(engine, exit) => self.ended(engine, exit, now, &mut effects),
            Event::Unfit(engine, why) => self.unfit(engine, &why, &mut effects),
            Event::Upgrade(engine) => self.upgrade(engine, now, &mut effects),
            Event::Stop => self.stop(&mut effects),
            Event::Tick => self.tick(now, &mut effects),
        }
        effects
    }

    fn start(&mut self, effects: &mut Vec<Effect>) {
        self.last += 1;
        (self.current, self.serving_since, self.restart) = (Some(self.last), None, None);
        (self.digest, self.proving) = (None, None);
        effects.push(Effect::Start(self.last, Mode::Alone));
    }

    fn ready(&mut self, engine: Engine, confirm: Duration, now: Instant, effects: &mut Vec<Effect>) {
        if self.current == Some(engine) {
            self.prove = confirm * PROVED;
            effects.push(Effect::Go(engine));
            return;
        }
        let (Some(next), Some(current)) = (&mut self.next, self.current) else { return };
        if next.engine == engine && next.stage == Stage::Starting {
            (next.stage, next.until, next.confirm) = (Stage::Pausing, now + PAUSE, confirm);
            effects.push(tell(current, format!("engine {engine} is ready")));
            effects.push(Effect::Pause(current));
        }
    }

    fn serving(&mut self, engine: Engine, now: Instant, effects: &mut Vec<Effect>) {
        if self.current == Some(engine) {
            (self.proven, self.serving_since, self.proving) = (true, Some(now), Some(now + self.prove));
            return;
        }
        let (Some(next), Some(current)) = (&mut self.next, self.current) else { return };
        if next.engine == engine && next.stage == Stage::Taking {
            (next.stage, next.until) = (Stage::Confirming, now + next.confirm);
            let seconds = next.confirm.as_secs_f64();
            effects.push(tell(current, format!("engine {engine} serves; it has {seconds} s to prove itself")));
        }
    }

    fn configured(&mut self, engine: Engine, digest: Digest, reloaded: bool, now: Instant) {
        if let Some(next) = self.next.as_mut().filter(|it| it.engine == engine) {
            next.digest = Some(digest);
        }
        if self.current != Some(engine) {
            return;
        }
        self.digest = Some(digest);
        self.proving = self.serving_since.map(|_| now + self.prove);
        if reloaded {
            self.ladder.renewed();
        }
    }

    fn paused(&mut self, engine: Engine, now: Instant, effects: &mut Vec<Effect>) {
        let Some(next) = self.next.as_mut().filter(|it| it.stage == Stage::Pausing) else { return };
        if self.current == Some(engine) {
            (next.stage, next.until) = (Stage::Taking, now + TAKE);
            effects.push(Effect::Go(next.engine));
        }
    }

    fn upgrade(&mut self, asked: Engine, now: Instant, effects: &mut Vec<Effect>) {
        let refused = if self.stopping {
            Some("the daemon is stopping")
        } else if self.next.is_some() {
            Some("another upgrade is under way")
        } else if self.current != Some(asked) || self.serving_since.is_none() {
            Some("this engine does not serve")
        } else if self.leaving.len() >= LEAVING_MAX {
            Some("two older engines still finish what they had begun")
        } else {
            None
        };
        if let Some(why) = refused {
            effects.push(Effect::Tell(asked, Report::Refused(why.to_owned())));
            return;
        }
        self.last += 1;
        let (until, confirm) = (now + START, Duration::ZERO);
        let next = Next { engine: self.last, stage: Stage::Starting, until, confirm, digest: None };
        self.next = Some(next);
        effects.push(Effect::Start(self.last, Mode::Beside));
        effects.push(tell(asked, format!("engine {} starts", self.last)));
    }

    /// Of one that nobody can go back from it is only a word.
    fn unfit(&mut self, engine: Engine, why: &str, effects: &mut Vec<Effect>) {
        if self.next.as_ref().is_some_and(|it| it.engine == engine && it.stage == Stage::Confirming) {
            self.failed(&format!("engine {engine} is no good: {why}"), effects);
        }
    }

    fn ended(&mut self, engine: Engine, exit: Exit, now: Instant, effects: &mut Vec<Effect>) {
        if self.next.as_ref().is_some_and(|it| it.engine == engine) {
            self.failed(&format!("engine {engine} {}", words(exit)), effects);
            return;
        }
        if let Some(at) = self.leaving.iter().position(|it| it.engine == engine) {
            let left = self.leaving.remove(at);
            effects.extend(left.quic.and(self.current).map(Effect::TakeQuic));
            return;
        }
        if self.current != Some(engine) {
            return;
        }
        (self.current, self.proving) = (None, None);
        let stable = self.serving_since.take().is_some_and(|since| now >= since + STABLE);
        let code = exit.code.and_then(|code| u8::try_from(code).ok());
        if self.stopping || code == Some(0) || !self.proven {
            let terminated = self.stopping && exit.signal == Some(nix::libc::SIGTERM);
            effects.push(Effect::Exit(if terminated { 0 } else { code.unwrap_or(1) }));
            return;
        }
        if self.succeed(effects) {
            return;
        }
        let fall = self.ladder.ended(self.digest, &words(exit), now);
        let has_fallen = fall.as_ref().is_some_and(|it| it.step.is_some());
        if let Some(fall) = fall {
            self.troubled = true;
            effects.extend(fall.step.map(Effect::FallBack));
            effects.push(Effect::Trouble(fall.why));
        }
        self.failures = if stable || has_fallen { 0 } else { self.failures.saturating_add(1) };
        self.restart = Some(now + pause(self.failures));
    }

    /// The old engine died in the middle of an upgrade: the new one has no choice.
    fn succeed(&mut self, effects: &mut Vec<Effect>) -> bool {
        let Some(next) = self.next.take() else { return false };
        self.current = Some(next.engine);
        self.replaced(&next);
        effects.push(Effect::KeepProgram);
        match next.stage {
            Stage::Starting => {}
            Stage::Pausing => effects.push(Effect::Go(next.engine)),
            Stage::Taking | Stage::Confirming => effects.push(Effect::TakeQuic(next.engine)),
        }
        true
    }

    /// The program of `next` is what engines are started from, and what it serves is what is served.
    fn replaced(&mut self, next: &Next) {
        (self.digest, self.prove, self.proving) = (next.digest, next.confirm * PROVED, None);
        self.ladder.replaced();
        self.renewal = true;
    }

    /// What is served has lasted.
    fn proved(&mut self, effects: &mut Vec<Effect>) {
        self.proving = None;
        if let (Some(engine), Some(digest)) = (self.current, self.digest)
            && self.ladder.proved(digest)
        {
            effects.push(Effect::KeepConfiguration(engine));
        }
        if !self.ladder.is_fallen() {
            self.recovered(effects);
        }
    }

    fn recovered(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.troubled) {
            effects.push(Effect::Recovered);
        }
    }

    fn failed(&mut self, why: &str, effects: &mut Vec<Effect>) {
        let (Some(next), Some(current)) = (self.next.take(), self.current) else { return };
        effects.extend([Effect::Kill(next.engine), Effect::KillLaunched(next.engine), Effect::ForgetProgram]);
        if next.stage == Stage::Starting {
            effects.push(Effect::Tell(current, Report::Failed(format!("{why} before it was ready"))));
            return;
        }
        effects.push(Effect::Resume(current));
        effects.push(Effect::Tell(current, Report::Failed(format!("{why}; engine {current} has resumed"))));
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.stopping = true;
        let Some(current) = self.current else {
            effects.push(Effect::Exit(0));
            return;
        };
        match self.next.take() {
            // The apps are in its hands by now.
            Some(next) if matches!(next.stage, Stage::Taking | Stage::Confirming) => {
                self.leaving.push(Leaving { engine: current, quic: None });
                self.current = Some(next.engine);
                effects.extend([Effect::Drain(current), Effect::Terminate(next.engine)]);
            }
            Some(next) => {
                let resumes = (next.stage == Stage::Pausing).then_some(Effect::Resume(current));
                effects.extend([Effect::Kill(next.engine)].into_iter().chain(resumes));
                effects.push(Effect::Terminate(current));
            }
            None => effects.push(Effect::Terminate(current)),
        }
        effects.extend(self.leaving.iter().map(|it| Effect::Terminate(it.engine)));
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.restart.is_some_and(|at| now >= at) {
            self.start(effects);
        }
        for leaving in self.leaving.iter_mut().filter(|it| it.quic.is_some_and(|at| now >= at)) {
            leaving.quic = None;
            effects.extend(self.current.map(Effect::TakeQuic));
        }
        if self.proving.is_some_and(|at| now >= at) {
            self.proved(effects);
        }
        let Some(next) = self.next.as_ref().filter(|it| now >= it.until) else { return };
        let engine = next.engine;
        match next.stage {
            Stage::Starting => self.failed(&format!("engine {engine} was killed after {} s", START.as_secs()), effects),
            Stage::Pausing => self.failed("the old engine did not let go", effects),
            Stage::Taking => {
                self.failed(&format!("engine {engine} did not serve within {} s", TAKE.as_secs()), effects)
            }
            Stage::Confirming => self.confirmed(engine, now, effects),
        }
    }

    fn confirmed(&mut self, engine: Engine, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(next) = self.next.take() {
            self.replaced(&next);
        }
        effects.push(Effect::KeepProgram);
        self.recovered(effects);
        if let Some(old) = self.current.replace(engine) {
            self.leaving.push(Leaving { engine: old, quic: Some(now + QUIC) });
            effects.extend([Effect::Tell(old, Report::Done(engine)), Effect::Drain(old)]);
        }
        (self.serving_since, self.failures, self.proving) = (Some(now), 0, Some(now + self.prove));
    }
}

fn tell(engine: Engine, line: String) -> Effect {
    Effect::Tell(engine, Report::Line(line))
}

/// Pure: how long nobody serves after the `failures`-th engine in a row that died young.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

/// `ended with code 1`, `was ended by signal 9`.
pub(super) fn words(exit: Exit) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(10);
    const KILLED: Exit = Exit { code: None, signal: Some(9), core_dumped: false };

    fn code(code: i32) -> Exit {
        Exit { code: Some(code), ..Exit::default() }
    }

    struct Play {
        machine: Succession,
        now: Instant,
    }

    impl Play {
        fn begun() -> Self {
            let mut play = Self { machine: Succession::default(), now: Instant::now() };
            assert_eq!(play.on(Event::Begin), [Effect::Start(1, Mode::Alone)]);
            play
        }

        fn serving() -> Self {
            let mut play = Self::begun();
            assert_eq!(play.on(Event::Ready(1, CONFIRM)), [Effect::Go(1)]);
            assert_eq!(play.on(Event::Serving(1)), []);
            play
        }

        /// Engine 2 is beside engine 1 and confirms itself.
        fn confirming() -> Self {
            let mut play = Self::serving();
            assert_eq!(play.on(Event::Upgrade(1))[0], Effect::Start(2, Mode::Beside));
            assert_eq!(play.on(Event::Ready(2, CONFIRM))[1], Effect::Pause(1));
            assert_eq!(play.on(Event::Paused(1)), [Effect::Go(2)]);
            play.on(Event::Serving(2));
            play
        }

        fn on(&mut self, event: Event) -> Vec<Effect> {
            self.machine.step(event, self.now)
        }

        fn later(&mut self, by: Duration) -> Vec<Effect> {
            self.now += by;
            self.on(Event::Tick)
        }
    }

    fn failed(effects: &[Effect]) -> Option<&str> {
        effects.iter().find_map(|it| match it {
            Effect::Tell(_, Report::Failed(why) | Report::Refused(why)) => Some(why.as_str()),
            _ => None,
        })
    }

    #[test]
    fn one_that_answers_worse_gives_everything_back_while_it_still_can() {
        let mut play = Play::confirming();
        assert_eq!(play.on(Event::Unfit(1, "x".into())), [], "it is not the one to be judged");
        let effects = play.on(Event::Unfit(2, "it errs".into()));
        assert!(effects.contains(&Effect::Kill(2)) && effects.contains(&Effect::Resume(1)), "{effects:?}");
        let told = |it: &Effect| matches!(it, Effect::Tell(1, Report::Failed(why)) if why.contains("it errs"));
        assert!(effects.iter().any(told), "{effects:?}");
        let mut play = Play::confirming();
        play.later(CONFIRM);
        assert_eq!(play.on(Event::Unfit(2, "too late".into())), []);
    }

    #[test]
    fn a_first_engine_that_cannot_start_is_the_end_with_its_code() {
        assert_eq!(Play::begun().on(Event::Ended(1, code(6))), [Effect::Exit(6)]);
        assert_eq!(Play::begun().on(Event::Ended(1, KILLED)), [Effect::Exit(1)]);
    }

    #[test]
    fn an_engine_that_dies_is_followed_after_a_pause_that_grows_and_is_forgiven() {
        let mut play = Play::serving();
        let mut pauses = Vec::new();
        for engine in 1..=9 {
            let effects = play.on(Event::Ended(engine, KILLED));
            let is_loop = |it: &Effect| engine >= 3 && matches!(it, Effect::Trouble(_));
            assert!(effects.iter().all(is_loop), "{engine}: {effects:?}");
            let wait = play.machine.wakes_at().expect("a restart") - play.now;
            pauses.push(wait.as_millis());
            assert_eq!(play.later(wait), [Effect::Start(engine + 1, Mode::Alone)]);
            assert_eq!(play.on(Event::Ready(engine + 1, CONFIRM)), [Effect::Go(engine + 1)]);
            play.on(Event::Serving(engine + 1));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        play.now += STABLE;
        play.on(Event::Ended(10, KILLED));
        assert_eq!(play.machine.wakes_at(), Some(play.now + FIRST_PAUSE));
    }

    /// The engine dies and is followed; what that was the reason for.
    fn dies(play: &mut Play) -> Vec<Effect> {
        let engine = play.machine.current().expect("an engine");
        let effects = play.on(Event::Ended(engine, KILLED));
        let wait = play.machine.wakes_at().expect("a restart") - play.now;
        assert_eq!(play.later(wait), [Effect::Start(engine + 1, Mode::Alone)]);
        effects
    }

    fn serves(play: &mut Play, digest: Digest) {
        let engine = play.machine.current().expect("an engine");
        play.on(Event::Configured(engine, digest, false));
        assert_eq!(play.on(Event::Ready(engine, CONFIRM)), [Effect::Go(engine)]);
        play.on(Event::Serving(engine));
    }

    #[test]
    fn what_has_lasted_is_gone_back_to_and_left_by_a_reload() {
        let mut play = Play::begun();
        serves(&mut play, 1);
        assert_eq!(play.later(CONFIRM), [], "an upgrade would be confirmed by now");
        assert_eq!(play.later(CONFIRM * PROVED), [Effect::KeepConfiguration(1)]);
        play.on(Event::Configured(1, 2, true));
        let mut last = Vec::new();
        for _ in 0..3 {
            assert!(!play.machine.is_fallen());
            last = dies(&mut play);
        }
        assert!(matches!(&last[..], [Effect::FallBack(Step::Configuration), Effect::Trouble(_)]), "{last:?}");
        assert!(play.machine.is_fallen());
        serves(&mut play, 1);
        assert_eq!(play.later(CONFIRM * PROVED), [], "it lasts, and is not what was asked for");
        play.on(Event::Configured(4, 3, true));
        assert!(!play.machine.is_fallen());
        assert_eq!(play.later(CONFIRM * PROVED), [Effect::KeepConfiguration(4), Effect::Recovered]);
        assert_eq!(play.machine.wakes_at(), None);
    }

    #[test]
    fn the_program_before_an_upgrade_is_gone_back_to_until_the_next_one() {
        let mut play = Play::confirming();
        play.on(Event::Configured(2, 1, false));
        play.later(CONFIRM);
        play.later(QUIC);
        assert_eq!((dies(&mut play), dies(&mut play)), (vec![], vec![]));
        let last = dies(&mut play);
        assert!(matches!(&last[..], [Effect::FallBack(Step::Program), Effect::Trouble(_)]), "{last:?}");
        serves(&mut play, 1);
        play.on(Event::Upgrade(5));
        play.on(Event::Ready(6, CONFIRM));
        play.on(Event::Paused(5));
        play.on(Event::Serving(6));
        let confirmed = play.later(CONFIRM);
        assert_eq!(confirmed[..2], [Effect::KeepProgram, Effect::Recovered]);
        assert!(!play.machine.is_fallen());
    }

    #[test]
    fn the_warden_is_renewed_once_after_an_upgrade_and_in_peace_only() {
        let mut play = Play::serving();
        assert!(!play.machine.may_renew(), "no reason");
        play = Play::confirming();
        assert!(!play.machine.may_renew(), "nothing is decided");
        play.later(CONFIRM);
        assert!(!play.machine.may_renew(), "the old one still reads QUIC");
        play.later(QUIC);
        assert!(play.machine.may_renew(), "although the old one drains");
        play.on(Event::Upgrade(2));
        assert!(!play.machine.may_renew(), "another upgrade");
        play.on(Event::Ended(3, code(1)));
        assert!(play.machine.may_renew());
        let mut stopping = Play { machine: Succession::unpark(play.machine.park(play.now), play.now), ..play };
        assert!(!stopping.machine.may_renew(), "it has been");
        stopping.machine.renewal = true;
        stopping.on(Event::Stop);
        assert!(!stopping.machine.may_renew());
        play.machine.renewed();
        assert!(!play.machine.may_renew());
    }

    #[test]
    fn a_machine_goes_on_in_another_program_where_it_was() {
        let mut play = Play::confirming();
        play.on(Event::Configured(2, 7, false));
        play.later(CONFIRM);
        play.later(QUIC);
        let text = serde_json::to_string(&play.machine.park(play.now)).expect("a text");
        let parked = serde_json::from_str(&text).expect("parked");
        let mut other = Play { machine: Succession::unpark(parked, play.now), ..play };
        assert_eq!((other.machine.current(), other.machine.wakes_at()), (Some(2), play.machine.wakes_at()));
        assert_eq!(other.on(Event::Ended(1, code(0))), [], "it knows who drains");
        assert_eq!(other.later(CONFIRM * PROVED), [Effect::KeepConfiguration(2)]);
        assert_eq!(other.on(Event::Upgrade(2))[0], Effect::Start(3, Mode::Beside), "no number comes twice");
        other.on(Event::Ended(3, code(1)));
        other.on(Event::Ended(2, KILLED));
        assert_eq!(other.later(FIRST_PAUSE), [Effect::Start(4, Mode::Alone)]);
    }

    #[test]
    fn one_that_was_asked_to_end_is_not_followed() {
        let mut play = Play::serving();
        assert_eq!(play.on(Event::Stop), [Effect::Terminate(1)]);
        assert_eq!(play.on(Event::Stop), [Effect::Terminate(1)], "the second wish goes on, too");
        assert_eq!(play.on(Event::Ended(1, code(0))), [Effect::Exit(0)]);
        assert_eq!(Play::serving().on(Event::Ended(1, code(0))), [Effect::Exit(0)], "over the control socket");
    }

    #[test]
    fn an_upgrade_is_confirmed_by_time_alone() {
        let mut play = Play::confirming();
        assert_eq!(play.later(CONFIRM / 2), []);
        let done = [Effect::KeepProgram, Effect::Tell(1, Report::Done(2)), Effect::Drain(1)];
        assert_eq!(play.later(CONFIRM), done);
        assert_eq!(play.later(QUIC), [Effect::TakeQuic(2)]);
        assert_eq!(play.on(Event::Ended(1, code(0))), [], "the old one has drained");
        assert_eq!(play.machine.current(), Some(2));
        play.on(Event::Ended(2, KILLED));
        assert_eq!(play.later(FIRST_PAUSE), [Effect::Start(3, Mode::Alone)]);
    }

    #[test]
    fn a_new_engine_that_fails_before_it_took_over_changes_nothing() {
        let mut play = Play::serving();
        play.on(Event::Upgrade(1));
        let effects = play.on(Event::Ended(2, code(1)));
        assert!(!effects.contains(&Effect::Resume(1)), "it never let go");
        assert_eq!(failed(&effects), Some("engine 2 ended with code 1 before it was ready"));
        let mut play = Play::serving();
        play.on(Event::Upgrade(1));
        let effects = play.later(START);
        assert_eq!(effects[0], Effect::Kill(2));
        assert_eq!(failed(&effects), Some("engine 2 was killed after 60 s before it was ready"));
    }

    #[test]
    fn one_that_fails_while_it_proves_itself_gives_way_to_the_old_one() {
        let mut play = Play::confirming();
        let effects = play.on(Event::Ended(2, KILLED));
        let expected = [Effect::Kill(2), Effect::KillLaunched(2), Effect::ForgetProgram, Effect::Resume(1)];
        assert_eq!(effects[..4], expected);
        assert_eq!(failed(&effects), Some("engine 2 was ended by signal 9; engine 1 has resumed"));
        assert_eq!(play.machine.current(), Some(1));
        assert_eq!(play.on(Event::Upgrade(1))[0], Effect::Start(3, Mode::Beside), "it may be tried again");
    }

    #[test]
    fn when_the_old_one_dies_meanwhile_the_new_one_goes_on() {
        let mut play = Play::confirming();
        assert_eq!(play.on(Event::Ended(1, KILLED)), [Effect::KeepProgram, Effect::TakeQuic(2)]);
        let mut play = Play::serving();
        play.on(Event::Upgrade(1));
        assert_eq!(play.on(Event::Ended(1, KILLED)), [Effect::KeepProgram]);
        assert_eq!(play.on(Event::Ready(2, CONFIRM)), [Effect::Go(2)]);
    }

    #[test]
    fn one_upgrade_at_a_time_and_none_at_the_end() {
        let mut play = Play::confirming();
        assert_eq!(failed(&play.on(Event::Upgrade(1))), Some("another upgrade is under way"));
        let mut play = Play::serving();
        play.on(Event::Stop);
        assert_eq!(failed(&play.on(Event::Upgrade(1))), Some("the daemon is stopping"));
    }

    #[test]
    fn a_stop_during_an_upgrade_reaches_whoever_has_the_apps() {
        let mut play = Play::confirming();
        let effects = play.on(Event::Stop);
        assert_eq!(effects[..2], [Effect::Drain(1), Effect::Terminate(2)]);
        play.on(Event::Ended(1, code(0)));
        assert_eq!(play.on(Event::Ended(2, code(0))), [Effect::Exit(0)]);
        let mut play = Play::serving();
        play.on(Event::Upgrade(1));
        assert_eq!(play.on(Event::Stop), [Effect::Kill(2), Effect::Terminate(1)]);
    }
}
