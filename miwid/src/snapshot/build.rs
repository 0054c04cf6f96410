//! `Config` to `Snapshot`: every table compiled, every value in the form in which requests need it. May fail, and touches
//! nothing global but the directory of upstreams, which carries sets over by name.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use config::{Config, Problem, Severity};
use http::{HeaderValue, StatusCode};
use ipnet::IpNet;

use crate::{
    encoding::Rules,
    exchange::ExtraHeaders,
    files::Root,
    net::edge::{Edge, Known, Only, Turning},
    policy::{Clients, Guard},
    proxy::{Forwarder, WakeRules},
    routing::{Hosts, Route, Site, Target, normalized},
    tls::Terminator,
    upstream::{Directory, Set, Transport, Unusable},
};

pub struct Snapshot {
    pub generation: u64,
    pub hosts: Hosts,
    pub settings: Settings,
    /// For answers that belong to no site.
    pub compression: Option<Arc<Rules>>,
    pub extra: Option<Arc<ExtraHeaders>>,
    pub guard: Option<Arc<Guard>>,
    /// `None` when HTTPS is off.
    pub tls: Option<Arc<Terminator>>,
    /// Names of the upstream sets that this snapshot uses.
    pub upstreams: Vec<String>,
}

/// `[server]` as the request path needs it.
pub struct Settings {
    pub request_bytes_max: u64,
    pub uri_bytes_max: usize,
    pub header_bytes_max: usize,
    pub headers_max: usize,
    pub underscore_headers: config::UnderscoreHeaders,
    pub keepalive_timeout: Duration,
    pub request_timeout: Duration,
    pub server_header: bool,
    pub request_id_header: bool,
    pub http2_cleartext: bool,
    /// The port that plain requests are redirected to.
    pub redirect_https: Option<u16>,
    pub trusted_proxies: Vec<IpNet>,
    /// Connections from `trusted_proxies` begin with a PROXY protocol header; those of others do not.
    pub proxy_protocol: bool,
    /// What it means to stand at Cloudflare's edge; `None` when nobody asks.
    pub edge: Option<Edge>,
    /// Hosts that no site claims get the welcome page (the built-in default only).
    pub welcome: bool,
}

impl Settings {
    pub fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        self.proxy_protocol && self.trusts(peer.to_canonical())
    }

    /// Whether this address may speak for others.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|it| it.contains(&ip))
    }

    /// Whether anybody speaks for others because of where it stands.
    pub fn trusts_edge(&self) -> bool {
        self.edge.as_ref().is_some_and(|it| it.is_trusted)
    }

    /// Whether this peer stands at Cloudflare's edge, trusted or not, as far as anybody has a use for it.
    pub fn stands_at_edge(&self, peer: IpAddr) -> bool {
        self.edge.as_ref().is_some_and(|it| it.known.contains(peer))
    }

    /// Whether this peer speaks for others because of where it stands.
    pub fn is_edge(&self, peer: IpAddr) -> bool {
        self.edge.as_ref().is_some_and(|it| it.speaks_for_others(peer))
    }

    /// How this peer is turned away, if it is.
    pub fn turns(&self, peer: IpAddr) -> Option<Turning> {
        self.edge.as_ref()?.turns(peer)
    }

    pub fn hangs_up_on(&self, peer: IpAddr) -> bool {
        self.turns(peer) == Some(Turning::Away)
    }

    /// What is answered to others is not for this peer.
    pub fn stands_apart(&self, peer: IpAddr) -> bool {
        self.edge.as_ref().is_some_and(|it| it.speaks_for_others(peer) || it.turns(peer).is_some())
    }
}

/// What outlives configurations: each snapshot takes it over.
#[derive(Clone, Default)]
pub struct Lasting {
    pub directory: Directory,
    /// The ranges of Cloudflare's edge.
    pub edge: Known,
    /// How often clients have asked.
    pub clients: Clients,
}

/// All that can be wrong is reported at once, with what is wrong with the certificates.
pub fn build(
    config: &Config,
    generation: u64,
    lasting: &Lasting,
    tls: Result<Option<Arc<Terminator>>, Vec<Problem>>,
) -> Result<Snapshot, Vec<Problem>> {
    let mut builder = Builder { config, lasting, problems: Vec::new(), upstreams: Vec::new() };
    let mut hosts = Hosts::default();
    for backend in config.backends.values() {
        let site = Arc::new(builder.site(backend));
        for name in std::iter::once(&backend.host).chain(&backend.aliases) {
            if let Some(earlier) = hosts.insert(name, &site) {
                builder.problem(backend, format!("the host `{name}` already belongs to `{}`", earlier.name));
            }
        }
    }
    let tls = tls.unwrap_or_else(|problems| {
        builder.problems.extend(problems);
        None
    });
    if !builder.problems.is_empty() {
        return Err(builder.problems);
    }
    Ok(Snapshot {
        generation,
        hosts,
        settings: settings(config, &lasting.edge),
        compression: Rules::new(&config.compression),
        extra: ExtraHeaders::new(&config.security.headers),
        guard: Guard::new(&config.security, &lasting.clients),
        tls,
        upstreams: builder.upstreams,
    })
}

fn settings(config: &Config, known: &Known) -> Settings {
    let server = &config.server;
    Settings {
        request_bytes_max: server.limits.max_request_size.bytes(),
        uri_bytes_max: server.limits.max_uri_length,
        header_bytes_max: server.limits.max_header_size.bytes() as usize,
        headers_max: server.limits.max_headers,
        underscore_headers: server.limits.underscore_headers,
        keepalive_timeout: server.keepalive_timeout,
        request_timeout: server.request_timeout,
        server_header: server.server_header,
        request_id_header: server.request_id_header,
        http2_cleartext: server.h2c,
        redirect_https: (server.redirect_https && config.https()).then_some(server.https_port),
        trusted_proxies: server.trusted_proxies.clone(),
        proxy_protocol: server.proxy_protocol,
        edge: edge(config, known),
        welcome: config.path.is_none(),
    }
}

/// Who redirects has to know Cloudflare too: what it fetches in cleartext for a visitor over HTTPS would go in circles.
fn edge(config: &Config, known: &Known) -> Option<Edge> {
    let cloudflare = &config.cloudflare;
    let turning = match cloudflare.only_refusal {
        config::OnlyRefusal::Close => Turning::Away,
        config::OnlyRefusal::Answer => Turning::Answered,
    };
    let only = cloudflare.only.then(|| Only { exempt: cloudflare.only_exempt.clone(), turning });
    let is_asked = cloudflare.trust || only.is_some() || config.server.redirect_https;
    is_asked.then(|| Edge { known: known.clone(), is_trusted: cloudflare.trust, only })
}

struct Builder<'a> {
    config: &'a Config,
    lasting: &'a Lasting,
    problems: Vec<Problem>,
    upstreams: Vec<String>,
}

impl Builder<'_> {
    fn site(&mut self, backend: &config::Backend) -> Site {
        let mut routes: Vec<Route> = backend.routes.iter().map(|it| self.route(backend, it)).collect();
        if !routes.iter().any(|it| &*it.prefix == "/") {
            let compression = Rules::new(backend.compression.as_ref().unwrap_or(&self.config.compression));
            let target = self.target(backend, "", &backend.target, compression.as_ref());
            let security = backend.security.as_ref().unwrap_or(&self.config.security);
            let (extra, guard) = self.guarded(security);
            routes.push(Route { prefix: "/".into(), strip_prefix: false, target, compression, extra, guard });
        }
        routes.sort_by_key(|it| std::cmp::Reverse(it.prefix.len()));
        Site { name: backend.name.as_str().into(), routes }
    }

    fn route(&mut self, backend: &config::Backend, route: &config::Route) -> Route {
        let own = route.compression.as_ref().or(backend.compression.as_ref());
        let compression = Rules::new(own.unwrap_or(&self.config.compression));
        // What a site or route says has taken over what it leaves out.
        let security = route.security.as_ref().or(backend.security.as_ref()).unwrap_or(&self.config.security);
        let (extra, guard) = self.guarded(security);
        Route {
            // As paths are when they are matched: decoded.
            prefix: normalized(&route.prefix).map_or_else(|| route.prefix.as_str().into(), Into::into),
            strip_prefix: route.strip_prefix,
            target: self.target(backend, &route.prefix, &route.target, compression.as_ref()),
            compression,
            extra,
            guard,
        }
    }

    fn guarded(&self, security: &config::Security) -> (Option<Arc<ExtraHeaders>>, Option<Arc<Guard>>) {
        (ExtraHeaders::new(&security.headers), Guard::new(security, &self.lasting.clients))
    }

    fn target(
        &mut self,
        backend: &config::Backend,
        prefix: &str,
        target: &config::Target,
        compression: Option<&Arc<Rules>>,
    ) -> Target {
        match target {
            config::Target::Files(files) => Target::Files(Root::new(files).with_compression(compression.cloned())),
            config::Target::Proxy(proxy) | config::Target::App(proxy) => {
                // A route that inherits its site's app leads to that app, not to a set of its own.
                let prefix = if matches!(target, config::Target::App(_)) { "" } else { prefix };
                let set = self.upstream(backend, prefix, proxy);
                let forwarder = Forwarder::new(set, proxy, &self.config.server);
                match &backend.process {
                    Some(process) => Target::Proxy(
                        forwarder
                            .with_stream_drain(process.stream_drain)
                            .with_wake_on(WakeRules::new(&process.wake_on)),
                    ),
                    None => Target::Proxy(forwarder),
                }
            }
            config::Target::Redirect { to, status } => {
                Target::Redirect { to: to.as_str().into(), status: self.status(backend, *status, StatusCode::FOUND) }
            }
            config::Target::Respond { status, body, content_type } => Target::Respond {
                status: self.status(backend, *status, StatusCode::OK),
                body: Bytes::from(body.clone()),
                content_type: self.header(backend, content_type),
            },
        }
    }

    /// The app's own set carries its name; a route's set is called after the site and the prefix.
    fn upstream(&mut self, backend: &config::Backend, prefix: &str, proxy: &config::Proxy) -> Arc<Set> {
        if let Err(unusable) = Transport::new(proxy) {
            self.unusable(backend, prefix, unusable);
        }
        let name = if prefix.is_empty() { backend.name.clone() } else { format!("{}{prefix}", backend.name) };
        let hold = backend.process.as_ref().filter(|_| prefix.is_empty()).map(|it| &it.hold);
        let set = self.lasting.directory.set(&name, proxy, hold);
        self.upstreams.push(name);
        set
    }

    fn status(&mut self, backend: &config::Backend, status: u16, otherwise: StatusCode) -> StatusCode {
        StatusCode::from_u16(status).unwrap_or_else(|_| {
            self.problem(backend, format!("{status} is not an HTTP status code"));
            otherwise
        })
    }

    fn header(&mut self, backend: &config::Backend, value: &str) -> HeaderValue {
        HeaderValue::from_str(value).unwrap_or_else(|_| {
            self.problem(backend, format!("{value:?} cannot be a header value"));
            HeaderValue::from_static("text/plain")
        })
    }

    fn unusable(&mut self, backend: &config::Backend, prefix: &str, unusable: Unusable) {
        self.problem(backend, unusable.message);
        if let Some(problem) = self.problems.last_mut() {
            let route = if prefix.is_empty() { String::new() } else { format!(".routes.\"{prefix}\"") };
            problem.key = format!("{}{route}.{}", problem.key, unusable.key);
            problem.hint = Some(unusable.hint);
        }
    }

    fn problem(&mut self, backend: &config::Backend, message: String) {
        self.problems.push(Problem {
            severity: Severity::Error,
            file: backend.origin.file.clone(),
            line: backend.origin.line,
            column: backend.origin.column,
            key: format!("backends.\"{}\"", backend.host),
            message,
            hint: None,
        });
    }
}
