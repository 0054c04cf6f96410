//! Tables and random sequences against the machine, with simulated time.

use super::super::backoff::LONGEST;
use super::*;

fn rules() -> Arc<Rules> {
    Arc::new(Rules {
        start_timeout: Duration::from_secs(60),
        settle_time: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(10),
        stop_signal: 15,
        auto_restart: config::AutoRestart::Always,
        success_codes: vec![0],
        fatal_exit_codes: vec![78],
        failures: 3,
        successes: 1,
    })
}

fn code(code: i32) -> Event {
    Event::Exited(ExitStatus { code: Some(code), signal: None, core_dumped: false })
}

fn lane() -> Lane {
    Lane::new(rules(), fastrand::Rng::with_seed(3))
}

fn started(now: Instant) -> Lane {
    let mut lane = lane();
    for event in [Event::Start(Goal::Run), Event::Permit, Event::PreflightGood, Event::Spawned] {
        lane.step(event, now);
    }
    assert_eq!(lane.state, State::Starting);
    lane
}

fn ready(now: Instant) -> Lane {
    let mut lane = started(now);
    assert!(lane.step(Event::ProbeGood, now).contains(&Effect::Publish));
    lane
}

#[test]
fn an_exit_before_ready_is_a_failure_whatever_the_code() {
    let now = Instant::now();
    let mut lane = started(now);
    assert_eq!(lane.step(code(0), now), [Effect::KillTree]);
    let effects = lane.step(Event::TreeEmpty { leftovers: 0 }, now);
    assert!(matches!(effects[1], Effect::Record(Cause::BeforeReady(_))), "{effects:?}");
    assert_eq!(lane.state, State::Backoff);
}

#[test]
fn children_left_by_a_quiet_exit_mean_that_it_daemonises() {
    let now = Instant::now();
    let mut lane = started(now);
    lane.step(code(0), now);
    let effects = lane.step(Event::TreeEmpty { leftovers: 1 }, now);
    assert!(effects.contains(&Effect::Record(Cause::Daemonised)));
}

#[test]
fn a_crash_withdraws_the_endpoint_first_and_restarts_without_delay_once() {
    let now = Instant::now();
    let mut lane = ready(now);
    assert_eq!(lane.step(code(1), now), [Effect::Withdraw(Duration::ZERO), Effect::KillTree]);
    lane.step(Event::TreeEmpty { leftovers: 0 }, now);
    assert_eq!(lane.state, State::Queued);
}

#[test]
fn a_process_that_ignores_its_signal_is_killed_and_one_that_cannot_be_killed_is_stuck() {
    let mut now = Instant::now();
    let mut lane = ready(now);
    assert_eq!(lane.step(Event::Stop, now), [Effect::Withdraw(Duration::from_secs(30))]);
    assert_eq!(lane.step(Event::Drained, now), [Effect::Signal]);
    now += Duration::from_secs(10);
    assert_eq!(lane.step(Event::Timer, now), [Effect::KillTree]);
    now += KILL_PATIENCE;
    lane.step(Event::Timer, now);
    assert_eq!(lane.state, State::Stuck);
    let killed = ExitStatus { code: None, signal: Some(9), core_dumped: false };
    lane.step(Event::Exited(killed), now);
    let effects = lane.step(Event::TreeEmpty { leftovers: 1 }, now);
    let ignored = Cause::Ignored { signal: 15, after: Duration::from_secs(10) };
    assert_eq!(effects, [Effect::Record(ignored), Effect::Rest]);
}

#[test]
fn a_slow_start_is_signalled_at_its_timeout_with_the_last_probe_reason() {
    let now = Instant::now();
    let mut lane = started(now);
    lane.step(Event::ProbeBad("connection refused".into()), now);
    let late = now + Duration::from_secs(60);
    let effects = lane.step(Event::Timer, late);
    assert!(effects.contains(&Effect::Signal), "{effects:?}");
    lane.step(code(143), late);
    let effects = lane.step(Event::TreeEmpty { leftovers: 0 }, late);
    let named = |effect: &Effect| matches!(effect, Effect::Record(Cause::StartTimeout { probe: Some(why), .. }) if why == "connection refused");
    assert!(effects.iter().any(named), "{effects:?}");
}

#[test]
fn a_stop_in_backoff_is_immediate_and_a_fatal_code_waits_a_minute() {
    let now = Instant::now();
    let mut lane = started(now);
    lane.step(code(78), now);
    lane.step(Event::TreeEmpty { leftovers: 0 }, now);
    assert_eq!(lane.state, State::Failed);
    assert_eq!(lane.retries_at(), Some(now + LONGEST));
    assert_eq!(lane.step(Event::Stop, now), [Effect::Rest]);
    assert_eq!(lane.wakes_at(), None);
}

#[test]
fn three_bad_checks_make_it_unready_and_one_good_ready_again() {
    let now = Instant::now();
    let mut lane = ready(now);
    for _ in 0..2 {
        assert_eq!(lane.step(Event::ProbeBad("500".into()), now), []);
    }
    assert_eq!(lane.step(Event::ProbeBad("500".into()), now), [Effect::Healthy(false)]);
    assert_eq!(lane.step(Event::ProbeGood, now), [Effect::Healthy(true)]);
}

#[test]
fn one_that_flaps_must_answer_twice() {
    let mut now = Instant::now();
    let mut lane = ready(now);
    let mut changes = 0;
    // One bad answer is enough, so that every turn could be a change.
    lane.rules = Arc::new(Rules { failures: 1, ..(*rules()).clone() });
    for _ in 0..20 {
        for event in [Event::ProbeBad("500".into()), Event::ProbeGood] {
            now += Duration::from_millis(500);
            changes += lane.step(event, now).iter().filter(|it| matches!(it, Effect::Healthy(_))).count();
        }
    }
    assert_eq!((changes, lane.state), (3, State::Unready), "out, in, and out for good");
    lane.step(Event::ProbeGood, now);
    assert_eq!(lane.state, State::Ready);
}

#[test]
fn a_trial_that_becomes_ill_before_it_has_settled_has_failed() {
    let now = Instant::now();
    let mut lane = lane();
    for event in [Event::Start(Goal::Trial), Event::Permit, Event::PreflightGood, Event::Spawned, Event::ProbeGood] {
        lane.step(event, now);
    }
    lane.step(Event::ProbeBad("500".into()), now);
    let late = now + Duration::from_secs(2);
    assert_eq!(lane.step(Event::Timer, late), [], "a doubt keeps it from settling");
    assert!(lane.wakes_at().is_none_or(|at| at > late), "and nothing wakes in vain");
    lane.step(Event::ProbeBad("500".into()), late);
    let effects = lane.step(Event::ProbeBad("500".into()), late);
    assert!(matches!(effects[..], [Effect::Withdraw(_)]), "{effects:?}");
    lane.step(Event::Drained, late);
    lane.step(code(0), late);
    let effects = lane.step(Event::TreeEmpty { leftovers: 0 }, late);
    assert!(effects.iter().any(|it| matches!(it, Effect::Record(Cause::Hopeless(_)))), "{effects:?}");
    assert_eq!(lane.state, State::Failed);
}

#[test]
fn a_doubt_that_is_cleared_lets_it_settle() {
    let now = Instant::now();
    let mut lane = ready(now);
    lane.step(Event::ProbeBad("500".into()), now);
    let late = now + Duration::from_secs(2);
    assert_eq!(lane.step(Event::ProbeGood, late), [Effect::Settled]);
}

#[test]
fn one_that_never_starts_does_not_wait_for_its_timeout() {
    let now = Instant::now();
    let mut lane = started(now);
    assert_eq!(lane.step(Event::Hopeless("503".into()), now), [Effect::Signal]);
}

/// What the world around a lane looks like to a test that answers its effects at random.
#[derive(Default)]
struct World {
    launches: u32,
    records: u32,
    unlaunched: u32,
    permits: i32,
    published: bool,
    alive: bool,
}

impl World {
    fn see(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Launch => {
                    assert!(!self.alive, "two living instances in one lane");
                    self.launches += 1;
                    self.alive = true;
                }
                Effect::Record(cause) => {
                    self.records += 1;
                    self.unlaunched += u32::from(matches!(cause, Cause::Preflight(_)));
                    assert!(!self.published, "an attempt ended while it was published");
                    self.alive = false;
                }
                Effect::ReturnPermit => self.permits -= 1,
                Effect::Publish => {
                    assert!(!self.published && self.alive);
                    self.published = true;
                }
                Effect::Withdraw(_) => self.published = false,
                Effect::Signal => assert!(!self.published, "signalled while it was published"),
                _ => {}
            }
        }
        assert!(self.permits >= 0, "a permit was returned twice");
    }
}

fn any_event(random: &mut fastrand::Rng) -> Event {
    let status = ExitStatus { code: Some(random.i32(0..3)), signal: None, core_dumped: false };
    match random.u8(0..18) {
        0 => Event::Start(if random.bool() { Goal::Run } else { Goal::Trial }),
        1 => Event::Promote,
        2 => Event::Stop,
        3 => Event::StopNow,
        4 => Event::Reset,
        5 | 6 => Event::PreflightGood,
        7 => Event::PreflightBad("missing".into()),
        8 | 9 => Event::Spawned,
        10 => Event::SpawnFailed("fork".into(), Class::Passing),
        11 | 12 => Event::ProbeGood,
        13 => Event::ProbeBad("refused".into()),
        14 => Event::Drained,
        15 => Event::Exited(status),
        16 => Event::Hopeless("down".into()),
        _ => Event::TreeEmpty { leftovers: random.usize(0..2) },
    }
}

/// Events that only a process can cause come only while there is one.
fn is_possible(event: &Event, lane: &Lane) -> bool {
    match event {
        Event::Exited(_) => lane.has_process() && lane.state != State::Spawning && lane.exit.is_none(),
        Event::TreeEmpty { .. } => matches!(lane.state, State::Exited | State::Killing | State::Stuck),
        _ => true,
    }
}

#[test]
fn no_sequence_of_events_breaks_the_invariants_and_every_stop_ends_in_time() {
    let mut random = fastrand::Rng::with_seed(20_260_101);
    for _ in 0..100_000 {
        let mut now = Instant::now();
        let (mut lane, mut world) = (lane(), World::default());
        for _ in 0..30 {
            now += Duration::from_millis(random.u64(0..20_000));
            let event = any_event(&mut random);
            if is_possible(&event, &lane) {
                world.see(&lane.step(event, now));
            }
            world.see(&lane.step(Event::Timer, now));
            if lane.state == State::Queued && random.bool() {
                world.permits += 1;
                world.see(&lane.step(Event::Permit, now));
            }
        }
        ends_after_a_stop(&mut lane, &mut world, now);
    }
}

fn ends_after_a_stop(lane: &mut Lane, world: &mut World, mut now: Instant) {
    world.see(&lane.step(Event::Stop, now));
    if lane.state == State::Spawning {
        world.see(&lane.step(Event::Spawned, now));
    }
    let latest = now + lane.rules.drain_timeout + lane.rules.stop_timeout + KILL_PATIENCE + DRAIN_GRACE;
    while !lane.at_rest() && lane.state != State::Stuck {
        now = lane.wakes_at().expect("a lane that is not at rest has a deadline").max(now);
        assert!(now <= latest, "{:?} lasts too long after a stop", lane.state);
        world.see(&lane.step(Event::Timer, now));
    }
    if lane.state == State::Stuck {
        let killed = ExitStatus { code: None, signal: Some(9), core_dumped: false };
        world.see(&lane.step(Event::Exited(killed), now));
        world.see(&lane.step(Event::TreeEmpty { leftovers: 0 }, now));
    }
    assert!(lane.at_rest(), "{:?}", lane.state);
    assert_eq!(world.records - world.unlaunched, world.launches, "a launch without a record");
    assert_eq!(world.permits, 0, "a permit was kept");
}
