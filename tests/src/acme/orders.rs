//! What an authority keeps: accounts, orders, certificates, and the rules between them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, KeyIdMethod, KeyPair,
    SerialNumber,
};
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};

use super::{double::Step, jws};

const DAY: Duration = Duration::from_secs(86_400);

/// An answer that says no.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) kind: String,
    pub(super) status: u16,
    pub(super) detail: String,
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(kind: &str, detail: &str) -> Self {
        let status = if kind == "rateLimited" {
            429
        } else if kind == "serverInternal" {
            500
        } else {
            400
        };
        Self { kind: kind.to_owned(), status, detail: detail.to_owned(), retry_after: None }
    }

    pub(super) fn document(&self) -> Value {
        let kind = format!("urn:ietf:params:acme:error:{}", self.kind);
        json!({ "type": kind, "detail": self.detail, "status": self.status })
    }
}

pub(super) struct Order {
    pub(super) names: Vec<String>,
    pub(super) replaces: Option<String>,
    pub(super) profile: Option<String>,
    /// By name, whether it has been shown, or why not.
    pub(super) shown: BTreeMap<String, Result<bool, Refusal>>,
    pub(super) certificate: Option<usize>,
    pub(super) failure: Option<Refusal>,
}

impl Order {
    pub(super) fn status(&self) -> &'static str {
        match () {
            () if self.failure.is_some() || self.shown.values().any(Result::is_err) => "invalid",
            () if self.certificate.is_some() => "valid",
            () if self.shown.values().all(|it| matches!(it, Ok(true))) => "ready",
            () => "pending",
        }
    }
}

/// A certificate that was signed.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) id: String,
    pub(super) pem: String,
    pub(super) der: Vec<u8>,
    pub(super) is_revoked: bool,
}

pub(super) struct Ledger {
    issuer: rcgen::Issuer<'static, KeyPair>,
    key_id: Vec<u8>,
    root_pem: String,
    /// Keys by the address of the account.
    pub(super) accounts: BTreeMap<String, Vec<u8>>,
    pub(super) orders: Vec<Order>,
    pub(super) signed: Vec<Signed>,
    pub(super) replaced: BTreeSet<String>,
    pub(super) nonces: BTreeSet<String>,
    pub(super) bad_nonces: u32,
    pub(super) refusals: VecDeque<(Step, Refusal)>,
    pub(super) requests: Vec<String>,
    pub(super) clock_ahead: Duration,
}

impl Ledger {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ACME double");
        let root_pem = params.self_signed(&key).expect("a root").pem();
        let key_id = uuid::Uuid::new_v4().as_bytes().to_vec();
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.clone());
        Self {
            issuer: rcgen::Issuer::new(params, key),
            key_id,
            root_pem,
            accounts: BTreeMap::new(),
            orders: Vec::new(),
            signed: Vec::new(),
            replaced: BTreeSet::new(),
            nonces: BTreeSet::new(),
            bad_nonces: 0,
            refusals: VecDeque::new(),
            requests: Vec::new(),
            clock_ahead: Duration::ZERO,
        }
    }

    /// The refusal that was planted for this step, if it is next.
    pub(super) fn planted(&mut self, step: Step) -> Result<(), Refusal> {
        match self.refusals.iter().position(|(it, _)| *it == step).and_then(|at| self.refusals.remove(at)) {
            Some((_, refusal)) => Err(refusal),
            None => Ok(()),
        }
    }

    pub(super) fn order(&mut self, payload: &Value) -> Result<usize, Refusal> {
        self.planted(Step::NewOrder)?;
        let malformed = |what: &str| Refusal::new("malformed", what);
        let listed = payload["identifiers"].as_array().ok_or_else(|| malformed("identifiers"))?;
        let name = |it: &Value| (it["type"] == "dns").then(|| it["value"].as_str().map(str::to_owned)).flatten();
        let names: Option<Vec<String>> = listed.iter().map(name).collect();
        let names = names.filter(|it| !it.is_empty()).ok_or_else(|| malformed("an identifier is a DNS name"))?;
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        if let Some(id) = &replaces {
            if !self.signed.iter().any(|it| it.id == *id) {
                return Err(malformed("there is no certificate that could be replaced"));
            }
            if !self.replaced.insert(id.clone()) {
                let refusal = Refusal::new("alreadyReplaced", "the certificate has been replaced already");
                return Err(Refusal { status: 409, ..refusal });
            }
        }
        let profile = payload["profile"].as_str().map(str::to_owned);
        if profile.as_ref().is_some_and(|it| it != "shortlived") {
            return Err(Refusal::new("invalidProfile", "there is no such profile"));
        }
        let shown = names.iter().map(|it| (it.clone(), Ok(false))).collect();
        self.orders.push(Order { names, replaces, profile, shown, certificate: None, failure: None });
        Ok(self.orders.len() - 1)
    }

    /// Whoever answers a challenge is believed, unless something else was planted.
    pub(super) fn answer(&mut self, order: usize, name: &str) {
        let judged = self.planted(Step::Challenge).map(|()| true);
        if let Some(shown) = self.orders.get_mut(order).and_then(|it| it.shown.get_mut(name)) {
            *shown = judged;
        }
    }

    pub(super) fn finalize(&mut self, at: usize, payload: &Value) -> Result<(), Refusal> {
        self.planted(Step::Finalize)?;
        if let Err(refusal) = self.planted(Step::Order) {
            self.orders[at].failure = Some(refusal);
            return Ok(());
        }
        if self.orders[at].status() != "ready" {
            return Err(Refusal { status: 403, ..Refusal::new("orderNotReady", "not every name has been shown") });
        }
        let bad = |what: &str| Refusal::new("badCSR", what);
        let der = jws::decode(payload["csr"].as_str().unwrap_or_default()).map_err(bad)?;
        let der = CertificateSigningRequestDer::from(der);
        let mut csr = CertificateSigningRequestParams::from_der(&der).map_err(|it| bad(&it.to_string()))?;
        let names = self.orders[at].names.clone();
        csr.params = CertificateParams::new(names).map_err(|it| bad(&it.to_string()))?;
        let serial = SerialNumber::from(uuid::Uuid::new_v4().as_bytes().to_vec());
        csr.params.use_authority_key_identifier_extension = true;
        csr.params.serial_number = Some(serial);
        let now = SystemTime::now() + self.clock_ahead - Duration::from_secs(3600);
        (csr.params.not_before, csr.params.not_after) = (now.into(), (now + DAY * 90).into());
        let leaf = csr.signed_by(&self.issuer).map_err(|it| bad(&it.to_string()))?;
        let (_, read) = x509_parser::parse_x509_certificate(leaf.der()).expect("what was signed just now");
        let id = format!("{}.{}", jws::encode(&self.key_id), jws::encode(read.raw_serial()));
        let pem = format!("{}{}", leaf.pem(), self.root_pem);
        self.signed.push(Signed { id, pem, der: leaf.der().to_vec(), is_revoked: false });
        self.orders[at].certificate = Some(self.signed.len() - 1);
        Ok(())
    }

    pub(super) fn revoke(&mut self, payload: &Value) -> Result<(), Refusal> {
        self.planted(Step::Revoke)?;
        let der = jws::decode(payload["certificate"].as_str().unwrap_or_default())
            .map_err(|what| Refusal::new("malformed", what))?;
        let signed = self.signed.iter_mut().find(|it| it.der == der);
        let signed = signed.ok_or_else(|| Refusal::new("unauthorized", "it is not ours"))?;
        if std::mem::replace(&mut signed.is_revoked, true) {
            return Err(Refusal::new("alreadyRevoked", "it is revoked"));
        }
        Ok(())
    }
}
