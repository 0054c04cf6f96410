//! What the TLS listeners of one snapshot need, TCP and QUIC alike. Built once per snapshot; a handshake reads memory only.
//!
//! The policy is chosen by the name that the client asks for, before anything is answered. Which host a request may be for
//! is decided later, by `covers`: a client that came in under one policy gets nothing from a host with another.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use config::{Config, Problem, UnknownSni};
use rustls::{
    CommonState, HandshakeKind, ProtocolVersion, ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    challenges::Challenges,
    kernel::Support,
    local::LocalCa,
    managed::{self, Handle, Live},
    names::{covered, normalized},
    pair::{Certificate, Issued, Pair, sha256},
    plan::{Plan, Planner, unprotected},
    policy::{Demand, Policy, Sessions, Transport, provider},
    store::Store,
    stream::{TlsStream, hello},
};
use crate::{
    exchange::{ClientCertificate, Secured},
    telemetry::{Events, Metrics},
};

/// A client that has not settled everything by then never will.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A fatal alert `unrecognized_name`, as it goes over the wire before anything is encrypted.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

const TCP: [&[u8]; 2] = [b"h2", b"http/1.1"];
const QUIC: [&[u8]; 1] = [b"h3"];

/// What outlives snapshots: sessions and their ticket keys, the local CA. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Lasting>);

struct Lasting {
    /// Certificates that renew themselves.
    live: Live,
    challenges: Challenges,
    /// `None`: nothing may be written (a check).
    storage: Option<PathBuf>,
    sessions: Sessions,
    ca: Mutex<Option<LocalCa>>,
}

impl Tls {
    pub fn new(storage: PathBuf) -> Self {
        Self::keeping(Some(storage))
    }

    /// Judges what a configuration asks for and writes nothing.
    pub fn rehearsal() -> Self {
        Self::keeping(None)
    }

    fn keeping(storage: Option<PathBuf>) -> Self {
        Self(Arc::new(Lasting {
            live: Live::default(),
            challenges: Challenges::default(),
            storage,
            sessions: Sessions::default(),
            ca: Mutex::default(),
        }))
    }

    /// Shows what the store has from now on, and keeps it good. Within a runtime; once.
    pub fn keep(&self, events: Events, metrics: Metrics) -> Handle {
        managed::start(self.clone(), self.store(), self.0.live.clone(), events, metrics)
    }

    pub(super) fn store(&self) -> Store {
        Store::new(self.0.storage.clone().unwrap_or_default())
    }

    pub(super) fn challenges(&self) -> Challenges {
        self.0.challenges.clone()
    }

    /// The local CA's answer to a signing request.
    pub(super) fn sign(&self, csr_pem: &str) -> Result<String, String> {
        let mut ca = self.0.ca.lock().unwrap_or_else(PoisonError::into_inner);
        if ca.is_none() {
            *ca = Some(self.open_ca()?);
        }
        ca.as_ref().map_or_else(|| Err("there is no local CA".to_owned()), |it| it.sign_request(csr_pem))
    }

    /// Tickets of the engine before stay good; `keeper` has the keys for the next one.
    pub fn inherit(&self, ticket_keys: &[u8], keeper: impl Fn(&[u8]) + Send + Sync + 'static) {
        self.0.sessions.inherit(ticket_keys, keeper);
    }

    /// Nobody resumes what was settled before.
    pub(super) fn forget_sessions(&self) {
        self.0.sessions.forget();
    }

    /// `None` when HTTPS is off. Reads the certificate files anew.
    pub fn terminator(&self, config: &Config) -> Result<Option<Arc<Terminator>>, Vec<Problem>> {
        if !config.https() {
            let problems = unprotected(config);
            return if problems.is_empty() { Ok(None) } else { Err(problems) };
        }
        let provider = provider();
        let mut ca = self.0.ca.lock().unwrap_or_else(PoisonError::into_inner);
        if ca.is_none() {
            *ca = Some(self.open_ca().map_err(whole)?);
        }
        let Some(ca) = ca.as_mut() else { return Ok(None) };
        let plan = Planner::new(config, &provider, ca).plan()?;
        let root = (ca.pem().to_owned(), ca.path().map(PathBuf::from));
        let terminator = Terminator::new(config, plan, root, &self.0).map_err(whole)?;
        Ok(Some(Arc::new(terminator)))
    }

    /// The same for a dry run: a local CA that there is not yet is made for this once, and not kept.
    pub fn rehearsed(&self, config: &Config) -> Result<Option<Arc<Terminator>>, Vec<Problem>> {
        let is_open = self.0.ca.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_open { self.terminator(config) } else { Self::rehearsal().terminator(config) }
    }

    /// HTTPS must not keep the rest from starting: a disk that cannot be written costs the root its permanence only.
    fn open_ca(&self) -> Result<LocalCa, String> {
        let opened = self.0.storage.as_deref().map(LocalCa::open);
        if let Some(Err(error)) = &opened {
            tracing::warn!(target: "tls", %error, "the local CA cannot be kept; it lives until the daemon ends");
        }
        match opened {
            Some(Ok(ca)) => Ok(ca),
            _ => LocalCa::in_memory().map_err(|error| format!("no local CA can be made: {error}")),
        }
    }
}

fn whole(message: String) -> Vec<Problem> {
    vec![Problem {
        severity: config::Severity::Error,
        file: PathBuf::new(),
        line: 0,
        column: 0,
        key: "ssl".to_owned(),
        message,
        hint: None,
    }]
}

/// Why a connection was refused before it was one. For the log and the counters.
#[derive(Debug)]
pub enum Refusal {
    /// The client named a server that we do not serve, or none where one must be named.
    UnknownName(String),
    /// A certificate authority that looked for a proof, and found it.
    Challenge,
    /// Not TLS, a version or suite that we do not speak, a bad certificate, or the client left.
    Handshake(io::Error),
}

pub struct Terminator {
    table: Arc<Table>,
    configs: HashMap<Policy, Arc<ServerConfig>>,
    quic: Arc<ServerConfig>,
    certificates: Vec<Certificate>,
    warnings: Vec<Problem>,
    stand_ins: Vec<(String, bool)>,
    root: (String, Option<PathBuf>),
}

/// Names to certificates and policies; the resolver of every `ServerConfig`.
struct Table {
    plan: Plan,
    unknown: UnknownSni,
    live: Live,
    challenges: Challenges,
}

/// What a handshake shows.
struct Shown {
    certified: Arc<CertifiedKey>,
    names: Arc<[String]>,
}

impl Shown {
    fn of(pair: &Pair) -> Self {
        Self { certified: pair.certified.clone(), names: pair.names.clone() }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("certificates by name")
    }
}

impl Table {
    fn find(&self, server_name: Option<&str>) -> Option<Shown> {
        self.with(server_name, Shown::of)
    }

    /// The operator's files, else what was requested, else what the local CA made.
    fn with<T>(&self, server_name: Option<&str>, look: impl FnOnce(&Pair) -> T) -> Option<T> {
        let live = self.live.load();
        let default = self.plan.default.as_ref();
        let Some(name) = server_name else {
            let is_ours = default.is_some_and(|it| it.certificate.issued == Issued::Local);
            let requested = live.named("default").filter(|_| is_ours);
            return requested.or(default).map(look);
        };
        let default = default.filter(|_| self.unknown == UnknownSni::Default);
        let name = normalized(name);
        let planned = self.plan.shown.find(&name);
        let given = planned.filter(|it| it.certificate.issued == Issued::File);
        given.or_else(|| live.find(&name)).or(planned).or(default).map(look)
    }

    #[cfg(test)]
    fn shown_name(&self, server_name: Option<&str>) -> Option<String> {
        let shown = self.find(server_name)?;
        let named = |it: &&Pair| Arc::ptr_eq(&it.certified, &shown.certified);
        let all = self.plan.shown.values().chain(&self.plan.default);
        { all }.find(named).map(|it| it.certificate.name.clone())
    }

    fn policy(&self, host: Option<&str>) -> Policy {
        host.and_then(|it| self.plan.policies.find(it)).copied().unwrap_or(self.plan.default_policy)
    }
}

impl ResolvesServerCert for Table {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).map(|it| it.certified)
    }
}

impl Terminator {
    fn new(
        config: &Config,
        mut plan: Plan,
        root: (String, Option<PathBuf>),
        lasting: &Lasting,
    ) -> Result<Self, String> {
        let sessions = &lasting.sessions;
        let provider = provider();
        let certificates = plan.pairs.drain(..).map(|it| it.certificate).collect();
        let (warnings, stand_ins) = (std::mem::take(&mut plan.warnings), std::mem::take(&mut plan.stand_ins));
        let policies: HashSet<Policy> = plan.policies.values().copied().chain([plan.default_policy]).collect();
        let table = Arc::new(Table {
            plan,
            unknown: config.ssl.unknown_sni,
            live: lasting.live.clone(),
            challenges: lasting.challenges.clone(),
        });
        let make = |policy: Policy, alpn: &[&[u8]]| -> Result<Arc<ServerConfig>, String> {
            let authorities = table.plan.authorities.get(&policy.authorities);
            let mut made = sessions.config(policy, authorities, table.clone(), &provider)?;
            made.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
            made.enable_secret_extraction = table.plan.kernel.is_some() && policy.transport == Transport::Tcp;
            if policy.transport == Transport::Quic && config.ssl.early_data {
                Sessions::allow_early_data(&mut made);
            }
            Ok(Arc::new(made))
        };
        let mut configs = HashMap::new();
        for policy in policies {
            configs.insert(policy, make(policy, &TCP)?);
        }
        let over_quic = Policy { demand: Demand::Off, authorities: 0, only_tls13: true, transport: Transport::Quic };
        let quic = make(over_quic, &QUIC)?;
        Ok(Self { table, configs, quic, certificates, warnings, stand_ins, root })
    }

    /// The caller sets the deadline.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut io: S,
    ) -> Result<(TlsStream<S>, Arc<Secured>), Refusal> {
        let (hello, accepted) = hello(&mut io).await.map_err(Refusal::Handshake)?;
        let name = accepted.client_hello().server_name().map(normalized);
        let proof = {
            let offered = accepted.client_hello().alpn().into_iter().flatten();
            self.table.challenges.proof(name.as_deref(), offered)
        };
        // The connection reads for itself what the client has said.
        drop(accepted);
        if let Some(proof) = proof {
            // It has seen what it came for when this ends.
            TlsStream::accept(io, proof, hello).await.map_err(Refusal::Handshake)?;
            return Err(Refusal::Challenge);
        }
        let policy = self.table.policy(name.as_deref());
        let (Some(shown), Some(config)) = (self.table.find(name.as_deref()), self.configs.get(&policy)) else {
            // The client is gone either way.
            let _ = io.write_all(&UNRECOGNIZED_NAME).await;
            let _ = io.shutdown().await;
            return Err(Refusal::UnknownName(name.unwrap_or_default()));
        };
        let names = shown.names;
        let stream = TlsStream::accept(io, config.clone(), hello).await.map_err(Refusal::Handshake)?;
        let settled = stream.settled();
        let secured = Secured {
            server_name: name.map(Into::into),
            names,
            policy: policy.client_auth(),
            version: version(settled),
            cipher: settled.negotiated_cipher_suite().and_then(|it| it.suite().as_str()).unwrap_or_default(),
            client: settled.peer_certificates().and_then(|it| client(it.first()?)),
        };
        Ok((stream, Arc::new(secured)))
    }

    /// What the kernel may be asked to encrypt.
    pub fn kernel(&self) -> Option<Support> {
        self.table.plan.kernel
    }

    /// What an authority that looks for this token is to be told.
    pub fn challenge(&self, token: &str) -> Option<String> {
        self.table.challenges.answer(token)
    }

    /// For QUIC endpoints: the same certificates, ALPN `h3`, no client certificates.
    pub fn quic(&self) -> Arc<ServerConfig> {
        self.quic.clone()
    }

    /// Over QUIC, from clients that come back.
    pub fn takes_early_data(&self) -> bool {
        self.quic.max_early_data_size > 0
    }

    /// What a QUIC handshake settled, from what its connection tells. Sites that ask for client certificates have another
    /// policy than this one, so `covers` sends their clients elsewhere.
    pub fn secured_by_quic(&self, server_name: Option<&str>) -> Arc<Secured> {
        let name = server_name.map(normalized);
        Arc::new(Secured {
            names: self.table.find(name.as_deref()).map_or_else(|| Arc::new([]) as Arc<[String]>, |it| it.names),
            server_name: name.map(Into::into),
            policy: 0,
            version: "TLSv1.3",
            cipher: "",
            client: None,
        })
    }

    /// Whether a request for `host` may be answered on a connection that settled this. If not: 421.
    ///
    /// The client has accepted the certificate for the name it asked for, whatever the certificate says; for any other host
    /// the certificate must speak. And whoever asks for client certificates must have asked when this connection was made.
    pub fn covers(&self, secured: &Secured, host: &str) -> bool {
        let needed = self.table.policy(Some(host));
        let is_named = match &secured.server_name {
            Some(name) => **name == *host,
            // Addresses are never named in a handshake.
            None => host.parse::<std::net::IpAddr>().is_ok(),
        };
        (is_named || covered(&secured.names, host))
            && needed.client_auth() == secured.policy
            && (!needed.only_tls13 || secured.version == "TLSv1.3")
    }

    /// Whether `host` is only for clients with a certificate, and so never for anybody in cleartext.
    pub fn demands_certificate(&self, host: &str) -> bool {
        self.table.policy(Some(host)).demand == Demand::Require
    }

    /// What a client that asks for `host` is shown, and whether it is good for that; `None` when the client is refused.
    pub fn shown(&self, host: &str) -> Option<(Certificate, bool)> {
        let host = host.replacen("*.", "any-name.", 1);
        self.table.with(Some(&host), |it| (it.certificate.clone(), covered(&it.names, &host)))
    }

    /// Those of this configuration: from files and from the local CA. Not those of the local CA that nobody sees because
    /// others are shown in their place.
    pub fn certificates(&self) -> Vec<&Certificate> {
        let live = self.table.live.load();
        let is_replaced = |it: &Certificate| {
            it.issued == Issued::Local && !it.hosts.is_empty() && it.hosts.iter().all(|host| live.find(host).is_some())
        };
        self.certificates.iter().filter(|it| !is_replaced(it)).collect()
    }

    /// What clients will not like, although it does not keep anything from running.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Why the daemon counts as degraded: hosts whose certificate no client trusts.
    pub fn degraded(&self) -> Option<String> {
        let live = self.table.live.load();
        let hosts = |requested: bool| {
            let missing = |(host, it): &&(String, bool)| *it == requested && live.find(host).is_none();
            self.stand_ins.iter().filter(missing).map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(", ")
        };
        let told = |hosts: String, why: &str| {
            (!hosts.is_empty()).then(|| format!("{hosts}: the certificate is from the local CA, because {why}"))
        };
        let not_yet = told(hosts(true), "the one that was requested is not there yet; see `miwictl cert list`");
        let other = told(hosts(false), "no other is configured; see `[ssl] cert` and `issuer`");
        let reasons: Vec<String> = [not_yet, other].into_iter().flatten().collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// The root of the local CA as PEM, and where it lies.
    pub fn root(&self) -> (&str, Option<&std::path::Path>) {
        (&self.root.0, self.root.1.as_deref())
    }

    /// What a reload compares: the content of everything that came from files, by name.
    pub fn contents(&self) -> BTreeMap<String, String> {
        let mut contents: BTreeMap<String, String> = BTreeMap::new();
        for certificate in &self.certificates {
            contents.entry(certificate.name.clone()).or_default().push_str(&certificate.sha256);
        }
        let mut authorities: Vec<u64> = self.table.plan.authorities.keys().copied().collect();
        authorities.sort_unstable();
        if !authorities.is_empty() {
            contents.insert("client_ca".to_owned(), format!("{authorities:?}"));
        }
        contents
    }
}

fn version(settled: &CommonState) -> &'static str {
    match settled.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    }
}

/// How a handshake went, for the counters.
pub fn kind(settled: &CommonState) -> HandshakeKind {
    settled.handshake_kind().unwrap_or(HandshakeKind::Full)
}

fn client(der: &[u8]) -> Option<ClientCertificate> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(ClientCertificate { subject: certificate.subject().to_string(), fingerprint: sha256(der) })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A terminator of the local CA for these sites; `SITE+` is one that requires client certificates.
    fn terminator(unknown_sni: &str, sites: &[&str]) -> Terminator {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = LocalCa::in_memory().expect("a root");
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).expect("a file");
        let mut text =
            format!("[server]\nenable_https = true\n[ssl]\nissuer = \"local\"\nunknown_sni = \"{unknown_sni}\"\n");
        for site in sites {
            let host = site.trim_end_matches('+');
            text.push_str(&format!("[backends.\"{host}\"]\nroot = \"/\"\n"));
            if site.ends_with('+') {
                let ssl = "client_auth = \"require\"\nclient_ca = \"ca.pem\"";
                text.push_str(&format!("[backends.\"{host}\".ssl]\n{ssl}\n"));
            }
        }
        let path = directory.path().join("m.toml");
        let loaded = config::load_text(&path, &text, &[], &config::Capabilities::default()).expect("a configuration");
        let made = Tls::rehearsal().terminator(&loaded.config).expect("good certificates").expect("HTTPS is on");
        Arc::into_inner(made).expect("nobody else has it")
    }

    #[test]
    fn quic_never_leads_to_a_site_that_asks_for_client_certificates() {
        let terminator = terminator("reject", &["open.test", "closed.test+"]);
        let settled = |name| terminator.secured_by_quic(Some(name));
        assert!(terminator.covers(&settled("OPEN.test"), "open.test"));
        assert!(!terminator.covers(&settled("closed.test"), "closed.test"));
        assert!(!terminator.covers(&settled("open.test"), "closed.test"));
        assert!(terminator.demands_certificate("closed.test") && !terminator.demands_certificate("open.test"));
    }

    #[test]
    fn clients_without_a_name_are_served_where_a_default_makes_sense() {
        let shown =
            |unknown: &str, sites: &[&str], name: Option<&str>| terminator(unknown, sites).table.shown_name(name);
        let default = Some("default".to_owned());
        assert_eq!(shown("reject", &["a.test"], None), None);
        assert_eq!(shown("default", &["a.test"], None), default);
        assert_eq!(shown("reject", &["a.test", "_"], None), default);
        assert_eq!(shown("reject", &["a.test", "192.0.2.1"], None), default);
        assert_eq!(shown("reject", &["a.test", "_"], Some("b.test")), None);
        assert_eq!(shown("default", &["a.test"], Some("b.test")), default);
        assert_eq!(shown("reject", &["a.test"], Some("A.TEST.")), Some("a.test".to_owned()));
    }

    #[test]
    fn an_address_needs_no_name_but_a_host_needs_the_certificate() {
        let terminator = terminator("default", &["a.test", "b.test+"]);
        let nameless = terminator.secured_by_quic(None);
        assert!(terminator.covers(&nameless, "127.0.0.1") && terminator.covers(&nameless, "198.51.100.7"));
        assert!(terminator.covers(&nameless, "localhost"));
        assert!(!terminator.covers(&nameless, "a.test") && !terminator.covers(&nameless, "b.test"));
    }

    #[test]
    fn the_builtin_default_serves_https() {
        let text = config::builtin(Path::new("/usr/bin/miwid"));
        let loaded = config::load_text(Path::new("m.toml"), &text, &[], &config::Capabilities::default());
        let made = Tls::rehearsal().terminator(&loaded.expect("it loads").config).expect("good").expect("HTTPS is on");
        assert_eq!(made.degraded(), None);
        let hosts: Vec<&str> = made.certificates().iter().flat_map(|it| &it.hosts).map(|it| &**it).collect();
        for host in ["app.localhost", "localhost", "127.0.0.1", "::1"] {
            assert!(hosts.contains(&host), "{host}: {hosts:?}");
        }
    }
}
