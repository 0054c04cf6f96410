//! The double as a test holds it: it starts one, tells it what it knows and what is to go wrong, and reads what it was asked.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::request::Parts;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    answers::{self, Answer},
    authority::Authority,
    faults::{RetryAfter, Rule, Then},
    judge, nameserver,
    routes::{self, Authorities, Call},
    state::{Issued, State, Token, Zone},
    wire,
};

pub(super) const BASE: &str = "/client/v4";
const WINDOW: Duration = Duration::from_secs(300);
const PER_WINDOW: u32 = 1200;

/// How a double begins.
pub struct Options {
    pub listen: SocketAddr,
    pub tokens: Vec<Token>,
    pub zones: Vec<Zone>,
}

impl Default for Options {
    /// One token, `cfut_good...`, with every right on `example.com` and `example.net`.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tokens: vec![Token::user(Cloudflare::TOKEN)],
            zones: vec![Zone::new("example.com"), Zone::new("example.net")],
        }
    }
}

/// A running double; dropping it ends it.
pub struct Cloudflare {
    inner: Arc<Inner>,
    address: SocketAddr,
    /// The authority of its own TLS certificate.
    ca: String,
    open: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

pub(super) struct Inner {
    state: Mutex<State>,
    authorities: Authorities,
}

impl Cloudflare {
    /// What the default token says.
    pub const TOKEN: &str = "cfut_TestTokenOfTheDoubleNotASecret0123456789abcd";

    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Panics for an address that is not of the loopback: this is no server for anybody else.
    pub async fn with(options: Options) -> Self {
        assert!(options.listen.ip().is_loopback(), "the double listens on the loopback only");
        let unit = "CloudFlare Origin SSL";
        let authorities = Authorities {
            ecc: Authority::new(&format!("{unit} ECC Certificate Authority"), false),
            rsa: Authority::new(&format!("{unit} Certificate Authority"), true),
            other: Authority::new("Somebody Else's Authority", false),
        };
        let state =
            State { tokens: options.tokens, zones: options.zones, requests_max: Some(PER_WINDOW), ..State::default() };
        let inner = Arc::new(Inner { state: Mutex::new(state), authorities });
        let listener = TcpListener::bind(options.listen).await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (tls, ca) = tls();
        let (open, opened) = watch::channel(true);
        let task = tokio::spawn(wire::listen(inner.clone(), tls, listener, opened));
        Self { inner, address, ca, open, tasks: Mutex::new(vec![task]) }
    }

    /// What `[cloudflare] api_base` is to be.
    pub fn base(&self) -> String {
        format!("https://{}{BASE}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for the zones over DNS from now on; where.
    pub async fn nameserver(&self) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("the loopback has a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(nameserver::serve(self.inner.clone(), socket));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        address
    }

    /// Whenever a record is to be made, somebody was there before with the same content.
    pub fn forestall(&self, comment: Option<&str>, ttl: u64) {
        self.inner.lock().forestalled = Some((comment.map(str::to_owned), ttl));
    }

    /// Names of the TXT records that the zones have.
    pub fn records(&self) -> Vec<String> {
        let state = self.inner.lock();
        let named = |it: &Value| it["name"].as_str().unwrap_or_default().to_owned();
        state.zones.iter().flat_map(|it| it.records.values().map(named)).collect()
    }

    /// The authority to trust when speaking to it, as PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The roots that its certificates are signed by, as PEM.
    pub fn roots(&self) -> String {
        format!("{}{}", self.inner.authorities.ecc.pem, self.inner.authorities.rsa.pem)
    }

    pub fn rule(&self, rule: Rule) {
        self.inner.lock().rules.push(rule);
    }

    /// So many requests in five minutes, instead of 1200.
    pub fn limit(&self, requests: u32) {
        self.inner.lock().requests_max = Some(requests);
    }

    pub fn no_rules(&self) {
        self.inner.lock().rules.clear();
    }

    /// Refuses connections, or takes them again on the same port.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    pub fn advance(&self, by: Duration) {
        self.inner.lock().clock_ahead += by;
    }

    pub fn now(&self) -> SystemTime {
        self.inner.lock().now()
    }

    pub fn add_token(&self, token: Token) {
        self.inner.lock().tokens.push(token);
    }

    pub fn update_token(&self, value: &str, change: impl FnOnce(&mut Token)) {
        self.inner.lock().tokens.iter_mut().find(|it| it.value == value).into_iter().for_each(change_once(change));
    }

    pub fn add_zone(&self, zone: Zone) {
        self.inner.lock().zones.push(zone);
    }

    pub fn update_zone(&self, name: &str, change: impl FnOnce(&mut Zone)) {
        self.inner.lock().zones.iter_mut().find(|it| it.name == name).into_iter().for_each(change_once(change));
    }

    /// What was to leave the cache of this zone.
    pub fn purged(&self, name: &str) -> Vec<Value> {
        let state = self.inner.lock();
        state.zones.iter().find(|it| it.name == name).map(|it| it.purged.clone()).unwrap_or_default()
    }

    /// What it says of its addresses from now on; `None`: the usual.
    pub fn say_ips(&self, result: Option<Value>) {
        self.inner.lock().ips = result;
    }

    pub fn certificates(&self) -> Vec<Issued> {
        self.inner.lock().certificates.clone()
    }

    /// Signs somebody's certificate as revoked, as if it was done in the dashboard.
    pub fn revoke(&self, id: &str) {
        for issued in self.inner.lock().certificates.iter_mut().filter(|it| it.id == id) {
            issued.revoked_at = Some("2026-01-01T00:00:00Z".to_owned());
        }
    }

    /// What was asked, oldest first: `{"method", "path", "status", "token"}`.
    pub fn requests(&self) -> Vec<Value> {
        self.inner.lock().requests.iter().cloned().collect()
    }

    /// How many requests of this method for a path that begins so.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let fits = |it: &&Value| it["method"] == method && it["path"].as_str().is_some_and(|it| it.starts_with(path));
        self.inner.lock().requests.iter().filter(fits).count()
    }

    /// What was not as a good client asks.
    pub fn violations(&self) -> Vec<String> {
        self.inner.lock().violations.clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.lock()
    }
}

fn change_once<T>(change: impl FnOnce(&mut T)) -> impl FnMut(&mut T) {
    let mut change = Some(change);
    move |it| {
        if let Some(change) = change.take() {
            change(it);
        }
    }
}

impl Drop for Cloudflare {
    fn drop(&mut self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|it| it.abort());
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What TXT records of this name say.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let state = self.lock();
        let is_text = |it: &&Value| it["name"] == *name && it["type"] == "TXT";
        let all = state.zones.iter().flat_map(|it| it.records.values()).filter(is_text);
        all.filter_map(|it| it["content"].as_str().map(|it| it.trim_matches('"').to_owned())).collect()
    }

    pub(super) fn fault(&self, method: &str, path: &str) -> Option<Then> {
        let path = path.strip_prefix(BASE)?;
        self.lock().rules.iter_mut().find_map(|rule| rule.takes(method, path).then(|| rule.then.clone()))
    }

    pub(super) fn answer(&self, parts: &Parts, body: &Bytes, fault: Option<&Then>) -> Answer {
        let mut state = self.lock();
        let Some(path) = parts.uri.path().strip_prefix(BASE) else { return answers::no_route(parts.uri.path()) };
        for violation in judge::manners(parts, path, body) {
            state.violate(violation);
        }
        let mutation = if let Some(Then::Mutate(it)) = fault { Some(it.clone()) } else { None };
        let call = Call { parts, path, body, mutation };
        let answer = match fault.filter(|it| !it.is_after()) {
            Some(fault) => refused(fault, state.now()),
            None if over_limit(&mut state) => limited(&RetryAfter::Absent, state.now()),
            None => routes::answer(&mut state, &self.authorities, &call),
        };
        let answer = spoiled(answer, fault);
        let token = parts.headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
        let token = token.get(token.len().saturating_sub(4)..).unwrap_or_default();
        state.note(json!({
            "method": parts.method.as_str(), "path": path, "query": parts.uri.query(),
            "status": answer.status.as_u16(), "token": token,
        }));
        answer.with("cf-ray", &format!("{:016x}-TST", state.requests.len())).with("server", "cloudflare")
    }
}

/// 1200 requests in five minutes; then nothing for five minutes.
fn over_limit(state: &mut State) -> bool {
    let Some(most) = state.requests_max else { return false };
    let now = state.now();
    match &mut state.window {
        Some((since, count)) if now.duration_since(*since).is_ok_and(|it| it < WINDOW) => {
            *count += 1;
            *count > most
        }
        window => {
            *window = Some((now, 1));
            false
        }
    }
}

fn refused(fault: &Then, now: SystemTime) -> Answer {
    match fault {
        Then::Answer { status, content_type, body } => Answer::new(*status, content_type, body.clone()),
        Then::Refuse { status, code, message } => answers::error(*status, *code, message),
        Then::RateLimit(after) => limited(after, now),
        Then::Redirect(to) => Answer::new(301, "text/plain", "elsewhere").with("location", to),
        _ => Answer::new(200, "application/json", "{}"),
    }
}

fn limited(after: &RetryAfter, now: SystemTime) -> Answer {
    let message =
        "More than 1200 requests per 300 seconds reached. Please wait and consider throttling your request speed";
    let answer = answers::error(429, 10429, message);
    match after {
        RetryAfter::Seconds(seconds) => answer.with("retry-after", &seconds.to_string()),
        RetryAfter::HttpDate(seconds) => {
            answer.with("retry-after", &httpdate::fmt_http_date(now + Duration::from_secs(*seconds)))
        }
        RetryAfter::Text(text) => answer.with("retry-after", text),
        RetryAfter::Absent => answer,
    }
}

fn spoiled(answer: Answer, fault: Option<&Then>) -> Answer {
    let rewritten = |change: &dyn Fn(&mut Value)| {
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        change(&mut body);
        Answer { body: body.to_string().into(), ..answer.clone() }
    };
    match fault {
        Some(Then::NullResult) => rewritten(&|it| it["result"] = Value::Null),
        Some(Then::MessagesAsStrings) => rewritten(&|it| it["messages"] = json!(["a word"])),
        Some(Then::OmitMessages) => rewritten(&|it| drop(it.as_object_mut().map(|it| it.remove("messages")))),
        Some(Then::ExtraFields) => rewritten(&|it| {
            it["later"] = json!({ "a": [1] });
            it["result"]["later"] = json!("b");
        }),
        Some(Then::ByteOrderMark) => {
            let body = [b"\xef\xbb\xbf", &answer.body[..]].concat();
            Answer { body: body.into(), ..answer }
        }
        Some(Then::Gzip) => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &answer.body).expect("memory takes it");
            let body = encoder.finish().expect("memory takes it");
            Answer { body: body.into(), ..answer }.with("content-encoding", "gzip")
        }
        _ => answer,
    }
}

fn tls() -> (TlsAcceptor, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "the authority of a double");
    let ca = params.self_signed(&key).expect("a root").pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let names = ["127.0.0.1", "::1", "localhost", "api.cloudflare.com"].map(str::to_owned);
    let mut params = CertificateParams::new(names).expect("good names");
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let leaf = params.signed_by(&key, &issuer).expect("a certificate");
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], secret)
        .expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), ca)
}
