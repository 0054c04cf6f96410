//! The only writer of the certificates that handshakes find: one task, which knows every certificate that is kept, has those
//! requested that are due, and does what operators ask for.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use config::Config;
use rustls::crypto::CryptoProvider;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{
    advice,
    clock::Clock,
    entry::{Current, Entry},
    handle::{Answer, Command, Handle},
    issuer::{Failure, Issuer},
    job::{self, How, Job, Progress, Success, blocking},
    live::Live,
    renewal::{self, Due},
    wanted,
};
use crate::{
    telemetry::{Events, Metrics},
    tls::{
        Tls,
        store::{Advice, Loaded, Record, Store, Wish},
    },
};

/// Requests at the same time. Issuers set their own pace below this.
const JOBS_MAX: usize = 2;
const COMMANDS_MAX: usize = 32;
/// How often an issuer is asked whether it has revoked one of ours.
const LOOK_EVERY: Duration = Duration::from_secs(86_400);

pub(super) struct Keeper {
    pub(super) tls: Tls,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) config: Option<Arc<Config>>,
    pub(super) issuers: BTreeMap<String, Arc<Issuer>>,
    pub(super) entries: BTreeMap<String, Entry>,
    live: Live,
    jobs: JoinSet<Ended>,
    standings: watch::Sender<Arc<Vec<super::Standing>>>,
    pub(super) events: Events,
    metrics: Metrics,
}

/// What a task of ours came back with.
pub(super) enum Ended {
    Job(String, Box<Result<Success, Failure>>),
    /// The identifiers that the issuer has revoked.
    Look(String, Vec<String>),
    /// What its authority says about when to replace it; an error is told and asked again later.
    Advice(String, Result<Option<Advice>, String>),
}

/// Reads the store, shows what is in it, and starts the task. The store's state keeps nothing from starting.
pub(in crate::tls) fn start(tls: Tls, store: Store, live: Live, events: Events, metrics: Metrics) -> Handle {
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let (standings, seen) = watch::channel(Arc::default());
    let mut keeper = Keeper {
        tls,
        store,
        clock: Clock::new(),
        provider: crate::tls::policy::provider(),
        config: None,
        issuers: BTreeMap::new(),
        entries: BTreeMap::new(),
        live,
        jobs: JoinSet::new(),
        standings,
        events,
        metrics,
    };
    keeper.load();
    keeper.publish();
    tokio::spawn(keeper.run(asked));
    Handle { commands, standings: seen }
}

impl Keeper {
    fn load(&mut self) {
        let provider = self.provider.clone();
        let loaded = self.store.load(&|bundle| Current::read("", None, bundle, &provider).map(drop));
        match loaded {
            Ok(all) => all.into_iter().for_each(|it| self.take(it)),
            Err(error) => tracing::error!(target: "tls", %error, "the certificates on the disk are not used"),
        }
    }

    /// Makes an entry of what the disk has. Without a wish nobody knows what it is for.
    pub(super) fn take(&mut self, loaded: Loaded) {
        for note in &loaded.notes {
            tracing::warn!(target: "tls", "{note}");
        }
        let Some(wish) = loaded.record.wish.clone() else { return };
        let now = self.clock.now();
        let current = loaded.current.and_then(|(version, bundle)| {
            let read = Current::read(&wish.name, Some(version), &bundle, &self.provider);
            read.inspect_err(|why| tracing::warn!(target: "tls", certificate = wish.name, "{why}")).ok()
        });
        self.entries.insert(wish.name.clone(), Entry::new(loaded.record, current, now));
    }

    async fn run(mut self, mut asked: mpsc::Receiver<Command>) {
        loop {
            self.begin_what_is_due();
            self.publish();
            tokio::select! {
                command = asked.recv() => match command {
                    Some(command) => self.carry_out(command).await,
                    None => return,
                },
                Some(ended) = self.jobs.join_next() => match ended {
                    Ok(Ended::Job(name, result)) => self.ended(&name, *result).await,
                    Ok(Ended::Look(name, revoked)) => self.looked(&name, &revoked).await,
                    Ok(Ended::Advice(name, advice)) => self.advised(&name, advice).await,
                    // A job that panicked must not keep its certificate waiting for ever.
                    Err(error) => self.lost(&error.to_string()),
                },
                () = tokio::time::sleep(self.clock.tick()) => self.save_what_is_not().await,
            }
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Converge(config, done) => {
                self.converge(config).await;
                let _ = done.send(());
            }
            Command::Request(order, progress, reply) => self.request(order, progress, reply).await,
            Command::Renew { name, force, progress, reply } => self.renew(&name, force, progress, reply),
            Command::Revoke { name, force, reply } => drop(reply.send(self.revoke(&name, force).await)),
            Command::Import { name, chain_pem, key_pem, reply } => {
                drop(reply.send(self.import(name, &chain_pem, key_pem).await));
            }
            Command::Remove { name, reply } => drop(reply.send(self.remove(&name).await)),
        }
    }

    /// What the configuration wants is wanted from now on, and nothing else of what it wanted before.
    async fn converge(&mut self, config: Arc<Config>) {
        let old = self.config.replace(config.clone());
        if old.is_none_or(|it| it.cloudflare != config.cloudflare || it.acme != config.acme) {
            self.issuers = super::issuers(&config, &self.tls);
        }
        let wishes = wanted::wishes(&config);
        self.entries.retain(|name, it| !it.is_of_configuration() || wishes.iter().any(|wish| wish.name == *name));
        for wish in wishes {
            if !self.entries.contains_key(&wish.name) {
                let (store, name, provider) = (self.store.clone(), wish.name.clone(), self.provider.clone());
                let usable = move |it: &_| Current::read("", None, it, &provider).map(drop);
                if let Ok(loaded) = blocking(move || Ok(store.load_one(&name, &usable))).await {
                    self.take(loaded);
                }
            }
            let now = self.clock.now();
            let entry =
                self.entries.entry(wish.name.clone()).or_insert_with(|| Entry::new(Record::default(), None, now));
            if entry.record.wish.as_ref() != Some(&wish) {
                let changed =
                    entry.record.wish.as_ref().is_some_and(|it| it.hosts != wish.hosts || it.issuer != wish.issuer);
                if changed {
                    // Another wish has not failed yet.
                    (entry.record.attempts, entry.record.next_attempt) = (0, None);
                }
                entry.record.wish = Some(wish.clone());
                self.write_down(&wish.name).await;
            }
        }
    }

    fn begin_what_is_due(&mut self) {
        if self.config.is_none() {
            // Nobody has said yet who can be asked.
            return;
        }
        let now = self.clock.now();
        let names: Vec<String> =
            self.entries.iter().filter(|(_, it)| it.is_renewed()).map(|(name, _)| name.clone()).collect();
        for name in names {
            if self.jobs.len() >= JOBS_MAX {
                return;
            }
            let Some(entry) = self.entries.get(&name).filter(|it| !it.is_busy && !it.is_unsaved) else { continue };
            if renewal::due(now, &entry.situation()) == Due::Now {
                if !self.begin(&name, Progress::default()) {
                    self.nobody_to_ask(&name, now);
                }
            } else if now >= entry.inquire {
                self.inquire(&name, now);
            } else if now.duration_since(entry.looked).unwrap_or_default() >= LOOK_EVERY {
                self.look(&name, now);
            }
        }
    }

    /// Somebody who is configured no more is not asked, and that is a failure like others.
    fn nobody_to_ask(&mut self, name: &str, now: SystemTime) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let issuer = entry.record.wish.as_ref().map(|it| it.issuer.clone()).unwrap_or_default();
        let message = format!("its issuer, {issuer}, is not configured any more, so that it cannot be renewed");
        entry.failed(&Failure::new("config", message.clone()), now);
        self.events.emit("certificate.failed", name, message);
        self.warn_of_the_end(name, now);
    }

    /// Whether there is somebody to ask.
    pub(super) fn begin(&mut self, name: &str, progress: Progress) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        let Some(wish) = entry.record.wish.clone() else { return false };
        let Some(issuer) = self.issuers.get(&wish.issuer).cloned() else { return false };
        entry.is_busy = true;
        let job = Job {
            issuer,
            store: self.store.clone(),
            clock: self.clock.clone(),
            provider: self.provider.clone(),
            version: entry.current.as_ref().and_then(|it| it.version.clone()),
            // An operator may have reasons for one that ends earlier.
            outlives: entry.outlives(&wish).filter(|_| progress.0.is_none()),
            revoked: entry.record.revoked.clone(),
            replaces: entry.replaces(),
            progress,
            wish,
        };
        let name = name.to_owned();
        self.jobs.spawn(async move { Ended::Job(name, Box::new(job.run().await)) });
        true
    }

    fn inquire(&mut self, name: &str, now: SystemTime) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.inquire = advice::later(now);
        let Some(wish) = entry.record.wish.as_ref().filter(|it| it.issuer == "acme") else { return };
        let (Some(issuer), Some(certificate)) = (self.issuers.get(&wish.issuer).cloned(), entry.identifier()) else {
            return;
        };
        let name = name.to_owned();
        self.jobs.spawn(async move { Ended::Advice(name, issuer.advice(&certificate, now).await) });
    }

    async fn advised(&mut self, name: &str, advice: Result<Option<Advice>, String>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let advice = match advice {
            Ok(advice) => advice,
            // What it said before still counts.
            Err(why) => return tracing::info!(target: "tls", certificate = name, "no advice on renewal: {why}"),
        };
        if let Some(again) = advice.as_ref().and_then(|it| it.again) {
            entry.inquire = again;
        }
        if entry.record.advice != advice {
            entry.record.advice = advice;
            self.write_down(name).await;
        }
    }

    fn look(&mut self, name: &str, now: SystemTime) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.looked = now;
        let Some(wish) = &entry.record.wish else { return };
        let (Some(issuer), Some(host)) = (self.issuers.get(&wish.issuer).cloned(), wish.hosts.first().cloned()) else {
            return;
        };
        let name = name.to_owned();
        self.jobs.spawn(async move { Ended::Look(name, issuer.revoked(&host, now).await) });
    }

    async fn looked(&mut self, name: &str, revoked: &[String]) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(id) = entry.current.as_ref().map(|it| it.bundle.meta.id.clone()).filter(|it| revoked.contains(it))
        else {
            return;
        };
        entry.revoked(id);
        self.events.emit("certificate.revoked", name, "its issuer has revoked it; another is requested");
        self.write_down(name).await;
    }

    async fn ended(&mut self, name: &str, result: Result<Success, Failure>) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.is_busy = false;
        let answer = match result {
            Ok(success) => self.succeeded(name, success),
            Err(failure) => {
                self.metrics.certificate_request(failure.class);
                entry.failed(&failure, now);
                let wait = entry.record.next_attempt.and_then(|it| it.duration_since(now).ok()).unwrap_or_default();
                let said = format!("{}; the next attempt is in {} min", failure.message, wait.as_secs().div_ceil(60));
                self.events.emit("certificate.failed", name, said);
                self.warn_of_the_end(name, now);
                Err(super::commands::failed(failure))
            }
        };
        self.write_down(name).await;
        let waiting = self.entries.get_mut(name).map(|it| std::mem::take(&mut it.waiting)).unwrap_or_default();
        self.drop_what_never_was(name).await;
        // Shown, or gone, before anybody hears of it.
        self.publish();
        for reply in waiting {
            let _ = reply.send(answer.clone());
        }
    }

    fn succeeded(&mut self, name: &str, success: Success) -> Answer {
        let Some(entry) = self.entries.get_mut(name) else { return Ok(String::new()) };
        let Success { how, bundle, pair, saved } = success;
        let end = jiff::Timestamp::try_from(pair.certificate.not_after).map(|it| it.to_string()).unwrap_or_default();
        entry.is_unsaved = saved.is_err();
        let version = saved.as_ref().ok().cloned();
        entry.current = Some(Current { version, bundle, pair });
        entry.succeeded(self.clock.now());
        let unsaved = saved.as_ref().err().map(|why| format!("; it cannot be kept on the disk yet: {why}"));
        if let Err(why) = saved {
            let message = format!("it is in use, but cannot be kept on the disk: {why}");
            self.events.emit("certificate.failed", name, message.clone());
            entry.record.last_error = Some(message);
        }
        let (result, said) = match how {
            How::Issued => ("issued", "issued"),
            How::Adopted => ("adopted", "taken over from an earlier request"),
            How::Found => ("found", "found on the disk, where another daemon put it"),
        };
        self.metrics.certificate_request(result);
        self.events.emit("certificate.issued", name, format!("{said}, good until {end}"));
        Ok(format!("{said}, good until {end}{}", unsaved.unwrap_or_default()))
    }

    /// At 30, 7 and 1 days, and only because renewing fails: else there is nothing to do for anybody.
    fn warn_of_the_end(&mut self, name: &str, now: SystemTime) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(days) = entry.current.as_ref().and_then(|it| renewal::warning(now, it.pair.certificate.not_after))
        else {
            return;
        };
        if entry.warned != Some(days) {
            entry.warned = Some(days);
            let error = entry.record.last_error.clone().unwrap_or_default();
            self.events.emit(
                "certificate.expiring",
                name,
                format!("ends within {days} days and cannot be renewed: {error}"),
            );
        }
    }

    fn lost(&mut self, why: &str) {
        tracing::error!(target: "tls", "a request for a certificate broke off: {why}");
        let now = self.clock.now();
        for entry in self.entries.values_mut().filter(|it| it.is_busy) {
            // Of two that were under way only one is lost; the other's end finds nothing wrong with this.
            entry.is_busy = false;
            entry.failed(&Failure::new("transient", "the request broke off unexpectedly"), now);
            entry.waiting.clear();
        }
    }

    /// A disk that was full may have room again.
    async fn save_what_is_not(&mut self) {
        let now = self.clock.now();
        let unsaved: Vec<String> =
            self.entries.iter().filter(|(_, it)| it.is_unsaved).map(|(name, _)| name.clone()).collect();
        for name in unsaved {
            let Some(bundle) = self.entries.get(&name).and_then(|it| Some(it.current.as_ref()?.bundle.clone())) else {
                continue;
            };
            if let Ok(version) = job::save(&self.store, &name, &bundle, now).await
                && let Some(entry) = self.entries.get_mut(&name)
            {
                (entry.is_unsaved, entry.record.last_error) = (false, None);
                entry.current.iter_mut().for_each(|it| it.version = Some(version.clone()));
                self.write_down(&name).await;
            }
        }
    }

    /// Best effort: what cannot be written now is written with the next change.
    pub(super) async fn write_down(&self, name: &str) {
        let Some(record) = self.entries.get(name).map(|it| it.record.clone()) else { return };
        let (store, own) = (self.store.clone(), name.to_owned());
        if let Err(error) = blocking(move || store.record(&own, &record)).await {
            tracing::warn!(target: "tls", certificate = name, %error, "how it stands with the certificate cannot be written down");
        }
    }

    /// Handshakes from now on find what the entries have.
    pub(super) fn publish(&mut self) {
        let pairs: Vec<_> = self.entries.values().filter_map(|it| Some(it.shown()?.pair.clone())).collect();
        let list: Vec<_> = self.entries.values().filter_map(Entry::standing).collect();
        let is_new = self.standings.borrow().iter().map(key).ne(list.iter().map(key));
        if is_new {
            self.live.swap(pairs);
            self.standings.send_replace(Arc::new(list));
        }
    }

    pub(super) fn wish(&self, name: &str) -> Option<&Wish> {
        self.entries.get(name)?.record.wish.as_ref()
    }

    pub(super) fn wait_for(&mut self, name: &str, reply: oneshot::Sender<Answer>) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.waiting.push(reply);
        }
    }

    pub(super) async fn erase(&mut self, name: &str) -> io::Result<()> {
        self.entries.remove(name);
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking(move || store.remove(&name)).await
    }
}

/// What makes two states of a certificate different to those who look.
fn key(it: &super::Standing) -> (String, Option<String>, Option<SystemTime>, u32, Option<String>, Vec<String>) {
    let sha256 = it.certificate.as_ref().map(|it| it.sha256.clone());
    (it.name.clone(), sha256, it.next_renewal, it.attempts, it.last_error.clone(), it.hosts.clone())
}
