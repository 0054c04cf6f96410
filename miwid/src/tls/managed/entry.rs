//! One certificate that is kept: what is wanted, what is there, and how the last attempt went.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::SystemTime,
};

use instant_acme::CertificateIdentifier;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::sync::oneshot;

use super::{
    advice,
    handle::Answer,
    issuer::Failure,
    renewal::{self, Due, Held, Situation},
    standing::Standing,
};
use crate::tls::{
    names::covered,
    pair::{Issued, Pair},
    store::{Bundle, Record, Wish},
};

/// The certificate that is there.
pub(super) struct Current {
    /// `None` while it is in memory only.
    pub(super) version: Option<String>,
    pub(super) bundle: Bundle,
    pub(super) pair: Pair,
}

impl Current {
    /// From the disk, where it was judged before it got there: only that it can be shown is looked at again.
    pub(super) fn read(
        name: &str,
        version: Option<String>,
        bundle: &Bundle,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle.chain_pem.as_bytes()).collect();
        let chain = chain.map_err(|error| format!("chain.pem: {error}"))?;
        let key =
            PrivateKeyDer::from_pem_slice(bundle.key_pem.as_bytes()).map_err(|_| "key.pem holds no key".to_owned())?;
        let issued = match bundle.meta.issuer.as_str() {
            "local" => Issued::Local,
            "imported" => Issued::Imported,
            "acme" => Issued::Acme,
            _ => Issued::Cloudflare,
        };
        let pair = Pair::new(name, issued, chain, key, provider).map_err(|bad| bad.to_string())?;
        Ok(Self { version, bundle: bundle.clone(), pair })
    }
}

pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) current: Option<Current>,
    pub(super) is_busy: bool,
    /// The disk does not have it yet.
    pub(super) is_unsaved: bool,
    pub(super) waiting: Vec<oneshot::Sender<Answer>>,
    /// Days of the last warning.
    pub(super) warned: Option<u64>,
    /// When the issuer was last asked whether it has revoked it.
    pub(super) looked: SystemTime,
    /// When its authority is asked for advice next.
    pub(super) inquire: SystemTime,
}

impl Entry {
    pub(super) fn new(record: Record, current: Option<Current>, now: SystemTime) -> Self {
        let inquire = record.advice.as_ref().and_then(|it| it.again).unwrap_or(now);
        Self {
            record,
            current,
            is_busy: false,
            is_unsaved: false,
            waiting: Vec::new(),
            warned: None,
            looked: now,
            inquire,
        }
    }

    /// What an authority calls the certificate that is there.
    pub(super) fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        advice::identifier(&self.current.as_ref()?.bundle.chain_pem)
    }

    /// Advice about this very certificate.
    fn advised(&self) -> Option<(SystemTime, SystemTime)> {
        let advice = self.record.advice.as_ref()?;
        let is_this = match self.current.as_ref()?.bundle.meta.id.as_str() {
            // Written down by a version that did not know it.
            "" => self.identifier()?.to_string() == advice.of,
            id => id == advice.of,
        };
        is_this.then_some((advice.start?, advice.end?))
    }

    /// Its authority knows it: it has given advice about it.
    pub(super) fn replaces(&self) -> Option<CertificateIdentifier<'static>> {
        self.advised().and_then(|_| self.identifier())
    }

    pub(super) fn is_of_configuration(&self) -> bool {
        self.record.wish.as_ref().is_some_and(|it| it.origin == "configuration")
    }

    /// What is there counts for nothing any more, and what was waited for with it.
    pub(super) fn revoked(&mut self, id: String) {
        self.record.revoked.push(id);
        self.record.next_attempt = None;
    }

    /// What was imported is renewed by whoever made it.
    pub(super) fn is_renewed(&self) -> bool {
        self.record.wish.as_ref().is_some_and(|it| it.issuer != "imported")
    }

    fn is_revoked(&self) -> bool {
        self.current.as_ref().is_some_and(|it| self.record.revoked.contains(&it.bundle.meta.id))
    }

    /// One that was revoked by the operator is not shown; one whose issuer did so is, until another is there: clients that
    /// do not look are served meanwhile.
    pub(super) fn shown(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    fn is_as_wanted(&self, wish: &Wish) -> bool {
        self.current.as_ref().is_some_and(|it| {
            let has = |host: &String| it.pair.names.contains(host) || covered(&it.pair.names, host);
            wish.hosts.iter().all(has) && it.bundle.meta.issuer == wish.issuer && !self.is_revoked()
        })
    }

    fn held(&self) -> Option<Held> {
        let wish = self.record.wish.as_ref()?;
        let it = &self.current.as_ref()?.pair.certificate;
        Some(Held { not_before: it.not_before, not_after: it.not_after, is_as_wanted: self.is_as_wanted(wish) })
    }

    pub(super) fn situation(&self) -> Situation {
        Situation {
            held: self.held(),
            next_attempt: self.record.next_attempt,
            blocked: self.record.blocked,
            advised: self.advised(),
            seed: self.seed(),
        }
    }

    fn seed(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.record.wish.as_ref().map(|it| &it.name).hash(&mut hasher);
        self.current.as_ref().map(|it| &it.pair.certificate.sha256).hash(&mut hasher);
        hasher.finish()
    }

    /// A renewal must be one; a certificate for other hosts need not live longer.
    pub(super) fn outlives(&self, wish: &Wish) -> Option<SystemTime> {
        let end = self.current.as_ref()?.pair.certificate.not_after;
        self.is_as_wanted(wish).then_some(end)
    }

    pub(super) fn succeeded(&mut self, now: SystemTime) {
        // If something else is wanted by now, there is no reason to rest.
        let rest = self.held().filter(|it| it.is_as_wanted).map(|it| now + renewal::rest(&it));
        let record = &mut self.record;
        (record.attempts, record.next_attempt, record.blocked, record.last_error) = (0, rest, None, None);
        self.warned = None;
        self.inquire = now;
    }

    pub(super) fn failed(&mut self, failure: &Failure, now: SystemTime) {
        let urgent = renewal::is_urgent(now, self.held().as_ref()) && self.current.is_some();
        let seed = self.seed();
        let record = &mut self.record;
        record.attempts += 1;
        let wait = renewal::backoff(record.attempts, failure.patience, urgent, seed);
        record.next_attempt = Some(failure.blocked.unwrap_or(now + wait));
        record.blocked = failure.blocked;
        record.last_error = Some(failure.message.clone());
    }

    pub(super) fn standing(&self) -> Option<Standing> {
        let wish = self.record.wish.as_ref()?;
        let next_renewal = self.is_renewed().then(|| match renewal::due(SystemTime::UNIX_EPOCH, &self.situation()) {
            // Seen from the beginning of time everything is still to come.
            Due::At(at) => Some(at),
            Due::Now => self.record.next_attempt,
        });
        Some(Standing {
            name: wish.name.clone(),
            hosts: wish.hosts.clone(),
            issuer: wish.issuer.clone(),
            origin: wish.origin.clone(),
            certificate: self.current.as_ref().map(|it| it.pair.certificate.clone()),
            next_renewal: next_renewal.flatten(),
            attempts: self.record.attempts,
            last_error: self.record.last_error.clone(),
        })
    }
}
