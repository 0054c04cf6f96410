//! How the endpoints of a set are spoken to: HTTP version, TLS, PROXY protocol. Built when a configuration is loaded, off
//! the workers, because it reads files; a connection reads memory only. `preserve_host` has no say here: the name that
//! a certificate must be for is the URL's, whatever `Host` a request carries.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use crate::net::proxy_protocol::Form;

/// What of a configuration makes a transport. Two that are equal here are interchangeable.
#[derive(Clone, Debug, PartialEq)]
struct Manner {
    http: config::UpstreamHttp,
    proxy_protocol: Option<config::ProxyProtocol>,
    secure: bool,
    tls_ca: Option<config::PemFile>,
    tls_client_cert: Option<config::PemFile>,
}

/// Why a transport cannot be built, for the operator.
#[derive(Clone, Debug)]
pub struct Unusable {
    pub key: &'static str,
    pub message: String,
    pub hint: String,
}

/// The version that one connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

pub struct Transport {
    manner: Manner,
    clients: Option<Clients>,
    /// A transport that could not be built connects to nothing.
    trouble: Option<String>,
}

/// One client for each version: what ALPN offers is part of it. Sessions are resumed from the same client.
struct Clients {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Manner {
    fn of(proxy: &config::Proxy) -> Self {
        let secure = proxy.urls.iter().any(|it| matches!(it, config::UpstreamUrl::Https { .. }));
        Self {
            http: proxy.upstream_http,
            proxy_protocol: proxy.proxy_protocol,
            secure,
            tls_ca: proxy.tls_ca.clone().filter(|_| secure),
            tls_client_cert: proxy.tls_client_cert.clone().filter(|_| secure),
        }
    }
}

impl Transport {
    /// HTTP/1.1 in clear.
    pub fn plain() -> Self {
        let manner = Manner {
            http: config::UpstreamHttp::Http1,
            proxy_protocol: None,
            secure: false,
            tls_ca: None,
            tls_client_cert: None,
        };
        Self { manner, clients: None, trouble: None }
    }

    /// Reads the files that `proxy` names, and the system's authorities the first time that they are needed.
    pub fn new(proxy: &config::Proxy) -> Result<Self, Unusable> {
        let manner = Manner::of(proxy);
        for url in &proxy.urls {
            if let config::UpstreamUrl::Https { host, .. } = url
                && server_name(host).is_none()
            {
                return Err(unusable("url", format!("no certificate can be for `{host}`"), "give a host name"));
            }
        }
        let clients = if manner.secure { Some(clients(&manner)?) } else { None };
        Ok(Self { manner, clients, trouble: None })
    }

    /// The same, and on trouble one whose every connection fails with it.
    pub(super) fn or_broken(proxy: &config::Proxy) -> Self {
        Self::new(proxy).unwrap_or_else(|error| Self {
            manner: Manner::of(proxy),
            clients: None,
            trouble: Some(error.message),
        })
    }

    pub(super) fn serves(&self, proxy: &config::Proxy) -> bool {
        self.trouble.is_none() && self.manner == Manner::of(proxy)
    }

    pub fn protocol(&self) -> Protocol {
        match self.manner.http {
            config::UpstreamHttp::Http1 => Protocol::Http1,
            config::UpstreamHttp::Http2 => Protocol::Http2,
        }
    }

    /// What connections begin with. They then belong to one client, so none is kept for another.
    pub fn proxy_protocol(&self) -> Option<Form> {
        self.manner.proxy_protocol.map(|it| match it {
            config::ProxyProtocol::V1 => Form::V1,
            config::ProxyProtocol::V2 => Form::V2,
        })
    }

    pub(super) fn connector(&self, protocol: Protocol) -> Result<&TlsConnector, String> {
        match (&self.clients, protocol) {
            (Some(clients), Protocol::Http1) => Ok(&clients.http1),
            (Some(clients), Protocol::Http2) => Ok(&clients.http2),
            (None, _) => Err(self.trouble.clone().unwrap_or_else(|| "TLS is not set up".to_owned())),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.manner.fmt(f)
    }
}

/// The name that a certificate must be for: of a host as it stands in a URL.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned()).ok()
}

fn unusable(key: &'static str, message: impl Into<String>, hint: &str) -> Unusable {
    Unusable { key, message: message.into(), hint: hint.to_owned() }
}

fn clients(manner: &Manner) -> Result<Clients, Unusable> {
    let roots = match &manner.tls_ca {
        Some(file) => Arc::new(authorities(&file.path)?),
        None => system_roots(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("url", error.to_string(), "this is a fault of this build"))?
        .with_root_certificates(roots);
    let mut http1 = match &manner.tls_client_cert {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let (chain, key) = identity(&file.path)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let message = format!("{}: {error}", file.path.display());
                unusable("tls_client_cert", message, "the key has to be that of the first certificate in the file")
            })?
        }
    };
    let mut http2 = http1.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    http2.alpn_protocols = vec![b"h2".to_vec()];
    // A session remembers what was spoken in it, so the two keep theirs apart.
    http2.resumption = rustls::client::Resumption::in_memory_sessions(SESSIONS);
    http1.resumption = rustls::client::Resumption::in_memory_sessions(SESSIONS);
    Ok(Clients { http1: Arc::new(http1).into(), http2: Arc::new(http2).into() })
}

/// Server names whose sessions are kept; a set has few.
const SESSIONS: usize = 64;

fn authorities(path: &Path) -> Result<RootCertStore, Unusable> {
    let hint = "the file holds the certificates of authorities, in PEM";
    let failed = |error: String| unusable("tls_ca", format!("{}: {error}", path.display()), hint);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("there is no certificate".to_owned())) } else { Ok(roots) }
}

fn identity(path: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Unusable> {
    let hint = "the file holds the certificate, those between it and its authority, and the key, in PEM";
    let failed = |error: String| unusable("tls_client_cert", format!("{}: {error}", path.display()), hint);
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?.collect();
    let chain = chain.map_err(|error| failed(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| failed(error.to_string()))?;
    Ok((chain, key))
}

/// Read once. A system without authorities is no reason to refuse a configuration: its connections say so.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            let (_, unread) = roots.add_parsable_certificates(found.certs);
            if roots.is_empty() || unread > 0 {
                tracing::warn!(usable = roots.len(), unread, errors = ?found.errors, "the system's authorities");
            }
            Arc::new(roots)
        })
        .clone()
}
