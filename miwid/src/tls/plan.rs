//! Configuration to certificates: which host shows which one under which policy, and everything that is wrong with them.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use config::{Backend, Config, Issuer, Origin, Problem, Severity, Ssl, UnknownSni};
use rustls::crypto::CryptoProvider;

use super::{
    kernel::{Support, probe},
    local::LocalCa,
    managed::is_managed,
    names::{ByName, covered, normalized},
    pair::{Bad, Pair},
    policy::{Authorities, Demand, Policy, Transport},
};

/// What was decided. Made once per snapshot.
pub(super) struct Plan {
    pub(super) shown: ByName<Pair>,
    /// For clients that name no server, and with `unknown_sni = "default"` for those that name a strange one.
    pub(super) default: Option<Pair>,
    pub(super) policies: ByName<Policy>,
    pub(super) default_policy: Policy,
    pub(super) authorities: HashMap<u64, Authorities>,
    /// Every certificate once.
    pub(super) pairs: Vec<Pair>,
    /// What the kernel may be asked to encrypt.
    pub(super) kernel: Option<Support>,
    pub(super) warnings: Vec<Problem>,
    /// Hosts that show a certificate of the local CA although nobody asked for that, and whether another is requested.
    pub(super) stand_ins: Vec<(String, bool)>,
}

pub(super) struct Planner<'a> {
    config: &'a Config,
    provider: &'a Arc<CryptoProvider>,
    ca: &'a mut LocalCa,
    problems: Vec<Problem>,
    loaded: HashMap<(PathBuf, PathBuf), Option<Pair>>,
    trusted: HashMap<PathBuf, Option<Authorities>>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    pub(super) fn new(config: &'a Config, provider: &'a Arc<CryptoProvider>, ca: &'a mut LocalCa) -> Self {
        let lax = Policy { demand: Demand::Off, authorities: 0, only_tls13: false, transport: Transport::Tcp };
        let plan = Plan {
            shown: ByName::default(),
            default: None,
            policies: ByName::default(),
            default_policy: lax,
            authorities: HashMap::new(),
            pairs: Vec::new(),
            kernel: None,
            warnings: Vec::new(),
            stand_ins: Vec::new(),
        };
        Self { config, provider, ca, problems: Vec::new(), loaded: HashMap::new(), trusted: HashMap::new(), plan }
    }

    pub(super) fn plan(mut self) -> Result<Plan, Vec<Problem>> {
        let config = self.config;
        if config.ssl.ktls {
            self.look_at_kernel();
        }
        let rest = config.backends.values().find(|it| it.host == "_" || it.aliases.iter().any(|it| it == "_"));
        self.plan.default_policy = self.policy(rest.map_or(&config.ssl, |it| ssl(config, it)));
        self.issuer();
        for backend in config.backends.values() {
            self.site(backend);
        }
        self.domains();
        self.default(rest);
        if self.problems.is_empty() { Ok(self.plan) } else { Err(self.problems) }
    }

    fn site(&mut self, backend: &Backend) {
        let ssl = ssl(self.config, backend);
        let policy = self.policy(ssl);
        let hosts: Vec<String> =
            std::iter::once(&backend.host).chain(&backend.aliases).filter(|it| *it != "_").cloned().collect();
        for host in &hosts {
            self.plan.policies.insert(host, policy);
        }
        let is_own = ssl.cert != self.config.ssl.cert;
        let name = if is_own { backend.name.as_str() } else { "default" };
        let pair = self.files(name, ssl);
        if let Some(pair) = &pair {
            self.doubts(pair, is_own.then_some(&*hosts), &ssl.places.cert);
        }
        let (shows, other): (Vec<_>, Vec<_>) =
            hosts.into_iter().partition(|host| is_own || pair.as_ref().is_some_and(|it| covered(&it.names, host)));
        for host in &shows {
            self.plan.shown.extend(host, pair.as_ref());
        }
        // A pair that could not be loaded is a problem already.
        if !other.is_empty() && (pair.is_some() || ssl.cert.is_none()) {
            self.local(&backend.name, ssl, &other);
        }
    }

    /// Names that no site has and yet are to have a certificate: until it is there, one of the local CA.
    fn domains(&mut self) {
        let config = self.config;
        let ssl = &config.ssl;
        if !ssl.auto_cert || ssl.cert.is_some() || ssl.issuer == Issuer::File {
            return;
        }
        let is_shown = |host: &String| self.plan.shown.find(&normalized(host)).is_some();
        let rest: Vec<String> = ssl.domains.iter().filter(|it| !is_shown(it)).cloned().collect();
        if !rest.is_empty() {
            self.local("default", ssl, &rest);
        }
    }

    fn tables(&self) -> impl Iterator<Item = &'a Ssl> + use<'a> {
        let config = self.config;
        std::iter::once(&config.ssl).chain(config.backends.values().filter_map(|it| it.ssl.as_ref()))
    }

    /// Whoever is to be asked must be there.
    fn issuer(&mut self) {
        let config = self.config;
        let asks = |ssl: &&Ssl| ssl.auto_cert && ssl.issuer == Issuer::CloudflareOrigin;
        if config.cloudflare.api_token.is_none()
            && let Some(ssl) = self.tables().find(asks)
        {
            let hint = "give `[cloudflare] api_token` or `api_token_file`";
            let message = "Cloudflare's Origin CA cannot be asked without an API token".to_owned();
            self.problem(&ssl.places.issuer.clone(), "ssl.issuer", message, Some(hint));
        }
        let wants_acme = |ssl: &&Ssl| ssl.auto_cert && ssl.issuer == Issuer::Acme;
        if config.acme.is_none()
            && let Some(ssl) = self.tables().find(wants_acme)
        {
            let hint = "write a table `[acme]`, which accepts the authority's terms";
            let message = "there is no ACME authority to ask".to_owned();
            self.problem(&ssl.places.issuer.clone(), "ssl.issuer", message, Some(hint));
        }
        let is_lax = |it: &str| it != "require";
        if config.cloudflare.origin_pulls && config.ssl.client_auth.as_deref().is_some_and(is_lax) {
            let message = "`[cloudflare] origin_pulls` requires client certificates, and this does not".to_owned();
            let hint = "leave it out here; a site that Cloudflare is not in front of may say `client_auth = \"off\"`";
            self.problem(&config.ssl.places.client_auth.clone(), "ssl.client_auth", message, Some(hint));
        }
        if let Some(path) = &config.cloudflare.origin_ca_roots
            && let Err(message) = Authorities::load(path)
        {
            self.problem(&Origin::default(), "cloudflare.origin_ca_roots", message, Some("give the roots as PEM text"));
        }
    }

    fn local(&mut self, name: &str, ssl: &Ssl, hosts: &[String]) {
        if let Some(pair) = self.signed(name, hosts) {
            for host in hosts {
                self.plan.shown.insert(host, pair.clone());
            }
        }
        if ssl.issuer != Issuer::Local {
            let is_requested = is_managed(self.config, ssl);
            self.plan.stand_ins.extend(hosts.iter().map(|it| (it.clone(), is_requested)));
        }
    }

    fn signed(&mut self, name: &str, hosts: &[String]) -> Option<Pair> {
        match self.ca.certificate(name, hosts, self.provider) {
            Ok(pair) => {
                self.keep(&pair);
                Some(pair)
            }
            Err(message) => {
                self.problem(&Origin::default(), "ssl", message, None);
                None
            }
        }
    }

    /// The certificate for clients that name no server: asked for with `unknown_sni`, given as the global one, or needed by a
    /// site that answers every host or an address.
    fn default(&mut self, rest: Option<&Backend>) {
        let config = self.config;
        let is_asked = config.ssl.unknown_sni == UnknownSni::Default;
        let has_address = config.backends.values().any(|it| it.host.parse::<IpAddr>().is_ok());
        let own = ssl_of_default(config, rest);
        if !is_asked && !has_address && rest.is_none() && own.is_none() {
            return;
        }
        let pair = match own {
            Some(ssl) => {
                let name = if ssl.cert == config.ssl.cert { "default" } else { rest.map_or("default", |it| &it.name) };
                self.files(name, ssl)
            }
            None => {
                let addresses = config.backends.values().filter(|it| it.host.parse::<IpAddr>().is_ok());
                let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
                hosts.extend(addresses.map(|it| it.host.clone()));
                let bound = config.server.bind.iter().filter(|it| !it.is_unspecified());
                hosts.extend(bound.map(IpAddr::to_string));
                self.signed("default", &hosts)
            }
        };
        let Some(pair) = pair else { return };
        if rest.is_some() || own.is_none() {
            for name in pair.names.iter() {
                self.plan.shown.offer(name, pair.clone());
            }
        }
        self.plan.default = Some(pair);
    }

    fn policy(&mut self, ssl: &Ssl) -> Policy {
        let demand = match ssl.client_auth.as_deref() {
            Some("request") => Demand::Request,
            Some("require") => Demand::Require,
            None if self.config.cloudflare.origin_pulls => Demand::Require,
            _ => Demand::Off,
        };
        let only_tls13 = ssl.min_version.as_deref() == Some("1.3");
        let mut policy = Policy { demand, authorities: 0, only_tls13, transport: Transport::Tcp };
        let authorities = match &ssl.client_ca {
            _ if demand == Demand::Off => None,
            Some(path) => self.authorities(path, &ssl.places.client_ca),
            None => self.cloudflares(),
        };
        if let Some(authorities) = authorities {
            policy.authorities = authorities.id;
            self.plan.authorities.insert(authorities.id, authorities);
        }
        policy
    }

    /// Who signs what Cloudflare shows when nobody else is named.
    #[cfg(feature = "cloudflare")]
    fn cloudflares(&mut self) -> Option<Authorities> {
        let loaded = Authorities::read(crate::cloudflare::ORIGIN_PULL_CA.as_bytes(), "Cloudflare's own");
        loaded.map_err(|message| self.problem(&Origin::default(), "cloudflare.origin_pulls", message, None)).ok()
    }

    #[cfg(not(feature = "cloudflare"))]
    fn cloudflares(&mut self) -> Option<Authorities> {
        None
    }

    fn authorities(&mut self, path: &Path, place: &Origin) -> Option<Authorities> {
        if let Some(known) = self.trusted.get(path) {
            return known.clone();
        }
        let loaded = Authorities::load(path);
        let authorities = match loaded {
            Ok(authorities) => Some(authorities),
            Err(message) => {
                self.problem(place, "ssl.client_ca", message, Some("give the authorities' certificates as PEM text"));
                None
            }
        };
        self.trusted.insert(path.to_owned(), authorities.clone());
        authorities
    }

    /// The pair that the table names, read once however many sites share it.
    fn files(&mut self, name: &str, ssl: &Ssl) -> Option<Pair> {
        let (cert, key) = (ssl.cert.as_ref()?, ssl.key.as_ref()?);
        if let Some(known) = self.loaded.get(&(cert.clone(), key.clone())) {
            return known.clone();
        }
        let pair = match Pair::load(name, cert, key, self.provider) {
            Ok(pair) => {
                self.keep(&pair);
                self.dates(&pair, &ssl.places.cert);
                Some(pair)
            }
            Err(Bad::Certificate(message, hint)) => {
                self.problem(&ssl.places.cert, "ssl.cert", message, Some(hint));
                None
            }
            Err(Bad::Key(message, hint)) => {
                self.problem(&ssl.places.key, "ssl.key", message, Some(hint));
                None
            }
        };
        self.loaded.insert((cert.clone(), key.clone()), pair.clone());
        pair
    }

    fn keep(&mut self, pair: &Pair) {
        if !self.plan.pairs.iter().any(|it| it.certificate.sha256 == pair.certificate.sha256) {
            self.plan.pairs.push(pair.clone());
        }
    }

    fn dates(&mut self, pair: &Pair, place: &Origin) {
        let (now, certificate) = (SystemTime::now(), &pair.certificate);
        if certificate.not_after < now {
            self.warning(
                place,
                "the certificate has expired",
                "clients will refuse it: put a renewed one in its place",
            );
        } else if certificate.not_before > now {
            self.warning(place, "the certificate is not valid yet", "check the clock of this machine");
        }
    }

    /// A site's own certificate should be good for the site.
    fn doubts(&mut self, pair: &Pair, hosts: Option<&[String]>, place: &Origin) {
        let Some(hosts) = hosts.filter(|it| !it.is_empty()) else { return };
        let is_covered = |host: &String| pair.names.contains(host) || covered(&pair.names, host);
        if !hosts.iter().any(is_covered) {
            let message = format!("the certificate is for {}, not for {}", said(&pair.names), said(hosts));
            self.warning(place, &message, "clients will refuse it: give the certificate of this site");
        }
    }

    /// Tries the kernel, if it is to be used. Without it everything works as ever, but somebody expects more.
    fn look_at_kernel(&mut self) {
        match probe() {
            Ok(support) => self.plan.kernel = Some(support),
            Err(lack) => {
                let message = format!("the kernel does not encrypt: {lack}");
                let hint = Some(lack.remedy());
                let place = &self.config.ssl.places.ktls;
                self.plan.warnings.push(problem(Severity::Warning, place, "ssl.ktls", message, hint));
            }
        }
    }

    fn warning(&mut self, place: &Origin, message: &str, hint: &str) {
        let warning = problem(Severity::Warning, place, "ssl.cert", message.to_owned(), Some(hint));
        if !self.plan.warnings.contains(&warning) {
            self.plan.warnings.push(warning);
        }
    }

    fn problem(&mut self, place: &Origin, key: &str, message: String, hint: Option<&str>) {
        self.problems.push(problem(Severity::Error, place, key, message, hint));
    }
}

impl ByName<Pair> {
    fn extend(&mut self, host: &str, pair: Option<&Pair>) {
        if let Some(pair) = pair {
            self.insert(host, pair.clone());
        }
    }
}

fn said(names: &[String]) -> String {
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

fn ssl<'a>(config: &'a Config, backend: &'a Backend) -> &'a Ssl {
    backend.ssl.as_ref().unwrap_or(&config.ssl)
}

/// The table whose files the default certificate is in, if there is one.
fn ssl_of_default<'a>(config: &'a Config, rest: Option<&'a Backend>) -> Option<&'a Ssl> {
    rest.map(|it| ssl(config, it)).into_iter().chain([&config.ssl]).find(|it| it.cert.is_some())
}

/// Client certificates that nobody would ever ask for, because HTTPS is off, are no protection.
pub(super) fn unprotected(config: &Config) -> Vec<Problem> {
    let tables = std::iter::once(&config.ssl).chain(config.backends.values().filter_map(|it| it.ssl.as_ref()));
    let pulls = config.cloudflare.origin_pulls.then_some(&config.ssl);
    let demanding = tables.filter(|it| it.client_auth.as_deref() == Some("require")).chain(pulls);
    demanding
        .take(1)
        .map(|it| {
            let message = "client certificates are required, but HTTPS is off".to_owned();
            problem(
                Severity::Error,
                &it.places.client_auth,
                "ssl.client_auth",
                message,
                Some("set `server.enable_https = true`"),
            )
        })
        .collect()
}

fn problem(severity: Severity, place: &Origin, key: &str, message: String, hint: Option<&str>) -> Problem {
    Problem {
        severity,
        file: place.file.clone(),
        line: place.line,
        column: place.column,
        key: key.to_owned(),
        message,
        hint: hint.map(str::to_owned),
    }
}
