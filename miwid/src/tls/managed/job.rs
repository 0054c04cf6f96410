//! One certificate from wish to disk. A job may be dropped at any await: what it has asked for is written down, and the next
//! one finds it.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use instant_acme::CertificateIdentifier;
use rustls::crypto::CryptoProvider;
use tokio::sync::mpsc;

use super::{
    checks::{self, Expected, Judged},
    clock::Clock,
    hosts,
    issuer::{Ask, Failure, Issuer},
    request,
    wanted::DAYS,
};
use crate::tls::{
    pair::Pair,
    store::{Asked, Bundle, Lock, Meta, Pending, Store, Wish},
};

/// Another daemon's request ends within this, or is given up by it.
const LOCK_MAX: Duration = Duration::from_secs(90);
const LOCK_POLL: Duration = Duration::from_millis(200);
/// A request this old has been forgotten by everybody.
const PENDING_MAX: Duration = Duration::from_secs(86_400);
/// For somebody who waits for the result.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// Steps, for whoever waits.
#[derive(Clone, Default)]
pub(super) struct Progress(pub(super) Option<mpsc::UnboundedSender<String>>);

impl Progress {
    pub(super) fn tell(&self, step: impl Into<String>) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(step.into());
        }
    }
}

pub(super) struct Job {
    pub(super) wish: Wish,
    pub(super) issuer: Arc<Issuer>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) provider: Arc<CryptoProvider>,
    /// The version on the disk that we know of.
    pub(super) version: Option<String>,
    /// When the certificate ends that is shown now, if the new one has to outlive it.
    pub(super) outlives: Option<SystemTime>,
    pub(super) revoked: Vec<String>,
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    pub(super) progress: Progress,
}

/// How it came to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Issued,
    /// The answer to an earlier request had been lost.
    Adopted,
    /// Another daemon was first.
    Found,
}

pub(super) struct Success {
    pub(super) how: How,
    pub(super) bundle: Bundle,
    pub(super) pair: Pair,
    /// The version on the disk, or why there is none.
    pub(super) saved: Result<String, String>,
}

/// Blocking work away from the tasks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn storage(error: &io::Error) -> Failure {
    Failure::new("storage", format!("certificates cannot be kept: {error}"))
        .hint("`[ssl] storage` must be a directory of miwid's own, with room in it")
}

impl Job {
    pub(super) async fn run(self) -> Result<Success, Failure> {
        hosts::judged(self.wish.hosts.iter().map(String::as_str)).map_err(|why| Failure::new("config", why))?;
        // Nobody is asked for what could not be kept.
        let store = self.store.clone();
        blocking(move || store.probe()).await.map_err(|error| storage(&error))?;
        let _lock = self.lock().await?;
        if let Some(found) = self.found().await {
            return Ok(found);
        }
        let mut tries = 1;
        loop {
            match self.attempt().await {
                Err(failure) if failure.class == "transient" && self.progress.0.is_some() && tries < TRIES => {
                    self.progress.tell(format!("{}; trying again", failure.message));
                    tries += 1;
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                other => return other,
            }
        }
    }

    async fn lock(&self) -> Result<Lock, Failure> {
        let end = tokio::time::Instant::now() + LOCK_MAX;
        loop {
            let (store, name) = (self.store.clone(), self.wish.name.clone());
            match blocking(move || store.try_lock(&name)).await {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if tokio::time::Instant::now() < end => tokio::time::sleep(LOCK_POLL).await,
                Ok(None) => return Err(Failure::new("busy", "another process has been requesting it for a long time")),
                Err(error) => return Err(storage(&error)),
            }
        }
    }

    /// What another daemon has put there since we last looked.
    async fn found(&self) -> Option<Success> {
        let (store, name) = (self.store.clone(), self.wish.name.clone());
        let loaded = blocking(move || Ok(store.load_one(&name, &|_| Ok(())))).await.ok()?;
        let (version, bundle) = loaded.current.filter(|(version, _)| Some(version) != self.version.as_ref())?;
        let judged = self.judge(&bundle.chain_pem, &bundle.key_pem).ok()?;
        self.progress.tell("another daemon was first; its certificate is used");
        Some(Success { how: How::Found, bundle, pair: judged.pair, saved: Ok(version) })
    }

    async fn attempt(&self) -> Result<Success, Failure> {
        let (pending, is_old) = self.pending().await?;
        if is_old && let Some(adopted) = self.adopted(&pending).await {
            self.progress.tell("the certificate of an earlier request is used");
            return Ok(adopted);
        }
        self.progress.tell(format!("asking {} for {}", self.wish.issuer, self.wish.hosts.join(", ")));
        let (hosts, days) = (&*self.wish.hosts, self.wish.days.unwrap_or(DAYS));
        let replaces = self.replaces.clone();
        let ask = Ask { csr_pem: &pending.csr_pem, hosts, days, now: self.clock.now(), replaces };
        let answer = match self.issuer.issue(&ask).await {
            Ok(answer) => answer,
            Err(failure) => {
                if !failure.may_be_done {
                    self.forget().await;
                }
                return Err(failure);
            }
        };
        let judged = self.judge(&answer.chain_pem, &pending.key_pem).map_err(|rejection| {
            let message = format!("the certificate that came is not what was asked for: {}", rejection.message);
            Failure { may_be_done: true, ..Failure::new("rejected", message) }
        })?;
        Ok(self.kept(How::Issued, answer.id, pending.key_pem, judged).await)
    }

    /// The request that may still be under way, or a new one that is on the disk.
    async fn pending(&self) -> Result<(Pending, bool), Failure> {
        let asked = Asked { issuer: self.wish.issuer.clone(), hosts: self.wish.hosts.clone(), days: self.wish.days };
        let (store, name, hosts) = (self.store.clone(), self.wish.name.clone(), self.wish.hosts.clone());
        let made = blocking(move || {
            let fresh = store.pending_since(&name).and_then(|it| it.elapsed().ok()).is_some_and(|it| it < PENDING_MAX);
            if let Some(old) = store.pending(&name).filter(|it| fresh && it.asked == asked) {
                return Ok((old, true));
            }
            let (key_pem, csr_pem) = request::make(&hosts).map_err(io::Error::other)?;
            let pending = Pending { key_pem, csr_pem, asked };
            store.put_pending(&name, &pending)?;
            Ok((pending, false))
        });
        made.await.map_err(|error| storage(&error))
    }

    /// A certificate for the key of a request whose answer never came.
    async fn adopted(&self, pending: &Pending) -> Option<Success> {
        let host = self.wish.hosts.first()?;
        for orphan in self.issuer.orphans(host, self.clock.now()).await.into_iter().rev() {
            if let Ok(judged) = self.judge(&orphan.chain_pem, &pending.key_pem) {
                return Some(self.kept(How::Adopted, orphan.id, pending.key_pem.clone(), judged).await);
            }
        }
        None
    }

    fn judge(&self, text: &str, key_pem: &str) -> Result<Judged, checks::Rejection> {
        let expected = Expected {
            name: &self.wish.name,
            hosts: &self.wish.hosts,
            key_pem,
            issued: self.issuer.issued(),
            days: self.wish.days,
            outlives: self.outlives,
            roots: self.issuer.roots(),
            revoked: &self.revoked,
            now: self.clock.now(),
        };
        checks::judge(text, &expected, &self.provider)
    }

    /// On the disk if that can be; the certificate is good either way.
    async fn kept(&self, how: How, id: String, key_pem: String, judged: Judged) -> Success {
        for warning in &judged.warnings {
            tracing::warn!(target: "tls", certificate = self.wish.name, "{warning}");
        }
        let now = self.clock.now();
        let meta = Meta {
            issuer: self.wish.issuer.clone(),
            hosts: self.wish.hosts.clone(),
            id,
            days: self.wish.days,
            issued: Some(now),
        };
        let bundle = Bundle { key_pem, chain_pem: judged.chain_pem, meta };
        let saved = save(&self.store, &self.wish.name, &bundle, now).await;
        Success { how, bundle, pair: judged.pair, saved }
    }

    async fn forget(&self) {
        let (store, name) = (self.store.clone(), self.wish.name.clone());
        let _ = blocking(move || store.drop_pending(&name)).await;
    }
}

/// A request is forgotten only when what it brought is safe.
pub(super) async fn save(store: &Store, name: &str, bundle: &Bundle, now: SystemTime) -> Result<String, String> {
    let (store, name, bundle) = (store.clone(), name.to_owned(), bundle.clone());
    let saved = blocking(move || {
        let version = store.save(&name, &bundle, now)?;
        store.drop_pending(&name)?;
        Ok(version)
    });
    saved.await.map_err(|error| error.to_string())
}
