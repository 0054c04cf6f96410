//! The one task that owns every app. It waits for commands, for what its helpers report and for the next deadline;
//! feeds the machines; carries out what they ask for (`effects`). Nothing in it blocks and nothing else writes app state.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    AppStatus, Command, Done, InstanceState, Refusal, Supervisor,
    addresses::Addresses,
    cgroup::Cgroups,
    changes,
    launcher::{LaunchError, Launched, Launcher},
    lifecycle::{Event, ExitStatus, Goal},
    managed::{App, Runner},
    operation::Operation,
    overrides::Overrides,
    spec::{Finding, LaunchSpec},
    standing::{Inheritance, Standing},
    tree::{self, Process, Reaper},
    watch::Watch,
};
use crate::upstream::Address;

const CENSUS: Duration = Duration::from_secs(1);
const INBOX: usize = 1_024;

/// What a helper reports about one attempt; older attempts' news is ignored.
pub(super) enum News {
    Planned(Option<(Box<LaunchSpec>, Arc<Watch>)>, Vec<Finding>),
    Launched(Result<Launched, LaunchError>),
    Exited(ExitStatus),
    /// `None`: some could not be killed.
    Swept(Option<usize>),
    Listening(Vec<Address>),
    Lane(Event),
    /// Its liveness probe has failed.
    Unwell(String),
}

pub(super) enum Message {
    Attempt {
        runner: u64,
        attempt: u64,
        news: Box<News>,
    },
    Converge(Box<super::converge::Looked>),
    Prepared(Box<super::deploy::Prepared>),
    /// A request waits for an app that sleeps.
    Demand(String),
    Census(Census),
}

/// What is looked at every second.
pub(super) struct Census {
    processes: Vec<Process>,
    /// Failed runners whose files have changed.
    mended: Vec<u64>,
    /// The files of apps that are restarted when they change.
    files: Vec<(String, u64)>,
}

pub(super) struct Core {
    pub(super) outside: Supervisor,
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) cgroups: Arc<Cgroups>,
    pub(super) apps: BTreeMap<String, App>,
    pub(super) overrides: Overrides,
    pub(super) addresses: Addresses,
    pub(super) news: mpsc::Sender<Message>,
    pub(super) permits: usize,
    pub(super) waiting: VecDeque<u64>,
    pub(super) last_runner: u64,
    pub(super) leaving: Vec<oneshot::Sender<()>>,
    pub(super) reaper: Reaper,
    /// There are apps, or have been: their orphans outlive them.
    has_had_apps: bool,
    pub(super) random: fastrand::Rng,
    /// Operations to be answered when the status shows what came of them.
    pub(super) ended: Vec<(Operation, Result<Done, Refusal>)>,
    /// Whom apps without a user of their own run as when the daemon is root.
    pub(super) default_user: Option<String>,
    /// At the end of the daemon: nothing starts any more.
    pub(super) closing: bool,
    /// What another engine began and no app has taken yet.
    pub(super) inheritance: Inheritance,
    /// False: another engine has the apps, and nothing is done here.
    pub(super) ours: watch::Sender<bool>,
    /// What the warden was told last.
    remembered: Option<Standing>,
    publisher: watch::Sender<Arc<Vec<AppStatus>>>,
}

pub(super) fn start(
    outside: Supervisor,
    launcher: Arc<dyn Launcher>,
    inheritance: Inheritance,
    commands: mpsc::Receiver<Command>,
    publisher: watch::Sender<Arc<Vec<AppStatus>>>,
) {
    let warden = launcher.warden().map(|_| std::os::unix::process::parent_id());
    if warden.is_none() {
        tree::adopt_orphans();
    }
    super::base::sweep(&outside.state_dir, &inheritance.names());
    let (news, inbox) = mpsc::channel(INBOX);
    let random = fastrand::Rng::new();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let core = Core {
        launcher,
        cgroups: Arc::new(Cgroups::open(warden)),
        apps: BTreeMap::new(),
        overrides: Overrides::load(&outside.state_dir),
        addresses: Addresses::new(outside.run_dir.clone(), fastrand::Rng::new()),
        news,
        permits: cores.max(2),
        waiting: VecDeque::new(),
        last_runner: 0,
        leaving: Vec::new(),
        reaper: Reaper::default(),
        has_had_apps: false,
        random,
        ended: Vec::new(),
        default_user: None,
        closing: false,
        inheritance,
        ours: watch::Sender::new(true),
        remembered: None,
        publisher,
        outside,
    };
    tokio::spawn(core.run(commands, inbox));
}

// === impl Core ===

impl Core {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut inbox: mpsc::Receiver<Message>) {
        let mut census = tokio::time::interval(CENSUS);
        census.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if !*self.ours.borrow() {
                match commands.recv().await {
                    Some(command) => self.command_elsewhere(command),
                    None => return,
                }
                continue;
            }
            let wake = self.next_deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(message) = inbox.recv() => self.message(message),
                () = sleep_until(wake) => self.timers(),
                _ = census.tick() => self.take_census(),
            }
            self.grant_permits();
            self.advance_all();
            self.publish();
            self.remember();
            // After the status, so that who reads it upon an answer sees what the answer speaks of.
            for (operation, outcome) in self.ended.drain(..) {
                operation.answer(outcome);
            }
        }
    }

    /// Another engine takes the apps over: it must know what they are now, and from here on nothing is done to them.
    pub(super) fn let_go(&mut self) {
        self.remembered = None;
        self.remember();
        self.ours.send_replace(false);
    }

    pub(super) fn take_back(&mut self) {
        self.remembered = None;
        self.ours.send_replace(true);
    }

    /// So that the next engine can go on, whenever this one ends.
    fn remember(&mut self) {
        let Some(warden) = self.launcher.warden() else { return };
        let standing = Standing::of(self.apps.values());
        // Until everything has been looked at, what was inherited is what is known.
        if self.inheritance.is_pending() || self.remembered.as_ref() == Some(&standing) {
            return;
        }
        match serde_json::to_vec(&standing) {
            Ok(text) => warden.remember(&text),
            Err(error) => tracing::error!(%error, "the next engine will not know the apps"),
        }
        self.remembered = Some(standing);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.apps.values().flat_map(|app| &app.runners).filter_map(|runner| runner.lane.wakes_at()).min()
    }

    fn timers(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> = self
            .apps
            .values()
            .flat_map(|app| &app.runners)
            .filter(|runner| runner.lane.wakes_at().is_some_and(|at| at <= now))
            .map(|runner| runner.id)
            .collect();
        for id in due {
            self.feed(id, Event::Timer);
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Attempt { runner, attempt, news } => self.attempt_news(runner, attempt, *news),
            Message::Converge(looked) => self.converge(*looked),
            Message::Prepared(prepared) => self.prepared(*prepared),
            Message::Demand(name) => self.wake(&name),
            Message::Census(Census { processes, mended, files }) => {
                self.counted(&processes);
                files.into_iter().for_each(|(name, fingerprint)| self.files_seen(&name, fingerprint));
                mended.into_iter().for_each(|id| self.feed(id, Event::Reset));
            }
        }
    }

    fn grant_permits(&mut self) {
        let mut later = VecDeque::new();
        while self.permits > 0 {
            let Some(runner) = self.waiting.pop_front() else { break };
            if let Some(other) = self.waits_for(runner) {
                if let Some(app) = self.app_of(runner).filter(|app| app.ready() == 0) {
                    app.reason = format!("waits for {other}");
                }
                later.push_back(runner);
            } else if self.find(runner).is_some() {
                self.permits -= 1;
                self.feed(runner, Event::Permit);
            }
        }
        self.waiting.append(&mut later);
    }

    /// The app that has to be ready before this one. A rollout does not ask: what it replaces runs already.
    fn waits_for(&self, runner: u64) -> Option<String> {
        let (_, runner) = self.find(runner)?;
        let process = runner.generation.backend.process.as_ref().filter(|_| runner.lane.goal == Goal::Run)?;
        let is_ready = |name: &&String| self.apps.get(*name).is_none_or(|app| app.ready() > 0);
        process.depends_on.iter().find(|name| !is_ready(name)).cloned()
    }

    fn take_census(&mut self) {
        self.has_had_apps |= !self.apps.is_empty();
        if !self.has_had_apps {
            return;
        }
        let news = self.news.clone();
        let failed = |runner: &&Runner| runner.lane.state == InstanceState::Failed;
        let runners = self.apps.values().flat_map(|app| &app.runners).filter(failed);
        let watched: Vec<_> = runners.filter_map(|it| Some((it.id, it.watch.clone()?))).collect();
        let directories: Vec<_> = self.apps.values().filter_map(App::watched).collect();
        tokio::task::spawn_blocking(move || {
            let files = directories.into_iter().map(|(name, at)| (name, changes::fingerprint(&at))).collect();
            let mended = watched.into_iter().filter(|(_, watch)| watch.has_changed()).map(|(id, _)| id).collect();
            // A full inbox means that there is more urgent news; the next census comes soon.
            let _ = news.try_send(Message::Census(Census { processes: tree::processes(), mended, files }));
        });
    }

    fn counted(&mut self, processes: &[Process]) {
        let ours: HashSet<u32> =
            self.apps.values().flat_map(|app| &app.runners).filter_map(|runner| runner.pid).collect();
        self.reaper.reap(processes, &ours);
        let runners = self.apps.values_mut().flat_map(|app| &mut app.runners);
        for runner in runners {
            let Some(pid) = runner.pid else { continue };
            let members = processes.iter().filter(|process| process.session == pid || process.group == pid);
            let (mut pages, mut ticks) = (0, 0);
            for member in members {
                pages += member.resident_pages;
                ticks += member.ticks;
            }
            runner.memory_bytes = pages * 4_096;
            // 100 ticks a second and one census a second: the difference is the percentage.
            runner.cpu_percent = ticks.saturating_sub(runner.cpu_ticks) as f64;
            runner.cpu_ticks = ticks;
            runner.weigh();
        }
        self.tell_of_refused_forks();
        self.retry_stuck();
        self.remove_condemned();
        self.recycle();
        self.lull();
    }

    fn publish(&mut self) {
        let now = Instant::now();
        for app in self.apps.values_mut() {
            let availability = app.availability(now);
            app.tell(availability);
        }
        let statuses: Vec<AppStatus> = self.apps.values().map(|app| app.status(now, &self.cgroups)).collect();
        if **self.publisher.borrow() != statuses {
            for status in &statuses {
                let ill = status.ready < status.desired && !status.reason.is_empty();
                let reason = ill.then(|| status.reason.clone());
                self.outside.readiness.degrade(&format!("app {}", status.name), reason);
            }
            self.publisher.send_replace(Arc::new(statuses));
        }
        if self.apps.values().all(|app| app.runners.is_empty()) {
            if self.closing {
                self.apps.values().for_each(|app| app.output.close());
                self.cgroups.close();
            }
            for gone in self.leaving.drain(..) {
                let _ = gone.send(());
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
