//! The authority as a test holds it, and the addresses of its interface.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    jws,
    orders::{Ledger, Order, Refusal},
};

/// Where a refusal can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    NewAccount,
    NewOrder,
    /// The proof is not found.
    Challenge,
    Finalize,
    /// The order itself becomes invalid after its signing request was taken.
    Order,
    Revoke,
}

/// What it says about when to renew.
#[derive(Clone, Debug)]
pub enum Window {
    /// Days from now.
    Days(i64, i64),
    /// In these words.
    Text(String),
    Refused(u16),
}

/// Ends when it is dropped.
pub struct Authority {
    inner: Arc<Inner>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Inner {
    ledger: Mutex<Ledger>,
    window: Mutex<Option<(Window, Option<u64>)>>,
    base: String,
}

impl Authority {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let base = format!("http://{address}");
        let inner = Arc::new(Inner { ledger: Mutex::new(Ledger::new()), window: Mutex::default(), base });
        let task = tokio::spawn(listen(inner.clone(), listener));
        Self { inner, address, task }
    }

    pub fn directory(&self) -> String {
        format!("http://{}/dir", self.address)
    }

    /// The next request that comes to this step is refused so.
    pub fn refuse(&self, step: Step, kind: &str, detail: &str) {
        self.inner.ledger().refusals.push_back((step, Refusal::new(kind, detail)));
    }

    /// So many nonces are not good enough.
    pub fn spoil_nonces(&self, count: u32) {
        self.inner.ledger().bad_nonces = count;
    }

    /// What it says about renewals from now on, and after how many seconds it wants to be asked again. `None`: it is an
    /// authority that does not say such things.
    pub fn advise(&self, window: Option<Window>, again: Option<u64>) {
        *self.inner.window() = window.map(|it| (it, again));
    }

    pub fn advance(&self, by: Duration) {
        self.inner.ledger().clock_ahead += by;
    }

    /// Somebody has replaced the newest certificate already.
    pub fn replaced_elsewhere(&self) {
        let mut ledger = self.inner.ledger();
        let id = ledger.signed.last().map(|it| it.id.clone());
        ledger.replaced.extend(id);
    }

    /// Identifiers of the certificates, oldest first, and whether each was revoked.
    pub fn signed(&self) -> Vec<(String, bool)> {
        self.inner.ledger().signed.iter().map(|it| (it.id.clone(), it.is_revoked)).collect()
    }

    /// What each order was to replace.
    pub fn replacements(&self) -> Vec<Option<String>> {
        self.inner.ledger().orders.iter().map(|it| it.replaces.clone()).collect()
    }

    /// The profile of each order.
    pub fn profiles(&self) -> Vec<Option<String>> {
        self.inner.ledger().orders.iter().map(|it| it.profile.clone()).collect()
    }

    pub fn accounts(&self) -> usize {
        self.inner.ledger().accounts.len()
    }

    /// `POST /new-order`, in the order in which they came.
    pub fn requests(&self) -> Vec<String> {
        self.inner.ledger().requests.clone()
    }

    pub fn count(&self, begins: &str) -> usize {
        self.requests().iter().filter(|it| it.starts_with(begins)).count()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let inner = inner.clone();
        let service = service_fn(move |request| {
            let inner = inner.clone();
            async move { Ok::<_, Infallible>(inner.answer(request).await) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// What goes back when nothing is wrong.
struct Said {
    status: u16,
    body: Bytes,
    location: Option<String>,
}

impl Said {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into(), location: None }
    }

    fn at(self, location: String) -> Self {
        Self { location: Some(location), ..self }
    }
}

type Outcome = Result<Said, Refusal>;

fn malformed(what: &str) -> Refusal {
    Refusal::new("malformed", what)
}

impl Inner {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self) -> MutexGuard<'_, Option<(Window, Option<u64>)>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        self.ledger().requests.push(format!("{} {path}", parts.method));
        if let Some(id) = path.strip_prefix("/renewal-info/") {
            return self.renewal(id);
        }
        let outcome = match (&parts.method, &*path) {
            (&Method::GET, "/dir") => Ok(Said::json(200, &self.directory())),
            (&Method::HEAD | &Method::GET, "/new-nonce") => Ok(Said::json(200, &json!({}))),
            (&Method::POST, _)
                if parts.headers.get(header::CONTENT_TYPE).is_none_or(|it| it != "application/jose+json") =>
            {
                Err(malformed("the body is to be application/jose+json"))
            }
            (&Method::POST, _) => self.signed(&path, &body),
            _ => Err(Refusal { status: 404, ..malformed("there is nothing here") }),
        };
        self.sent(outcome)
    }

    fn sent(&self, outcome: Outcome) -> Response<Full<Bytes>> {
        let (said, kind, retry_after) = match outcome {
            Ok(said) => (said, "application/json", None),
            Err(refusal) => {
                (Said::json(refusal.status, &refusal.document()), "application/problem+json", refusal.retry_after)
            }
        };
        let pem = said.body.starts_with(b"-----BEGIN");
        let mut response = Response::new(Full::new(said.body));
        *response.status_mut() = StatusCode::from_u16(said.status).unwrap_or_default();
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        self.ledger().nonces.insert(nonce.clone());
        let kind = if pem { "application/pem-certificate-chain" } else { kind };
        let fields = [
            ("content-type", Some(kind.to_owned())),
            ("replay-nonce", Some(nonce)),
            ("location", said.location),
            ("retry-after", retry_after.map(|it| it.to_string())),
        ];
        for (name, value) in fields {
            if let Some(value) = value.and_then(|it| HeaderValue::from_str(&it).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    fn directory(&self) -> Value {
        let at = |path: &str| format!("{}/{path}", self.base);
        let mut directory = json!({
            "newNonce": at("new-nonce"), "newAccount": at("new-acct"), "newOrder": at("new-order"),
            "revokeCert": at("revoke-cert"), "keyChange": at("key-change"),
            "meta": { "caaIdentities": ["double.example"], "profiles": { "shortlived": "for days" } },
        });
        if self.window().is_some() {
            directory["renewalInfo"] = json!(at("renewal-info"));
        }
        directory
    }

    /// Nobody has to be known for this.
    fn renewal(&self, id: &str) -> Response<Full<Bytes>> {
        let is_known = self.ledger().signed.iter().any(|it| it.id == id);
        let now = SystemTime::now() + self.ledger().clock_ahead;
        let (outcome, again) = match self.window().clone() {
            None => (Err(Refusal { status: 404, ..malformed("there is nothing here") }), None),
            Some(_) if !is_known => (Err(Refusal { status: 404, ..malformed("there is no such certificate") }), None),
            Some((Window::Refused(status), again)) => {
                (Err(Refusal { status, ..Refusal::new("serverInternal", "not now") }), again)
            }
            Some((Window::Text(text), again)) => (Ok(Said { status: 200, body: text.into(), location: None }), again),
            Some((Window::Days(start, end), again)) => {
                let at = |days| json!(rfc3339(now, days));
                let window = json!({ "suggestedWindow": { "start": at(start), "end": at(end) } });
                (Ok(Said::json(200, &window)), again)
            }
        };
        let mut response = self.sent(outcome);
        if let Some(again) = again {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(again));
        }
        response
    }

    fn signed(&self, path: &str, body: &[u8]) -> Outcome {
        let mut ledger = self.ledger();
        let signed = jws::read(body, |kid| ledger.accounts.get(kid).cloned());
        let signed = signed.map_err(|what| {
            if what == "there is no such account" { Refusal::new("accountDoesNotExist", what) } else { malformed(what) }
        })?;
        if signed.header["url"] != format!("{}{path}", self.base) {
            return Err(Refusal::new("unauthorized", "the url that was signed is another"));
        }
        let is_fresh = ledger.nonces.remove(signed.header["nonce"].as_str().unwrap_or_default());
        if !is_fresh || ledger.bad_nonces > 0 {
            ledger.bad_nonces = ledger.bad_nonces.saturating_sub(1);
            return Err(Refusal::new("badNonce", "the nonce is not good enough"));
        }
        let is_new = path == "/new-acct";
        if is_new == signed.header["jwk"].is_null() {
            return Err(malformed("jwk is for new accounts, kid for everybody else"));
        }
        let payload = signed.payload.unwrap_or_default();
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match segments[..] {
            ["new-acct"] => self.account(&mut ledger, signed.key, &payload),
            ["new-order"] => {
                let at = ledger.order(&payload)?;
                Ok(self.order(&ledger.orders[at], at, 201).at(format!("{}/order/{at}", self.base)))
            }
            ["revoke-cert"] => ledger.revoke(&payload).map(|()| Said::json(200, &json!({}))),
            [kind, at, ref rest @ ..] => {
                let at: usize = at.parse().map_err(|_| malformed("no number"))?;
                self.of_order(&mut ledger, (kind, at, rest), &payload)
            }
            _ => Err(Refusal { status: 404, ..malformed("there is nothing here") }),
        }
    }

    fn account(&self, ledger: &mut Ledger, key: Vec<u8>, payload: &Value) -> Outcome {
        ledger.planted(Step::NewAccount)?;
        if payload["termsOfServiceAgreed"] != true {
            return Err(Refusal::new("userActionRequired", "the terms are to be agreed to"));
        }
        let known = ledger.accounts.iter().find(|(_, it)| **it == key).map(|(url, _)| url.clone());
        let url = known.unwrap_or_else(|| format!("{}/acct/{}", self.base, ledger.accounts.len()));
        ledger.accounts.insert(url.clone(), key);
        Ok(Said::json(201, &json!({ "status": "valid" })).at(url))
    }

    fn of_order(&self, ledger: &mut Ledger, asked: (&str, usize, &[&str]), payload: &Value) -> Outcome {
        let (kind, at, rest) = asked;
        let missing = || Refusal { status: 404, ..malformed("there is nothing here") };
        if at >= ledger.orders.len() {
            return Err(missing());
        }
        match (kind, rest) {
            ("order", []) => Ok(self.order(&ledger.orders[at], at, 200).at(format!("{}/order/{at}", self.base))),
            ("order", ["finalize"]) => {
                ledger.finalize(at, payload)?;
                Ok(self.order(&ledger.orders[at], at, 200).at(format!("{}/order/{at}", self.base)))
            }
            ("authz", [name]) => self.authorization(&ledger.orders[at], at, name).ok_or_else(missing),
            ("chall", [name, _]) => {
                ledger.answer(at, name);
                Ok(Said::json(200, &self.challenges(&ledger.orders[at], at, name)[0]))
            }
            ("cert", []) => {
                let signed = ledger.orders[at].certificate.and_then(|it| ledger.signed.get(it)).ok_or_else(missing)?;
                Ok(Said { status: 200, body: signed.pem.clone().into(), location: None })
            }
            _ => Err(missing()),
        }
    }

    fn order(&self, order: &Order, at: usize, status: u16) -> Said {
        let base = &self.base;
        let names: Vec<Value> = order.names.iter().map(|it| json!({ "type": "dns", "value": it })).collect();
        let authorizations: Vec<String> = order.names.iter().map(|it| format!("{base}/authz/{at}/{it}")).collect();
        let mut shown = json!({
            "status": order.status(), "identifiers": names, "authorizations": authorizations,
            "finalize": format!("{base}/order/{at}/finalize"),
        });
        if let Some(id) = &order.replaces {
            shown["replaces"] = json!(id);
        }
        if order.certificate.is_some() {
            shown["certificate"] = json!(format!("{base}/cert/{at}"));
        }
        if let Some(failure) = &order.failure {
            shown["error"] = failure.document();
        }
        Said::json(status, &shown)
    }

    fn authorization(&self, order: &Order, at: usize, name: &str) -> Option<Said> {
        let shown = order.shown.get(name)?;
        let status = match shown {
            Ok(true) => "valid",
            Ok(false) => "pending",
            Err(_) => "invalid",
        };
        let identifier = json!({ "type": "dns", "value": name.trim_start_matches("*.") });
        let challenges = self.challenges(order, at, name);
        let body = json!({ "status": status, "identifier": identifier, "challenges": challenges, "wildcard": name.starts_with("*.") });
        Some(Said::json(200, &body))
    }

    fn challenges(&self, order: &Order, at: usize, name: &str) -> Vec<Value> {
        let challenge = |kind: &str| {
            let url = format!("{}/chall/{at}/{name}/{kind}", self.base);
            let mut challenge = json!({ "type": kind, "url": url, "token": jws::encode(format!("{at} {name}").as_bytes()), "status": "pending" });
            match order.shown.get(name) {
                Some(Ok(true)) => challenge["status"] = json!("valid"),
                Some(Err(refusal)) => {
                    challenge["status"] = json!("invalid");
                    challenge["error"] = refusal.document();
                }
                _ => {}
            }
            challenge
        };
        ["http-01", "tls-alpn-01", "dns-01"].map(challenge).into()
    }
}

fn rfc3339(now: SystemTime, days: i64) -> String {
    let day = Duration::from_secs(86_400 * days.unsigned_abs());
    let at = if days < 0 { now - day } else { now + day };
    let date = httpdate::fmt_http_date(at);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|it| *it == &date[8..11]).unwrap_or(0) + 1;
    format!("{}-{month:02}-{}T{}Z", &date[12..16], &date[5..7], &date[17..25])
}
