//! ACME (RFC 8555) by http-01, tls-alpn-01 and dns-01: an account that is kept, an order, a proof that the authority finds under every
//! name, and the certificate for our own signing request.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountCredentials, AuthorizationHandle, AuthorizationStatus, AuthorizedIdentifier, BodyWrapper,
    BytesResponse, CertificateIdentifier, ChallengeHandle, ChallengeType, Error, ExternalAccountKey, HttpClient,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy, RevocationRequest,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use tokio::sync::Mutex;

#[cfg(feature = "cloudflare")]
use super::dns::Dns;
use super::{
    advice,
    issuer::{Answer, Ask, Failure},
    job::blocking,
    renewal::Patience,
};
#[cfg(feature = "cloudflare")]
use crate::cloudflare::{Api, Record};
use crate::{
    client::{self, Client},
    tls::{
        challenges::{Challenges, Showing},
        store::{Advice, Store},
    },
};

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Authorities look from several places, and do so more than once.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_secs(90));

/// Cloudflare's name servers know a record within seconds; whoever is asked too early remembers that there was none.
#[cfg(feature = "cloudflare")]
const PROPAGATION: Duration = Duration::from_secs(10);

pub(super) struct Acme {
    directory: String,
    contact: Vec<String>,
    profile: Option<String>,
    /// Identifier and key of an account elsewhere.
    binding: Option<(String, Vec<u8>)>,
    client: Client,
    /// The port under which the authority finds us over HTTP.
    public_port: u16,
    store: Store,
    challenges: Challenges,
    /// `None`: whatever can work.
    kind: Option<ChallengeType>,
    has_http: bool,
    #[cfg(feature = "cloudflare")]
    dns: Option<Dns>,
    account: Mutex<Option<Account>>,
}

impl Acme {
    /// Without a port for HTTP only TLS is left to look at.
    pub(super) fn new(config: &config::Acme, has_http: bool, store: Store, challenges: Challenges) -> Self {
        let kind = match config.challenge.as_deref() {
            Some("tls-alpn-01") => Some(ChallengeType::TlsAlpn01),
            Some("http-01") => Some(ChallengeType::Http01),
            Some("dns-01") => Some(ChallengeType::Dns01),
            _ => None,
        };
        Self {
            kind,
            has_http,
            public_port: config.http_port_public.unwrap_or(80),
            #[cfg(feature = "cloudflare")]
            dns: None,
            directory: config.directory.clone().unwrap_or_else(|| DIRECTORY.to_owned()),
            contact: config.contact.iter().map(|it| contact(it)).collect(),
            profile: config.profile.clone(),
            binding: config.eab.as_ref().map(|it| (it.key_id.clone(), base64url(it.hmac_key.expose()))),
            client: Client::trusting(config.ca_file.clone()),
            store,
            challenges,
            account: Mutex::default(),
        }
    }

    /// Zones in which names can be shown to be ours.
    #[cfg(feature = "cloudflare")]
    pub(super) fn with_dns(self, api: Option<Api>) -> Self {
        Self { dns: api.map(Dns::new), ..self }
    }

    /// As configured; else what can work for all of these names.
    fn kind(&self, hosts: &[String]) -> Result<ChallengeType, Failure> {
        let wildcard = hosts.iter().find(|it| it.starts_with("*."));
        let kind = match (&self.kind, wildcard) {
            (Some(kind), _) => kind.clone(),
            (None, Some(_)) => ChallengeType::Dns01,
            (None, None) if self.has_http && self.public_port != 0 => ChallengeType::Http01,
            (None, None) => ChallengeType::TlsAlpn01,
        };
        if kind == ChallengeType::Dns01 && !self.has_dns() {
            let why = wildcard.map(|it| format!("`{it}` can be shown to be ours by dns-01 only: ")).unwrap_or_default();
            let failure = Failure::new("config", format!("{why}dns-01 needs a way into the DNS"));
            return Err(
                failure.hint("give `[cloudflare] api_token` with Zone > DNS > Edit, or name the hosts one by one")
            );
        }
        if let (true, Some(wildcard)) = (kind != ChallengeType::Dns01, wildcard) {
            let failure = Failure::new("config", format!("`{wildcard}` can be shown to be ours by dns-01 only"));
            return Err(failure.hint("set `[acme] challenge = \"dns-01\"`, or leave it out"));
        }
        Ok(kind)
    }

    fn has_dns(&self) -> bool {
        #[cfg(feature = "cloudflare")]
        return self.dns.is_some();
        #[cfg(not(feature = "cloudflare"))]
        false
    }

    pub(super) async fn issue(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let kind = self.kind(ask.hosts)?;
        let account = self.account().await?;
        let mut proofs = Proofs {
            kind,
            showing: Vec::new(),
            #[cfg(feature = "cloudflare")]
            records: Vec::new(),
        };
        let result = self.ordered(&account, ask, &mut proofs).await;
        // Whatever came of it.
        #[cfg(feature = "cloudflare")]
        if let Some(dns) = &self.dns {
            dns.remove(&proofs.records, ask.now).await;
        }
        if let Err(Error::Api(problem)) = &result
            && self::kind(problem) == "accountDoesNotExist"
        {
            self.forget().await;
        }
        let chain_pem = match result {
            Ok(chain_pem) => chain_pem,
            Err(error) => return Err(self.explained(error).await),
        };
        let id = advice::identifier(&chain_pem).map(|it| it.to_string()).unwrap_or_default();
        Ok(Answer { id, chain_pem })
    }

    /// Cannot be undone. One that is revoked already counts as done.
    pub(super) async fn revoke(&self, chain_pem: &str) -> Result<(), Failure> {
        let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes())
            .map_err(|_| Failure::new("storage", "the certificate on the disk cannot be read"))?;
        let account = self.account().await?;
        match account.revoke(&RevocationRequest { certificate: &leaf, reason: None }).await {
            Err(Error::Api(problem)) if kind(&problem) == "alreadyRevoked" => Ok(()),
            other => other.map_err(|error| failed(error, self.public_port)),
        }
    }

    pub(super) async fn advice(
        &self,
        certificate: &CertificateIdentifier<'_>,
        now: SystemTime,
    ) -> Result<Option<Advice>, String> {
        advice::ask(&self.client, &self.directory, certificate, now).await
    }

    /// What a CAA record would have to say, only the authority knows.
    async fn explained(&self, error: Error) -> Failure {
        let is_caa = matches!(&error, Error::Api(problem) if kind(problem) == "caa");
        let failure = failed(error, self.public_port);
        if !is_caa {
            return failure;
        }
        let directory = advice::Directory::read(&self.client, &self.directory).await;
        match directory.as_ref().map(|it| it.names()) {
            Ok(names) if !names.is_empty() => {
                let records: Vec<String> = names.iter().map(|it| format!("CAA 0 issue \"{it}\"")).collect();
                failure
                    .hint(format!("the domain's CAA records do not allow this authority; add {}", records.join(" or ")))
            }
            _ => failure,
        }
    }

    async fn new_order(
        &self,
        account: &Account,
        names: &[Identifier],
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Error> {
        let wanted = || {
            let wanted = NewOrder::new(names);
            self.profile.as_deref().map_or(wanted, |it| NewOrder::new(names).profile(it))
        };
        let Some(replaces) = replaces else { return account.new_order(&wanted()).await };
        match account.new_order(&wanted().replaces(replaces)).await {
            // Somebody has replaced it already, or it is none of theirs: then this one replaces nothing.
            Err(Error::Api(problem)) if !PASSING.contains(&kind(&problem)) => {
                tracing::info!(target: "tls", "the authority does not take it as a replacement: {problem}");
                account.new_order(&wanted()).await
            }
            // Since the account was opened the authority has learned to say when to renew.
            Err(Error::Unsupported(_)) => account.new_order(&wanted()).await,
            other => other,
        }
    }

    async fn ordered(&self, account: &Account, ask: &Ask<'_>, proofs: &mut Proofs) -> Result<String, Error> {
        let names: Vec<Identifier> = ask.hosts.iter().map(|it| Identifier::Dns(it.clone())).collect();
        let mut order = self.new_order(account, &names, ask.replaces.clone()).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Valid {
                self.show(&challenge(&mut authorization, &proofs.kind)?, proofs, ask).await?;
            }
        }
        #[cfg(feature = "cloudflare")]
        if !proofs.records.is_empty() {
            tokio::time::sleep(PROPAGATION).await;
        }
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Valid {
                challenge(&mut authorization, &proofs.kind)?.set_ready().await?;
            }
        }
        let status = order.poll_ready(&POLLING).await?;
        if status == OrderStatus::Invalid {
            return Err(refusal(&mut order).await);
        }
        let csr = CertificateSigningRequestDer::from_pem_slice(ask.csr_pem.as_bytes())
            .map_err(|_| Error::Str("a signing request of ours"))?;
        order.finalize_csr(&csr).await?;
        order.poll_certificate(&POLLING).await
    }

    #[cfg_attr(not(feature = "cloudflare"), expect(unused_variables, reason = "the time is for the DNS"))]
    async fn show(&self, challenge: &ChallengeHandle<'_>, proofs: &mut Proofs, ask: &Ask<'_>) -> Result<(), Error> {
        let proof = challenge.key_authorization();
        let AuthorizedIdentifier { identifier: Identifier::Dns(host), .. } = challenge.identifier() else {
            return Err(Error::Unsupported("names that are no host names"));
        };
        match proofs.kind {
            ChallengeType::Http01 => proofs.showing.push(self.challenges.show_answer(&challenge.token, proof.as_str())),
            ChallengeType::TlsAlpn01 => {
                let showing = self.challenges.show_proof(host, proof.digest().as_ref());
                proofs.showing.push(showing.map_err(|error| Error::Other(error.into()))?);
            }
            #[cfg(feature = "cloudflare")]
            ChallengeType::Dns01 => {
                let dns = self.dns.as_ref().ok_or(Error::Unsupported("dns-01 without a way into the DNS"))?;
                let record = dns.add(host, &proof.dns_value(), ask.now).await;
                proofs.records.push(record.map_err(|error| Error::Other(Box::new(error)))?);
            }
            _ => return Err(Error::Unsupported("this challenge")),
        }
        Ok(())
    }

    /// From memory, from the disk, or a new one, which accepts the authority's terms as the configuration says.
    async fn account(&self) -> Result<Account, Failure> {
        let mut known = self.account.lock().await;
        if let Some(account) = &*known {
            return Ok(account.clone());
        }
        let (store, directory) = (self.store.clone(), self.directory.clone());
        let kept = blocking(move || Ok(store.account(&directory))).await.ok().flatten();
        let account = match kept.and_then(|it| serde_json::from_str::<AccountCredentials>(&it).ok()) {
            Some(credentials) => {
                self.builder().from_credentials(credentials).await.map_err(|error| failed(error, self.public_port))?
            }
            None => self.registered().await?,
        };
        *known = Some(account.clone());
        Ok(account)
    }

    async fn registered(&self) -> Result<Account, Failure> {
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = self.binding.as_ref().map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
        let made = self.builder().create(&wanted, self.directory.clone(), binding.as_ref()).await;
        let (account, credentials) = made.map_err(|error| failed(error, self.public_port))?;
        let kept = serde_json::to_string(&credentials).map_err(std::io::Error::other);
        let (store, directory) = (self.store.clone(), self.directory.clone());
        let kept = blocking(move || store.put_account(&directory, &kept?)).await;
        if let Err(error) = kept {
            // The next start registers another; authorities allow some of that.
            tracing::warn!(target: "tls", %error, "the account of the authority cannot be kept");
        }
        Ok(account)
    }

    async fn forget(&self) {
        *self.account.lock().await = None;
        let (store, directory) = (self.store.clone(), self.directory.clone());
        let _ = blocking(move || store.drop_account(&directory)).await;
    }

    fn builder(&self) -> instant_acme::AccountBuilder {
        Account::builder_with_http(Box::new(Door(self.client.clone())))
    }
}

/// What an order shows until it is judged.
struct Proofs {
    kind: ChallengeType,
    showing: Vec<Showing>,
    #[cfg(feature = "cloudflare")]
    records: Vec<Record>,
}

fn challenge<'a>(
    authorization: &'a mut AuthorizationHandle<'a>,
    kind: &ChallengeType,
) -> Result<ChallengeHandle<'a>, Error> {
    authorization.challenge(kind.clone()).ok_or(Error::Unsupported("this challenge for this name"))
}

/// Refusals that have nothing to do with what is replaced.
const PASSING: [&str; 4] = ["rateLimited", "serverInternal", "badNonce", "accountDoesNotExist"];

/// Mail addresses are URLs to an authority.
fn contact(text: &str) -> String {
    if text.contains(':') { text.to_owned() } else { format!("mailto:{text}") }
}

/// Our own client, with its deadlines and bounds.
struct Door(Client);

impl HttpClient for Door {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Error::Str("the body of a request of ours"))?.to_bytes();
            let ask = client::Ask {
                method: parts.method,
                url: parts.uri,
                headers: parts.headers,
                body: (!body.is_empty()).then_some(body),
            };
            let reply = client.send(ask).await.map_err(|error| Error::Other(Box::new(error)))?;
            let mut response = Response::new(Full::new(reply.body));
            (*response.status_mut(), *response.headers_mut()) = (reply.status, reply.headers);
            Ok(response.into())
        })
    }
}

/// Why an order is invalid: what the authority saw when it looked.
async fn refusal(order: &mut Order) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|it| it.error.clone()) {
            return Error::Api(problem);
        }
    }
    match order.state().error.clone() {
        Some(problem) => Error::Api(problem),
        None => Error::Str("a reason for an order that is invalid"),
    }
}

/// The last word of the problem's type.
fn kind(problem: &instant_acme::Problem) -> &str {
    problem.r#type.as_deref().and_then(|it| it.rsplit(':').next()).unwrap_or_default()
}

fn failed(error: Error, public_port: u16) -> Failure {
    let said = error.to_string();
    let Error::Api(problem) = error else {
        let class = if matches!(error, Error::Unsupported(_)) { "config" } else { "transient" };
        return Failure::new(class, format!("the authority could not be asked: {said}"));
    };
    let detail = problem.detail.clone().unwrap_or_else(|| said.clone());
    let of_parts: Vec<String> = problem.subproblems.iter().filter_map(|it| it.detail.clone()).collect();
    let message = format!("the authority says: {} ({})", [vec![detail], of_parts].concat().join("; "), kind(&problem));
    let leads_here = format!(
        "the name must lead here: port {public_port} to miwid's http_port for http-01, port 443 to its https_port for tls-alpn-01"
    );
    let (class, hint) = match kind(&problem) {
        "rateLimited" => ("throttled", "authorities count for hours and days; what is there already goes on"),
        "serverInternal" | "badNonce" | "orderNotReady" => ("transient", "it is asked again by itself"),
        "connection" | "dns" | "unauthorized" | "incorrectResponse" | "tls" => ("config", &*leads_here),
        "caa" => ("config", "a CAA record of the domain does not allow this authority"),
        "externalAccountRequired" => ("config", "this authority wants `[acme] eab`"),
        "accountDoesNotExist" => ("transient", "a new account is made with the next attempt"),
        _ => ("config", "see what the authority says"),
    };
    Failure {
        patience: if class == "transient" { Patience::Usual } else { Patience::Long },
        ..Failure::new(class, message)
    }
    .hint(hint)
}

/// Keys of bindings are written so. What does not belong is left out: the authority will say that the key is wrong.
fn base64url(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = text.bytes().map(|it| {
        if it == b'+' {
            b'-'
        } else if it == b'/' {
            b'_'
        } else {
            it
        }
    });
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for value in digits.filter_map(|it| ALPHABET.iter().position(|digit| *digit == it)) {
        bits = bits << 6 | u32::try_from(value).unwrap_or_default();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(bits.wrapping_shr(count).to_le_bytes()[0]);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_bindings_are_read_in_both_alphabets() {
        for (text, expected) in [
            ("", &b""[..]),
            ("Zg", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9vYg", b"foob"),
            ("-_8", &[251, 255]),
            ("+/8=", &[251, 255]),
        ] {
            assert_eq!(base64url(text), expected, "{text}");
        }
    }

    #[test]
    fn problems_are_classed_by_what_is_to_be_done() {
        let class = |kind: &str| {
            let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"d","status":400}}"#);
            failed(Error::Api(serde_json::from_str(&text).expect("a problem")), 80).class
        };
        for (kind, expected) in [
            ("rateLimited", "throttled"),
            ("serverInternal", "transient"),
            ("badNonce", "transient"),
            ("connection", "config"),
            ("unauthorized", "config"),
            ("caa", "config"),
            ("externalAccountRequired", "config"),
            ("accountDoesNotExist", "transient"),
            ("somethingNew", "config"),
        ] {
            assert_eq!(class(kind), expected, "{kind}");
        }
    }
}
